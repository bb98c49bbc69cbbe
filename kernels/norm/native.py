"""RMS norm in C++ (`kernels/cpp/fused_level.cpp`): the sum and the norm in one pass. Bit for bit the reference."""

from __future__ import annotations

import torch
from torch import Tensor


class NativeNorm:
    """On the CPU, in fp32 and bf16. `kernels.native.load` must have succeeded before."""

    def __init__(self, level: int):
        """level: one that this CPU has (`ramify.best_level`)."""
        self.level = level
        self._run = torch.ops.ramify.add_rms_norm.default

    def __call__(self, x: Tensor, weight: Tensor, eps: float, delta: Tensor | None = None) -> Tensor:
        """See the interface."""
        out = torch.empty(x.shape, dtype=x.dtype)
        self._run(x, delta, weight, eps, self.level, out)
        return out
