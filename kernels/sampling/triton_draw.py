"""From logits to tokens: the largest of each part of a row; sums of weights over blocks of 128 tokens; the draw.

Only the last one adds up a whole row, in float64, so how a row is cut into parts leaves no trace.
"""

# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false
# The bodies of kernels are Triton's language, whose types are known when they are compiled.

from __future__ import annotations

import triton
import triton.language as tl

from .triton_rows import (
    INVERSE,
    LINES,
    MIN_P,
    NO_ID,
    TOKENS,
    TOP_K,
    TOP_P,
    UNIFORM,
    first_above,
    source,
    tile,
    weights,
    whole_row,
)

NO_RANKED, UNFILTERED, FILTERED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
"""Which rows `sum_blocks` takes: all, if no row has top_k or top_p; those without top_k, before top_p and min_p; those that
have either and no token yet, after all filters."""


@triton.jit(do_not_specialize=["n", "words", "tiles", "splits", "ranked"])
def scan(
    logits, copies, masks, integers, part_max, part_id, block_max, n, vocab, stride, words, tiles, splits, ranked,
    WORDS: tl.constexpr
):  # fmt: skip
    """Program (draw, split): the largest of `tiles` tiles and the lowest id that has it, +inf where there is NaN or +inf.

    part_max: fp32 [n, splits]; part_id: int32 [n, splits]; block_max: fp32 [n, blocks], the largest of each block, written if
    ranked is not 0.
    """
    draw, split = tl.program_id(0), tl.program_id(1)
    row, place, mask = source(integers, draw, n)
    best = tl.full([WORDS, 32], -float("inf"), tl.float32)
    best_id = tl.full([WORDS, 32], 0, tl.int32)
    end = tl.minimum((split + 1) * tiles, tl.cdiv(vocab, WORDS * 32))
    for number in range(split * tiles, end):
        word = number * WORDS + tl.arange(0, WORDS)
        stored, x, ids = tile(logits, copies, masks, row, place, mask, word, vocab, stride, words)
        x = tl.where(stored < float("inf"), x, float("inf"))
        better = x > best
        best_id = tl.where(better, ids, best_id)
        best = tl.where(better, x, best)
        if ranked != 0:
            blocks = tl.cdiv(vocab, TOKENS)
            block = number * (WORDS // LINES) + tl.arange(0, WORDS // LINES)
            of_block = tl.max(tl.reshape(tl.max(x, 1), (WORDS // LINES, LINES)), 1)
            tl.store(block_max + draw.to(tl.int64) * blocks + block, of_block, mask=block < blocks)
    largest = tl.max(tl.max(best, 1), 0)
    lowest = tl.min(tl.min(tl.where(best == largest, best_id, NO_ID), 1), 0)
    tl.store(part_max + draw * splits + split, largest)
    tl.store(part_id + draw * splits + split, lowest)


@triton.jit(do_not_specialize=["n", "words", "tiles", "splits", "which"])
def sum_blocks(
    logits, copies, masks, integers, numbers, part_max, part_id, thresholds, drawn, sums, n, vocab, stride, words, tiles, splits,
    which, WORDS: tl.constexpr, SPLITS: tl.constexpr
):  # fmt: skip
    """Program (draw, split): sums of weights of the blocks of `tiles` tiles. sums: fp32 [n, blocks].

    which: one of NO_RANKED, ...; thresholds, drawn: of `triton_select.select`, read for FILTERED. Nothing is done for greedy and
    bad rows.
    """
    draw, split = tl.program_id(0), tl.program_id(1)
    inverse = tl.load(numbers + INVERSE * n + draw)
    top_k = tl.load(integers + TOP_K * n + draw)
    is_ranked = (top_k > 0) | (tl.load(numbers + TOP_P * n + draw) < 1)
    token = tl.load(drawn + draw, mask=which == FILTERED, other=-1)
    taken = (which == NO_RANKED) | ((which == UNFILTERED) & (top_k == 0)) | ((which == FILTERED) & is_ranked & (token < 0))
    if (inverse > 0) & taken:
        largest, _best, bad = whole_row(part_max, part_id, draw, splits, SPLITS)
        if bad == 0:
            row, place, mask = source(integers, draw, n)
            min_p = tl.where((which == UNFILTERED) & is_ranked, 0.0, tl.load(numbers + MIN_P * n + draw))
            threshold = tl.load(thresholds + draw, mask=which == FILTERED, other=-1)
            last = tl.load(thresholds + n + draw, mask=which == FILTERED, other=-1)
            blocks = tl.cdiv(vocab, TOKENS)
            end = tl.minimum((split + 1) * tiles, tl.cdiv(vocab, WORDS * 32))
            for number in range(split * tiles, end):
                word = number * WORDS + tl.arange(0, WORDS)
                _stored, x, ids = tile(logits, copies, masks, row, place, mask, word, vocab, stride, words)
                lines = tl.sum(weights(x, ids, largest, inverse, min_p, threshold, last), 1)
                block = number * (WORDS // LINES) + tl.arange(0, WORDS // LINES)
                in_block = tl.sum(tl.reshape(lines, (WORDS // LINES, LINES)), 1)
                tl.store(sums + draw.to(tl.int64) * blocks + block, in_block, mask=block < blocks)


@triton.jit(do_not_specialize=["n", "words", "splits", "ranked"])
def choose(
    logits, copies, masks, integers, numbers, part_max, part_id, thresholds, drawn, sums, tokens, bads, n, vocab, stride, words,
    splits, ranked, SPLITS: tl.constexpr, BLOCKS: tl.constexpr
):  # fmt: skip
    """Program (draw): its token, int64 [n], -1 where bad, and bad, uint8 [n]. The number of blocks is at most BLOCKS.

    thresholds, drawn: of `triton_select.select`, read if ranked is not 0.
    """
    draw = tl.program_id(0)
    largest, token, bad = whole_row(part_max, part_id, draw, splits, SPLITS)
    inverse = tl.load(numbers + INVERSE * n + draw)
    known = tl.load(drawn + draw, mask=ranked != 0, other=-1)
    token = tl.where(known >= 0, known, token)
    if (inverse > 0) & (bad == 0) & (known < 0):
        number = tl.arange(0, BLOCKS)
        blocks = tl.cdiv(vocab, TOKENS)
        of_block = tl.load(sums + draw.to(tl.int64) * blocks + number, mask=number < blocks, other=0.0)
        running = tl.cumsum(of_block.to(tl.float64), 0)
        total = tl.sum(tl.where(number == BLOCKS - 1, running, 0.0), 0)
        target = tl.load(numbers + UNIFORM * n + draw).to(tl.float64) * total
        block = first_above(running, of_block, target, BLOCKS)
        before = tl.sum(tl.where(number == block, running - of_block.to(tl.float64), 0.0), 0)

        row, place, mask = source(integers, draw, n)
        word = block * LINES + tl.arange(0, LINES)
        _stored, x, ids = tile(logits, copies, masks, row, place, mask, word, vocab, stride, words)
        min_p = tl.load(numbers + MIN_P * n + draw)
        threshold = tl.load(thresholds + draw, mask=ranked != 0, other=-1)
        last = tl.load(thresholds + n + draw, mask=ranked != 0, other=-1)
        inside = tl.reshape(weights(x, ids, largest, inverse, min_p, threshold, last), (TOKENS,))
        # A rounding below zero would let a leading token of weight 0 through; `first_above` does not either.
        rest = tl.maximum(target - before, 0.0)
        token = block * TOKENS + first_above(tl.cumsum(inside.to(tl.float64), 0), inside, rest, TOKENS)
    tl.store(tokens + draw, tl.where(bad, -1, token).to(tl.int64))
    tl.store(bads + draw, bad.to(tl.uint8))
