"""Copying KV in torch."""

from __future__ import annotations

from torch import Tensor


def copy_pages(pool: Tensor, source: Tensor, target: Tensor, page_size: int) -> None:
    """Copies whole pages within a pool [slots, ...]; source and target: int64 [n], disjoint. Changes the pool."""
    pages = pool.view(-1, page_size, *pool.shape[1:])
    pages.index_copy_(0, target, pages.index_select(0, source))
