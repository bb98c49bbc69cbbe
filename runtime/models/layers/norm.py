"""Norms with their weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ....kernels.norm.interface import RmsNorm


@dataclass(frozen=True)
class Norm:
    """RMS norm over the last axis. weight: [size]."""

    weight: Tensor
    eps: float
    kernel: RmsNorm

    def __call__(self, x: Tensor) -> Tensor:
        """x: [rows, size]. Returns the same shape and dtype. Changes nothing."""
        return self.kernel(x, self.weight, self.eps)

    def after(self, x: Tensor, delta: Tensor) -> Tensor:
        """Adds delta to x in place, both [rows, size], and returns the sum's norm. Changes x."""
        return self.kernel(x, self.weight, self.eps, delta)
