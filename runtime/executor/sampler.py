"""From logits to a token a row: what the table holds of the rows becomes the columns that the kernel takes.

Order: logit bias, penalties (repetition, frequency, presence), stop ids banned below the minimum length, grammar mask; then
argmax where the temperature is 0, else temperature, top_k, top_p, min_p, and one draw by inverse CDF in token-id order.
The number behind a draw comes from (seed, sample index, output position) alone, so neither the other rows nor preemption
change it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...kernels.sampling import interface as kernel
from ...kernels.sampling.philox import uniform
from ..plan import Int32
from .sequence_table import Int64, SequenceTable


@dataclass(frozen=True, slots=True)
class Draws:
    """What is to be drawn; one entry a token, all on the host.

    which: int64 [n], the logits row. rows: int32 [n], whose parameters. positions: int32 [n], output position, the draw's
    counter. masked: bool [n], whether a grammar mask belongs to it.
    """

    which: Int64
    rows: Int32
    positions: Int32
    masked: NDArray[np.bool_]


class Sampler:
    """Draws tokens with the parameters that the table holds. Keeps no state of its own."""

    def __init__(self, table: SequenceTable, ops: kernel.Sampling):
        self.table, self.ops = table, ops
        self.device = table.device

    def draw(self, logits: Tensor, draws: Draws, masks: Int32 | None) -> tuple[Tensor, Tensor]:
        """logits: [rows, vocab], not changed; masks: int32 [entries with a mask, words], bit set = allowed, in order.

        Returns tokens int64 [n], -1 where bad, and bad, bool [n]: the row held NaN or +inf, or nothing was allowed.
        """
        table, rows = self.table, draws.rows
        temperature = table.temperature[rows]
        banned = draws.positions < table.min_new_tokens[rows]
        edited = table.edited[rows] | draws.masked | banned
        return self.ops.sample(
            logits,
            kernel.Draws(
                which=draws.which,
                temperature=temperature,
                top_k=table.top_k[rows].astype(np.int64),
                top_p=table.top_p[rows],
                min_p=table.min_p[rows],
                uniform=self._numbers(draws, temperature > 0),
                edited=edited,
                edits=self._edits(draws, banned, masks) if edited.any() else None,
            ),
        )

    def _numbers(self, draws: Draws, random: NDArray[np.bool_]) -> NDArray[np.float32]:
        """One number in [0, 1) for each draw, 0 for those that need none."""
        numbers = np.zeros(len(random), np.float32)
        if random.any():
            rows = draws.rows[random]
            numbers[random] = uniform(self.table.keys[rows], draws.positions[random], self.table.sample_index[rows])
        return numbers

    def _edits(self, draws: Draws, banned: NDArray[np.bool_], masks: Int32 | None) -> kernel.Edits:
        table, rows = self.table, draws.rows.tolist()
        nothing = np.zeros(len(rows), np.int64)  # most steps with a mask have no other edit
        bias_end, bias_ids, bias_values = nothing, *_NO_BIAS
        if table.bias:
            bias = [table.bias.get(row, _NO_BIAS) for row in rows]
            bias_end = np.cumsum([len(ids) for ids, _ in bias])
            bias_ids, bias_values = (np.concatenate(parts) for parts in zip(*bias, strict=True))
        banned_end, banned_ids = nothing, _NO_IDS
        if banned.any():
            bans = [table.stop_ids.get(row, _NO_IDS) if ban else _NO_IDS for row, ban in zip(rows, banned.tolist(), strict=True)]
            banned_end, banned_ids = np.cumsum([len(ids) for ids in bans]), np.concatenate(bans)
        assert masks is not None or not draws.masked.any(), "grammar masks are wanted and were not given"
        return kernel.Edits(
            bias_end=bias_end,
            bias_ids=bias_ids,
            bias_values=bias_values,
            banned_end=banned_end,
            banned_ids=banned_ids,
            penalties=table.penalties.of(rows),
            mask=np.where(draws.masked, np.cumsum(draws.masked) - 1, -1),
            masks=masks if draws.masked.any() else None,
        )


_NO_IDS = np.empty(0, np.int64)
_NO_BIAS = _NO_IDS, np.empty(0, np.float32)
