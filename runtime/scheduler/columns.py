"""The growing columns of one plan: spans of known tokens are added one by one, the decodes go in front at the end."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...constrained.matcher import Matcher
from ..plan import FROM_DEVICE, SAMPLE, Int32, RowEntry, StepPlan
from .rows import Rows


class Columns:
    """What `take` collects. wants: (span, offset, kind, row, position, top, logprob, mask), with want_ids beside it."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.starts: list[int] = []
        self.lengths: list[int] = []
        self.tokens: list[Int32] = []
        self.table: list[tuple[int, int, Int32]] = []
        self.copies: list[tuple[int, int]] = []
        self.entering: list[RowEntry] = []
        self.wants: list[tuple[int, int, int, int, int, int, int, int]] = []
        self.want_ids: list[tuple[int, ...]] = []

    def close(self, rows: Rows, decode: Int32, step: int) -> tuple[StepPlan, list[Matcher]]:
        """The plan, decodes first, and the matchers of its entries with a mask, in order. Changes the rows' counts."""
        count, at = len(decode), decode.astype(np.intp)  # NumPy indexes by intp, and would convert at each use
        length, forced, lengths = rows.length[at], rows.zeros[:count], rows.ones[:count]
        starts = length - 1
        jumped = bool(rows.forced.any())
        if jumped:
            forced = rows.forced[at]
            starts, lengths = starts - forced, lengths + forced
            rows.forced[at] = 0
        tokens = np.where(rows.known[at] == length, rows.history[at, starts], FROM_DEVICE)
        positions = starts
        if jumped:
            positions = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum(), dtype=np.int32)
            tokens = np.repeat(tokens, lengths)
            known = tokens != FROM_DEVICE
            tokens[known] = rows.history[np.repeat(at, lengths)[known], positions[known]]
        wants = np.array(self.wants, np.int32).reshape(-1, 8).T
        ids, ids_ptr = self._want_ids(rows, decode)
        chunks = [np.arange(s, s + n, dtype=np.int32) for s, n in zip(self.starts, self.lengths, strict=True)]
        plan = StepPlan(
            step=step,
            rows=_behind(decode, self.rows),
            starts=_behind(starts, self.starts),
            lengths=_behind(lengths, self.lengths),
            tokens=np.concatenate([tokens, *self.tokens]) if chunks else tokens,
            positions=np.concatenate([positions, *chunks]) if chunks else positions,
            table_row=_join(np.full(len(pages), row, np.int32) for row, _, pages in self.table),
            table_index=_join(np.arange(first, first + len(pages), dtype=np.int32) for _, first, pages in self.table),
            table_page=_join(pages for _, _, pages in self.table),
            copy_src=np.array([source for source, _ in self.copies], np.int32),
            copy_dst=np.array([target for _, target in self.copies], np.int32),
            entering=tuple(self.entering),
            want_span=_behind(rows.numbers[:count], wants[0]),
            want_offset=_behind(forced, wants[1]),
            want_kind=_behind(rows.zeros[:count] + SAMPLE, wants[2]),
            want_row=_behind(decode, wants[3]),
            want_position=_behind(length - rows.prompt[at], wants[4]),
            want_top=_behind(rows.want_top[at], wants[5]),
            want_ids=ids,
            want_ids_ptr=ids_ptr,
            want_logprob=_behind(rows.want_logprob[at], wants[6]),
            want_mask=_behind(rows.masked[at], wants[7]),
        )
        masked = plan.want_row[plan.want_mask != 0]
        rows.length[at] = length + 1
        rows.last_step[plan.rows] = step
        return plan, [_matcher(rows, row) for row in masked.tolist()]

    def _want_ids(self, rows: Rows, decode: Int32) -> tuple[Int32, Int32]:
        """Ids whose log-probability is wanted beside each entry, flat, and where each entry's begin."""
        decodes: list[tuple[int, ...]] = [()] * len(decode)
        if rows.careful[decode].any():
            sequences = [rows.sequences[r] for r in decode.tolist()]
            decodes = [s.logprobs.token_ids if s and s.logprobs.output else () for s in sequences]
        elif not self.want_ids:
            return np.empty(0, np.int32), np.zeros(len(decode) + 1, np.int32)
        listed = [*decodes, *self.want_ids]
        sizes = np.fromiter((len(ids) for ids in listed), np.int32, len(listed))
        ptr = np.concatenate([np.zeros(1, np.int32), np.cumsum(sizes, dtype=np.int32)])
        return np.array([i for ids in listed for i in ids], np.int32), ptr


def _matcher(rows: Rows, row: int) -> Matcher:
    sequence = rows.sequences[row]
    assert sequence is not None and sequence.matcher is not None
    return sequence.matcher


def _behind(decodes: Int32, others: Iterable[int]) -> Int32:
    """A column: what decodes have, and behind it what the other spans and wants have, of which most steps have none."""
    more = np.asarray(others, np.int32)
    return np.concatenate([decodes, more]) if len(more) else decodes


def _join(parts: Iterable[Int32]) -> Int32:
    arrays = list(parts)
    return np.concatenate(arrays).astype(np.int32, copy=False) if arrays else np.empty(0, np.int32)
