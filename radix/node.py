"""A node of the prefix tree: a run of token ids behind its parent's, and the pages that hold their K and V."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .keys import NO_IDS, Int32, Namespace


class Node:
    """Tokens [start, start + n) of every prefix that passes here.

        root ── [s s s s] ── [a a a a  b b b b] ── [c c]          page size 4: `start` is always the start of a page;
                         └── [x x x x]                             n is whole pages, except for a tail (n < page, a leaf)

    parent, root, children: the tree; children are found by the bytes of their first page's ids (a tail: all of its ids).
    order: the children's keys, sorted, where a page has several tokens: neighbours share the longest beginnings.
    locks: leases that end here, plus children with locks. A node with locks is never evicted.
    pending: the step that computes the tokens; settled once the cache's settled step has reached it.
    used, hits, created: logical times of last use and creation, and uses that ended here; what eviction orders by.
    memory: the ids as memory, None until `view` is asked for it.
    queued: an entry of the eviction queue names this node. dead: not in the tree any more (evicted or cut off).
    """

    __slots__ = (
        "_ids",
        "_pages",
        "children",
        "created",
        "dead",
        "hits",
        "key",
        "locks",
        "memory",
        "n",
        "namespace",
        "num_pages",
        "order",
        "parent",
        "pending",
        "queued",
        "root",
        "start",
        "uid",
        "used",
    )

    def __init__(self, uid: int, parent: Node | None, ids: Int32, pages: Int32, *, pending: int, created: int):
        """ids, pages: int32 arrays that nobody else writes; the node keeps them."""
        self.uid = uid
        self.parent = parent
        self.root: Node = self if parent is None else parent.root
        self.namespace: Namespace | None = None
        self.start = 0 if parent is None else parent.start + parent.n
        self.n = len(ids)
        self.num_pages = len(pages)
        self.key = b""
        self._ids = ids
        self._pages = pages
        self.memory: memoryview | None = None
        self.children: dict[bytes, Node] = {}
        self.order: list[bytes] = []
        self.locks = 0
        self.pending = pending
        self.used = self.created = created
        self.hits = 0
        self.queued = False
        self.dead = False

    @property
    def end(self) -> int:
        """Position behind the last token."""
        return self.start + self.n

    @property
    def ids(self) -> Int32:
        """The token ids, int32 [n]. A view: do not write."""
        return self._ids[: self.n]

    @property
    def pages(self) -> Int32:
        """The page numbers, int32 [num_pages]. A view: do not write."""
        return self._pages[: self.num_pages]

    def view(self) -> memoryview:
        """The token ids as memory, kept until they change: a search compares it with each key that comes by."""
        self.memory = self.ids.data
        return self.memory

    def append(self, ids: Int32, pages: Int32) -> None:
        """Lengthen the node. Both arrays are copied; room is doubled, so that decoding token by token is cheap."""
        self._ids = _appended(self._ids, self.n, ids)
        self._pages = _appended(self._pages, self.num_pages, pages)
        self.memory = None
        self.n += len(ids)
        self.num_pages += len(pages)

    def keep_front(self, num_tokens: int, num_pages: int) -> None:
        """Shorten the node to its first tokens and pages."""
        self.memory = None
        self.n, self.num_pages = num_tokens, num_pages
        self._ids, self._pages = _trimmed(self._ids, num_tokens), _trimmed(self._pages, num_pages)

    def cut_front(self, num_tokens: int, num_pages: int) -> tuple[Int32, Int32]:
        """Take the first tokens and pages away; returns them. The node then starts behind them."""
        ids, pages = self._ids[:num_tokens].copy(), self._pages[:num_pages].copy()
        self._ids = self._ids[num_tokens : self.n].copy()
        self._pages = self._pages[num_pages : self.num_pages].copy()
        self.memory = None
        self.n -= num_tokens
        self.num_pages -= num_pages
        self.start += num_tokens
        return ids, pages

    def take_pages(self, which: NDArray[np.bool_]) -> Int32:
        """A node that was cut off loses pages (bool [num_pages]) to the lease that gave them. Returns them."""
        pages = self.pages
        self._pages, self.num_pages = pages[~which], self.num_pages - int(which.sum())
        return pages[which]

    def __repr__(self) -> str:
        state = "dead " if self.dead else ""
        return f"<{state}node {self.uid} [{self.start}, {self.end}) locks {self.locks} pending {self.pending}>"


def make_root(uid: int, namespace: Namespace) -> Node:
    """The node above all prefixes of a namespace: no tokens, no pages."""
    root = Node(uid, None, NO_IDS, NO_IDS, pending=0, created=0)
    root.namespace = namespace
    return root


def _appended(buffer: Int32, used: int, more: Int32) -> Int32:
    total = used + len(more)
    if total > len(buffer):
        larger = np.empty(max(16, 2 * total), np.int32)
        larger[:used] = buffer[:used]
        buffer = larger
    buffer[used:total] = more
    return buffer


def _trimmed(buffer: Int32, used: int) -> Int32:
    """The same buffer, or a small copy where most of it would be kept for nothing."""
    return buffer if len(buffer) <= 2 * used + 16 else buffer[:used].copy()
