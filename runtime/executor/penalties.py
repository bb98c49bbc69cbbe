"""What penalties must know of a row: how often each token was output, and which tokens its prompt held.

Dense counts over the vocabulary, on the device, and only for the rows that use a penalty: memory grows with them. Tokens
are counted when they are fed to the model, which is before the next choice of their row, so that sampled, forced and
recomputed tokens need no cases of their own: each position is counted once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...kernels.sampling.interface import Penalties
from ...kernels.upload import upload
from ..plan import Int32, RowEntry

NO_PENALTY = (0.0, 0.0, 1.0)
"""Presence, frequency, repetition."""


class PenaltyCounts:
    """Counts of the rows that use a penalty. `row in counts` tells whether one does."""

    def __init__(self, *, vocab: int, device: torch.device):
        self.vocab, self.device = vocab, device
        self._place: dict[int, int] = {}
        self._free: list[int] = []
        self._counted: dict[int, int] = {}
        self._strength: dict[int, tuple[float, float, float]] = {}
        self._counts = torch.zeros(0, vocab, dtype=torch.int32, device=device)
        self._in_prompt = torch.zeros(0, vocab, dtype=torch.bool, device=device)

    def __contains__(self, row: int) -> bool:
        return row in self._place

    def enter(self, entry: RowEntry) -> None:
        """The row starts with its history counted, or, without a penalty, gives its memory back. Changes state."""
        row = entry.row
        if row in self._place:
            self._free.append(self._place.pop(row))
        strength = (entry.presence_penalty, entry.frequency_penalty, entry.repetition_penalty)
        if strength == NO_PENALTY:
            return
        history = np.empty(0, np.int32) if entry.history is None else entry.history
        place = self._place[row] = self._free.pop() if self._free else self._grow()
        self._strength[row] = strength
        self._counted[row] = len(history)
        (ids,) = upload([history.astype(np.int64)], self.device)
        prompt, output = ids[: entry.num_prompt], ids[entry.num_prompt :]
        self._in_prompt[place].zero_().index_fill_(0, prompt, True)
        self._counts[place].zero_().index_add_(0, output, torch.ones_like(output, dtype=torch.int32))

    def _grow(self) -> int:
        """Twice the places, old contents kept. Returns a free one."""
        size = len(self._counts)
        more = max(size, 4)
        self._counts = torch.cat([self._counts, self._counts.new_zeros(more, self.vocab)])
        self._in_prompt = torch.cat([self._in_prompt, self._in_prompt.new_zeros(more, self.vocab)])
        self._free.extend(range(size + more - 1, size, -1))
        return size

    def feed(self, rows: Int32, starts: Int32, lengths: Int32, token_ids: Tensor) -> None:
        """The step's spans: rows, starts, lengths int32 [spans]; token_ids: int64, flat, on the device. Counts what is new."""
        if not self._place:
            return
        ends = np.cumsum(lengths)
        for row, start, length, end in zip(rows.tolist(), starts.tolist(), lengths.tolist(), ends.tolist(), strict=True):
            if row not in self._place:
                continue
            new = min(start + length - self._counted[row], length)
            if new > 0:
                ids = token_ids[end - new : end]
                self._counts[self._place[row]].index_add_(0, ids, torch.ones_like(ids, dtype=torch.int32))
                self._counted[row] = start + length

    def of(self, rows: list[int]) -> Penalties | None:
        """What the kernel takes, one entry a row; None if no row has a penalty. Shares the counts' memory."""
        if not self._place:
            return None
        place = np.array([self._place.get(row, -1) for row in rows], np.int64)
        if not (place >= 0).any():
            return None
        strengths = np.array([self._strength[row] if row in self else NO_PENALTY for row in rows], np.float32)
        return Penalties(place=place, counts=self._counts, in_prompt=self._in_prompt, strengths=strengths.T.copy())
