"""One layer's attention: norm q and k, rotate, write K and V to the pool, attend over the pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ....kernels.attention.interface import Attention
from ....kernels.kv.interface import KVWrite
from ....kernels.rope.interface import ApplyRope


@dataclass(frozen=True)
class PagedAttention:
    """`qk_norm` takes q and k as one [tokens, heads + kv_heads, head_dim]; `spec_number` says which plan of the step is ours."""

    kernel: Attention
    spec_number: int
    qk_norm: Callable[[Tensor], Tensor]
    rope: ApplyRope
    write: KVWrite

    def __call__(self, qkv: Tensor, pools: tuple[Tensor, Tensor], slots: Tensor, plan: Any, cos: Tensor, sin: Tensor) -> Tensor:
        """qkv: [tokens, (heads + 2 * kv_heads) * head_dim]. Returns [tokens, heads * head_dim]. Changes the pools at `slots`."""
        spec = self.kernel.spec
        heads = qkv.view(qkv.shape[0], -1, spec.head_dim)
        turned = spec.num_heads + spec.num_kv_heads
        qk = self.rope(self.qk_norm(heads[:, :turned]), cos, sin)
        k_pool, v_pool = pools
        self.write(k_pool, v_pool, slots, qk[:, spec.num_heads :], heads[:, turned:])
        return self.kernel.run(plan, k_pool, v_pool, qk[:, : spec.num_heads]).view(qkv.shape[0], -1)
