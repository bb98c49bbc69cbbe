"""A released lease takes back what it gave to the tree: branches that were tried and lost.

prompt ──┬─ [ w w w ]        kept: somebody goes on from here
         └─ [ l l l ]── [ l l ]    from the end up: given by this lease, leased by nobody, with nothing below
"""

from __future__ import annotations

from bisect import bisect_left

from .lease import Lease
from .node import Node
from .tree import RadixTree


def retract(tree: RadixTree, lease: Lease, num_tokens: int) -> int:
    """Drop what the lease gave behind its first num_tokens tokens; see `PrefixCache.retract`. Returns the tokens dropped."""
    before, node = tree.tokens, lease.tail or lease.node
    while node.parent is not None and node.end > num_tokens:
        parent = node.parent
        if not node.dead:  # what was evicted since is gone already; the lease may have given what was above it, too
            if node.locks or node.children:
                break
            keep = _kept_pages(tree, lease, node, num_tokens)
            if keep < node.num_pages:
                tree.drop(node, keep)
            if keep:
                break
        node = parent
    return before - tree.tokens


def _kept_pages(tree: RadixTree, lease: Lease, node: Node, num_tokens: int) -> int:
    """How many of the node's pages stay: those before num_tokens, and those up to the last one that others gave."""
    size = tree.page_size
    least, inside = divmod(max(num_tokens - node.start, 0), size)
    keep = node.num_pages
    while keep > least and _gave(lease, node, keep - 1, size):
        keep -= 1
    cut_inside = keep == least and inside and keep < node.num_pages
    return keep + 1 if cut_inside and (keep or not _another_begins(tree, node, inside)) else keep


def _gave(lease: Lease, node: Node, index: int, size: int) -> bool:
    """Whether page `index` of the node is the one that the lease gave, and not one that took its place since."""
    at = node.start // size + index
    given = node is lease.tail or any(first <= at < stop for first, stop in lease.added)
    return given and lease.pages[at] == node.pages[index]


def _another_begins(tree: RadixTree, node: Node, num_tokens: int) -> bool:
    """Whether another page beside the node's first one begins with the same num_tokens tokens, computed."""
    parent, front = node.parent, node.ids[:num_tokens].tobytes()
    assert parent is not None
    at = bisect_left(parent.order, front)
    others = [parent.children[key] for key in parent.order[at : at + 2] if key.startswith(front)]
    return any(other is not node and other.pending <= tree.settled for other in others)
