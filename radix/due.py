"""What comes free when a step has settled: pages, locks and pins that launched steps still rely on."""

from __future__ import annotations

from dataclasses import dataclass, field

from .keys import Int32
from .node import Node
from .pages import PagePool
from .tree import RadixTree


@dataclass(slots=True)
class _Batch:
    nodes: list[Node] = field(default_factory=list)
    pages: list[Int32] = field(default_factory=list)
    pins: list[int] = field(default_factory=list)


class Due:
    """Gives pages, locks and pins back: at once where their step has settled, else with it."""

    def __init__(self, tree: RadixTree, pool: PagePool):
        self._tree = tree
        self._pool = pool
        self._batches: dict[int, _Batch] = {}
        self.num_pages = 0
        """Pages that wait here."""

    def give(self, pages: Int32, step: int) -> None:
        """Pages that steps up to `step` read or write become free. The array is kept: nobody may write it later."""
        if not len(pages):
            return
        if step <= self._tree.settled:
            self._pool.give(pages)
        else:
            self._batch(step).pages.append(pages)
            self.num_pages += len(pages)

    def unlock(self, node: Node, step: int) -> None:
        """A path that steps up to `step` read loses a lock."""
        if step <= self._tree.settled:
            self._tree.unlock(node)
        else:
            self._batch(step).nodes.append(node)

    def unpin(self, page: int, step: int) -> None:
        """A copy that step `step` makes is done with its source."""
        if step <= self._tree.settled:
            self._pool.unpin(page)
        else:
            self._batch(step).pins.append(page)

    def settle(self, step: int) -> None:
        """Steps up to `step` have settled; the tree knows already."""
        for done in sorted(s for s in self._batches if s <= step):
            batch = self._batches.pop(done)
            for page in batch.pins:
                self._pool.unpin(page)
            for pages in batch.pages:
                self.num_pages -= len(pages)
                self._pool.give(pages)
            for node in batch.nodes:
                self._tree.unlock(node)

    def nodes(self) -> list[Node]:
        """The nodes whose locks wait here. Answers only."""
        return [node for batch in self._batches.values() for node in batch.nodes]

    def pages(self) -> list[int]:
        """The pages that wait here. Answers only."""
        return [page for batch in self._batches.values() for pages in batch.pages for page in pages.tolist()]

    def pins(self) -> list[int]:
        """The sources whose pins wait here. Answers only."""
        return [page for batch in self._batches.values() for page in batch.pins]

    def _batch(self, step: int) -> _Batch:
        batch = self._batches.get(step)
        if batch is None:
            batch = self._batches[step] = _Batch()
        return batch
