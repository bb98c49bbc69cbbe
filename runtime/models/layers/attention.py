"""One layer's attention: norm q and k, rotate, write K and V to the pool, attend over the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ....kernels.attention.interface import Attention
from ....kernels.rope.interface import RotateAndWrite


@dataclass(frozen=True)
class PagedAttention:
    """`norm`: weights of the norm of each head of q and k, [heads + kv_heads, head_dim], or None, the plain case: they are not
    normed. `spec_number` says which plan of the step is ours."""

    kernel: Attention
    spec_number: int
    norm: Tensor | None
    eps: float
    rotate_and_write: RotateAndWrite

    def __call__(self, qkv: Tensor, pools: tuple[Tensor, Tensor], slots: Tensor, plan: Any, turns: Tensor) -> Tensor:
        """qkv: [tokens, (heads + 2 * kv_heads) * head_dim]; turns: of the tokens' positions. Returns [tokens, heads * head_dim].
        Changes the pools at `slots`."""
        k_pool, v_pool = pools
        q = self.rotate_and_write(qkv, turns, norm=self.norm, eps=self.eps, k_pool=k_pool, v_pool=v_pool, slots=slots)
        return self.kernel.run(plan, k_pool, v_pool, q).view(qkv.shape[0], -1)
