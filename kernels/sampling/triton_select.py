"""top_k and top_p without sorting: the least weight that stays, found by bisection over the bits of weights.

Weights are fp32 numbers from 0 to 1, so their bits are ordered as they are. A pass over weights tells how many are above a pivot,
what they add up to, and which weights that occur are next to the pivot on either side. Stepping from one weight that occurs to
the next, a search ends after about as many passes as the number of different weights has bits: ten for logits in bf16.

What stays mostly lies in few blocks of 128 tokens, so the blocks with the largest maxima are looked at first, all in registers
(`triton_few.py`). Only where these do not hold everything that stays, passes go over the row.
"""

# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false
# The bodies of kernels are Triton's language, whose types are known when they are compiled.

from __future__ import annotations

import triton
import triton.language as tl

from .triton_few import ONE, draw_among, few_blocks, kept_ties, search_among, sums_among, tie_among
from .triton_rows import INVERSE, LINES, MIN_P, NO_ID, TOKENS, TOP_K, TOP_P, UNIFORM, source, tile, whole_row


@triton.jit
def _bits(
    logits, copies, masks, row, place, mask, number, vocab, stride, words, largest, inverse, WORDS: tl.constexpr
):  # fmt: skip
    """Weights of tile `number`, and their bits as int32."""
    word = number * WORDS + tl.arange(0, WORDS)
    _stored, x, _ids = tile(logits, copies, masks, row, place, mask, word, vocab, stride, words)
    weight = tl.exp((x - largest) * inverse)
    return weight, weight.to(tl.int32, bitcast=True)


@triton.jit
def _pass(
    logits, copies, masks, row, place, mask, vocab, stride, words, largest, inverse, low, pivot, WORDS: tl.constexpr
):  # fmt: skip
    """How many weights have bits above pivot, their sum in float64, the least of them, and the largest of the others, or low if
    that is more."""
    count = tl.full([WORDS, 32], 0, tl.int32)
    mass = tl.full([WORDS, 32], 0.0, tl.float32)
    least = tl.full([WORDS, 32], NO_ID, tl.int32)
    most = tl.full([WORDS, 32], 0, tl.int32)
    for number in range(tl.cdiv(vocab, WORDS * 32)):
        weight, bits = _bits(
            logits, copies, masks, row, place, mask, number, vocab, stride, words, largest, inverse, WORDS
        )  # fmt: skip
        above = bits > pivot
        count += above.to(tl.int32)
        mass += tl.where(above, weight, 0.0)
        least = tl.minimum(least, tl.where(above, bits, NO_ID))
        most = tl.maximum(most, tl.where(above, 0, bits))
    return (
        tl.sum(tl.sum(count, 1), 0),
        tl.sum(tl.sum(mass.to(tl.float64), 1), 0),
        tl.min(tl.min(least, 1), 0),
        tl.maximum(tl.max(tl.max(most, 1), 0), low),
    )


@triton.jit
def _search(
    logits, copies, masks, row, place, mask, vocab, stride, words, largest, inverse, low, limit, target, WORDS: tl.constexpr
):  # fmt: skip
    """The least weight above `low` with fewer than `limit` weights above it that add up to less than `target`, or the largest
    of all. Returns its bits, number and sum of what is above it, and how many have it."""
    high = low * 0 + ONE
    count_above = limit * 0
    mass_above = target * 0.0
    while high - low > 1:  # `high` occurs and will do; nothing up to `low` will
        pivot = low + (high - low) // 2
        count, mass, least, most = _pass(
            logits, copies, masks, row, place, mask, vocab, stride, words, largest, inverse, low, pivot, WORDS
        )  # fmt: skip
        down = (count < limit) & (mass < target) & (most > low)
        high = tl.where(down, most, high)
        count_above = tl.where(down, count, count_above)
        mass_above = tl.where(down, mass, mass_above)
        low = tl.where(down, low, least - 1)
    count, _mass, _least, _most = _pass(
        logits, copies, masks, row, place, mask, vocab, stride, words, largest, inverse, 0, high - 1, WORDS
    )  # fmt: skip
    return high, count_above, mass_above, count - count_above


@triton.jit
def _last_tie(
    logits, copies, masks, row, place, mask, vocab, stride, words, largest, inverse, threshold, kept, WORDS: tl.constexpr
):  # fmt: skip
    """The id of number `kept` of the tokens whose weight has the bits `threshold`."""
    last = threshold * 0
    seen = kept * 0
    for number in range(tl.cdiv(vocab, WORDS * 32)):
        _weight, bits = _bits(
            logits, copies, masks, row, place, mask, number, vocab, stride, words, largest, inverse, WORDS
        )  # fmt: skip
        equal = (bits == threshold).to(tl.int32)
        more = tl.sum(tl.sum(equal, 1), 0)
        if (seen < kept) & (seen + more >= kept):
            flat = tl.reshape(equal, (WORDS * 32,))
            there = (flat > 0) & (tl.cumsum(flat, 0) == kept - seen)
            last = number * WORDS * 32 + tl.max(tl.where(there, tl.arange(0, WORDS * 32), 0), 0)
        seen += more
    return last


