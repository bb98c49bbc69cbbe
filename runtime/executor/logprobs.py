"""Log-probabilities of a step: of drawn tokens, of given ids, and the most likely alternatives.

They are those of the model itself: log_softmax of its logits, before bias, penalties, grammar, temperature and filters.
Only the normaliser of a row and the wanted entries are computed, in float64, a bounded number of rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...kernels.sampling.interface import Sampling
from ...kernels.upload import upload
from ..plan import LOGPROB, StepPlan
from .sequence_table import Int64

VALUES_AT_ONCE = 1 << 24
"""Logits copied at once: 64 MiB in fp32."""


@dataclass(frozen=True, slots=True)
class Logprobs:
    """On the device. drawn: fp32 [W], 0 where not wanted; ids: fp32 [len(want_ids)]; top_ids int64 and top fp32
    [sum(want_top)]; bad: bool [W], true where an entry asked for log-probabilities of a row that has none."""

    drawn: Tensor
    ids: Tensor
    top_ids: Tensor
    top: Tensor
    bad: Tensor


def report(
    logits: Tensor, which: Int64, plan: StepPlan, tokens: Tensor, ops: Sampling, *, values_at_once: int = VALUES_AT_ONCE
) -> Logprobs | None:
    """logits: [rows, vocab]; which: [W], each entry's logits row; tokens: int64 [W], drawn ids (-1: none), on the device.
    None if the plan wants no log-probability. Changes nothing."""
    id_counts = np.diff(plan.want_ids_ptr)
    wanted = (plan.want_kind == LOGPROB) | (plan.want_logprob > 0) | (plan.want_top > 0) | (id_counts > 0)
    if not wanted.any():
        return None
    device = logits.device
    needed = np.unique(which[wanted])
    rows_at_once = max(1, values_at_once // logits.shape[-1])
    norm = torch.full((len(logits),), torch.nan, dtype=torch.float64, device=device)
    for part in _parts(needed, rows_at_once):
        (rows,) = upload([part], device)
        norm[rows] = ops.log_normalizer(logits, rows)
    pairs = np.repeat(which, id_counts), plan.want_ids.astype(np.int64)
    row_of, silent, is_wanted, pair_row, pair_id = upload([which, plan.want_logprob == 0, wanted, *pairs], device)
    norm_of = norm[row_of]

    drawn = logits[row_of, tokens.clamp(min=0)].double() - norm_of
    drawn = drawn.float().masked_fill(silent, 0.0)
    ids = (logits[pair_row, pair_id].double() - norm[pair_row]).float()
    top, top_ids = _tops(logits, which, plan.want_top, norm, ops, rows_at_once)
    bad = is_wanted & ~torch.isfinite(norm_of)
    return Logprobs(drawn=drawn, ids=ids, top_ids=top_ids, top=top, bad=bad)


def _tops(
    logits: Tensor, which: Int64, counts: np.ndarray, norm: Tensor, ops: Sampling, rows_at_once: int
) -> tuple[Tensor, Tensor]:
    """The want_top most likely ids of each entry, entry after entry: log-probabilities and ids."""
    device, vocab = logits.device, logits.shape[-1]
    entries = np.flatnonzero(counts)
    if not len(entries):
        return torch.empty(0, device=device), torch.empty(0, dtype=torch.int64, device=device)
    values, ids = [], []
    for part in _parts(entries, rows_at_once):
        most = min(int(counts[part].max()), vocab)
        rows, inside = upload([which[part], np.flatnonzero(np.arange(most) < counts[part, None])], device)
        best, best_ids = ops.ranked(logits, rows, most)
        values.append((best.double() - norm[rows, None]).float().flatten()[inside])
        ids.append(best_ids.flatten()[inside])
    return torch.cat(values), torch.cat(ids)


def _parts(rows: Int64, size: int) -> list[Int64]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
