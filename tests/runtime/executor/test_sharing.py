"""Which rows begin with the same pages: what is kept from step to step equals a comparison of all pairs, whatever happened."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
import pytest

from ramify.runtime.executor.sharing import PageSharing

ROWS, PAGES = 7, 40


def alike(a: list[int], b: list[int]) -> int:
    """How many entries two lists begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def column(values: list[int]) -> np.ndarray:
    return np.array(values, np.int32)


class Table:
    """A page table with the pages that each row uses, as lists: the naive model."""

    def __init__(self, rows: int = ROWS, pages: int = PAGES):
        self.pages = np.zeros((rows, pages), np.int32)
        self.sharing = PageSharing(self.pages)
        self.used: dict[int, list[int]] = {}

    def write(self, row: int, first: int, values: list[int]) -> None:
        """The row's entries from `first` on; it uses the table up to there."""
        rows, indices, pages = column([row] * len(values)), column(list(range(first, first + len(values)))), column(values)
        self.sharing.writing(rows, indices, pages)
        self.pages[rows, indices] = pages
        self.used[row] = [*self.used.get(row, [])[:first], *values]

    def check(self, rows: list[int]) -> None:
        """Every two rows share the least of the counts between them."""
        used = [self.used[row] for row in rows]
        order, common = self.sharing.of(column(rows), column([len(pages) for pages in used]))
        assert sorted(order.tolist()) == list(range(len(rows))) and common[0] == 0
        for i in range(len(rows)):
            for j in range(i):
                assert common[j + 1 : i + 1].min() == alike(used[order[j]], used[order[i]])


def live(table: Table, draw: Random) -> None:
    """One thing that happens to a row: two page numbers, so that beginnings collide."""
    row, pages = draw.randrange(ROWS), [draw.choice((3, 4)) for _ in range(draw.randint(1, 5))]
    used = table.used.get(row)
    what = draw.choice(("enter", "fork", "fork", "grow", "grow", "grow", "rewrite", "rewind", "leave"))
    if what == "enter":
        table.used.pop(row, None)
        table.write(row, 0, pages)
    elif what == "fork":
        of = draw.choice([*table.used, row])
        if of != row:
            table.used.pop(row, None)
            table.write(row, 0, table.used[of][: draw.randint(1, PAGES)])
    elif used is not None and what == "grow" and len(used) + len(pages) <= PAGES:
        table.write(row, len(used), pages)
    elif used is not None and what == "rewrite":
        at = draw.randrange(len(used))
        table.write(row, at, pages[:1])
        table.used[row] += used[at + 1 :]
    elif used is not None and what == "rewind":
        table.used[row] = used[: draw.randint(1, len(used))]
    elif what == "leave":
        table.used.pop(row, None)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_to_rows_the_answer_is_that_of_comparing_all_pairs(seed: int) -> None:
    """Rows enter, are forked, grow, are rewritten, rewound and left; some or all of them are in a step."""
    draw, table = Random(seed), Table()
    for _ in range(300):
        live(table, draw)
        rows = [row for row in table.used if draw.random() < 0.8]
        draw.shuffle(rows)
        if rows:
            table.check(rows)


def test_rows_of_a_tree_stand_beside_those_that_share_most() -> None:
    table = Table()
    table.write(4, 0, [7, 8, 9, 20])
    table.write(2, 0, [11, 12])
    table.write(1, 0, [7, 8, 9, 3, 5])
    table.write(6, 0, [7, 8, 9, 3, 1, 4])
    order, common = table.sharing.of(column([1, 2, 4, 6]), column([5, 2, 4, 6]))
    beside = {frozenset(pair): count for pair, count in zip(pairwise(order.tolist()), common[1:].tolist(), strict=True)}
    assert beside[frozenset((0, 3))] == 4 and sorted(common.tolist()) == [0, 0, 3, 4]


def test_a_step_that_only_lengthens_rows_moves_none() -> None:
    table = Table(rows=64, pages=300)
    shared = list(range(100, 200))
    for row in range(64):
        table.write(row, 0, [*shared, 1000 + row])
    rows = list(range(64))
    table.check(rows)
    before = table.sharing._columns
    for step in range(5):
        for row in rows:
            table.write(row, 101 + step, [2000 + 64 * step + row])
        table.check(rows)
    assert table.sharing._columns is before


def test_what_a_former_row_left_in_the_table_is_not_shared() -> None:
    table = Table()
    table.write(0, 0, [5, 6, 7, 8])
    table.write(1, 0, [5, 6, 7, 8])
    table.check([0, 1])
    table.used.pop(1)
    table.write(1, 0, [5, 6])
    _, common = table.sharing.of(column([0, 1]), column([4, 2]))
    assert common.tolist() == [0, 2]
