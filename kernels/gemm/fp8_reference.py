"""Linear layers in 8-bit floating point (e4m3: Micikevicius et al., 2022), weights and activations, in plain torch: the oracle.

    q_w, scale_w   by row of the weight (an output), once
    q_x, scale_x   by row of x (a token), in each call
    y            = (q_x q_w^T) * scale_x * scale_w + bias

A scale is the largest absolute value / 448, the largest number of the format.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .interface import Rows

LARGEST = 448.0
DTYPE = torch.float8_e4m3fn


class Fp8TorchLinear:
    """y = x W^T + b by the product of what became of x and W. Holds a byte for each weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        """weight: [out_features, in_features], fp32 or bf16."""
        self.out_features, self.in_features = weight.shape
        self.q, self.scales = quantize_rows(weight)
        self.bias = bias
        self._dtype = weight.dtype

    def __call__(self, x: Tensor) -> Tensor:
        q, scales = quantize_rows(x)
        y = (q.float() @ self.q.float().T) * scales * self.scales.T
        y = y.to(x.dtype)
        return y if self.bias is None else y + self.bias

    def rows_of(self, weight: Tensor) -> Rows:
        """See `Linear.rows_of`: rows of what became of the weight."""
        return lambda ids: (self.q[ids].float() * self.scales[ids]).to(self._dtype)


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x: [rows, columns]. Returns q, e4m3 [rows, columns], and scales, fp32 [rows, 1]; x is about q * scale. A row of zeros has
    scale 0; one that holds a number that is not finite has a scale that is not."""
    wide = x.float()
    largest = wide.abs().amax(-1, keepdim=True)
    limit = torch.full_like(largest, LARGEST)  # a tensor: a number would make some devices multiply by a reciprocal
    inverse = torch.where(largest == 0, 0.0, limit / largest)
    return (wide * inverse).clamp(-LARGEST, LARGEST).to(DTYPE), largest / limit