@triton.jit(do_not_specialize=["n", "words", "splits"])
def select(
    logits, copies, masks, integers, numbers, part_max, part_id, block_max, sums, few, thresholds, drawn, n, vocab, stride,
    words, splits, WORDS: tl.constexpr, SPLITS: tl.constexpr, BLOCKS: tl.constexpr, FEW: tl.constexpr
):  # fmt: skip
    """Program (draw): drawn, int32 [n]: the token, where the FEW blocks with the largest maxima held everything that stays, else
    -1. thresholds, int32 [2, n], where there is none: the bits of the least weight that stays, and, of the tokens that have just
    that weight, the highest id that stays; (-1, -1) where everything stays.

    block_max: fp32 [n, blocks], the largest logit of each block; sums: fp32 [n, blocks], of all weights, where top_k is off;
    few: int32 [n, FEW], scratch.
    """
    draw = tl.program_id(0)
    top_k = tl.load(integers + TOP_K * n + draw)
    top_p = tl.load(numbers + TOP_P * n + draw)
    inverse = tl.load(numbers + INVERSE * n + draw)
    largest, _best, bad = whole_row(part_max, part_id, draw, splits, SPLITS)
    threshold = top_k * 0 - 1
    last = top_k * 0 - 1
    token = top_k * 0 - 1
    if (inverse > 0) & (bad == 0) & ((top_k > 0) | (top_p < 1)):
        row, place, mask = source(integers, draw, n)
        share = top_p.to(tl.float64)
        limit = tl.where(top_k > 0, top_k, vocab)
        blocks = tl.cdiv(vocab, TOKENS)
        block = tl.arange(0, BLOCKS)
        at = draw.to(tl.int64) * blocks + block
        top = tl.load(block_max + at, mask=block < blocks, other=-float("inf"))
        of_block = tl.load(sums + at, mask=(block < blocks) & (block * 0 + top_k == 0), other=0.0)
        mass = tl.sum(of_block.to(tl.float64), 0)
        target = share * mass

        beyond, here = few_blocks(top, largest, inverse, few + draw * FEW, BLOCKS, FEW)
        word = here * LINES + tl.arange(0, FEW * LINES) % LINES
        _stored, x, ids = tile(logits, copies, masks, row, place, mask, word, vocab, stride, words)
        weight = tl.exp((x - largest) * inverse)
        bits = weight.to(tl.int32, bitcast=True)
        count, part, least, _most = sums_among(weight, bits, beyond, beyond)
        enough = (beyond == 0) | ((top_k > 0) & (count >= limit)) | ((top_k == 0) & (part >= target))
        if enough & (count > 0):
            low = beyond
            if top_k > 0:
                threshold, above, mass_above, ties = search_among(weight, bits, low, limit, part * 2 + 1)
                kept = tl.minimum(limit - above, ties)
                target = share * (mass_above + kept.to(tl.float64) * threshold.to(tl.float32, bitcast=True).to(tl.float64))
                low = threshold - 1
            else:
                kept, ties = count, count
            if top_p < 1:
                threshold, above, mass_above, ties = search_among(weight, bits, low, limit, target)
                kept = kept_ties(threshold, above, mass_above, ties, limit, target)
            last = threshold * 0 + vocab
            if kept < ties:
                last = tie_among(bits, word, threshold, kept, FEW * LINES)
            stays = (bits > threshold) | ((bits == threshold) & (ids <= last))
            stays = stays & (weight >= tl.load(numbers + MIN_P * n + draw))
            uniform = tl.load(numbers + UNIFORM * n + draw)
            token = draw_among(tl.where(stays, weight, 0.0), word, uniform, FEW * LINES)
        else:
            count, mass, least, _most = _pass(
                logits, copies, masks, row, place, mask, vocab, stride, words, largest, inverse, 0, top_k * 0, WORDS
            )  # fmt: skip
            low = least - 1
            kept, ties = count, count
            if top_k > 0:
                threshold, above, mass_above, ties = _search(
                    logits, copies, masks, row, place, mask, vocab, stride, words, largest, inverse, low, limit, mass * 2 + 1,
                    WORDS
                )  # fmt: skip
                kept = tl.minimum(limit - above, ties)
                mass = mass_above + kept.to(tl.float64) * threshold.to(tl.float32, bitcast=True).to(tl.float64)
                low = threshold - 1
            if top_p < 1:
                if top_k == 0:  # all weights up to this one add up to less than half of what may be left out
                    little = ((1 - share) * mass * 0.5 / vocab).to(tl.float32)
                    low = tl.maximum(low, tl.minimum(little.to(tl.int32, bitcast=True), ONE - 1))
                target = share * mass
                threshold, above, mass_above, ties = _search(
                    logits, copies, masks, row, place, mask, vocab, stride, words, largest, inverse, low, limit, target, WORDS
                )  # fmt: skip
                kept = kept_ties(threshold, above, mass_above, ties, limit, target)
            last = threshold * 0 + vocab
            if kept < ties:
                last = _last_tie(
                    logits, copies, masks, row, place, mask, vocab, stride, words, largest, inverse, threshold, kept, WORDS
                )  # fmt: skip
    tl.store(thresholds + draw, threshold)
    tl.store(thresholds + n + draw, last)
    tl.store(drawn + draw, token)
