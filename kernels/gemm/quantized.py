"""Quantised linear layers in C++ (`kernels/cpp/linear.cpp`): weights in 8 or 4 bits, x in 8 bits, sums of integers.

With few rows the bytes of the weight are all that counts; with many, four products of bytes are one instruction where the CPU
has AVX512-VNNI. What is computed is that of `quantized_reference`, bit for bit and with any set of instructions: a row's bits
cannot depend on the other rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .formats import Format
from .interface import Rows
from .product import QuantizedProduct
from .rows import check_ids
from .slabs import Slabs

LEVELS = ("baseline", "AVX2", "AVX512", "AVX512-VNNI")
"""By the number that the C++ knows them by."""
_OUTPUTS = 64
_SCALE_BYTES = 2


class QuantizedLinear:
    """y = x W^T + b. x, bias: fp32 or bf16, alike. `kernels.native.load` must have succeeded before.

    blocks: the weight and its scales, uint8 [bytes], as `linear.h` describes them.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, form: Format, level: int | None = None, *, pages: Slabs | None = None
    ):
        """weight: fp32 or bf16 [out_features, in_features]; not kept. level: one that this CPU has, by default the best.
        pages: where the blocks lie, None: in memory of their own."""
        self.out_features, self.in_features = weight.shape
        self.form = form
        self.bias = bias
        self.level = torch.ops.ramify.linear_best_level() if level is None else level
        size = packed_bytes(self.out_features, self.in_features, form)
        self.blocks = pages.empty(size // 4).view(torch.uint8) if pages else torch.empty(size, dtype=torch.uint8)
        self._dtype = weight.dtype
        self._multiply = torch.ops.ramify.linear_quantized.default
        torch.ops.ramify.linear_quantize(weight.contiguous(), form.bits, form.group, self.level, self.blocks)

    def __call__(self, x: Tensor) -> Tensor:
        out = torch.empty((x.shape[0], self.out_features), dtype=x.dtype)
        x = x if x.stride(1) == 1 else x.contiguous()
        form = self.form
        self._multiply(x, self.blocks, self.bias, self.in_features, self.out_features, form.bits, form.group, self.level, out)
        return out

    def rows_of(self, weight: Tensor) -> Rows:
        """See `Linear.rows_of`: rows of what became of the weight, in its dtype."""
        return QuantizedRows(self.blocks, (self.out_features, self.in_features), self.form, self._dtype)

    def product(self) -> QuantizedProduct:
        """See `product.HasProduct`."""
        of = (self.in_features, self.out_features, self.form.bits, self.form.group, self.level)
        return QuantizedProduct(self.blocks, self.bias, *of)


class QuantizedRows:
    """Rows of a quantised weight, scale * q."""

    def __init__(self, blocks: Tensor, shape: tuple[int, int], form: Format, dtype: torch.dtype):
        self._blocks, self._shape, self._form, self._dtype = blocks, shape, form, dtype

    def __call__(self, ids: Tensor) -> Tensor:
        rows, columns = self._shape
        check_ids(ids, rows)
        out = torch.empty((ids.shape[0], columns), dtype=self._dtype)
        form = self._form
        torch.ops.ramify.linear_quantized_rows(self._blocks, ids.contiguous(), columns, rows, form.bits, form.group, out)
        return out


def packed_bytes(outputs: int, columns: int, form: Format) -> int:
    """Bytes of a weight [outputs, columns]: whole groups of columns, whole blocks of 64 outputs. Pure."""
    groups, blocks = -(-columns // form.group), -(-outputs // _OUTPUTS)
    return blocks * groups * _OUTPUTS * (form.group * form.bits // 8 + _SCALE_BYTES)
