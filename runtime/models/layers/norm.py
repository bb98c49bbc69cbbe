"""Norms with their weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ....kernels.norm.interface import RmsNorm


@dataclass(frozen=True)
class Norm:
    """RMS norm over the last axis. weight: [size], or one row a head: [heads, size]."""

    weight: Tensor
    eps: float
    kernel: RmsNorm

    def __call__(self, x: Tensor) -> Tensor:
        """x: [..., size]. Returns the same shape and dtype. Changes nothing."""
        return self.kernel(x, self.weight, self.eps)


def no_norm(x: Tensor) -> Tensor:
    """The plain case: queries and keys of most families are not normed."""
    return x
