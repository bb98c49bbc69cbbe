"""Choosing a token in C++ (`kernels/cpp/sampling.cpp`): a few passes over a row that stays in a cache.

The tokens are those of the reference, because every step has its bits: no product is fused with a sum, whatever the set of
instructions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .interface import Draws, Sampling

_NO_IDS = torch.empty(0, dtype=torch.int64)
_NO_VALUES = torch.empty(0)


class _Native:
    def __init__(self, level: int):
        self._level = level

    def sample(self, logits: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """See `interface.Sample`. Raises RuntimeError for rows or ids that do not exist."""
        count, edits = len(draws.which), draws.edits
        integers, numbers = np.zeros((6, count), np.int64), np.zeros((7, count), np.float32)
        integers[0], integers[1] = draws.which, draws.top_k
        integers[4:] = -1
        np.divide(np.float32(1), draws.temperature, out=numbers[0], where=draws.temperature > 0)
        numbers[1], numbers[2], numbers[3] = draws.top_p, draws.min_p, draws.uniform
        bias_ids, bias_values, banned_ids, counts, in_prompt, masks = _NO_IDS, _NO_VALUES, _NO_IDS, None, None, None
        if edits is not None:
            integers[2], integers[3], integers[5] = edits.bias_end, edits.banned_end, edits.mask
            bias_ids, bias_values = torch.from_numpy(edits.bias_ids), torch.from_numpy(edits.bias_values)
            banned_ids = torch.from_numpy(edits.banned_ids)
            if edits.penalties is not None:
                integers[4], numbers[4:] = edits.penalties.place, edits.penalties.strengths
                counts, in_prompt = edits.penalties.counts, edits.penalties.in_prompt
            if edits.masks is not None:
                masks = torch.from_numpy(np.ascontiguousarray(edits.masks))
        tokens, bad = torch.empty(count, dtype=torch.int64), torch.empty(count, dtype=torch.bool)
        torch.ops.ramify.sample.default(
            logits,
            torch.from_numpy(integers),
            torch.from_numpy(numbers),
            bias_ids,
            bias_values,
            banned_ids,
            counts,
            in_prompt,
            masks,
            self._level,
            tokens,
            bad,
        )
        return tokens, bad

    def log_normalizer(self, logits: Tensor, rows: Tensor) -> Tensor:
        """See `interface.LogNormalizer`."""
        largest, totals = torch.empty(len(rows)), torch.empty(len(rows), dtype=torch.float64)
        torch.ops.ramify.log_totals.default(logits, rows, self._level, largest, totals)
        return largest.double() + totals.log()

    def ranked(self, logits: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See `interface.Ranked`."""
        values, ids = torch.empty(len(rows), count), torch.empty(len(rows), count, dtype=torch.int64)
        torch.ops.ramify.ranked.default(logits, rows, self._level, values, ids)
        return values, ids


def native_sampling(level: int) -> Sampling:
    """On the CPU, from logits in fp32 or bf16. `kernels.native.load` must have succeeded before."""
    native = _Native(level)
    return Sampling(native.sample, native.log_normalizer, native.ranked)
