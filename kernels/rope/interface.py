"""From the product with q, k and v to attention: norm of q and k, rotary position embedding (Su et al., 2021) in the half-split
layout of Llama, and K and V written to their pools."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class RotateAndWrite(Protocol):
    def __call__(
        self,
        qkv: Tensor,
        turns: Tensor,
        *,
        norm: Tensor | None,
        eps: float,
        k_pool: Tensor,
        v_pool: Tensor,
        slots: Tensor,
    ) -> Tensor:
        """Changes both pools at `slots`, and nothing else. Returns q, normed and rotated: [tokens, heads, head_dim], contiguous.

        qkv: [tokens, (heads + 2 * kv_heads) * head_dim], q first, v last. turns: [tokens, 2 * head_dim], looked up by position:
        cosines, then sines with their first half negated; element i of a head's first half pairs with element i of the second.
        norm: weights of the RMS norm of each head of q and k, [heads + kv_heads, head_dim], applied before the rotation; None:
        they are not normed. k_pool, v_pool: [slots, kv_heads, head_dim], contiguous. slots: int64 [tokens], all different.
        One dtype for all, but for pools in int8, [slots, kv_heads, head_dim + 2] (`kernels/kv/int8.py`).
        """
        ...
