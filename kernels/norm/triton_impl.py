"""RMS norm in Triton: the sum with delta and the norm in one launch, each row read once and kept in registers."""

# pyright: reportCallIssue=false
# A launch takes options beside the kernel's parameters.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST = 1 << 15
"""Elements of a row that the registers of one program hold."""
_ELEMENTS = 512
"""Of a program at least: shorter rows share one."""


class TritonNorm:
    """On CUDA, in fp32 and bf16. Rounded where the reference rounds; the sum of squares is kept in fp32, in an order that the
    size alone fixes."""

    def __call__(self, x: Tensor, weight: Tensor, eps: float, delta: Tensor | None = None) -> Tensor:
        """See the interface. Rows may be apart, their elements may not. Raises ValueError for rows of more than `LARGEST`."""
        rows, size = x.shape
        if size > LARGEST:
            raise ValueError(f"A row has {size} elements, and a norm is made for {LARGEST} at most.")
        out = torch.empty((rows, size), dtype=x.dtype, device=x.device)
        if rows == 0:
            return out
        block = triton.next_power_of_2(size)
        together = max(1, _ELEMENTS // block)
        _add_norm[(triton.cdiv(rows, together),)](
            x,
            x if delta is None else delta,
            weight,
            out,
            rows,
            size,
            x.stride(0),
            x.stride(0) if delta is None else delta.stride(0),
            eps,
            ADD=delta is not None,
            ROWS=together,
            BLOCK=block,
            num_warps=min(16, max(1, together * block // 256)),
            enable_fp_fusion=False,
        )
        return out


@triton.jit(do_not_specialize=["rows"])
def _add_norm(
    x,
    delta,
    weight,
    out,
    rows,
    size,
    x_stride,
    delta_stride,
    eps,
    ADD: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program takes ROWS rows. size <= BLOCK, a power of two."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    there = (row < rows) & (column < size)
    at = row * x_stride + column
    values = tl.load(x + at, mask=there, other=0.0)
    dtype = values.dtype
    wide = values.to(tl.float32)
    if ADD:
        added = wide + tl.load(delta + row * delta_stride + column, mask=there, other=0.0).to(tl.float32)
        values = added.to(dtype)
        tl.store(x + at, values, mask=there)
        wide = values.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 1) / size + eps)
    normed = (wide * scale[:, None]).to(dtype).to(tl.float32)
    scaled = normed * tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)
    tl.store(out + row * size + column, scaled.to(dtype), mask=there)
