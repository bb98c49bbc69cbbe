"""Which cached prefix goes first: orders as pure functions, and the queue of leaves that they order."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol

from .node import Node

Rank = tuple[int, ...]


class Standing(Protocol):
    """What an order may look at: logical times of last use and creation, and how often a use ended at or below the node."""

    @property
    def used(self) -> int: ...
    @property
    def hits(self) -> int: ...
    @property
    def created(self) -> int: ...


def lru(node: Standing) -> Rank:
    """Least recently used first."""
    return (node.used,)


def lfu(node: Standing) -> Rank:
    """Least often used first; among equals the least recently used."""
    return (node.hits, node.used)


def fifo(node: Standing) -> Rank:
    """Oldest first, however often it was used since."""
    return (node.created,)


ORDERS: dict[str, Callable[[Standing], Rank]] = {"lru": lru, "lfu": lfu, "fifo": fifo}
"""By name. The least rank is evicted first. A node's rank may only grow with time: the queue relies on it."""


class LeafQueue:
    """Leaves that may be evicted, least rank first, at logarithmic cost; nothing is sorted or rebuilt per victim.

    A node has at most one entry. Entries are put right when they surface: of a node that is locked or has children it is
    dropped (the node comes again when that changes), of a node used since it goes back with its present rank. Ranks only
    grow, so an entry never hides a node that should have surfaced before.
    """

    def __init__(self, order: Callable[[Standing], Rank]):
        self._order = order
        self._heap: list[tuple[Rank, int, Node]] = []
        self._dead = 0

    def push(self, node: Node) -> None:
        """The node is a leaf without locks now. Changes state."""
        if not node.queued:
            node.queued = True
            heapq.heappush(self._heap, (self._order(node), node.uid, node))

    def pop(self) -> Node | None:
        """The leaf to evict next, taken out of the queue; None if there is none. Changes state."""
        heap = self._heap
        while heap:
            rank, _, node = heapq.heappop(heap)
            node.queued = False
            if node.dead:
                self._dead -= 1
                continue
            if node.locks or node.children:
                continue
            now = self._order(node)
            if now > rank:
                self.push(node)
                continue
            return node
        return None

    def forget(self, node: Node) -> None:
        """The node has just died. Its entry goes with the next sweep, which comes once half of all entries are dead."""
        if not node.queued:
            return
        self._dead += 1
        if self._dead > 64 and 2 * self._dead > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].dead]
            heapq.heapify(self._heap)
            self._dead = 0

    def entries(self) -> list[Node]:
        """The nodes that have an entry, in no order. Answers only."""
        return [node for _, _, node in self._heap]

    def check(self) -> None:
        """One entry a node, ranks that never exceed the present ones. AssertionError says what is broken."""
        nodes = self.entries()
        assert len({n.uid for n in nodes}) == len(nodes), "a node is queued twice"
        assert all(n.queued for n in nodes), "a queued node does not know it"
        assert sum(n.dead for n in nodes) == self._dead, "dead entries are miscounted"
        for rank, _, node in self._heap:
            assert node.dead or rank <= self._order(node), f"the rank of {node} has shrunk"


class Ghosts:
    """Names of what has left lately, and why; the oldest are forgotten first. So that a miss can be explained."""

    def __init__(self, capacity: int = 4096):
        self._reasons: OrderedDict[Hashable, str] = OrderedDict()
        self._capacity = capacity

    def add(self, name: Hashable, reason: str) -> None:
        """Keep a name in mind. Changes state."""
        self._reasons[name] = reason
        if len(self._reasons) > self._capacity:
            self._reasons.popitem(last=False)

    def reason(self, name: Hashable) -> str | None:
        """Why it left, None if the name is not in mind. Answers only."""
        return self._reasons.get(name)
