"""A lease: what one sequence holds of the cache. Only the `PrefixCache` that made it changes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .keys import NO_IDS, Int32, Namespace
from .node import Node

UNKNOWN_STEP = 1 << 62
"""Of tokens that no call has named a step for yet: later than every step."""

_ROOM = 64


@dataclass(frozen=True, slots=True)
class PageCopy:
    """The first `num_tokens` slots of page `dst_page` are to be copied from `src_page`, in every layer, before they are read.

    It belongs into the plan of the lease's first span. Copying the whole page does no harm.
    """

    src_page: int
    dst_page: int
    num_tokens: int


class Lease:
    """Pages for positions [0, capacity) of one sequence, and the tokens of it that the cache knows: the first `length`.

        positions   0 ............ node.end ... + lag = length ......... capacity
        pages       the tree's, or    the lease's own: private, or lent to the tree as a tail
                    a double of it

    Read `length`, `pages`, `capacity`, `copy`; all else belongs to the cache.

    node: the deepest whole-page node of the path; locked. tail: a node below it with the beginning of `lag`, which lives in
    the lease's page; locked. lag: known tokens that are not in `node`: less than a page, unless `blocked` (another lease's
    node with the same tokens is still being computed). lag_step: the step that computes the last of them.
    doubles: (first, stop) of pages the tree has under other numbers. added: (first, stop) of pages it gave to the tree.
    failed: a failed step should have computed some of it; copy_failed: should have made its copy. copy_at, copy_step: the
    index of the copy's page, and the first step that was planned since.
    """

    __slots__ = (
        "_pages",
        "added",
        "blocked",
        "copy",
        "copy_at",
        "copy_failed",
        "copy_step",
        "doubles",
        "failed",
        "lag",
        "lag_step",
        "last_step",
        "namespace",
        "node",
        "num_pages",
        "page_size",
        "pinned",
        "released",
        "tail",
    )

    def __init__(self, namespace: Namespace, node: Node, page_size: int):
        self.namespace = namespace
        self.node = node
        self.page_size = page_size
        self.tail: Node | None = None
        self.lag: Int32 = NO_IDS
        self.lag_step = 0
        self.last_step = 0
        self.blocked = False
        self.failed = False
        self.released = False
        self.doubles: list[tuple[int, int]] = []
        self.added: list[tuple[int, int]] = []
        self.copy: PageCopy | None = None
        self.copy_at = 0
        self.copy_step = UNKNOWN_STEP
        self.copy_failed = False
        self.pinned = False
        path = []
        above: Node | None = node
        while above is not None:
            path.append(above.pages)
            above = above.parent
        self.num_pages = sum(map(len, path))
        self._pages: Int32 = np.empty(self.num_pages + _ROOM, np.int32)
        np.concatenate(path[::-1], out=self._pages[: self.num_pages])

    @property
    def length(self) -> int:
        """Tokens that the cache knows of this sequence: matched at first, then inserted and committed."""
        return self.node.start + self.node.n + len(self.lag)

    @property
    def pages(self) -> Int32:
        """Page numbers, int32 [capacity / page_size]; position p lies in pages[p // page_size]. A view: do not write."""
        return self._pages[: self.num_pages]

    @property
    def capacity(self) -> int:
        """Positions that have a page."""
        return self.num_pages * self.page_size

    @property
    def in_tree(self) -> int:
        """Pages whose tokens the path spells. Pages behind them are the lease's own, except for that of `tail`."""
        return (self.node.start + self.node.n) // self.page_size

    @property
    def is_cut(self) -> bool:
        """Whether a failed step took part of it: it can only be rewound or released."""
        return self.failed or self.node.dead

    def room(self, count: int) -> Int32:
        """Space for `count` more page numbers, to be filled by the cache; they count from now on."""
        total = self.num_pages + count
        if total > len(self._pages):
            larger = np.empty(2 * total, np.int32)
            larger[: self.num_pages] = self._pages[: self.num_pages]
            self._pages = larger
        new = self._pages[self.num_pages : total]
        self.num_pages = total
        return new

    def is_double(self, index: int) -> bool:
        """Whether page `index` is a double of the tree's. Answers only."""
        return any(first <= index < stop for first, stop in self.doubles)

    def note(self, doubles: list[tuple[int, int]], added: int) -> None:
        """Remember what became of pages that were just given to the tree: the last `added` of the path were new to it."""
        self.doubles += doubles
        if added:
            first, stop = self.in_tree - added, self.in_tree
            if self.added and self.added[-1][1] == first:
                first = self.added.pop()[0]
            self.added.append((first, stop))

    def made_until(self, index: int) -> int:
        """The first page from `index` on whose tokens another lease's step computes. Answers only."""
        for first, stop in sorted([*self.doubles, *self.added]):
            if first <= index < stop:
                index = stop
        return index if index < self.in_tree else self.num_pages

    def own_pages(self) -> Int32:
        """The pages that belong to the lease alone, int32. Answers only."""
        behind = self._pages[self.in_tree + (self.tail is not None) : self.num_pages]
        if not self.doubles:
            return behind
        return np.concatenate([*(self._pages[first:stop] for first, stop in self.doubles), behind])

    def owned(self) -> NDArray[np.bool_]:
        """Which of the pages belong to the lease alone: bool [num_pages]. Answers only."""
        owned = np.zeros(self.num_pages, bool)
        owned[self.in_tree + (self.tail is not None) :] = True
        for first, stop in self.doubles:
            owned[first:stop] = True
        return owned

    def shorten(self, num_pages: int, owned: NDArray[np.bool_]) -> Int32:
        """Keep the first pages, behind a path that is right already. Returns the dropped ones that were its own."""
        dropped = self.pages[num_pages:][owned[num_pages:]]
        self.num_pages = min(self.num_pages, num_pages)
        in_tree = self.in_tree
        self.doubles = [(first, min(stop, in_tree)) for first, stop in self.doubles if first < in_tree]
        self.added = [(first, min(stop, in_tree)) for first, stop in self.added if first < in_tree]
        return dropped
