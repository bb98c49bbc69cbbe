"""Root mean square layer norm, computed in fp32 (Zhang and Sennrich, 2019)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class RmsNorm(Protocol):
    def __call__(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x: [..., size], weight: [size]. Returns x / rms(x) rounded to x's dtype, times weight. Changes nothing."""
        ...
