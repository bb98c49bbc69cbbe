"""From logits to a token a row.

Order: logit bias, penalties (repetition, frequency, presence), stop ids banned below the minimum length, grammar mask; then
argmax where the temperature is 0, else temperature, top_k, top_p, min_p, and one draw by inverse CDF in token-id order.
The number behind a draw comes from (seed, sample index, output position) alone, so neither the other rows nor preemption
change it. Which of these steps a batch needs is known on the host; greedy rows without edits cost one argmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...kernels.sampling import reference as ops
from ...kernels.sampling.philox import uniform
from ..plan import Int32
from .batch import upload
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

    def __init__(self, table: SequenceTable):
        self.table = table
        self.device = table.device

    def draw(self, logits: Tensor, draws: Draws, masks: Int32 | None) -> tuple[Tensor, Tensor]:
        """logits: fp32 [rows, vocab], not changed; masks: int32 [entries with a mask, words], bit set = allowed, in order.

        Returns tokens int64 [n], -1 where bad, and bad, bool [n]: the row held NaN or +inf, or nothing was allowed.
        """
        table = self.table
        if len(draws.which) != len(logits) or (draws.which != np.arange(len(logits))).any():
            logits = logits[upload(draws.which, self.device)]
        best, tokens = ops.greedy(logits)
        bad = ~torch.isfinite(best)
        banned = draws.positions < table.min_new_tokens[draws.rows]
        plain = (table.temperature[draws.rows] == 0) & ~(table.edited[draws.rows] | draws.masked | banned)
        if not plain.all():
            chosen = np.flatnonzero(~plain)
            part = Draws(draws.which[chosen], draws.rows[chosen], draws.positions[chosen], draws.masked[chosen])
            ids, empty = self._choose(_take(logits, chosen), part, np.flatnonzero(banned[chosen]), masks)
            tokens = _put(tokens, chosen, ids)
            bad = _put(bad, chosen, _take(bad, chosen) | empty)
        return tokens.masked_fill(bad, -1), bad

    def _choose(self, logits: Tensor, draws: Draws, banned: Int64, masks: Int32 | None) -> tuple[Tensor, Tensor]:
        """Tokens of rows that need more than an argmax, and whether a row allowed nothing."""
        vocab = logits.shape[-1]
        padded = ops.pad_to_blocks(logits)
        self._edit(padded, draws.rows, banned, vocab)
        if draws.masked.any():
            assert masks is not None, "grammar masks are wanted and were not given"
            self._mask(padded[:, :vocab], np.flatnonzero(draws.masked), masks)
        largest = padded.amax(-1, keepdim=True)
        empty = largest.squeeze(-1) == -torch.inf
        temperature = self.table.temperature[draws.rows]
        random = np.flatnonzero(temperature > 0)
        if not len(random):
            return ops.greedy(padded)[1], empty
        weights = _take(padded, random) - _take(largest, random)
        weights.div_(upload(temperature[random], self.device).unsqueeze(-1)).exp_()
        weights = self._filter(weights, draws.rows[random], vocab)
        rows = draws.rows[random]
        numbers = uniform(self.table.keys[rows], draws.positions[random], self.table.sample_index[rows])
        drawn = ops.inverse_cdf(weights, upload(numbers, self.device))
        if len(random) == len(temperature):
            return drawn, empty
        return _put(ops.greedy(padded)[1], random, drawn), empty

    def _edit(self, padded: Tensor, rows: Int32, banned: Int64, vocab: int) -> None:
        """Bias, penalties, and the ban of stop ids, in place on [rows, padded]."""
        table, flat, width = self.table, padded.view(-1), padded.shape[-1]
        edited = np.flatnonzero(table.edited[rows]).tolist()
        biased = [i for i in edited if rows[i] in table.bias]
        if biased:
            ids = np.concatenate([table.bias[int(rows[i])][0] + i * width for i in biased])
            values = np.concatenate([table.bias[int(rows[i])][1] for i in biased])
            flat.index_add_(0, upload(ids, self.device), upload(values, self.device))
        penalized = [i for i in edited if rows[i] in table.penalties]
        if penalized:
            where = torch.tensor(penalized, device=self.device)
            counts, in_prompt, strengths = table.penalties.of(rows[penalized].tolist())
            presence, frequency, repetition = upload(strengths, self.device)
            padded[where, :vocab] = ops.penalize(
                padded[where, :vocab], counts, in_prompt, presence=presence, frequency=frequency, repetition=repetition
            )
        if len(banned):
            ids = np.concatenate([table.stop_ids[int(rows[i])] + i * width for i in banned.tolist()])
            flat.index_fill_(0, upload(ids, self.device), -torch.inf)

    def _mask(self, logits: Tensor, where: Int64, masks: Int32) -> None:
        """Forbids, in place on [rows, vocab], what the masks of rows `where` do not allow."""
        forbidden = ops.unpack_mask(upload(masks, self.device), logits.shape[-1])
        if len(where) == len(logits):
            logits.masked_fill_(forbidden, -torch.inf)
        else:
            index = upload(where, self.device)
            logits[index] = logits[index].masked_fill(forbidden, -torch.inf)

    def _filter(self, weights: Tensor, rows: Int32, vocab: int) -> Tensor:
        """Weights outside of top_k, top_p and min_p become 0. The largest weight is 1 exactly, so min_p compares directly."""
        table = self.table
        if not table.filtered[rows].any():
            return weights
        top_k, top_p, min_p = table.top_k[rows], table.top_p[rows], table.min_p[rows]
        ranked = np.flatnonzero((top_k > 0) | (top_p < 1))
        if len(ranked):
            kept = ops.keep_top(
                _take(weights, ranked),
                vocab=vocab,
                top_k=upload(top_k[ranked].astype(np.int64), self.device),
                top_p=upload(top_p[ranked], self.device),
                max_k=int(top_k[ranked].max()),
            )
            weights = _put(weights, ranked, kept)
        if min_p.any():
            weights.masked_fill_(weights < upload(min_p, self.device).unsqueeze(-1), 0.0)
        return weights


def _take(tensor: Tensor, index: Int64) -> Tensor:
    """Rows `index` (int64, ascending, each once), without a copy where these are all rows."""
    return tensor if len(index) == len(tensor) else tensor[upload(index, tensor.device)]


def _put(tensor: Tensor, index: Int64, values: Tensor) -> Tensor:
    """The tensor with rows `index` (as in `_take`) replaced; changes the tensor unless these are all rows."""
    if len(index) == len(tensor):
        return values
    tensor[upload(index, tensor.device)] = values
    return tensor
