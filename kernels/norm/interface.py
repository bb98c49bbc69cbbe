"""Root mean square layer norm (Zhang and Sennrich, 2019), with the addition to the residual stream that comes before it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class RmsNorm(Protocol):
    def __call__(self, x: Tensor, weight: Tensor, eps: float, delta: Tensor | None = None) -> Tensor:
        """x, delta: [rows, size]; weight: [size]. First adds delta to x, in place, if there is one: that changes x alone.

        Returns x / rms(x) rounded to x's dtype, times weight. The sum of squares is kept in float64, so that its order leaves
        no trace.
        """
        ...
