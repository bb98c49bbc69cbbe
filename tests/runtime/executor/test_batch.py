"""A plan as index arrays: slots, positions, and each wanted logits row once."""

import numpy as np
import pytest
import torch

from ramify.runtime.executor.batch import build
from ramify.runtime.executor.forward import distinct
from ramify.runtime.executor.sequence_table import SequenceTable
from ramify.runtime.plan import FROM_DEVICE, StepPlan


def _i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize("page_size", [1, 4])
def test_a_tokens_slot_follows_its_rows_pages(page_size: int) -> None:
    rng = np.random.default_rng(page_size)
    table = SequenceTable(max_rows=5, max_pages=40, vocab=10, device=torch.device("cpu"))
    pages = rng.permutation(200).reshape(5, 40).astype(np.int32)
    table.write_pages(np.repeat(np.arange(5, dtype=np.int32), 40), np.tile(np.arange(40, dtype=np.int32), 5), pages.reshape(-1))
    spans = [(4, 3, 9), (0, 0, 1), (2, 17, 20)]
    tokens = rng.integers(0, 10, 30).astype(np.int32)
    tokens[[9, 29]] = FROM_DEVICE
    plan = StepPlan(
        0,
        rows=_i32(4, 0, 2),
        starts=_i32(3, 0, 17),
        lengths=_i32(9, 1, 20),
        tokens=tokens,
        positions=np.arange(30, dtype=np.int32) * 2,
    )
    batch = build(plan, table, page_size)
    places = [(row, start + i) for row, start, length in spans for i in range(length)]
    assert batch.columns[2].tolist() == [int(pages[r, p // page_size]) * page_size + p % page_size for r, p in places]
    assert batch.columns[1].tolist() == list(range(0, 60, 2))
    assert batch.columns[0].tolist() == tokens.tolist() and batch.rows[[9, 29]].tolist() == [0, 2]
    assert batch.attention.query_start.tolist() == [0, 9, 10]


def test_outputs_wanted_of_the_same_token_share_one_logits_row() -> None:
    table = SequenceTable(max_rows=3, max_pages=8, vocab=10, device=torch.device("cpu"))
    spans = {
        "rows": _i32(0, 1),
        "starts": _i32(0, 0),
        "lengths": _i32(4, 3),
        "tokens": _i32(*range(7)),
        "positions": _i32(*range(7)),
    }
    shared = build(StepPlan(0, **spans, want_span=_i32(1, 0, 1, 1, 0), want_offset=_i32(2, 3, 2, 0, 3)), table, 1)
    rows, which = distinct(shared.wanted)
    assert (rows.tolist(), which.tolist()) == ([3, 4, 6], [2, 0, 2, 1, 0])
    apart = build(StepPlan(0, **spans, want_span=_i32(0, 0, 1), want_offset=_i32(1, 3, 2)), table, 1)
    rows, which = distinct(apart.wanted)
    assert (rows.tolist(), which.tolist()) == ([1, 3, 6], [0, 1, 2])


def test_without_tree_attention_spans_are_told_nothing() -> None:
    for tree_attention in (True, False):
        table = SequenceTable(max_rows=2, max_pages=8, vocab=10, device=torch.device("cpu"), tree_attention=tree_attention)
        for row in (0, 1):
            table.write_pages(np.full(3, row, np.int32), np.arange(3, dtype=np.int32), _i32(5, 6, 7 + row))
        spans = {"rows": _i32(0, 1), "starts": _i32(2, 2), "lengths": _i32(1, 1), "tokens": _i32(3, 3), "positions": _i32(2, 2)}
        assert (build(StepPlan(0, **spans), table, 1).attention.sharing is not None) == tree_attention


@pytest.mark.parametrize("page_size", [1, 4])
def test_spans_are_told_what_their_rows_have_in_common(page_size: int) -> None:
    table = SequenceTable(max_rows=4, max_pages=8, vocab=10, device=torch.device("cpu"))
    for row, pages in ((3, (5, 6, 7)), (0, (5, 6, 8)), (2, (9, 6, 7))):
        table.write_pages(np.full(3, row, np.int32), np.arange(3, dtype=np.int32), _i32(*pages))

    def together(*rows: int) -> set[tuple[frozenset[int], int]]:
        count = len(rows)
        spans = {"rows": _i32(*rows), "starts": np.full(count, 3 * page_size - 1, np.int32), "lengths": np.ones(count, np.int32)}
        tokens = {"tokens": np.zeros(count, np.int32), "positions": np.zeros(count, np.int32)}
        sharing = build(StepPlan(0, **spans, **tokens), table, page_size).attention.sharing
        assert sharing is not None and sharing.shared[0] == 0
        beside = zip(sharing.order[:-1].tolist(), sharing.order[1:].tolist(), sharing.shared[1:].tolist(), strict=True)
        return {(frozenset((rows[a], rows[b])), count) for a, b, count in beside if count}

    assert together(2, 0, 3) == {(frozenset((0, 3)), 2 * page_size)}
    assert together(2, 3) == set()
    table.write_pages(_i32(2, 2), _i32(0, 2), _i32(5, 8))
    assert sorted(count for _, count in together(2, 3, 0)) == [2 * page_size, 3 * page_size]
    assert (frozenset((0, 2)), 3 * page_size) in together(2, 3, 0)
    alone = StepPlan(0, rows=_i32(2), starts=_i32(0), lengths=_i32(1), tokens=_i32(0), positions=_i32(0))
    assert build(alone, table, page_size).attention.sharing is None
