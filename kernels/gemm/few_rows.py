"""Few rows times a bf16 weight that oneDNN has packed, by our own kernel on oneDNN's memory: no second copy of the weight.

With few rows the product waits for memory, and oneDNN stays well below its rate; with many it is at the processor's, and keeps
the work. So that a row has the same bits on both sides, our kernel sums as oneDNN does: in chains of columns (512 or 1,024 of
them, found out by `selftest`), each a chain of vdpbf16ps that begins at 0; the chains are added up in order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import selftest
from .interface import Linear, Rows
from .native import PackedLinear
from .product import Bf16Product
from .selftest import Form

MOST_ROWS = 12
"""From here on oneDNN is as fast or faster."""
CHAINS = (1024, 512, 0)
"""Columns that oneDNN is known to sum up before it adds them to those before; 0: all."""


class FewRowsLinear:
    """Up to `most_rows` rows (None: any number) by `linear.cpp`, more by oneDNN. bf16, AVX512-BF16, a packed layout we know."""

    def __init__(self, inner: PackedLinear, *, chain: int, most_rows: int | None):
        assert inner.memory is not None, "the packed layout is not known"
        self.inner = inner
        self.in_features, self.out_features = inner.in_features, inner.out_features
        self._memory, self._bias, self._chain = inner.memory, inner.bias, chain
        self._most_rows = most_rows
        self._multiply = torch.ops.ramify.linear_bf16.default

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if self._most_rows is not None and rows > self._most_rows:
            return self.inner(x)
        out = torch.empty((rows, self.out_features), dtype=x.dtype)
        x = x if x.stride(1) == 1 else x.contiguous()
        self._multiply(x, self._memory, self._bias, self.in_features, self.out_features, self._chain, out)
        return out

    def rows_of(self, weight: Tensor) -> Rows | None:
        """See `Linear.rows_of`."""
        return self.inner.rows_of(weight)

    def product(self) -> Bf16Product:
        """See `product.HasProduct`."""
        of = (self.in_features, self.out_features, self._chain, self._most_rows)
        return Bf16Product(self._memory, self._bias, *of)


def _form(name: str, chain: int, most_rows: int | None, *, remark: bool) -> Form:
    def wrap(inner: Linear) -> Linear | None:
        if not isinstance(inner, PackedLinear) or inner.memory is None:
            return None
        return FewRowsLinear(inner, chain=chain, most_rows=most_rows)

    return Form(name, wrap, remark=remark)


CHAINED = tuple(
    _form(f"few by the native kernel, chains of {chain or 'all'}", chain, MOST_ROWS, remark=False) for chain in CHAINS
)
ALL_ROWS = _form("all computed by the native kernel", 0, None, remark=True)
FORMS = (*CHAINED, selftest.FORMS[0], ALL_ROWS, *selftest.FORMS[1:])
"""What to try in turn where there are the native operations and AVX512-BF16.

oneDNN as it is comes before our kernel for all rows: with AMX it sums in an order of its own, and is many times faster.
"""
