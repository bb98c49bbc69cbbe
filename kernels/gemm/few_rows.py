"""Rows times a bf16 weight in oneDNN's layout, by our own kernel.

With few rows the product waits for memory, with many for the processor. Our kernel lets both work at the same time: at every
number of rows it is as near to the bound as oneDNN's vdpbf16ps or nearer, most of all from 1 to 64. It does not know AMX, with
which oneDNN is many times faster. What oneDNN uses is seen by its bits: our kernel sums as oneDNN does without AMX, in chains
of columns (512 or 1,024, found out by `selftest`), each a chain of vdpbf16ps that begins at 0; the chains are added in order.

So the first weight of a shape is packed by oneDNN too, and compared; all of them are packed by us, onto huge pages (`slabs`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import selftest
from .interface import Linear, Rows
from .native import PackedLinear
from .product import Bf16Product
from .rows import LANES, rows_in
from .selftest import Form
from .slabs import Slabs

TESTED_ROWS = 12
"""In the test at load our kernel computes up to so many rows, and oneDNN more: a row that has the same bits on both sides."""
CHAINS = (1024, 512, 0)
"""Columns that oneDNN is known to sum up before it adds them to those before; 0: all."""


class FewRowsLinear:
    """Rows by `linear.cpp`. bf16, AVX512-BF16."""

    def __init__(
        self,
        memory: Tensor,
        bias: Tensor | None,
        *,
        columns: int,
        outputs: int,
        chain: int,
        inner: PackedLinear | None = None,
        most_rows: int | None = None,
    ):
        """memory: int32 [blocks of 64 outputs, pairs of columns, 64 outputs]. inner: the same by oneDNN, which takes more rows
        than `most_rows`; None: there is no such number."""
        assert most_rows is None or inner is not None
        self.in_features, self.out_features = columns, outputs
        self.inner = inner
        self._memory, self._bias, self._chain, self._most_rows = memory, bias, chain, most_rows
        self._multiply = torch.ops.ramify.linear_bf16.default

    @staticmethod
    def of(weight: Tensor, bias: Tensor | None, *, chain: int, pages: Slabs) -> FewRowsLinear:
        """Packs the weight, bf16 [outputs, columns], which is not kept."""
        outputs, columns = weight.shape
        memory = pages.empty(-(-outputs // LANES), -(-columns // 2), LANES)
        torch.ops.ramify.linear_pack_bf16(weight.contiguous(), memory)
        return FewRowsLinear(memory, bias, columns=columns, outputs=outputs, chain=chain)

    @staticmethod
    def beside(inner: PackedLinear, *, chain: int, most_rows: int | None) -> FewRowsLinear:
        """On the memory that oneDNN packed."""
        assert inner.memory is not None, "the packed layout is not known"
        columns, outputs = inner.in_features, inner.out_features
        return FewRowsLinear(
            inner.memory, inner.bias, columns=columns, outputs=outputs, chain=chain, inner=inner, most_rows=most_rows
        )

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.shape[0]
        if self._most_rows is not None and rows > self._most_rows:
            assert self.inner is not None
            return self.inner(x)
        out = torch.empty((rows, self.out_features), dtype=x.dtype)
        x = x if x.stride(1) == 1 else x.contiguous()
        self._multiply(x, self._memory, self._bias, self.in_features, self.out_features, self._chain, out)
        return out

    def rows_of(self, weight: Tensor) -> Rows | None:
        """See `Linear.rows_of`."""
        return rows_in(self._memory, weight) if self.inner is None else self.inner.rows_of(weight)

    def product(self) -> Bf16Product:
        """See `product.HasProduct`."""
        of = (self.in_features, self.out_features, self._chain, self._most_rows)
        return Bf16Product(self._memory, self._bias, *of)


def _beside(chain: int, most_rows: int | None) -> Callable[[Linear], Linear | None]:
    def wrap(inner: Linear) -> Linear | None:
        if not isinstance(inner, PackedLinear) or inner.memory is None:
            return None
        return FewRowsLinear.beside(inner, chain=chain, most_rows=most_rows)

    return wrap


def _by_ours(chain: int, pages: Slabs) -> Callable[[Tensor, Tensor | None], Linear]:
    return lambda weight, bias: FewRowsLinear.of(weight, bias, chain=chain, pages=pages)


def chained(pages: Slabs) -> tuple[Form, ...]:
    """Tested beside oneDNN; once the bits are the same on both sides, the native kernel computes all rows.

    pages: where the weights lie then.
    """
    return tuple(
        Form(
            f"computed by the native kernel, chains of {chain or 'all'}",
            wrap=_beside(chain, TESTED_ROWS),
            remark=False,
            taken=_by_ours(chain, pages),
        )
        for chain in CHAINS
    )


ALL_ROWS = Form("all computed by the native kernel", wrap=_beside(0, None))


def forms() -> tuple[Form, ...]:
    """What to try in turn where there are the native operations and AVX512-BF16.

    oneDNN as it is comes before our kernel in an order of its own: with AMX it sums in another order, and is many times faster.
    """
    return (*chained(Slabs()), selftest.FORMS[0], ALL_ROWS, *selftest.FORMS[1:])
