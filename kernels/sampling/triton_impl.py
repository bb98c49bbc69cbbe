"""Choosing a token in Triton: the logits are read twice, as they are, and neither sorted nor copied.

Greedy draws take two kernels, random ones three, and rows with top_k or top_p two more (`triton_draw.py`, `triton_select.py`).
A grammar mask is applied where logits are read; only rows with bias, penalties or bans are copied (`triton_edits.py`). Nothing
waits for the device, and what a step's draws need travels there in one copy.
"""

# pyright: reportCallIssue=false
# A launch takes options beside the kernel's parameters.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from ..upload import upload
from . import reference
from .interface import BLOCK, Draws, Edits, Int64, Sampling
from .triton_draw import FILTERED, NO_RANKED, UNFILTERED, choose, scan, sum_blocks
from .triton_edits import COLUMNS, edit
from .triton_norm import add_parts, add_up
from .triton_rows import INVERSE, MASK, MIN_P, PLACE, TOP_K, TOP_P, UNIFORM, WHICH
from .triton_select import select

WORDS = 64
"""Lines of a tile, of 32 tokens each."""
TILE = WORDS * 32
SELECT_WORDS = 128
FEW = 64
"""Blocks of a row among which top_k and top_p are tried first."""
PROGRAMS = 2048
"""As many as a device has use for: then a program takes more tiles."""
MOST_TILES = 8
_ROUNDED = {"enable_fp_fusion": False}
"""A product that is added to something is rounded by itself, as in the reference."""


@dataclass(frozen=True, slots=True)
class _Host:
    """What travels. integers, numbers: see `triton_rows.py`; lists, strengths: see `triton_edits.py`. edited: draws with bias,
    penalties or bans. arrays: all of it, in the order of `_Device`."""

    integers: NDArray[np.int32]
    numbers: NDArray[np.float32]
    edited: Int64
    arrays: list[NDArray]


def _host(draws: Draws, random: NDArray[np.bool_]) -> _Host:
    """The columns of the kernels. Pure."""
    count, edits = len(draws.which), draws.edits
    integers, numbers = np.empty((4, count), np.int32), np.zeros((4, count), np.float32)
    integers[WHICH.value], integers[PLACE.value], integers[MASK.value] = draws.which, -1, -1
    integers[TOP_K.value] = np.minimum(draws.top_k, np.iinfo(np.int32).max)
    np.divide(np.float32(1), draws.temperature, out=numbers[INVERSE.value], where=random)
    numbers[TOP_P.value], numbers[MIN_P.value], numbers[UNIFORM.value] = draws.top_p, draws.min_p, draws.uniform
    if edits is None:
        return _Host(integers, numbers, np.empty(0, np.int64), [integers, numbers])
    edited = np.flatnonzero(_needs_a_copy(edits))
    integers[MASK.value] = edits.mask
    arrays: list[NDArray] = [integers, numbers]
    if edits.masks is not None:
        arrays.append(edits.masks)
    if len(edited):
        integers[PLACE.value, edited], integers[MASK.value, edited] = np.arange(len(edited)), -1
        lists, strengths = np.empty((COLUMNS, len(edited)), np.int32), np.zeros((3, len(edited)), np.float32)
        lists[0] = draws.which[edited]
        for column, end in ((1, edits.bias_end), (3, edits.banned_end)):
            lists[column], lists[column + 1] = np.concatenate(([0], end[:-1]))[edited], end[edited]
        lists[5], lists[6] = -1, edits.mask[edited]
        if edits.penalties is not None:
            lists[5], strengths = edits.penalties.place[edited], edits.penalties.strengths[:, edited]
        ids = (edits.bias_ids.astype(np.int32), edits.bias_values, edits.banned_ids.astype(np.int32))
        arrays += [lists, strengths, *ids]
    return _Host(integers, numbers, edited, arrays)


def _needs_a_copy(edits: Edits) -> NDArray[np.bool_]:
    """bool [n]: which draws have anything but a mask."""
    needs = (np.diff(edits.bias_end, prepend=0) > 0) | (np.diff(edits.banned_end, prepend=0) > 0)
    return needs if edits.penalties is None else needs | (edits.penalties.place >= 0)


