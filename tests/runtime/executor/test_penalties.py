"""Counts for penalties: each position of a sequence is counted once, whatever brought it in."""

import numpy as np
import torch

from ramify.runtime.executor.penalties import PenaltyCounts
from ramify.runtime.plan import RowEntry

VOCAB = 11


def _feed(counts: PenaltyCounts, spans: list[tuple[int, int, list[int]]]) -> None:
    rows, starts, lengths = (np.array(column, np.int32) for column in zip(*[(r, s, len(t)) for r, s, t in spans], strict=True))
    counts.feed(rows, starts, lengths, torch.tensor([token for _, _, ids in spans for token in ids]))


def _penalized(row: int, history: list[int], num_prompt: int) -> RowEntry:
    return RowEntry(row=row, presence_penalty=1.0, history=np.array(history, np.int32), num_prompt=num_prompt)


def _of(counts: PenaltyCounts, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Counts, in_prompt and strengths of rows that have a penalty."""
    found = counts.of(rows)
    assert found is not None and (found.place >= 0).all()
    return found.counts[found.place], found.in_prompt[found.place], found.strengths


def test_chunks_decodes_forced_runs_and_recomputation_count_each_position_once() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCAB, 30).tolist()
    counts = PenaltyCounts(vocab=VOCAB, device=torch.device("cpu"))
    counts.enter(_penalized(3, ids[:12], 10))  # preempted after two tokens of output
    for start, end in ((0, 5), (5, 12), (12, 13), (13, 19), (10, 19), (18, 20), (20, 30)):
        _feed(counts, [(7, start, [0] * 4), (3, start, ids[start:end])])
        found, in_prompt, _ = _of(counts, [3])
        reached = max(end, 12)
        assert found[0].tolist() == np.bincount(ids[10 : max(reached, 19 if start == 10 else 0)], minlength=VOCAB).tolist()
        assert set(torch.nonzero(in_prompt[0]).flatten().tolist()) == set(ids[:10])


def test_only_rows_with_a_penalty_take_memory_and_give_it_back() -> None:
    counts = PenaltyCounts(vocab=VOCAB, device=torch.device("cpu"))
    for row in range(20):
        counts.enter(RowEntry(row=row))
        assert row not in counts
    for row in range(9):
        counts.enter(_penalized(row, [row], 0))
    for row in range(9):
        counts.enter(RowEntry(row=row))
    for row in range(10, 20):
        counts.enter(_penalized(row, [row % VOCAB] * 3, 1))
    found, in_prompt, strengths = _of(counts, [12, 19])
    assert found.tolist() == [[2 if token == row % VOCAB else 0 for token in range(VOCAB)] for row in (12, 19)]
    assert in_prompt.int().tolist() == [[1 if token == row % VOCAB else 0 for token in range(VOCAB)] for row in (12, 19)]
    assert strengths.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert counts.of([1, 2]) is None
    mixed = counts.of([1, 12])
    assert mixed is not None and mixed.place[0] == -1 and mixed.strengths[:, 0].tolist() == [0, 0, 1]
