"""log(sum(exp(logits))) in Triton: one pass over the logits, then one over what its parts add up to."""

# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false
# The bodies of kernels are Triton's language, whose types are known when they are compiled.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["splits"])
def add_parts(logits, rows, part_max, part_sum, vocab, stride, splits, TILE: tl.constexpr):
    """Program (entry, split): the largest logit of TILE tokens, and the sum of exp(logit - largest), NaN where there is NaN or
    +inf. part_max, part_sum: fp32 [n, splits]; rows: int64 [n]."""
    entry, split = tl.program_id(0), tl.program_id(1)
    ids = split * TILE + tl.arange(0, TILE)
    x = tl.load(logits + tl.load(rows + entry) * stride + ids, mask=ids < vocab, other=-float("inf")).to(tl.float32)
    largest = tl.max(x, 0)
    shift = tl.where(largest == -float("inf"), 0.0, largest)  # -inf less itself would be NaN
    total = tl.sum(tl.exp(x - shift), 0)
    tl.store(part_max + entry * splits + split, largest)
    tl.store(part_sum + entry * splits + split, total)


@triton.jit(do_not_specialize=["splits"])
def add_up(part_max, part_sum, out, splits, SPLITS: tl.constexpr):
    """Program (entry): out, float64 [n]."""
    entry = tl.program_id(0)
    split = tl.arange(0, SPLITS)
    there = split < splits
    largest = tl.load(part_max + entry * splits + split, mask=there, other=-float("inf"))
    parts = tl.load(part_sum + entry * splits + split, mask=there, other=0.0).to(tl.float64)
    top = tl.max(largest, 0)
    shift = tl.where(top == -float("inf"), 0.0, top)
    total = tl.sum(parts * tl.exp(largest - shift).to(tl.float64), 0)
    tl.store(out + entry, top.to(tl.float64) + tl.log(total))
