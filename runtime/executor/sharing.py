"""Which rows of a step begin with the same pages: rows in an order in which neighbours share most, kept from step to step.

    row 4   7 8 9 20        order    4  1  6  2          rows by their pages, as words are in a dictionary
    row 1   7 8 9 3 5       common   0  3  4  0          pages that a row begins with as the row before it does
    row 6   7 8 9 3 1 4
    row 2   11 12

Any two rows share the least of the counts between them, so the two columns are the whole tree. It is derived from the page
table alone: equal entries are the same memory, whatever the tokens are and whoever owns them. A row keeps its place while it
grows, because what tells it from its neighbours lies behind it already; so a step moves only rows that came or were changed.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from ..plan import Int32


class PageSharing:
    """The order of a page table's rows. Owned by the `SequenceTable`, which tells it of every write before it happens."""

    def __init__(self, pages: Int32):
        """pages: int32 [max_rows, max_pages], the table itself."""
        self._pages = pages
        self._order: list[int] = []
        self._common: list[int] = []
        self._columns: Int32 | None = None
        """order and common as arrays, while they are right."""
        self._known = np.zeros(len(pages), np.int32)
        """Pages of each row by which it was compared last; 0: it has no place."""
        self._needed = np.zeros(len(pages), np.int32)
        """So many pages tell each row from its neighbours: while it has them, and they stay as they are, its place is right."""
        self._span = np.zeros(len(pages), np.int32)

    def writing(self, rows: Int32, indices: Int32, pages: Int32) -> None:
        """pages[rows, indices] are about to be set to these. Rows that become others lose their place. Changes state."""
        changed = (indices < self._needed[rows]) & (self._pages[rows, indices] != pages)
        if changed.any():
            for row in np.unique(rows[changed]).tolist():
                self._remove(row)

    def of(self, rows: Int32, num_pages: Int32) -> tuple[Int32, Int32]:
        """What these rows share, by their first num_pages (at least 1) pages. rows: each once.

        Returns order and common, int32 [rows]: order[i] is an index into `rows`, and rows order[i - 1] and order[i] begin with
        the same common[i] pages; common[0] is 0. Gives rows their places: changes state, but no answer depends on it.
        """
        known, needed = self._known[rows], self._needed[rows]
        moves = (num_pages != known) & (np.minimum(num_pages, known) < np.maximum(needed, 1))
        self._known[rows] = num_pages
        if moves.any():
            for row in rows[moves & (known > 0)].tolist():
                self._remove(row)
            for row, count in zip(rows[moves].tolist(), num_pages[moves].tolist(), strict=True):
                self._insert(row, count)
        if self._columns is None:
            self._columns = np.array((self._order, self._common), np.int32)
        return self._chosen(rows, *self._columns)

    def _chosen(self, rows: Int32, order: Int32, common: Int32) -> tuple[Int32, Int32]:
        """The order of some of the placed rows. Those between two of them take away no more than what the two do not share."""
        self._span.fill(-1)
        self._span[rows] = np.arange(len(rows), dtype=np.int32)
        spans = self._span[order]
        if len(rows) == len(order):
            return spans, common
        places = np.flatnonzero(spans >= 0)
        common = np.minimum.reduceat(common[: places[-1] + 1], np.concatenate(([0], places[:-1] + 1)))
        common[0] = 0
        return spans[places], common

    def _insert(self, row: int, count: int) -> None:
        order, pages, known = self._order, self._pages, self._known
        known[row] = count
        place = bisect_left(order, pages[row, :count].tobytes(), key=lambda other: pages[other, : known[other]].tobytes())
        order.insert(place, row)
        self._common.insert(place, 0)
        for at in (place, place + 1):
            if 0 < at < len(order):
                self._common[at] = self._common_pages(order[at - 1], order[at])
        self._note(place - 1, place, place + 1)

    def _common_pages(self, a: int, b: int) -> int:
        """How many pages two rows begin with alike."""
        count = int(min(self._known[a], self._known[b]))
        differs = self._pages[a, :count] != self._pages[b, :count]
        first = int(differs.argmax())
        return first if differs[first] else count

    def _remove(self, row: int) -> None:
        place = self._order.index(row)
        del self._order[place]
        least = self._common.pop(place)
        if place < len(self._order):
            self._common[place] = min(least, self._common[place]) if place else 0
        self._known[row] = self._needed[row] = 0
        self._note(place - 1, place)

    def _note(self, *places: int) -> None:
        """The order has changed at these places."""
        self._columns = None
        for place in places:
            if 0 <= place < len(self._order):
                self._needed[self._order[place]] = 1 + max(self._common[place : place + 2])
