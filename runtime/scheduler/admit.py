"""Who may start, and how much of whom is computed in a step: pure functions over counts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..plan import Int32
from .sequence import Sequence


def pages_for(num_tokens: int, page_size: int) -> int:
    """Pages that hold num_tokens tokens."""
    return -(-num_tokens // page_size)


def prefill_budget(chunk_tokens: int, num_decoding: int) -> int:
    """Tokens that a step may prefill beside its decodes. A quarter of the chunk is always left, so that prefills move on."""
    return max(chunk_tokens - num_decoding, chunk_tokens // 4, 1)


def admissible(*, need_pages: int, available_pages: int, reserve_pages: int) -> bool:
    """Whether a sequence whose known tokens need `need_pages` more pages may start now.

    reserve_pages stay for the rows that run, else the next decode steps would have to preempt someone; a sequence that
    would be alone needs no reserve.
    """
    return need_pages + reserve_pages <= available_pages


def common_prefix(a: Int32, b: Int32) -> int:
    """Length of the longest common prefix of two id arrays."""
    shortest = min(len(a), len(b))
    differ = np.flatnonzero(a[:shortest] != b[:shortest])
    return int(differ[0]) if len(differ) else shortest


def leader_of(ids: Int32, limit: int, matched: int, prefilling: Iterable[tuple[Sequence, Int32, int]]) -> Sequence | None:
    """The sequence that is about to compute tokens which `ids` needs too, or None.

    prefilling: (sequence, its ids, its planned position) of those whose known tokens are not all planned yet. `matched`
    tokens of `ids` are in the cache. Waiting pays where the leader's next tokens continue exactly what matched.
    """
    for sequence, others, planned in prefilling:
        if matched < planned or matched >= limit:
            continue
        if common_prefix(ids[:limit], others) > matched:
            return sequence
    return None
