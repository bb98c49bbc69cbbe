"""RMS norm in torch."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float, delta: Tensor | None = None) -> Tensor:
    """x, delta: [..., size]; weight broadcasts against x. Adds delta to x in place; rounded to x's dtype before the weight, as
    transformers does."""
    if delta is not None:
        x.add_(delta)
    norm = torch.linalg.vector_norm(x, 2, -1, True, dtype=torch.float64)
    return (x * norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_().float()).to(x.dtype) * weight
