"""The rows of the batch, as columns: what is running, and the counts that change at every step.

A decode step touches every row, so these counts are NumPy columns and a step's bookkeeping is a few vector operations;
Python looks at a single row only where something happens to it (it begins, needs pages, ends, has a grammar).
"""

from __future__ import annotations

import numpy as np

from ..plan import Int32
from .sequence import Sequence

STOPS = 8
"""Stop ids that are compared in columns; a sequence with more is looked at by itself."""


class Rows:
    """Columns over rows 0 .. max_running - 1. Only the scheduler changes them.

    known: tokens whose ids the host knows; length: known plus those being drawn by launched steps; capacity: positions that
    have pages; limit: length at which the sequence ends; prompt: tokens of the original prompt. computed: positions whose K and V
    settled steps have written, 0 before the first draw since the sequence entered the row. forced: known tokens beside the last
    one that no launched step covers. held: decodes no further before the steps in flight have settled. last_step: the last
    launched step with a span of the row. epoch: counts the sequences that have had the row, so that a late result finds out
    that its row has passed on. zeros, ones, numbers (0, 1, 2, ...): constants, for the columns of plans.
    """

    def __init__(self, max_running: int, context_length: int):
        self.max_running = max_running
        self.sequences: list[Sequence | None] = [None] * max_running
        self.free = list(range(max_running - 1, -1, -1))
        zeros = np.zeros((12, max_running), np.int32)
        self.known, self.length, self.capacity, self.limit, self.prompt = zeros[0], zeros[1], zeros[2], zeros[3], zeros[4]
        self.masked, self.want_logprob, self.want_top, self.index = zeros[5], zeros[6], zeros[7], zeros[8]
        self.last_step, self.computed, self.forced = zeros[9], zeros[10], zeros[11]
        self.epoch = np.zeros(max_running, np.int64)
        self.key = np.zeros(max_running, np.int64)
        self.decoding = np.zeros(max_running, np.bool_)
        self.careful = np.zeros(max_running, np.bool_)
        self.held = np.zeros(max_running, np.bool_)
        self.stops = np.full((max_running, STOPS), -1, np.int32)
        self.zeros, self.ones, self.numbers = constants = (
            *(np.full(max_running, value, np.int32) for value in (0, 1)),
            np.arange(max_running, dtype=np.int32),
        )
        for column in constants:
            column.flags.writeable = False
        # Touched page by page as sequences grow, so a long context costs nothing until it is used.
        self.history = np.empty((max_running, context_length + 1), np.int32)

    def take(self, sequence: Sequence) -> int:
        """Give `sequence` a row. Changes state; the caller has made sure that one is free."""
        row = self.free.pop()
        self.sequences[row] = sequence
        sequence.row = row
        known = len(sequence.ids)
        self.known[row] = self.length[row] = known
        self.capacity[row] = 0
        self.last_step[row] = -1
        self.limit[row] = sequence.limit
        self.prompt[row] = sequence.num_prompt
        self.key[row] = sequence.key
        self.index[row] = sequence.index
        self.decoding[row] = False
        self.computed[row] = self.forced[row] = 0
        self.held[row] = False
        drawing, logprobs = sequence.drawing, sequence.logprobs
        self.masked[row] = sequence.matcher is not None
        self.want_logprob[row] = logprobs.output
        self.want_top[row] = logprobs.top if logprobs.output else 0
        self.careful[row] = bool(sequence.matcher is not None or logprobs.output or len(drawing.stop_ids) > STOPS)
        self.stops[row] = -1
        stops = drawing.stop_ids[:STOPS]
        self.stops[row, : len(stops)] = stops
        self.history[row, :known] = sequence.ids
        return row

    def leave(self, sequence: Sequence) -> None:
        """Take the row back; the sequence keeps its ids. Changes state."""
        row = sequence.row
        sequence.ids = self.history[row, : self.known[row]].copy()
        sequence.row = -1
        self.sequences[row] = None
        self.decoding[row] = False
        self.epoch[row] += 1
        self.free.append(row)

    def ids(self, sequence: Sequence) -> Int32:
        """A view of the ids that are known of a sequence, wherever they live. Answers only."""
        if sequence.row < 0:
            return sequence.ids
        return self.history[sequence.row, : self.known[sequence.row]]

    def num_known(self, sequence: Sequence) -> int:
        """How many ids are known. Answers only."""
        return len(sequence.ids) if sequence.row < 0 else int(self.known[sequence.row])

    def ready(self) -> Int32:
        """Rows that decode and have a token left to draw. Answers only."""
        return np.flatnonzero(self.decoding & (self.length < self.limit) & ~self.held).astype(np.int32)

    def running(self) -> list[Sequence]:
        """Sequences that have a row, in order of rows. Answers only."""
        return [s for s in self.sequences if s is not None]

    @property
    def num_running(self) -> int:
        """Rows in use."""
        return self.max_running - len(self.free)
