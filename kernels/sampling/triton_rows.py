"""Logits as Triton kernels see them: a tile of a draw's row, with its grammar mask, and what the parts of a row add up to.

A draw's logits are a row of the model's logits, whose mask is applied as they are read, or a row of edited copies
(`triton_edits.py`), in which everything is applied already. A tile is [WORDS, 32] tokens: a word of the mask for each line.
"""

# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false
# The bodies of kernels are Triton's language, whose types are known when they are compiled.

from __future__ import annotations

import triton
import triton.language as tl

from .interface import BLOCK

LINES = tl.constexpr(BLOCK // 32)
"""Lines of a tile, of 32 tokens each, in a block."""
TOKENS = tl.constexpr(BLOCK)
"""Of a block."""
WHICH, PLACE, MASK, TOP_K = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
"""Columns of `integers`, int32 [4, n]: row of the logits; row of the copies, or -1; row of the masks, or -1; 0 is off."""
INVERSE, TOP_P, MIN_P, UNIFORM = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
"""Columns of `numbers`, fp32 [4, n]. INVERSE: 1 / temperature, 0 for greedy."""
NO_ID = tl.constexpr(0x7FFFFFFF)


@triton.jit
def source(integers, draw, n):
    """Of a draw: row of the logits, of the copies and of the masks."""
    row = tl.load(integers + WHICH * n + draw).to(tl.int64)
    return row, tl.load(integers + PLACE * n + draw), tl.load(integers + MASK * n + draw)


@triton.jit
def tile(logits, copies, masks, row, place, mask, word, vocab, stride, words):
    """Words `word`, int32 [WORDS], of a row: the logits as they are stored, the same without what the mask forbids, and their
    ids. fp32, fp32 and int32 [WORDS, 32]; -inf beyond the vocabulary."""
    bit = tl.arange(0, 32)[None, :]
    ids = word[:, None] * 32 + bit
    inside = ids < vocab
    is_copied = ids * 0 + place >= 0
    of_model = tl.load(logits + row * stride + ids, mask=inside & (is_copied == 0), other=-float("inf")).to(tl.float32)
    copied = tl.load(copies + place.to(tl.int64) * vocab + ids, mask=inside & is_copied, other=-float("inf"))
    stored = tl.where(is_copied, copied, of_model)
    is_masked = word * 0 + mask >= 0
    bits = tl.load(masks + mask.to(tl.int64) * words + word, mask=is_masked & (word < words), other=0)
    bits = tl.where(is_masked, bits, -1)
    allowed = ((bits[:, None] >> bit) & 1) != 0
    return stored, tl.where(allowed, stored, -float("inf")), ids


@triton.jit
def whole_row(part_max, part_id, draw, splits, SPLITS: tl.constexpr):
    """From the parts of a row (`triton_draw._scan`): its largest logit, the lowest id that has it, and whether it is bad."""
    split = tl.arange(0, SPLITS)
    there = split < splits
    values = tl.load(part_max + draw * splits + split, mask=there, other=-float("inf"))
    ids = tl.load(part_id + draw * splits + split, mask=there, other=NO_ID)
    largest = tl.max(values, 0)
    best = tl.min(tl.where(values == largest, ids, NO_ID), 0)
    bad = (largest == float("inf")) | (largest == -float("inf"))
    return largest, best, bad


@triton.jit
def weights(x, ids, largest, inverse, min_p, threshold, last):
    """exp((x - largest) * inverse) where top_k, top_p and min_p let it stay, else 0. threshold: bits of the least weight that
    stays; last: of the tokens that have just that weight, the highest id that stays."""
    weight = tl.exp((x - largest) * inverse)
    bits = weight.to(tl.int32, bitcast=True)
    stays = (bits > threshold) | ((bits == threshold) & (ids <= last))
    return tl.where(stays & (weight >= min_p), weight, 0.0)


@triton.jit
def first_above(running, weight, target, SIZE: tl.constexpr):
    """The first place at which the running sum, float64 [SIZE], exceeds the target, or, if rounding left none, the last one;
    in any case one that has a weight. 0 if none has."""
    place = tl.arange(0, SIZE)
    first = tl.min(tl.where((running > target) & (weight > 0), place, NO_ID), 0)
    last = tl.max(tl.where(weight > 0, place, 0), 0)
    return tl.minimum(first, last)
