"""What the cache answers: values, taken at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .tree import RadixTree


@dataclass(frozen=True, slots=True)
class Match:
    """How much of a key is cached, and why not more.

    length: leading tokens that a lease would cover now (if the key ends inside a page, given a page for the copy).
    settled_length: how many of them are computed already; the others will be by a step that is planned or launched.
    diverged_at: index of the first token that is not cached, -1 if all that were looked for are.
    reason: hit (all ids), limit (all up to the limit), never seen, evicted, dropped (taken back), other namespace (another one
    has more of it), pending page (the rest is in a page that is still being computed).
    """

    length: int
    settled_length: int
    diverged_at: int
    reason: str


@dataclass(frozen=True, slots=True)
class CacheView:
    """What admission looks at: numbers of pages. available: free, or free after evicting all that no lease needs."""

    free_pages: int
    evictable_pages: int
    draining: int
    total_pages: int
    page_size: int

    @property
    def available(self) -> int:
        """Pages that `grow` can hand out now."""
        return self.free_pages + self.evictable_pages


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Where the pages are: free + cached + private + draining == total, at all times; and what happened so far.

    cached = evictable + locked: pages in the tree. private: held by leases alone. draining: waiting for a launched step, or
    for the holders of what was cut off. tokens: in the tree. queried_tokens, hit_tokens: asked of `acquire`, found by it.
    """

    total: int
    free: int
    cached: int
    evictable: int
    private: int
    draining: int
    page_size: int
    tokens: int
    leases: int
    acquired: int
    queried_tokens: int
    hit_tokens: int
    evicted_tokens: int
    evicted_pages: int

    @property
    def locked(self) -> int:
        """Cached pages that may not be evicted now."""
        return self.cached - self.evictable


def as_json(tree: RadixTree) -> dict[str, Any]:
    """The tree as JSON values: a flat list of nodes, parents before children. Pure; as slow as the tree is large."""
    nodes: list[dict[str, Any]] = []
    for namespace, root in tree.roots.items():
        todo = list(root.children.values())
        for node in todo:  # grows while it is walked
            todo += node.children.values()
            nodes.append(
                {
                    "id": node.uid,
                    "parent": None if node.parent is None or node.parent is root else node.parent.uid,
                    "namespace": [namespace.tenant, namespace.adapter, namespace.weights],
                    "start": node.start,
                    "length": node.n,
                    "ids": node.ids.tolist(),
                    "pages": node.pages.tolist(),
                    "locks": node.locks,
                    "pending": node.pending if node.pending > tree.settled else None,
                    "used": node.used,
                }
            )
    return {"page_size": tree.page_size, "settled": tree.settled, "tokens": tree.tokens, "nodes": nodes}
