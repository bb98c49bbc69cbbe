"""A lease goes back to its first tokens: after a failed step, or where drafts were refused.

path          [ settled ][ settled ][ pending ][ pending ]  lag  own pages
after a failure          ^ what stands in the tree
                                    ^ what the lease itself computed before the failed step: its own pages again
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .keys import NO_IDS, Int32
from .lease import Lease
from .node import Node
from .pages import PagePool
from .tree import RadixTree


@dataclass(slots=True)
class Gone:
    """What a lease has lost. kept: tokens that it still has. pages: dropped ones that were its own. nodes: to be unlocked."""

    kept: int
    pages: Int32
    nodes: list[Node]


def go_back(tree: RadixTree, pool: PagePool, lease: Lease, num_tokens: int) -> Gone:
    """Shorten a lease to its first num_tokens tokens, or to fewer; see `PrefixCache.rewind`. Changes lease and tree."""
    old, old_tail, owned = lease.node, lease.tail, lease.owned()
    kept = max(0, min(num_tokens, lease.capacity))
    if lease.copy_failed:
        kept = min(kept, lease.copy_at * lease.page_size)
    if old.dead:
        kept = _leave_cut(tree, lease, kept, owned)
    if kept < lease.node.end:
        kept = _shorten_path(tree, lease, kept)
    elif old_tail is not None and kept < lease.node.end + old_tail.n:
        kept = _shorten_tail(tree, pool, lease, kept, owned)
    nodes = []
    if lease.tail is not None and (lease.node is not old or kept <= lease.node.end):
        nodes.append(lease.tail)
        lease.tail = None
    if lease.node is not old:
        tree.lock(lease.node)
        nodes.append(old)
        lease.lag = NO_IDS
    _shorten_lag(tree, lease, kept)
    return Gone(kept, lease.shorten(-(-kept // lease.page_size), owned), nodes)


def _leave_cut(tree: RadixTree, lease: Lease, kept: int, owned: NDArray[np.bool_]) -> int:
    """The path was cut off: go back to where it stands. Pages behind that whose tokens the lease had computed itself,
    before what failed, become its own again. Returns the tokens kept."""
    chain = [lease.node]
    while (above := chain[-1].parent) is not None and above.dead:
        chain.append(above)
    assert above is not None
    size = lease.page_size
    kept = min(kept, lease.made_until(above.end // size) * size)
    stop = -(-kept // size)
    for node in reversed(chain):
        first = node.start // size
        here = owned[first : first + node.num_pages]
        wanted = (np.arange(first, first + node.num_pages) < stop) & ~here
        tree.cut_off -= len(node.take_pages(wanted))
        here |= wanted
    lease.node = above
    return kept


def _shorten_path(tree: RadixTree, lease: Lease, kept: int) -> int:
    """End the path at the page of token `kept`, or inside it if it is the lease's double. Returns the tokens kept."""
    index, inside = divmod(kept, lease.page_size)
    if inside and not lease.is_double(index):
        kept -= inside
    node = lease.node
    while node.start > index * lease.page_size:
        assert node.parent is not None
        node = node.parent
    pages = index - node.start // lease.page_size
    if pages:
        lease.node = tree.split(node, pages)
    else:
        assert node.parent is not None
        lease.node = node.parent
    return kept


def _shorten_tail(tree: RadixTree, pool: PagePool, lease: Lease, kept: int, owned: NDArray[np.bool_]) -> int:
    """Part of the lease's tail is to be written again: it leaves the tree, or if it is being copied, the lease."""
    assert lease.tail is not None
    if kept <= lease.node.end or pool.is_pinned(int(lease.tail.pages[0])):
        return lease.node.end
    tree.withdraw(lease.tail)
    lease.tail = None
    owned[lease.in_tree] = True
    return kept


def _shorten_lag(tree: RadixTree, lease: Lease, kept: int) -> None:
    """Of the known tokens behind the path those are kept that are computed for sure."""
    sure = lease.lag_step <= tree.settled
    most = len(lease.lag) if sure else lease.tail.n if lease.tail is not None else 0
    count = max(0, min(most, kept - lease.node.end))
    lease.lag = lease.lag[:count].copy() if count else NO_IDS
    lease.lag_step = min(lease.lag_step, tree.settled)
    lease.blocked = lease.blocked and count >= lease.page_size
