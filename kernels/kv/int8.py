"""K and V in 8 bits: each vector of a token and a KV head is codes and one scale, value = code * scale.

    | code 0 | code 1 | ... | code head_dim - 1 | scale, bf16 |      int8 [..., head_dim + 2], one vector after the other

The scale stands beside its codes: one stretch of memory holds all that attention reads of a token, and pages are copied as
they are. It is bf16, not fp32, because codes are chosen by the scale as it was rounded: the error stays half a step of the codes,
at 2 bytes instead of 4. Codes are symmetric, -127 to 127, so a sum of products needs no correction.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALE_BYTES = 2
MOST = 127


def row_width(head_dim: int, dtype: torch.dtype) -> int:
    """Elements of a vector in a pool of this dtype."""
    return head_dim + SCALE_BYTES if dtype == torch.int8 else head_dim


def row_size(head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of a vector in a pool of this dtype."""
    return row_width(head_dim, dtype) * dtype.itemsize


def quantize(x: Tensor) -> Tensor:
    """x: [..., head_dim], float32 or bfloat16, head_dim even. Returns int8 [..., head_dim + 2], contiguous.

    A vector with a number that is not finite has a scale that is NaN, and codes of 0.
    """
    x = x.float()
    scale = (x.abs().amax(-1, keepdim=True) / MOST).to(torch.bfloat16)
    nan = torch.tensor(torch.nan, dtype=torch.bfloat16, device=x.device)  # one NaN for all: conversions make several
    scale = torch.where(x.isfinite().all(-1, keepdim=True), scale, nan)
    codes = torch.where(scale > 0, (x / scale.float()).clamp(-MOST, MOST).round(), 0.0).to(torch.int8)
    halves = scale.view(torch.int16)  # of one size with bf16, so that no strides are asked for, which an empty tensor may lack
    return torch.cat((codes, halves.to(torch.uint8).view(torch.int8), (halves >> 8).to(torch.int8)), -1)


def dequantize(rows: Tensor) -> Tensor:
    """rows: int8 [..., head_dim + 2], contiguous. Returns float32 [..., head_dim]."""
    codes, scale = rows.split((rows.shape[-1] - SCALE_BYTES, SCALE_BYTES), -1)
    return codes.float() * scale.contiguous().view(torch.bfloat16).float()


def read(rows: Tensor) -> Tensor:
    """Rows of a pool as float32 [..., head_dim]: of one in int8, or in float32 or bfloat16."""
    return dequantize(rows) if rows.dtype == torch.int8 else rows.float()
