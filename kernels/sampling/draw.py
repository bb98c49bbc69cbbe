"""The whole way from logits to tokens in plain torch (`interface.Sample`), made of the operations of `reference.py`.

Which steps a batch needs is known on the host; greedy rows without edits cost one argmax.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import reference as ops
from .interface import Draws, Edits, Int64, Sampling


def sample(logits: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """See `interface.Sample`."""
    if len(draws.which) != len(logits) or (draws.which != np.arange(len(logits))).any():
        logits = logits[_upload(draws.which, logits.device)]
    logits = logits.float()
    best, tokens = ops.greedy(logits)
    bad = ~torch.isfinite(best)
    chosen = np.flatnonzero(draws.edited | (draws.temperature > 0))
    if len(chosen):
        ids, empty = _choose(_take(logits, chosen), draws, chosen)
        tokens = _put(tokens, chosen, ids)
        bad = _put(bad, chosen, _take(bad, chosen) | empty)
    return tokens.masked_fill(bad, -1), bad


def _choose(logits: Tensor, draws: Draws, chosen: Int64) -> tuple[Tensor, Tensor]:
    """Tokens of draws that need more than an argmax, and whether a row allowed nothing. logits: a row for each of them."""
    vocab, device = logits.shape[-1], logits.device
    padded = ops.pad_to_blocks(logits)
    if draws.edits is not None:
        _edit(padded, draws.edits, chosen, vocab)
    largest = padded.amax(-1, keepdim=True)
    empty = largest.squeeze(-1) == -torch.inf
    random = np.flatnonzero(draws.temperature[chosen] > 0)
    if not len(random):
        return ops.greedy(padded)[1], empty
    which = chosen[random]
    weights = _take(padded, random) - _take(largest, random)
    inverse = np.float32(1) / draws.temperature[which]
    weights = ops.exp_below_zero(weights.mul_(_upload(inverse, device).unsqueeze(-1)))
    weights = _filter(weights, draws, which, vocab)
    drawn = ops.inverse_cdf(weights, _upload(draws.uniform[which], device))
    if len(random) == len(chosen):
        return drawn, empty
    return _put(ops.greedy(padded)[1], random, drawn), empty


def _edit(padded: Tensor, edits: Edits, chosen: Int64, vocab: int) -> None:
    """Bias, penalties, bans and masks of draws `chosen`, in place on [len(chosen), padded]."""
    flat, device = padded.view(-1), padded.device
    where, at = _pieces(edits.bias_end, chosen, padded.shape[-1])
    if len(where):
        values = _upload(edits.bias_values[where], device)
        flat.index_add_(0, _upload(edits.bias_ids[where] + at, device), values)
    if edits.penalties is not None:
        place = edits.penalties.place[chosen]
        rows = np.flatnonzero(place >= 0)
        index, places = _upload(rows, device), _upload(place[rows], device)
        presence, frequency, repetition = _upload(edits.penalties.strengths[:, chosen[rows]], device)
        padded[index, :vocab] = ops.penalize(
            padded[index, :vocab],
            edits.penalties.counts[places],
            edits.penalties.in_prompt[places],
            presence=presence,
            frequency=frequency,
            repetition=repetition,
        )
    where, at = _pieces(edits.banned_end, chosen, padded.shape[-1])
    if len(where):
        flat.index_fill_(0, _upload(edits.banned_ids[where] + at, device), -torch.inf)
    mask = edits.mask[chosen]
    rows = np.flatnonzero(mask >= 0)
    if len(rows):
        assert edits.masks is not None
        masks = edits.masks if np.array_equal(mask[rows], np.arange(len(edits.masks))) else edits.masks[mask[rows]]
        _forbid(padded[:, :vocab], rows, ops.unpack_mask(_upload(masks, device), vocab))


def _pieces(end: Int64, chosen: Int64, width: int) -> tuple[Int64, Int64]:
    """Places in a list of the entries of draws `chosen`, and where the row of each begins in a flat [len(chosen), width]."""
    if not len(end) or not end[-1]:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    lengths = np.diff(end, prepend=0)[chosen]
    row = np.repeat(np.arange(len(chosen)), lengths)
    first = (end[chosen] - lengths) - (np.cumsum(lengths) - lengths)
    return np.arange(lengths.sum()) + first[row], row * width


def _forbid(logits: Tensor, rows: Int64, forbidden: Tensor) -> None:
    """-inf, in place on [n, vocab], where `forbidden`, [len(rows), vocab], says so."""
    if len(rows) == len(logits):
        logits.masked_fill_(forbidden, -torch.inf)
    else:
        index = _upload(rows, logits.device)
        logits[index] = logits[index].masked_fill(forbidden, -torch.inf)


def _filter(weights: Tensor, draws: Draws, which: Int64, vocab: int) -> Tensor:
    """Weights outside of top_k, top_p and min_p become 0. The largest weight is 1 exactly, so min_p compares directly."""
    top_k, top_p, min_p = draws.top_k[which], draws.top_p[which], draws.min_p[which]
    device = weights.device
    ranked = np.flatnonzero((top_k > 0) | (top_p < 1))
    if len(ranked):
        kept = ops.keep_top(
            _take(weights, ranked),
            vocab=vocab,
            top_k=_upload(top_k[ranked], device),
            top_p=_upload(top_p[ranked], device),
            max_k=int(top_k[ranked].max()),
        )
        weights = _put(weights, ranked, kept)
    if min_p.any():
        weights.masked_fill_(weights < _upload(min_p, device).unsqueeze(-1), 0.0)
    return weights


def _upload(array: NDArray, device: torch.device) -> Tensor:
    """The array on the device; on the CPU it shares the array's memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=True)


def _take(tensor: Tensor, index: Int64) -> Tensor:
    """Rows `index` (int64, ascending, each once), without a copy where these are all rows."""
    return tensor if len(index) == len(tensor) else tensor[_upload(index, tensor.device)]


def _put(tensor: Tensor, index: Int64, values: Tensor) -> Tensor:
    """The tensor with rows `index` (as in `_take`) replaced; changes the tensor unless these are all rows."""
    if len(index) == len(tensor):
        return values
    tensor[_upload(index, tensor.device)] = values
    return tensor


REFERENCE_SAMPLING = Sampling(sample, ops.log_normalizer, ops.ranked)
