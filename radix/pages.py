"""The pool's pages: which are free, kept as runs, and which are read by a copy that has not happened yet.

Pages are numbers here; what they hold is the executor's. Free pages are maximal runs of neighbours, because a lease whose
pages are neighbours is a short page table. A lease that grows gets the pages behind its last one where they are free;
else it starts in the middle of a large run, so that it and the one before it both have room to grow.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from .keys import Int32


class PagePool:
    """The free pages of `num_pages`, as runs, and the pins on pages that a planned copy still reads."""

    def __init__(self, num_pages: int):
        self.num_pages = num_pages
        self.free = 0
        self._length: dict[int, int] = {}  # first page of a free run -> its length
        self._first: dict[int, int] = {}  # page behind a free run -> its first page
        # First pages by the bit length of their run's length. Ordered dicts: with plain ones, taking from the front again
        # and again scans all that was taken before.
        self._classes: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(num_pages.bit_length() + 1)]
        self._used_classes = 0  # bit c: class c is not empty
        self._pins: dict[int, int] = {}
        self._aside: set[int] = set()  # given back while pinned: free once the last pin is gone
        if num_pages:
            self._add(0, num_pages)
            self.free = num_pages

    @property
    def pinned(self) -> int:
        """Pinned pages that have not been given back. Answers only."""
        return len(self._pins) - len(self._aside)

    @property
    def aside(self) -> int:
        """Pages that were given back but wait for a copy that reads them. Answers only."""
        return len(self._aside)

    def take(self, out: Int32, after: int) -> None:
        """Fill `out` (int32 [n], n <= free) with free pages, which then are taken. Changes state.

        after: the page before the first wanted one, or -1: its neighbours are preferred.
        """
        done, wanted = 0, len(out)
        assert wanted <= self.free, f"{wanted} pages wanted, {self.free} free"
        self.free -= wanted
        run = self._length.get(after + 1) if after >= 0 else None
        if run is not None:
            done = min(run, wanted)
            self._carve(after + 1, after + 1, done)
            if done == 1:
                out[0] = after + 1
            else:
                out[:done] = np.arange(after + 1, after + 1 + done)
        while done < wanted:
            first = next(iter(self._classes[self._used_classes.bit_length() - 1]))
            run, rest = self._length[first], wanted - done
            at = first + run // 2 if run >= 2 * rest else first
            count = min(run, rest)
            self._carve(first, at, count)
            out[done : done + count] = np.arange(at, at + count)
            done += count

    def give(self, pages: Int32) -> None:
        """Take pages back: int32 [n], each page once, none of them free. Changes state."""
        if self._pins and len(pages):
            pages = self._set_aside(pages)
        count = len(pages)
        if not count:
            return
        self.free += count
        if count == 1:
            self._join(int(pages[0]), 1)
            return
        breaks = np.flatnonzero(pages[1:] != pages[:-1] + 1)
        if not len(breaks):
            self._join(int(pages[0]), count)
            return
        starts = [0, *(breaks + 1).tolist(), count]
        for i in range(len(starts) - 1):
            self._join(int(pages[starts[i]]), starts[i + 1] - starts[i])

    def pin(self, page: int) -> None:
        """A planned copy reads this page: even when given back, it is not handed out until unpinned. Changes state."""
        self._pins[page] = self._pins.get(page, 0) + 1

    def unpin(self, page: int) -> None:
        """One copy from this page is done or dropped. Changes state."""
        count = self._pins[page] - 1
        if count:
            self._pins[page] = count
            return
        del self._pins[page]
        if page in self._aside:
            self._aside.remove(page)
            self.free += 1
            self._join(page, 1)

    def is_pinned(self, page: int) -> bool:
        """Whether a planned copy reads this page. Answers only."""
        return page in self._pins

    def pins(self) -> dict[int, int]:
        """Pinned pages and by how many copies. Answers only."""
        return dict(self._pins)

    def runs(self) -> list[tuple[int, int]]:
        """The free runs as (first page, length), in order. Answers only."""
        return sorted(self._length.items())

    def pages_aside(self) -> list[int]:
        """The pages that wait for a copy, in order. Answers only."""
        return sorted(self._aside)

    def check(self) -> None:
        """The runs are maximal, disjoint, in step with their indexes and with the count. AssertionError says what is broken."""
        runs, behind = self.runs(), -1
        for first, length in runs:
            assert length > 0 and behind < first and first + length <= self.num_pages, f"run ({first}, {length}) is misplaced"
            assert self._first.get(first + length) == first, f"run ({first}, {length}) cannot be found from its end"
            assert first in self._classes[length.bit_length()], f"run ({first}, {length}) is in the wrong size class"
            behind = first + length
        assert len(self._first) == len(runs) == sum(len(c) for c in self._classes), "an index of the runs has extra entries"
        assert self._used_classes == sum(1 << i for i, c in enumerate(self._classes) if c), "the map of size classes is wrong"
        assert self.free == sum(length for _, length in runs), f"{self.free} pages counted free, the runs hold others"
        assert self._aside <= self._pins.keys(), "a page waits for a copy that does not exist"

    def _set_aside(self, pages: Int32) -> Int32:
        pinned = np.isin(pages, list(self._pins))
        if not pinned.any():
            return pages
        self._aside.update(pages[pinned].tolist())
        return pages[~pinned]

    def _carve(self, first: int, at: int, count: int) -> None:
        """Cut pages [at, at + count) out of the run that starts at `first`."""
        length = self._length[first]
        self._drop(first, length)
        if at > first:
            self._add(first, at - first)
        if first + length > at + count:
            self._add(at + count, first + length - at - count)

    def _join(self, first: int, length: int) -> None:
        """Add a run, merged with its neighbours."""
        before = self._first.get(first)
        if before is not None:
            self._drop(before, first - before)
            first, length = before, length + first - before
        behind = self._length.get(first + length)
        if behind is not None:
            self._drop(first + length, behind)
            length += behind
        self._add(first, length)

    def _add(self, first: int, length: int) -> None:
        self._length[first] = length
        self._first[first + length] = first
        size = length.bit_length()
        self._classes[size][first] = None
        self._used_classes |= 1 << size

    def _drop(self, first: int, length: int) -> None:
        del self._length[first], self._first[first + length]
        size = length.bit_length()
        members = self._classes[size]
        del members[first]
        if not members:
            self._used_classes &= ~(1 << size)
