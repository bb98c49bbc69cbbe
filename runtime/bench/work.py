"""Seeded work: which ids the engines are asked, the same for all of them. Pure."""

from __future__ import annotations

import numpy as np

from .adapters.base import Ids

FIRST_ID = 3
"""Below lie the checkpoints' control tokens."""


def drawn(count: int, vocab: int, *seed: int) -> Ids:
    """`count` random ids. Different seeds give different ones, the same seed the same on every machine."""
    return tuple(np.random.default_rng(seed).integers(FIRST_ID, vocab, count).tolist())


def apart(count: int, length: int, vocab: int, seed: int) -> tuple[Ids, ...]:
    """Prompts that share nothing."""
    return tuple(drawn(length, vocab, seed, i) for i in range(count))


def shared(count: int, head: int, own: int, vocab: int, seed: int) -> tuple[Ids, ...]:
    """Prompts of `head` tokens in common and `own` of each."""
    begin = drawn(head, vocab, seed)
    return tuple(begin + drawn(own, vocab, seed, 1, i) for i in range(count))


def tree(levels: tuple[tuple[int, int], ...], vocab: int, seed: int) -> tuple[Ids, ...]:
    """Paths from the root to the leaves of a tree. levels: (children of each node of the level before, tokens of each)."""
    paths: list[tuple[tuple[int, ...], Ids]] = [((), ())]
    for children, length in levels:
        paths = [
            ((*place, child), ids + drawn(length, vocab, seed, len(place), *place, child))
            for place, ids in paths
            for child in range(children)
        ]
    return tuple(ids for _, ids in paths)
