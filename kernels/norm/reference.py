"""RMS norm in torch."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x: [..., size]; weight broadcasts against x. Rounded to x's dtype before the weight, as transformers does."""
    norm = torch.linalg.vector_norm(x, 2, -1, True, dtype=torch.float32)
    return (x * norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()).to(x.dtype) * weight