class _Triton:
    """The operations. Holds nothing but a size."""

    def __init__(self, few: int):
        self._few = few

    def sample(self, logits: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """See `interface.Sample`. Ids and rows are not checked."""
        count, vocab, device = len(draws.which), logits.shape[1], logits.device
        tokens = torch.empty(count, dtype=torch.int64, device=device)
        bad = torch.empty(count, dtype=torch.uint8, device=device)
        if not count:
            return tokens, bad.view(torch.bool)
        random = draws.temperature > 0
        host = _host(draws, random)
        integers, numbers, *rest = upload(host.arrays, device)
        masks, words = integers, 0
        if draws.edits is not None and draws.edits.masks is not None:
            masks, *rest = rest
            words = masks.shape[1]
        copies = _copies(logits, draws, host, rest, masks, words) if len(host.edited) else numbers
        rows = (logits, copies, masks, integers)
        sizes = (count, vocab, logits.stride(0), words)

        all_tiles = triton.cdiv(vocab, TILE)
        tiles = min(max(count * all_tiles // PROGRAMS, 1), MOST_TILES)
        splits, most_splits = triton.cdiv(all_tiles, tiles), triton.next_power_of_2(all_tiles)
        part_max = torch.empty((count, splits), dtype=torch.float32, device=device)
        parts = part_max, torch.empty((count, splits), dtype=torch.int32, device=device)
        is_random, blocks = bool(random.any()), triton.cdiv(vocab, BLOCK)
        is_ranked = bool((random & ((draws.top_k > 0) | (draws.top_p < 1))).any())
        sums = block_max = numbers  # what nobody reads or writes
        thresholds = drawn = integers
        if is_random:
            sums = torch.empty((count, blocks), dtype=torch.float32, device=device)
        if is_ranked:
            block_max = torch.empty((count, blocks), dtype=torch.float32, device=device)
            thresholds = torch.empty((2, count), dtype=torch.int32, device=device)
            drawn = torch.empty(count, dtype=torch.int32, device=device)

        def add(which: int) -> None:
            sum_blocks[(count, splits)](
                *(*rows, numbers, *parts, thresholds, drawn, sums, *sizes, tiles, splits, which),
                WORDS=WORDS,
                SPLITS=most_splits,
                num_warps=4,
                **_ROUNDED,
            )

        most_blocks = max(2, triton.next_power_of_2(blocks))
        grid = (count, splits)
        scan[grid](*rows, *parts, block_max, *sizes, tiles, splits, int(is_ranked), WORDS=WORDS, num_warps=4, **_ROUNDED)
        if is_random:
            add(UNFILTERED.value if is_ranked else NO_RANKED.value)
        if is_ranked:
            scratch = torch.empty((count, self._few), dtype=torch.int32, device=device)
            select[(count,)](
                *(*rows, numbers, *parts, block_max, sums, scratch, thresholds, drawn, *sizes, splits),
                WORDS=SELECT_WORDS,
                SPLITS=most_splits,
                BLOCKS=most_blocks,
                FEW=self._few,
                num_warps=16,
                **_ROUNDED,
            )
            add(FILTERED.value)
        choose[(count,)](
            *(*rows, numbers, *parts, thresholds, drawn, sums, tokens, bad, *sizes, splits, int(is_ranked)),
            SPLITS=most_splits,
            BLOCKS=most_blocks,
            num_warps=4,
            **_ROUNDED,
        )
        return tokens, bad.view(torch.bool)

    def log_normalizer(self, logits: Tensor, rows: Tensor) -> Tensor:
        """See `interface.LogNormalizer`."""
        vocab, device = logits.shape[1], logits.device
        splits = triton.cdiv(vocab, TILE)
        part_max = torch.empty((len(rows), splits), dtype=torch.float32, device=device)
        part_sum = torch.empty_like(part_max)
        out = torch.empty(len(rows), dtype=torch.float64, device=device)
        if len(rows):
            add_parts[(len(rows), splits)](
                logits, rows, part_max, part_sum, vocab, logits.stride(0), splits, TILE=TILE, num_warps=4, **_ROUNDED
            )
            most = triton.next_power_of_2(splits)
            add_up[(len(rows),)](part_max, part_sum, out, splits, SPLITS=most, num_warps=1, **_ROUNDED)
        return out


def _copies(logits: Tensor, draws: Draws, host: _Host, edits: list[Tensor], masks: Tensor, words: int) -> Tensor:
    """fp32 [edited draws, vocab]: their logits after everything that changes them. edits: the last five of `host.arrays`."""
    count, vocab = len(host.edited), logits.shape[1]
    copies = torch.empty((count, vocab), dtype=torch.float32, device=logits.device)
    lists, strengths, bias_ids, bias_values, banned_ids = edits
    assert draws.edits is not None
    penalties = draws.edits.penalties
    counts = lists if penalties is None else penalties.counts
    in_prompt = lists.view(torch.uint8) if penalties is None else penalties.in_prompt.view(torch.uint8)
    edit[(count, triton.cdiv(vocab, TILE))](
        *(logits, lists, strengths, bias_ids, bias_values, banned_ids, counts, in_prompt, masks, copies),
        *(count, vocab, logits.stride(0), words),
        TILE=TILE,
        num_warps=4,
        **_ROUNDED,
    )
    return copies


def triton_sampling(few: int = FEW) -> Sampling:
    """On CUDA, from logits in fp32 or bf16. `ranked` is torch's: one sort by keys that few requests ask for.

    few: blocks among which top_k and top_p are tried first, a power of two; a draw depends on it by rounding alone.
    """
    made = _Triton(few)
    return Sampling(made.sample, made.log_normalizer, reference.ranked)


def warm_up(sampling: Sampling, logits: Tensor) -> None:
    """Compiles every kernel for logits like these, [rows, vocab], so that no request waits for it. Changes nothing."""
    one, none = np.ones(1, np.float32), np.zeros(1, np.int64)
    edits = Edits(none, none[:0], one[:0], none + 1, none, None, none - 1, None)
    for banned in (None, edits):
        edited = np.full(1, banned is not None)
        sampling.sample(logits, Draws(none, one, none + 1, one * np.float32(0.5), one * 0, one * 0, edited, banned))
    sampling.log_normalizer(logits, torch.zeros(1, dtype=torch.int64, device=logits.device))
