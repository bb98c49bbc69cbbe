"""Does a row of a linear layer keep its bits whatever comes with it? Tried once per weight shape, at load."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .interface import Linear, Rows

ROWS = (1, 2, 3, 5, 7, 16, 64)


class PaddedLinear:
    """Rows are filled up with zeros: to at least `least`, then to a multiple of `multiple`."""

    def __init__(self, inner: Linear, least: int, multiple: int):
        self.inner = inner
        self.in_features, self.out_features = inner.in_features, inner.out_features
        self.least, self.multiple = least, multiple

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        missing = max(self.least, -(-rows // self.multiple) * self.multiple) - rows
        return self.inner(F.pad(x, (0, 0, 0, missing)))[:rows] if missing else self.inner(x)

    def rows_of(self, weight: Tensor) -> Rows | None:
        """See `Linear.rows_of`."""
        return self.inner.rows_of(weight)


class BlockedLinear:
    """Rows go through in blocks of exactly 16: slow for many rows, but one shape only."""

    def __init__(self, inner: Linear):
        self.inner = inner
        self.in_features, self.out_features = inner.in_features, inner.out_features

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        blocks = F.pad(x, (0, 0, 0, -rows % 16)).split(16)
        return torch.cat([self.inner(block) for block in blocks])[:rows]

    def rows_of(self, weight: Tensor) -> Rows | None:
        """See `Linear.rows_of`."""
        return self.inner.rows_of(weight)


FORMS: tuple[tuple[str, Callable[[Linear], Linear]], ...] = (
    ("as they are", lambda inner: inner),
    ("padded to at least 2", lambda inner: PaddedLinear(inner, 2, 1)),
    ("padded to a multiple of 16", lambda inner: PaddedLinear(inner, 16, 16)),
    ("in blocks of 16", BlockedLinear),
)
"""Ways to feed rows to a layer, cheapest first."""


def invariant(linear: Linear, dtype: torch.dtype, device: torch.device, rows: tuple[int, ...] = ROWS) -> bool:
    """True if each of the first rows has the same bits in every company of `rows` rows, first or shifted by one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((max(rows) + 1, linear.in_features), generator=generator).to(device, dtype)
    whole = linear(x[:-1])
    shifted = linear(x[1:])
    if not torch.equal(whole[1:], shifted[:-1]):
        return False
    return all(torch.equal(linear(x[:count]), whole[:count]) for count in rows)


class CheckedLinears:
    """Makes linear layers and gives each weight shape the cheapest form that passes the test. Reports into `reasons`."""

    def __init__(self, make: Callable[[Tensor, Tensor | None], Linear], name: str, reasons: list[str]):
        self._make = make
        self._name = name
        self._reasons = reasons
        self._forms: dict[tuple[int, int, bool], Callable[[Linear], Linear]] = {}

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """weight: [out, in]. Packs it; the first of a shape is tested. Adds a line to the reasons where rows must be padded."""
        linear = self._make(weight, bias)
        shape = (linear.in_features, linear.out_features, bias is not None)
        if shape not in self._forms:
            self._forms[shape] = self._choose(linear, weight.dtype, weight.device)
        return self._forms[shape](linear)

    def _choose(self, linear: Linear, dtype: torch.dtype, device: torch.device) -> Callable[[Linear], Linear]:
        shape = f"{self._name} {linear.in_features} -> {linear.out_features}"
        for number, (name, form) in enumerate(FORMS):
            if invariant(form(linear), dtype, device):
                if number:
                    self._reasons.append(f"{shape}: rows are {name}, because otherwise their bits depend on their number")
                return form
        self._reasons.append(f"{shape}: a row's bits depend on the other rows in every form tried; results may differ in a batch")
        return FORMS[-1][1]
