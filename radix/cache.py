"""The prefix cache: every page of the KV pool is free, cached in the tree, private to a lease, or draining. It sees no tensors.

    lease = cache.acquire(namespace, ids, limit=len(ids) - 1, step=n)   the longest cached prefix, locked
    cache.grow(lease, num_tokens)                                       pages for positions [0, num_tokens)
    cache.insert(lease, ids, step=n)                                    step n computes these: others may lease them from now on
    cache.settle(n)                                                     steps up to n are computed
    cache.commit(lease, ids)                                            computed already (sampled ones): others may lease them
    cache.release(lease, step=n)                                        the one way back; n: the last launched step that uses it
    cache.retract(lease, num_tokens)                                    what it gave to the tree behind them is of no use

Steps are numbers that only grow; the first is 1. In each layer of a step all K and V are written before attention reads,
so who is planned in step n may lease what is pending on step n or before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .answers import CacheStats, CacheView, Match, as_json
from .check import check
from .due import Due
from .events import EventBuffer
from .evict import ORDERS, LeafQueue
from .keys import NO_IDS, Int32, Namespace, as_ids
from .lease import UNKNOWN_STEP, Lease, PageCopy
from .pages import PagePool
from .retract import retract
from .rewind import go_back
from .tree import Place, RadixTree

__all__ = ["CacheStats", "CacheView", "Lease", "Match", "Namespace", "PageCopy", "PrefixCache"]

_MOST_OTHERS = 8
"""Namespaces that a miss is looked up in to be explained."""


class PrefixCache:
    """One radix tree of token ids over one pool of pages. Not thread-safe: its owner is the scheduler."""

    def __init__(self, *, num_pages: int, page_size: int = 1, policy: str = "lru", num_events: int = 0):
        """num_pages pages of page_size tokens each. policy: a name in `evict.ORDERS`. num_events: how many `events` are kept
        for a reader (0: none are made). Raises ValueError."""
        if num_pages < 1 or page_size < 1:
            raise ValueError(f"A pool needs pages and tokens in them, not {num_pages} pages of {page_size}.")
        if policy not in ORDERS:
            raise ValueError(f"There is no eviction policy {policy!r}. Choose one of {', '.join(ORDERS)}.")
        self.num_pages = num_pages
        self.page_size = page_size
        self.policy = policy
        self.events = EventBuffer(num_events) if num_events else None
        self._pool = PagePool(num_pages)
        self._tree = RadixTree(page_size, self._pool, LeafQueue(ORDERS[policy]), self.events)
        self._due = Due(self._tree, self._pool)
        self._leases: set[Lease] = set()
        self._private = 0
        self._lagging: dict[int, list[Lease]] = {}
        self._acquired = self._queried = self._hit = self._evicted_tokens = self._evicted_pages = 0

    # ---------------------------------------------------------------------------------------------------------- answers

    def match(self, namespace: Namespace, ids: Int32 | Sequence[int], *, limit: int | None = None) -> Match:
        """What `acquire` would find of ids[:limit], and why not more. Answers only: not even the time of use changes.

        "other namespace" speaks of the same tenant only: nobody learns what another tenant has cached.
        """
        ids = as_ids(ids)
        limit = len(ids) if limit is None else max(0, min(limit, len(ids)))
        place = self._tree.find(namespace, ids, limit, UNKNOWN_STEP)
        length = place.length + place.partial
        settled = length if place.settled_length == place.length else place.settled_length
        if length >= limit:
            return Match(length, settled, -1, "hit" if limit == len(ids) else "limit")
        if place.seen >= limit:
            return Match(length, settled, length, "pending page")
        return Match(length, settled, place.seen, self._reason(namespace, ids, limit, place))

    def _reason(self, namespace: Namespace, ids: Int32, limit: int, place: Place) -> str:
        at, node = place.length, place.node
        if node is None or place.pages == node.num_pages:
            key = ids[at : at + self.page_size].tobytes()
            if (gone := self._tree.why_gone(namespace, node, key)) is not None:
                return gone
        others = [n for n in self._tree.roots if n.tenant == namespace.tenant and n != namespace]
        for other in others[:_MOST_OTHERS]:
            if self._tree.find(other, ids, limit, UNKNOWN_STEP).length > at:
                return "other namespace"
        return "never seen"

    def view(self) -> CacheView:
        """A cheap snapshot for admission. `grow` succeeds exactly when `available` covers the pages it needs. Answers only."""
        evictable = max(0, self._tree.evictable - self._pool.pinned)
        return CacheView(self._pool.free, evictable, self._draining, self.num_pages, self.page_size)

    def stats(self) -> CacheStats:
        """Where the pages are, and what happened so far. Answers only."""
        tree = self._tree
        return CacheStats(
            total=self.num_pages,
            free=self._pool.free,
            cached=tree.cached,
            evictable=tree.evictable,
            private=self._private,
            draining=self._draining,
            page_size=self.page_size,
            tokens=tree.tokens,
            leases=len(self._leases),
            acquired=self._acquired,
            queried_tokens=self._queried,
            hit_tokens=self._hit,
            evicted_tokens=self._evicted_tokens,
            evicted_pages=self._evicted_pages,
        )

    def tree(self) -> dict[str, Any]:
        """The tree as JSON values, parents before children; the nodes' lengths sum up to `stats().tokens`. Answers only."""
        return as_json(self._tree)

    def check(self) -> None:
        """Verify every invariant by walking everything. AssertionError says what is broken. Answers only; slow."""
        check(self)

    @property
    def _draining(self) -> int:
        return self._due.num_pages + self._tree.cut_off + self._pool.aside

    # -------------------------------------------------------------------------------------------------- acquire and grow

    def acquire(self, namespace: Namespace, ids: Int32 | Sequence[int], *, limit: int, step: int) -> Lease:
        """Lock the longest cached prefix of ids[:limit], as step `step` may read it. Changes state; never fails.

        The lease has the pages of the prefix. Where the prefix ends inside a page, it has a page of its own there, and
        `lease.copy` says what is to be copied into it; when no page is free for that, the prefix ends at the page before.
        """
        ids, tree = as_ids(ids), self._tree
        limit = max(0, min(limit, len(ids)))
        place = tree.find(namespace, ids, limit, max(step, tree.settled))
        node = place.node if place.node is not None else tree.root(namespace)
        if place.pages < node.num_pages:
            node = tree.split(node, place.pages)
        lease = Lease(namespace, node, self.page_size)
        self._leases.add(lease)
        tree.lock(node)
        tree.touch(node)
        node.hits += 1
        if place.partial:
            self._enter_page(lease, place, ids[place.length : place.length + place.partial])
        self._acquired += 1
        self._queried += limit
        self._hit += lease.length
        return lease

    def _enter_page(self, lease: Lease, place: Place, ids: Int32) -> None:
        """The match goes on inside a page: a tail that nobody extends is taken over, else its beginning is copied."""
        source, page, tree, pool = place.source, place.source_page, self._tree, self._pool
        assert source is not None
        tree.touch(source)
        if source.n == len(ids) and not source.locks:
            tree.lock(source)
            lease.tail = source
            lease.room(1)[0] = page
            lease.lag, lease.lag_step = ids.copy(), tree.settled
            return
        pool.pin(page)
        if not self._make_free(1):
            pool.unpin(page)
            return
        after = int(lease.pages[-1]) if lease.num_pages else -1
        pool.take(lease.room(1), after)
        self._private += 1
        lease.copy = PageCopy(page, int(lease.pages[-1]), len(ids))
        lease.copy_at = lease.num_pages - 1
        lease.pinned = True
        lease.lag, lease.lag_step = ids.copy(), UNKNOWN_STEP

    def grow(self, lease: Lease, num_tokens: int) -> bool:
        """Pages for positions [0, num_tokens), evicting if too few are free. False: not enough, and nothing has changed."""
        count = -(-num_tokens // self.page_size) - lease.num_pages
        if count <= 0:
            return True
        assert not lease.released and not lease.is_cut, "a lease that was released or cut off cannot grow"
        if count > self._pool.free and not self._make_free(count):
            return False
        after = int(lease.pages[-1]) if lease.num_pages else -1
        self._pool.take(lease.room(count), after)
        self._private += count
        return True

    def _make_free(self, num_pages: int) -> bool:
        pool, tree = self._pool, self._tree
        if num_pages <= pool.free:
            return True
        if num_pages > pool.free + tree.evictable - pool.pinned:
            return False
        tokens, pages = tree.evict(num_pages)
        self._evicted_tokens += tokens
        self._evicted_pages += pages
        return pool.free >= num_pages

    # ------------------------------------------------------------------------------------------------- insert and commit

    def insert(self, lease: Lease, ids: Int32 | Sequence[int], *, step: int) -> None:
        """ids, the tokens behind lease.length, are computed by `step`, which is being planned. Changes state.

        Whole pages can be leased by others from now on, the rest once `step` has settled. Where another lease has inserted
        the same tokens, this one keeps its own pages; they are dropped when it is released.
        """
        ids = as_ids(ids)
        assert step > self._tree.settled, f"step {step} has settled already ({self._tree.settled})"
        assert not lease.released and not lease.is_cut, "a lease that was released or cut off takes no tokens"
        lease.last_step = max(lease.last_step, step)
        if lease.copy is not None and lease.copy_step == UNKNOWN_STEP:
            lease.copy_step = step
            self._unpin(lease, step)
        if len(ids):
            self._extend(lease, ids, step)

    def commit(self, lease: Lease, ids: Int32 | Sequence[int]) -> None:
        """ids, the tokens behind lease.length, are computed: others may lease them. Changes state.

        A lease that a failed step has cut off takes none: nothing changes.
        """
        ids = as_ids(ids)
        assert not lease.released, "a lease that was released takes no tokens"
        if lease.is_cut or not len(ids):
            return
        if lease.copy is not None and lease.copy_step == UNKNOWN_STEP:
            lease.copy_step = self._tree.settled
            self._unpin(lease, self._tree.settled)
        self._extend(lease, ids, self._tree.settled)

    def _extend(self, lease: Lease, ids: Int32, step: int) -> None:
        """Append tokens to what the lease has inserted; step: who computes them (a settled one: they are computed)."""
        assert lease.length + len(ids) <= lease.capacity, (
            f"{len(ids)} tokens behind {lease.length} do not fit {lease.capacity} positions: grow the lease first"
        )
        if lease.blocked:
            self._retry(lease)
        known = len(lease.lag)
        tokens = np.concatenate((lease.lag, ids)) if known else ids
        if known and lease.lag_step != UNKNOWN_STEP:
            step = max(step, lease.lag_step)
        whole = 0 if lease.blocked else len(tokens) // self.page_size
        if whole:
            if lease.tail is not None:
                self._withdraw_tail(lease)
            taken = self._publish(lease, tokens[: whole * self.page_size], step)
            lease.blocked = taken < whole
            tokens = tokens[taken * self.page_size :]
        lease.lag = tokens.copy() if len(tokens) else NO_IDS
        lease.lag_step = step
        if len(tokens) and step > self._tree.settled:
            self._lagging.setdefault(step, []).append(lease)

    def _publish(self, lease: Lease, ids: Int32, step: int) -> int:
        """Put whole pages behind lease.node into the tree. Returns how many the tree spells now."""
        tree, first, old = self._tree, lease.in_tree, lease.node
        count = len(ids) // self.page_size
        done = tree.insert(old, ids, lease.pages[first : first + count], step)
        if done.node is not old:
            tree.lock(done.node)
            tree.unlock(old)
            lease.node = done.node
        lease.note([(first + a, first + b) for a, b in done.doubles], done.added)
        self._private -= done.added
        tree.touch(done.node)
        return done.taken

    def _retry(self, lease: Lease) -> None:
        """A lease that waited for another one's node: go on if that, and all that waits, is computed now."""
        settled = self._tree.settled
        if lease.lag_step > settled:
            return
        lag, lease.lag, lease.blocked = lease.lag, NO_IDS, False
        self._extend(lease, lag, settled)

    def _publish_tail(self, lease: Lease) -> None:
        """Let others copy the beginning of the lease's last page, as far as it is computed."""
        tree, lag, node = self._tree, lease.lag, lease.node
        if not 0 < len(lag) < self.page_size or max(lease.lag_step, node.pending) > tree.settled:
            return
        if lease.tail is not None:
            if lease.tail.n == len(lag):
                return
            self._withdraw_tail(lease)
        if tree.covers(node, lag.tobytes()) or lag.tobytes() in node.children:
            return
        at = lease.in_tree
        lease.tail = tree.add(node, lag, lease.pages[at : at + 1], tree.settled)
        tree.lock(lease.tail)
        self._private -= 1

    def _withdraw_tail(self, lease: Lease) -> None:
        assert lease.tail is not None
        self._tree.withdraw(lease.tail)
        lease.tail = None
        self._private += 1

    # -------------------------------------------------------------------------------------------------- settle and fail

    def settle(self, step: int) -> None:
        """All steps up to `step` are computed, or failed and cut off: what waited for them is free or settled. Changes state."""
        if step <= self._tree.settled:
            return
        self._tree.settle(step)
        self._due.settle(step)
        for done in sorted(s for s in self._lagging if s <= step):
            for lease in self._lagging.pop(done):
                if not (lease.released or lease.is_cut):
                    self._catch_up(lease)

    def _catch_up(self, lease: Lease) -> None:
        if lease.blocked:
            self._retry(lease)
        if not lease.blocked:
            self._publish_tail(lease)

    def fail(self, step: int) -> None:
        """`step`, and all launched after it, could not be computed: what is pending on them is cut off. Changes state.

        Leases that hold some of it keep their pages, but can only be rewound or released.
        """
        self._tree.cut(step)
        for lease in self._leases:
            if lease.copy is not None and lease.copy_step >= step:
                lease.failed = lease.copy_failed = True
        for late in [s for s in self._lagging if s >= step]:
            for lease in self._lagging.pop(late):
                if len(lease.lag) and lease.lag_step == late:
                    lease.failed = True

    # ----------------------------------------------------------------------------------------------- rewind and release

    def release(self, lease: Lease, *, step: int) -> None:
        """Give a lease back. What it committed stays cached, what it inserted becomes so with its step; the pages that are
        its own are free once `step`, the last launched step that reads or writes any of its pages, has settled."""
        assert not lease.released, "a lease was released twice"
        until = max(step, lease.last_step)
        if not lease.is_cut:
            self._catch_up(lease)
            self._tree.touch(lease.tail or lease.node)
        own = lease.own_pages()
        self._private -= len(own)
        self._due.give(own, until)
        if lease.tail is not None:
            self._due.unlock(lease.tail, until)
        self._due.unlock(lease.node, until)
        self._unpin(lease, until)
        lease.released = True
        self._leases.remove(lease)

    def retract(self, lease: Lease, num_tokens: int) -> int:
        """What a released lease gave to the tree behind its first num_tokens tokens leaves it, from the end as far as nobody
        leases it and nothing hangs below. Returns how many tokens went. Changes state.

        Whole pages go: one in which the kept tokens end stays, unless another page begins as it does."""
        assert lease.released, "a lease is released before it is retracted"
        return retract(self._tree, lease, num_tokens)

    def flush(self) -> int:
        """Evict everything that no lease and no launched step needs. Returns how many tokens went. Changes state."""
        tokens, pages = self._tree.evict(self.num_pages + 1)
        self._evicted_tokens += tokens
        self._evicted_pages += pages
        return tokens

    def rewind(self, lease: Lease, num_tokens: int, *, step: int) -> int:
        """The lease keeps its first num_tokens tokens; pages behind them drain until `step` has settled. Changes state.

        Returns how many tokens it keeps: fewer than asked where what another lease inserted was cut off, where the copy
        that the lease began with did not happen, or where a page that others may read would have to be kept in part.
        lease.length may be smaller still: what it keeps behind that is private again, to be inserted or committed anew.
        """
        assert not lease.released, "a lease that was released cannot be rewound"
        until, own = max(step, lease.last_step), len(lease.own_pages())
        gone = go_back(self._tree, self._pool, lease, num_tokens)
        for node in gone.nodes:
            self._due.unlock(node, until)
        self._due.give(gone.pages, until)
        self._private += len(lease.own_pages()) - own
        if lease.copy is not None and lease.copy_at >= lease.num_pages:
            self._unpin(lease, until)
            lease.copy = None
        lease.failed = lease.copy_failed = False
        return gone.kept

    def _unpin(self, lease: Lease, step: int) -> None:
        if lease.pinned and lease.copy is not None:
            lease.pinned = False
            self._due.unpin(lease.copy.src_page, step)
