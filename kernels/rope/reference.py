"""Rotary position embedding in torch."""

from __future__ import annotations

import torch
from torch import Tensor


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: [tokens, heads, head_dim]; cos, sin: [tokens, 1, head_dim], the first half of sin negated. Changes nothing."""
    swapped = torch.roll(x, x.shape[-1] // 2, -1)
    return torch.addcmul(x * cos, swapped, sin)
