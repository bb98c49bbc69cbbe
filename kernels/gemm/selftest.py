"""Does a row of a linear layer keep its bits whatever comes with it? Tried once per weight shape, at load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .interface import Linear, Rows

ROWS = (1, 2, 3, 5, 7, 12, 13, 16, 64)
PROBED_WEIGHTS = 2 << 20


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


@dataclass(frozen=True)
class Form:
    """A way to feed rows to a layer. wrap: None where it is not for this layer. remark: worth a line where it is taken.

    taken: makes layers of weight and bias once the form has passed the test, where that is not `wrap`.
    """

    name: str
    wrap: Callable[[Linear], Linear | None]
    remark: bool = True
    taken: Callable[[Tensor, Tensor | None], Linear] | None = None


FORMS: tuple[Form, ...] = (
    Form("as they are", lambda inner: inner, remark=False),
    Form("padded to at least 2", lambda inner: PaddedLinear(inner, 2, 1)),
    Form("padded to a multiple of 16", lambda inner: PaddedLinear(inner, 16, 16)),
    Form("in blocks of 16", BlockedLinear),
)
"""Ways that are there for every layer, cheapest first."""


def invariant(linear: Linear, x: Tensor, rows: tuple[int, ...] = ROWS) -> bool:
    """True if each of the first rows has the same bits in every company of `rows` rows, first or shifted by one.

    x: more rows than the largest of `rows`.
    """
    whole = linear(x[: max(rows)])
    shifted = linear(x[1 : max(rows) + 1])
    if not torch.equal(whole[1:], shifted[:-1]):
        return False
    return all(torch.equal(linear(x[:count]), whole[:count]) for count in rows)


def random_rows(columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[65, columns], normal, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((max(ROWS) + 1, columns), generator=generator).to(device, dtype)


def cancelling(columns: int, outputs: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """A weight [outputs, columns] and rows [65, columns] whose products are all 0, were there no rounding.

    The second half of the columns is the first with the other sign, in another order. What comes out is nothing but what was
    rounded, so any other order of summation shows in nearly every output; with other numbers, one in a thousand shows it.
    """
    generator = torch.Generator().manual_seed(0)
    half = columns // 2
    order = torch.randperm(half, generator=generator)
    weight, x = torch.zeros(outputs, columns), torch.zeros(max(ROWS) + 1, columns)
    for table, sign in ((weight, -1), (x, 1)):
        table[:, :half] = torch.randn((table.shape[0], half), generator=generator)
        table[:, half : 2 * half] = sign * table[:, :half][:, order]
    return weight.to(device, dtype), x.to(device, dtype)


class CheckedLinears:
    """Makes linear layers and gives each weight shape the first form that passes the test. Reports into `reasons`."""

    def __init__(
        self,
        make: Callable[[Tensor, Tensor | None], Linear],
        name: str,
        reasons: list[str],
        forms: tuple[Form, ...] = FORMS,
    ):
        self._make = make
        self._name = name
        self._reasons = reasons
        self._forms = forms
        self._chosen: dict[tuple[int, int, bool], Form] = {}

    def __call__(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """weight: [out, in]. Packs it; the first of a shape is tested. Adds a line to the reasons where rows must be padded."""
        shape = (weight.shape[1], weight.shape[0], bias is not None)
        form, linear = self._chosen.get(shape), None
        if form is None:
            linear = self._make(weight, bias)
            form = self._chosen[shape] = self._choose(linear, weight, bias)
        if form.taken is not None:
            del linear
            return form.taken(weight, bias)
        linear = linear or self._make(weight, bias)
        return form.wrap(linear) or linear

    def _choose(self, linear: Linear, weight: Tensor, bias: Tensor | None) -> Form:
        """Tries the layer itself, and one of its shape (of some million weights at most) that hides nothing."""
        shape = f"{self._name} {linear.in_features} -> {linear.out_features}"
        outputs = min(linear.out_features, max(PROBED_WEIGHTS // linear.in_features, 1))
        probe_weight, probe_x = cancelling(linear.in_features, outputs, weight.dtype, weight.device)
        probe = self._make(probe_weight, None if bias is None else torch.zeros_like(bias[:outputs]))
        del probe_weight
        x = random_rows(linear.in_features, weight.dtype, weight.device)
        for form in self._forms:
            wrapped, wrapped_probe = form.wrap(linear), form.wrap(probe)
            if wrapped is None or wrapped_probe is None:
                continue
            if invariant(wrapped_probe, probe_x) and invariant(wrapped, x):
                if form.remark:
                    why = "because otherwise their bits depend on their number"
                    self._reasons.append(f"{shape}: rows are {form.name}, {why}")
                return form
        self._reasons.append(f"{shape}: a row's bits depend on the other rows in all forms tried: a batch may differ")
        return self._forms[-1]
