"""The invariants of the cache, verified by walking everything. For tests, and for a look at a cache that is suspected."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from .lease import UNKNOWN_STEP, Lease
from .node import Node
from .tree import RadixTree

if TYPE_CHECKING:
    from .cache import PrefixCache


def check(cache: PrefixCache) -> None:
    """Raise AssertionError with what is broken. Answers only."""
    cache._pool.check()
    cache._tree.queue.check()
    live = _live_nodes(cache._tree)
    dead = _dead_nodes(cache)
    _check_nodes(cache._tree, live)
    _check_locks(cache, live, dead)
    for lease in cache._leases:
        _check_lease(lease, cache._tree)
    _check_counts(cache, live, dead)
    _check_pages(cache, live, dead)
    _check_pins(cache)


def _live_nodes(tree: RadixTree) -> list[Node]:
    nodes = list(tree.roots.values())
    for node in nodes:  # grows while it is walked
        nodes += node.children.values()
    return nodes


def _dead_nodes(cache: PrefixCache) -> dict[int, Node]:
    """Nodes that were cut off and are still held, by uid."""
    found: dict[int, Node] = {}
    for holder in [*(lease.node for lease in cache._leases), *cache._due.nodes()]:
        node: Node | None = holder
        while node is not None and node.dead and node.uid not in found:
            found[node.uid] = node
            node = node.parent
    return found


def _check_nodes(tree: RadixTree, live: list[Node]) -> None:
    size = tree.page_size
    for node in live:
        assert not node.dead, f"{node} is in the tree, but dead"
        assert node.used <= tree.clock and node.created <= tree.clock, f"{node} was used after the present time"
        assert len(node.ids) == node.n and len(node.pages) == node.num_pages == -(-node.n // size), f"{node}: wrong pages"
        assert node.order == (sorted(node.children) if size > 1 else []), f"{node}: its children are out of order"
        for key, child in node.children.items():
            assert child.parent is node and child.root is node.root and child.start == node.end, f"{child} hangs wrongly"
            assert child.key == key == child.ids[:size].tobytes(), f"{child} has the wrong key"
            assert child.n > 0 and child.start % size == 0, f"{child} is empty or begins inside a page"
            assert child.n % size == 0 or (child.n < size and not child.children), f"{child}: part of a page, not a tail"
            assert max(child.pending, tree.settled) >= node.pending, f"{child} was computed before its parent {node}"
            assert child.created >= node.created, f"{child} is older than its parent {node}"
        if node.parent is None:
            assert node.namespace is not None and tree.roots[node.namespace] is node, "a root is misplaced"
            assert node.children or node.locks, "a root without children or locks is kept"
    pending = {n.uid for n in live if n.pending > tree.settled}
    assert pending == {n.uid for n in tree.pending_nodes()}, "the list of pending nodes is wrong"


def _check_locks(cache: PrefixCache, live: list[Node], dead: dict[int, Node]) -> None:
    """A node's locks are the leases and waiting locks that end there, and its children with locks, dead ones included."""
    expected: Counter[int] = Counter()
    for lease in cache._leases:
        expected[lease.node.uid] += 1
        if lease.tail is not None:
            expected[lease.tail.uid] += 1
    for node in cache._due.nodes():
        expected[node.uid] += 1
    for node in [*live, *dead.values()]:
        if node.locks and node.parent is not None:
            expected[node.parent.uid] += 1
    queued = {n.uid for n in cache._tree.queue.entries()}
    for node in [*live, *dead.values()]:
        assert node.locks == expected.pop(node.uid, 0), f"{node}: locks do not equal what holds it"
        if node.pending > cache._tree.settled:
            assert node.locks, f"{node} is pending and nobody holds it"
        if not (node.locks or node.children or node.dead or node.parent is None):
            assert node.uid in queued, f"{node} may be evicted, but is not queued"
    assert not expected, f"nodes {sorted(expected)} are held, but gone"


def _check_lease(lease: Lease, tree: RadixTree) -> None:
    size, in_tree, node = tree.page_size, lease.in_tree, lease.node
    assert not lease.released, "a released lease is still listed"
    assert node.end % size == 0, "a lease's path ends inside a page"
    assert lease.length <= lease.capacity, f"a lease knows {lease.length} tokens in {lease.capacity} positions"
    path = []
    above: Node | None = node
    while above is not None:
        path.append(above.pages)
        above = above.parent
    own = np.zeros(lease.num_pages, bool)
    for first, stop in lease.doubles:
        assert 0 <= first < stop <= in_tree and not own[first:stop].any(), "doubles overlap, or lie outside of the path"
        own[first:stop] = True
    if not lease.is_cut:
        same = lease.pages[:in_tree] == np.concatenate(path[::-1])
        assert (same != own[:in_tree]).all(), "a lease's pages are neither its path's nor its doubles"
    assert lease.blocked or len(lease.lag) < size, "a lease keeps whole pages to itself"
    if lease.tail is not None:
        tail = lease.tail
        assert tail.parent is node and tail.n <= len(lease.lag) and not tail.dead, "a lease's tail is not at its end"
        assert tail.locks == 1, "a tail has two owners"
        assert (tail.ids == lease.lag[: tail.n]).all(), "a tail spells other tokens than its lease"
        assert lease.pages[in_tree] == tail.pages[0], "a tail is not in its lease's page"
    if lease.pinned:
        assert lease.copy is not None and lease.copy_step == UNKNOWN_STEP, "a copy's source is pinned for no reason"


def _check_counts(cache: PrefixCache, live: list[Node], dead: dict[int, Node]) -> None:
    tree, stats = cache._tree, cache.stats()
    assert tree.tokens == sum(n.n for n in live), "the tree's tokens are miscounted"
    assert tree.cached == sum(n.num_pages for n in live), "the tree's pages are miscounted"
    assert tree.evictable == sum(n.num_pages for n in live if not n.locks), "the evictable pages are miscounted"
    assert tree.cut_off == sum(n.num_pages for n in dead.values()), "the pages that were cut off are miscounted"
    assert stats.private == sum(len(lease.own_pages()) for lease in cache._leases), "the private pages are miscounted"
    assert stats.free + stats.cached + stats.private + stats.draining == stats.total, f"pages do not add up: {stats}"


def _check_pages(cache: PrefixCache, live: list[Node], dead: dict[int, Node]) -> None:
    """Every page is at one place."""
    places: Counter[int] = Counter()
    for first, length in cache._pool.runs():
        places.update(range(first, first + length))
    for node in [*live, *dead.values()]:
        places.update(node.pages.tolist())
    for lease in cache._leases:
        places.update(lease.own_pages().tolist())
    places.update(cache._due.pages())
    places.update(cache._pool.pages_aside())
    twice = [page for page, count in places.items() if count > 1]
    assert not twice, f"pages {twice} are at two places"
    assert len(places) == cache.num_pages, f"{cache.num_pages - len(places)} pages are nowhere"


def _check_pins(cache: PrefixCache) -> None:
    pins = Counter(lease.copy.src_page for lease in cache._leases if lease.pinned and lease.copy is not None)
    pins.update(cache._due.pins())
    assert pins == cache._pool.pins(), "the pins are not those of the copies on their way"
