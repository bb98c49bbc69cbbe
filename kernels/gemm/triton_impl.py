"""Linear layers on CUDA whose rows do not influence each other: one shape of blocks for any number of rows.

cuBLAS picks a kernel, and with it the order of summation, by the number of rows. Here a row is summed over the columns in steps
of `BLOCK_K`, in order, in fp32, wherever it stands and whoever stands beside it. That costs speed: few rows do not fill the
device, many rows would like larger blocks.
"""

from __future__ import annotations

# pyright: reportCallIssue=false
# A launch takes options (num_warps and such) that are no parameters of the kernel.
import torch
import triton
import triton.language as tl
from torch import Tensor

from .reference import TorchLinear

BLOCK_M, BLOCK_N, BLOCK_K = 32, 64, 128
WARPS, STAGES = 4, 3


class InvariantLinear(TorchLinear):
    """y = x W^T + b in Triton. fp32 products are those of fp32 (no tf32)."""

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear`. x: [rows, in_features], its last axis contiguous."""
        rows = x.shape[0]
        out = torch.empty((rows, self.out_features), dtype=x.dtype, device=x.device)
        if rows:
            grid = (triton.cdiv(rows, BLOCK_M), triton.cdiv(self.out_features, BLOCK_N))
            product[grid](
                x,
                self.weight,
                self.weight if self.bias is None else self.bias,
                out,
                rows,
                self.out_features,
                self.in_features,
                x.stride(0),
                HAS_BIAS=self.bias is not None,
                BLOCK_M=BLOCK_M,
                BLOCK_N=BLOCK_N,
                BLOCK_K=BLOCK_K if x.dtype == torch.bfloat16 else BLOCK_K // 2,
                num_warps=WARPS,
                num_stages=STAGES,
            )
        return out


@triton.jit(do_not_specialize=["rows"])
def product(
    x,
    weight,
    bias,
    out,
    rows,
    outputs,
    columns,
    x_stride,
    HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out[rows, outputs] = x[rows, columns] weight[outputs, columns]^T + bias; a block of out a program."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    output = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_K)
    x_at = x + row.to(tl.int64)[:, None] * x_stride + column[None, :]
    w_at = weight + output.to(tl.int64)[None, :] * columns + column[:, None]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, columns, BLOCK_K):
        left = column < columns - start
        a = tl.load(x_at + start, mask=(row < rows)[:, None] & left[None, :], other=0.0)
        b = tl.load(w_at + start, mask=(output < outputs)[None, :] & left[:, None], other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    if HAS_BIAS:
        total += tl.load(bias + output, mask=output < outputs, other=0.0).to(tl.float32)[None, :]
    place = row.to(tl.int64)[:, None] * outputs + output[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=(row < rows)[:, None] & (output < outputs)[None, :])
