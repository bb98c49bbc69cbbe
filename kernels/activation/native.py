"""Gated activations in C++ (`kernels/cpp/fused_level.cpp`), rounded where the reference rounds.

The exponential differs from torch's in the last places of fp32: in bf16 a result in some thousands is its neighbour.
"""

from __future__ import annotations

import torch
from torch import Tensor


class NativeSiluMul:
    """On the CPU, in fp32 and bf16. `kernels.native.load` must have succeeded before."""

    def __init__(self, level: int):
        """level: one that this CPU has (`ramify.best_level`)."""
        self.level = level
        self._run = torch.ops.ramify.silu_mul.default

    def __call__(self, gate_up: Tensor) -> Tensor:
        """See the interface."""
        out = torch.empty((gate_up.shape[0], gate_up.shape[1] // 2), dtype=gate_up.dtype)
        self._run(gate_up, self.level, out)
        return out
