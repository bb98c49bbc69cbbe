"""The prefix tree: match, insert, split, locks, and what leaves it. It knows pages by number and leases not at all.

    root ─┬─ [ system prompt ]─┬─ [ question 1 ]── [ answer, growing in place ]
          │                    └─ [ question 2 ]        pending on step 7: step 7 computes it, who is planned in 7 may read it
          └─ [ other prompt ]

Along every path the steps on which nodes are pending never decrease: what hangs below a node was computed with it or
later. So a failed step cuts off whole subtrees, and nothing that stays was computed from what did not come to be.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

from .events import EventBuffer, Removed, Stored
from .evict import Ghosts, LeafQueue
from .keys import Int32, Namespace, common_prefix, common_tokens, memory_of
from .node import Node, make_root
from .pages import PagePool


@dataclass(slots=True)
class Place:
    """Where a prefix ends in the tree.

    node: the last node that matches, None in an unknown namespace; pages: how many of its pages do. length: tokens in
    whole pages up to there; settled_length: how many of them are settled. partial: tokens beyond `length` that are found
    settled at the front of page number `source_page` of `source`. seen: matching tokens in all, usable or not.
    """

    node: Node | None
    pages: int = 0
    length: int = 0
    settled_length: int = 0
    source: Node | None = None
    source_page: int = -1
    partial: int = 0
    seen: int = 0


@dataclass(slots=True)
class Inserted:
    """What became of tokens given to the tree, counted in pages from the first of them.

    node: the deepest node that now spells them. taken: pages that the tree spells; fewer than given where a node that is
    still being computed by a later step stands in the way. added: pages that the tree now owns, the last of the taken.
    doubles: (first, stop) of pages that were there already, under other numbers.
    """

    node: Node
    taken: int
    added: int
    doubles: list[tuple[int, int]]


class RadixTree:
    """Nodes by namespace and token ids, with the counts that the cache's answers are made of."""

    def __init__(self, page_size: int, pool: PagePool, queue: LeafQueue, events: EventBuffer | None):
        self.page_size = page_size
        self.pool = pool
        self.queue = queue
        self.events = events
        self.roots: dict[Namespace, Node] = {}
        self.settled = 0
        self.clock = 0
        self.tokens = 0
        self.cached = 0
        """Pages in the tree."""
        self.evictable = 0
        """Pages in nodes without locks."""
        self.cut_off = 0
        """Pages of nodes that were cut off and are still held."""
        self._pending: dict[int, list[Node]] = {}
        self._ghosts = Ghosts()
        self._uids = 0

    # ---------------------------------------------------------------------------------------------------------- answers

    def find(self, namespace: Namespace, ids: Int32, limit: int, step: int) -> Place:
        """The longest prefix of ids[:limit] in the tree, nodes pending on steps up to `step` included. Answers only."""
        node = self.roots.get(namespace)
        if node is None:
            return Place(None)
        size, at, settled = self.page_size, 0, 0
        key = memory_of(ids)
        while at + size <= limit:
            child = node.children.get(key[4 * at : 4 * (at + size)])
            if child is None or child.pending > step:
                break
            whole = at + child.n <= limit and key.startswith(child.memory or child.view(), 4 * at)
            same = child.n if whole else common_prefix(child.ids, ids[at:limit])
            pages = same // size
            is_settled = child.pending <= self.settled
            settled = at + pages * size if is_settled else settled
            if pages < child.num_pages:
                rest = same - pages * size
                place = Place(child, pages, at + pages * size, settled, seen=at + same)
                if rest and is_settled:
                    place.source, place.source_page, place.partial = child, int(child.pages[pages]), rest
                return place
            node, at = child, at + same
        place = Place(node, node.num_pages, at, settled, seen=at)
        if node.order and at < limit:
            self._find_in_page(place, key[4 * at : 4 * min(at + size, limit)])
        return place

    def _find_in_page(self, place: Place, key: bytes) -> None:
        """Look for a page below place.node that begins as `key` does: a neighbour of `key` in the sorted order has most."""
        node = place.node
        assert node is not None
        at = bisect_left(node.order, key)
        best = (0, False)
        for other in node.order[max(at - 2, 0) : at + 2]:
            child, same = node.children[other], common_tokens(key, other)
            place.seen = max(place.seen, place.length + same)
            rank = (same, child.n == same and not child.locks)
            if child.pending <= self.settled and rank > best:
                best = rank
                place.source, place.source_page, place.partial = child, int(child.pages[0]), same

    def covers(self, node: Node, key: bytes) -> bool:
        """Whether a settled page below `node` begins with `key` (part of a page) already. Answers only."""
        at = bisect_left(node.order, key)
        if at == len(node.order):
            return False
        other = node.order[at]
        return other.startswith(key) and node.children[other].pending <= self.settled

    def why_gone(self, namespace: Namespace, node: Node | None, key: bytes) -> str | None:
        """Why a page with ids `key` behind the end of `node` (None: in a bare namespace) left lately; None: it did not."""
        return self._ghosts.reason(_ghost(namespace, node, key))

    def pending_nodes(self) -> list[Node]:
        """The nodes that unsettled steps compute. Answers only."""
        return [node for nodes in self._pending.values() for node in nodes if not node.dead]

    # --------------------------------------------------------------------------------------------------- growth, splits

    def root(self, namespace: Namespace) -> Node:
        """The root of a namespace, made if it is new. Changes state."""
        root = self.roots.get(namespace)
        if root is None:
            root = self.roots[namespace] = make_root(self._next_uid(), namespace)
        return root

    def insert(self, node: Node, ids: Int32, pages: Int32, pending: int) -> Inserted:
        """Put whole pages of tokens behind the end of `node`, which one lease of the caller locks. Changes state.

        What other nodes spell already is passed through, under their pages. A node that nobody else uses grows in place.
        """
        size, at, total = self.page_size, 0, len(pages)
        pending = max(pending, node.pending)
        doubles: list[tuple[int, int]] = []
        while at < total:
            child = node.children.get(ids[at * size : (at + 1) * size].tobytes()) if node.children else None
            if child is None:
                if not doubles and self._may_grow(node, pending):
                    self._grow(node, ids, pages)
                else:
                    node = self.add(node, ids[at * size :], pages[at:], pending)
                return Inserted(node, total, total - at, doubles)
            if child.pending > max(pending, self.settled):
                break
            same = common_prefix(child.ids, ids[at * size :]) // size
            node = child if same == child.num_pages else self.split(child, same)
            doubles.append((at, at + same))
            at += same
        return Inserted(node, at, 0, doubles)

    def add(self, parent: Node, ids: Int32, pages: Int32, pending: int) -> Node:
        """A new child, without locks; both arrays are copied. Changes state."""
        node = Node(self._next_uid(), parent, ids.copy(), pages.copy(), pending=pending, created=self.tick())
        self._attach(node)
        if pending > self.settled:
            self._pending.setdefault(pending, []).append(node)
        self.tokens += node.n
        self.cached += node.num_pages
        self.evictable += node.num_pages
        if self.events is not None:
            self._tell_stored(node, 0, 0)
        return node

    def split(self, node: Node, num_pages: int) -> Node:
        """Cut a node in two; returns the upper part, which is new. The lower one stays the same object, so that whoever
        holds it still ends where it did. Changes state."""
        parent = node.parent
        assert parent is not None and 0 < num_pages < node.num_pages
        self._detach(node)
        ids, pages = node.cut_front(num_pages * self.page_size, num_pages)
        upper = Node(self._next_uid(), parent, ids, pages, pending=node.pending, created=node.created)
        upper.locks = 1 if node.locks else 0
        self._attach(upper)
        node.parent = upper
        self._attach(node)
        if node.pending > self.settled:
            self._pending[node.pending].append(upper)
        return upper

    def _may_grow(self, node: Node, pending: int) -> bool:
        alone = node.locks == 1 and not node.children and node.parent is not None
        return alone and (node.pending == pending or max(node.pending, pending) <= self.settled)

    def _grow(self, node: Node, ids: Int32, pages: Int32) -> None:
        num_tokens, num_pages = node.n, node.num_pages
        node.append(ids, pages)
        self.tokens += len(ids)
        self.cached += len(pages)
        if self.events is not None:
            self._tell_stored(node, num_tokens, num_pages)

    # ------------------------------------------------------------------------------------------------------ locks, time

    def tick(self) -> int:
        """The next logical time. Changes state."""
        self.clock += 1
        return self.clock

    def touch(self, node: Node) -> None:
        """The prefix that ends with `node` was used now; what is above it inherits this when it becomes a leaf."""
        node.used = self.tick()

    def lock(self, node: Node) -> None:
        """Nothing up to the end of `node` may be evicted until `unlock`. Changes state; stops at the first locked parent."""
        above: Node | None = node
        while above is not None:
            above.locks += 1
            if above.locks > 1:
                return
            self.evictable -= above.num_pages
            above = above.parent

    def unlock(self, node: Node) -> None:
        """Undo one `lock`. A node that was cut off gives its pages back when its last lock goes. Changes state."""
        below: Node | None = node
        while below is not None:
            below.locks -= 1
            if below.locks:
                return
            if below.dead:
                self.cut_off -= below.num_pages
                self.pool.give(below.pages)
            else:
                self.evictable += below.num_pages
                self._may_go(below)
            below = below.parent

    def settle(self, step: int) -> None:
        """Steps up to `step` are computed: what was pending on them is settled. Changes state."""
        self.settled = step
        for done in [s for s in self._pending if s <= step]:
            del self._pending[done]

    # ---------------------------------------------------------------------------------------------------------- leaving

    def evict(self, num_pages: int) -> tuple[int, int]:
        """Evict until `num_pages` pages are free or nothing is left to evict. Returns tokens and pages evicted.

        Of the last victim only the end goes that is needed. Changes state.
        """
        tokens, pages, pool = self.tokens, self.cached, self.pool
        while pool.free < num_pages:
            node = self.queue.pop()
            if node is None:
                break
            missing = num_pages - pool.free
            if node.num_pages > missing:
                self._trim(node, node.num_pages - missing, "evicted")
            else:
                self._remove(node, "evicted")
        return tokens - self.tokens, pages - self.cached

    def drop(self, node: Node, keep: int) -> None:
        """A leaf without locks loses all but its first `keep` pages, although there is room. Changes state."""
        if keep:
            self._trim(node, keep, "dropped")
        else:
            self._remove(node, "dropped")

    def withdraw(self, node: Node) -> None:
        """Take a leaf that only the caller locks out of the tree, lock and all; its pages become the caller's."""
        parent = node.parent
        assert node.locks == 1 and not node.children and parent is not None
        self._leave(node, "replaced")
        node.locks = 0
        self.unlock(parent)

    def cut(self, step: int) -> None:
        """Cut off all that is pending on `step` or a later one, and all below it. Its pages stay until their holders go."""
        for late in sorted(s for s in self._pending if s >= step):
            for top in self._pending.pop(late):
                if top.dead:
                    continue
                self._detach(top)
                doomed = [top]
                for node in doomed:  # grows while it is walked
                    doomed += node.children.values()
                for node in reversed(doomed):
                    self._bury(node)
                if top.parent is not None and not top.parent.locks:
                    self._may_go(top.parent)

    def _bury(self, node: Node) -> None:
        """Part of `cut`: the node is unreachable; it holds its pages, and through its parent pointer the path above."""
        assert node.parent is not None
        node.parent.used = max(node.parent.used, node.used)
        self._count_out(node, "cut off")
        node.children, node.order = {}, []
        if node.locks:
            self.cut_off += node.num_pages
        else:
            self.evictable -= node.num_pages
            self.pool.give(node.pages)

    def _remove(self, node: Node, reason: str) -> None:
        """A whole leaf goes."""
        parent = node.parent
        assert parent is not None and not node.locks and not node.children
        self._ghosts.add(_ghost(self._namespace(node), parent, node.key), reason)
        self.evictable -= node.num_pages
        self._leave(node, reason)
        self.pool.give(node.pages)
        if not parent.locks:
            self._may_go(parent)

    def _trim(self, node: Node, keep: int, reason: str) -> None:
        """The end of a leaf goes, all but its first `keep` pages."""
        num_tokens, gone = keep * self.page_size, node.num_pages - keep
        first_ids = node.ids[num_tokens : num_tokens + self.page_size].tobytes()
        pages, lost = node.pages[keep:].copy(), node.n - num_tokens
        node.keep_front(num_tokens, keep)
        self._ghosts.add(_ghost(self._namespace(node), node, first_ids), reason)
        self.tokens -= lost
        self.cached -= gone
        self.evictable -= gone
        if self.events is not None:
            self.events.add(Removed(self._namespace(node), node.end, lost, pages, reason))
        self.pool.give(pages)
        self.queue.push(node)

    def _leave(self, node: Node, reason: str) -> None:
        """A leaf goes; its parent inherits when it was used, and how often."""
        parent = node.parent
        assert parent is not None
        self._detach(node)
        self._count_out(node, reason)
        parent.used = max(parent.used, node.used)
        parent.hits += node.hits

    def _count_out(self, node: Node, reason: str) -> None:
        node.dead = True
        self.queue.forget(node)
        self.tokens -= node.n
        self.cached -= node.num_pages
        if self.events is not None:
            self.events.add(Removed(self._namespace(node), node.start, node.n, node.pages.copy(), reason))

    def _may_go(self, node: Node) -> None:
        """A node without locks: a leaf may be evicted, a root without children is forgotten."""
        if node.children:
            return
        if node.parent is not None:
            self.queue.push(node)
        else:
            del self.roots[self._namespace(node)]

    # ------------------------------------------------------------------------------------------------------------ parts

    def _attach(self, node: Node) -> None:
        parent = node.parent
        assert parent is not None
        node.key = key = node.ids[: self.page_size].tobytes()
        parent.children[key] = node
        if self.page_size > 1:
            insort(parent.order, key)

    def _detach(self, node: Node) -> None:
        parent = node.parent
        assert parent is not None
        del parent.children[node.key]
        if self.page_size > 1:
            del parent.order[bisect_left(parent.order, node.key)]

    def _next_uid(self) -> int:
        self._uids += 1
        return self._uids

    def _namespace(self, node: Node) -> Namespace:
        namespace = node.root.namespace
        assert namespace is not None
        return namespace

    def _tell_stored(self, node: Node, num_tokens: int, num_pages: int) -> None:
        """Report what the node holds from its token `num_tokens` and page `num_pages` on."""
        assert self.events is not None and node.parent is not None
        before = node.pages[:num_pages] if num_pages else node.parent.pages
        ids, pages = node.ids[num_tokens:].copy(), node.pages[num_pages:].copy()
        parent_page = int(before[-1]) if len(before) else -1
        self.events.add(Stored(self._namespace(node), node.start + num_tokens, ids, pages, parent_page))


def _ghost(namespace: Namespace, node: Node | None, key: bytes) -> tuple[object, int, bytes]:
    """The name of a page that follows the end of `node`. Roots come and go with what is below them: their name stays."""
    if node is None or node.parent is None:
        return namespace, 0, key
    return node.uid, node.end, key
