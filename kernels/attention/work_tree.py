"""Which keys some spans of a step read together: the tree of `interface.Sharing`, less what does not pay. NumPy alone.

Spans in the order of sharing are members of nested groups, and what a group has in common, behind what the groups around it
have in common, is a node. A node becomes a range of its own when the bytes that it saves are more than it costs; otherwise its
keys are pushed down to the groups within, and at last to each member alone:

    members   0    1    2    3              ranges    members 0-3, keys [0, 4096)
    common         4096 4864 4096                     members 1-2, keys [4096, 4864)
                                            own       each member from 4096, 4864, 4864, 4096 on
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .costs import SharingCosts
from .interface import Sharing


class SharedRange(NamedTuple):
    """Members [first, last) read the keys [begin, end) of their sequences together, where those of the first of them lie."""

    first: int
    last: int
    begin: int
    end: int


@dataclass(frozen=True)
class Tree:
    """What is read together. order: int32 [spans], the members first. own: int32 [spans], in that order: a span reads the keys
    before by its ranges, and those from there on alone. results: partial results that the ranges have at least."""

    order: NDArray[np.int32]
    ranges: list[SharedRange]
    own: NDArray[np.int32]
    results: int


@dataclass(frozen=True)
class Weighing:
    """What decides. key_bytes: of K and V of a position. numbers: of a query's result. queries: most of an item. tile: ranges
    are cut at multiples of it."""

    key_bytes: int
    numbers: int
    queries: int
    costs: SharingCosts
    tile: int = 1

    def dearer(self, times: int) -> Weighing:
        """The same where sharing costs so many times as much, and something in any case if it is more than once."""
        if times == 1:
            return self
        costs = self.costs
        more = SharingCosts(costs.piece_bytes * times, max(1, costs.joining_bytes) * times, costs.step_bytes)
        return replace(self, costs=more)

    def gain(self, members: int, queries: int, keys: int, results: int) -> int:
        """Bytes that memory gives in the time that is saved where `members` spans with `queries` queries in all read `keys`
        together, and each query has so many partial results more."""
        items = -(-queries // self.queries)
        joining = self.costs.joining_bytes * self.numbers * queries * results
        return (members - 1) * keys * self.key_bytes - self.costs.piece_bytes * items - joining


def share(
    sharing: Sharing, start: NDArray[np.int32], length: NDArray[np.int32], weighing: Weighing, window: int | None
) -> Tree | None:
    """What these spans read together; None where nothing pays. Only keys before all queries of a range are in it. Pure.

    A span does not take part if its own queries fill an item, or if its window has left the first position.
    """
    order, shared = np.asarray(sharing.order), np.asarray(sharing.shared)
    most = int(shared.max(initial=0))
    if weighing.gain(len(order), len(order), most, 1) <= weighing.costs.step_bytes:
        return None
    takes_part = (length <= weighing.queries) & (start > 0)
    if window is not None:
        takes_part &= start + length <= window
    takes_part = takes_part[order]
    places = np.flatnonzero(takes_part)
    if len(places) < 2:
        return None
    common = np.minimum.reduceat(shared[: places[-1] + 1], np.concatenate(([0], places[:-1] + 1)))
    members = order[places]
    before = start[members]
    common[1:] = np.minimum(common[1:], np.minimum(before[1:], before[:-1]))
    common[0] = 0
    offsets = [0, *np.cumsum(length[members]).tolist()]
    ranges, own = _ranges(common.tolist(), offsets, weighing)
    if not ranges:
        return None
    others = order[~takes_part]
    own_beginnings = np.array(own + [0] * len(others), np.int32)
    results = sum(offsets[one.last] - offsets[one.first] for one in ranges)
    return Tree(np.concatenate((members, others)).astype(np.int32), ranges, own_beginnings, results)


def _ranges(common: list[int], offsets: list[int], weighing: Weighing) -> tuple[list[SharedRange], list[int]]:
    """The ranges that pay, outer ones before those within, and each member's own beginning. common[i]: keys that members i - 1
    and i share. offsets: [members + 1], queries before each member. No range where all of them together do not repay a step."""
    ranges: list[SharedRange] = []
    own = [0] * len(common)
    total = 0
    groups = [(group, 0, False) for group in _groups(common)]
    while groups:
        group, begin, joined = groups.pop()
        first, last = group.first, group.last
        end = group.common - group.common % weighing.tile
        if end > begin:
            gain = weighing.gain(last - first, offsets[last] - offsets[first], end - begin, 1 if joined else 2)
            if gain > 0:
                ranges.append(SharedRange(first, last, begin, end))
                total += gain
                begin, joined = end, True
        for within in group.within:
            own[first : within.first] = [begin] * (within.first - first)
            first = within.last
            groups.append((within, begin, joined))
        own[first:last] = [begin] * (last - first)
    return (ranges, own) if total > weighing.costs.step_bytes else ([], own)


@dataclass(slots=True)
class _Group:
    """Members [first, last) have `common` keys in common, and no member beside them has as many with them. within: groups that
    have more."""

    common: int
    first: int
    last: int
    within: list[_Group]


def _groups(common: list[int]) -> list[_Group]:
    """The outermost groups, in order. Source: Abouelhoda, Kurtz and Ohlebusch, Replacing suffix trees with enhanced suffix
    arrays (2004), algorithm 4.4: in one pass, because a group ends where less is in common."""
    everyone = _Group(0, 0, len(common), [])
    path = [everyone]
    for member, keys in enumerate((*common[1:], 0), 1):
        if keys == path[-1].common:
            continue
        first, ended = member - 1, None
        while keys < path[-1].common:
            ended = path.pop()
            ended.last, first = member, ended.first
            if keys <= path[-1].common:
                path[-1].within.append(ended)
                ended = None
        if keys > path[-1].common:
            path.append(_Group(keys, first, 0, [] if ended is None else [ended]))
    return everyone.within
