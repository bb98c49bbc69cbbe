"""Norm, rotation and KV write in C++ (`kernels/cpp/fused_level.cpp`): each head is read once. Bit for bit the reference."""

from __future__ import annotations

import torch
from torch import Tensor


class NativeRotateAndWrite:
    """On the CPU, in fp32 and bf16. `kernels.native.load` must have succeeded before."""

    def __init__(self, level: int):
        """level: one that this CPU has (`ramify.best_level`)."""
        self.level = level
        self._run = torch.ops.ramify.rotate_and_write.default

    def __call__(
        self, qkv: Tensor, turns: Tensor, *, norm: Tensor | None, eps: float, k_pool: Tensor, v_pool: Tensor, slots: Tensor
    ) -> Tensor:
        """See the interface. Raises RuntimeError for a slot outside of the pools."""
        kv_heads, head_dim = k_pool.shape[1], turns.shape[1] // 2
        q = torch.empty((qkv.shape[0], qkv.shape[1] // head_dim - 2 * kv_heads, head_dim), dtype=qkv.dtype)
        self._run(qkv, turns, norm, eps, k_pool, v_pool, slots, self.level, q)
        return q
