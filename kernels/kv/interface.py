"""Writing K and V into the pools. A pool is [slots, num_kv_heads, head_dim]; slot = page * page_size + offset."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class KVWrite(Protocol):
    def __call__(self, k_pool: Tensor, v_pool: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Writes k, v [tokens, num_kv_heads, head_dim] to `slots` (int64 [tokens], all different). Changes the pools."""
        ...


class KVCopyPages(Protocol):
    def __call__(self, pool: Tensor, source: Tensor, target: Tensor, page_size: int) -> None:
        """Copies whole pages `source` to pages `target` (int64 [n]) within one pool [slots, ...]. Changes the pool.

        No page may be both a source and a target.
        """
        ...
