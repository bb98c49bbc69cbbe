"""Pages of a pool. A pool is [slots, num_kv_heads, head_dim], or in int8 [slots, num_kv_heads, head_dim + 2] (`int8.py`); slot =
page * page_size + offset.

K and V are written where they are rotated: `kernels/rope`.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class KVCopyPages(Protocol):
    def __call__(self, pool: Tensor, source: Tensor, target: Tensor, page_size: int) -> None:
        """Copies whole pages `source` to pages `target` (int64 [n]) within one pool [slots, ...]. Changes the pool.

        No page may be both a source and a target.
        """
        ...
