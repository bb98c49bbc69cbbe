"""Linear layers in 8-bit floating point on NVIDIA GPUs: x is quantised in one launch, then torch's scaled product.

Half the bytes of bf16 and twice its products a second. What is computed is said in `fp8_reference.py`.
"""

# pyright: reportCallIssue=false, reportOperatorIssue=false
# A launch takes options beside the kernel's parameters, and the bodies of kernels are Triton's language.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .fp8_reference import DTYPE, LARGEST, Fp8TorchLinear
from .interface import Rows

MULTIPLE = 16
"""Columns and rows of a weight come in so many, for the product's sake."""
_LONGEST = 1 << 15


class Fp8Linear:
    """y = x W^T + b in bf16, on devices of compute capability 8.9 and more. Holds a byte for each weight, and copies it."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        """weight: bf16 [out_features, in_features]. Raises ValueError for sizes that the product does not take."""
        if weight.shape[0] % MULTIPLE or weight.shape[1] % MULTIPLE or weight.shape[1] > _LONGEST:
            sizes = " x ".join(map(str, weight.shape))
            raise ValueError(f"No fp8 product for {sizes}. Both must be multiples of {MULTIPLE}, and columns at most {_LONGEST}.")
        self._made = Fp8TorchLinear(weight, bias)
        self.out_features, self.in_features = weight.shape
        self._q, self._scales, self._bias = self._made.q.t(), self._made.scales.t().contiguous(), bias

    def __call__(self, x: Tensor) -> Tensor:
        q, scales = quantize(x)
        product = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]
        y = product(q, self._q, scale_a=scales, scale_b=self._scales, out_dtype=x.dtype, use_fast_accum=True)
        return y if self._bias is None else y.add_(self._bias)

    def rows_of(self, weight: Tensor) -> Rows:
        """See `Linear.rows_of`: rows of what became of the weight."""
        return self._made.rows_of(weight)


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """`fp8_reference.quantize_rows` in one launch. x: [rows, columns], at most 32,768 columns."""
    rows, size = x.shape
    q = torch.empty((rows, size), dtype=DTYPE, device=x.device)
    scales = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    if rows:
        block = triton.next_power_of_2(size)
        warps = min(16, max(1, block // 256))
        _quantize[(rows,)](x, q, scales, size, x.stride(0), MOST=LARGEST, BLOCK=block, num_warps=warps, enable_fp_fusion=False)
    return q, scales


@triton.jit
def _quantize(x, q, scales, size, stride, MOST: tl.constexpr, BLOCK: tl.constexpr):
    """A program takes a row. size <= BLOCK, a power of two."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    there = column < size
    values = tl.load(x + row * stride + column, mask=there, other=0.0).to(tl.float32)
    size_of = tl.abs(values)
    unknown = tl.max(tl.where(size_of == size_of, 0, 1), 0) > 0  # a maximum may pass over NaN
    largest = tl.where(unknown, float("nan"), tl.max(size_of, 0))
    inverse = tl.where(largest == 0, 0.0, tl.div_rn(largest * 0.0 + MOST, largest))
    scaled = tl.minimum(tl.maximum(values * inverse, -MOST), MOST)
    tl.store(q + row * size + column, scaled.to(q.dtype.element_ty), mask=there)
    tl.store(scales + row, tl.div_rn(largest, largest * 0.0 + MOST))
