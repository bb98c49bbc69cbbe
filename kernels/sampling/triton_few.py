"""top_k, top_p and the draw among few blocks of a row, all of whose weights registers hold (`triton_select.py`)."""

# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# The bodies of kernels are Triton's language, whose types are known when they are compiled.

from __future__ import annotations

import triton
import triton.language as tl

from .triton_rows import LINES, NO_ID, first_above

ONE = tl.constexpr(0x3F800000)
"""The bits of 1.0, the largest weight of a row."""


@triton.jit
def few_blocks(top, largest, inverse, scratch, BLOCKS: tl.constexpr, FEW: tl.constexpr):
    """The blocks with the largest maxima, at most FEW, in order of ids. top: fp32 [BLOCKS], maxima.

    Returns bits that no weight of another block is above, and int32 [FEW * LINES], the block of each line, BLOCKS where there is
    none. Writes scratch, int32 [FEW].
    """
    bits = tl.exp((top - largest) * inverse).to(tl.int32, bitcast=True)
    number = tl.arange(0, BLOCKS)
    high = tl.sum(number * 0, 0) + ONE
    low = high * 0 - 1
    while high - low > 1:  # no more than FEW are above `high`, more than FEW are above `low`
        pivot = low + (high - low) // 2
        fits = tl.sum((bits > pivot).to(tl.int32), 0) <= FEW
        high = tl.where(fits, pivot, high)
        low = tl.where(fits, low, pivot)
    chosen = (bits > high).to(tl.int32)
    place = tl.cumsum(chosen, 0) - 1
    tl.store(scratch + place, number, mask=chosen > 0)
    count = tl.sum(chosen, 0)
    tl.debug_barrier()
    line = tl.arange(0, FEW * LINES)
    return high, tl.load(scratch + line // LINES, mask=line // LINES < count, other=BLOCKS)


@triton.jit
def sums_among(weight, bits, low, pivot):
    """Of weights, [lines, 32], those with bits above pivot: their number, sum in float64, the least of them, and the largest of
    the others, or low if that is more."""
    above = bits > pivot
    return (
        tl.sum(tl.sum(above.to(tl.int32), 1), 0),
        tl.sum(tl.sum(tl.where(above, weight, 0.0), 1).to(tl.float64), 0),
        tl.min(tl.min(tl.where(above, bits, NO_ID), 1), 0),
        tl.maximum(tl.max(tl.max(tl.where(above, 0, bits), 1), 0), low),
    )


@triton.jit
def search_among(weight, bits, low, limit, target):
    """`triton_select._search` among weights that are here."""
    high = low * 0 + ONE
    count_above = limit * 0
    mass_above = target * 0.0
    while high - low > 1:
        pivot = low + (high - low) // 2
        count, mass, least, most = sums_among(weight, bits, low, pivot)
        down = (count < limit) & (mass < target) & (most > low)
        high = tl.where(down, most, high)
        count_above = tl.where(down, count, count_above)
        mass_above = tl.where(down, mass, mass_above)
        low = tl.where(down, low, least - 1)
    return high, count_above, mass_above, tl.sum(tl.sum((bits == high).to(tl.int32), 1), 0)


@triton.jit
def kept_ties(threshold, above, mass_above, ties, limit, target):
    """How many of the `ties` tokens with the least weight that stays do stay: until they are `limit`, or what lies before the
    next is `target`; at least one."""
    wanted = (target - mass_above) / threshold.to(tl.float32, bitcast=True).to(tl.float64)
    wanted = tl.minimum(wanted, ties.to(tl.float64))
    whole = wanted.to(tl.int32)
    whole += (whole.to(tl.float64) < wanted).to(tl.int32)
    return tl.maximum(tl.minimum(tl.minimum(limit - above, whole), ties), 1)


@triton.jit
def tie_among(bits, word, threshold, kept, SIZE: tl.constexpr):
    """The id of number `kept` of the tokens whose weight has the bits `threshold`. bits: [SIZE, 32], in order of ids."""
    equal = (bits == threshold).to(tl.int32)
    of_line = tl.sum(equal, 1)
    running = tl.cumsum(of_line, 0)
    number = tl.arange(0, SIZE)
    line = tl.min(tl.where(running >= kept, number, NO_ID), 0)
    before = tl.sum(tl.where(number == line, running - of_line, 0), 0)
    inside = tl.sum(tl.where(number[:, None] == line, equal, 0), 0)
    there = (inside > 0) & (tl.cumsum(inside, 0) == kept - before)
    return tl.sum(tl.where(number == line, word, 0), 0) * 32 + tl.max(tl.where(there, tl.arange(0, 32), 0), 0)


@triton.jit
def draw_among(weight, word, uniform, SIZE: tl.constexpr):
    """One draw by inverse CDF. weight: [SIZE, 32], in order of ids; word: [SIZE], the ids' 32nd parts."""
    of_line = tl.sum(weight, 1)
    running = tl.cumsum(of_line.to(tl.float64), 0)
    number = tl.arange(0, SIZE)
    target = uniform.to(tl.float64) * tl.sum(tl.where(number == SIZE - 1, running, 0.0), 0)
    line = first_above(running, of_line, target, SIZE)
    before = tl.sum(tl.where(number == line, running - of_line.to(tl.float64), 0.0), 0)
    inside = tl.sum(tl.where(number[:, None] == line, weight, 0.0), 0)
    rest = tl.maximum(target - before, 0.0)
    bit = first_above(tl.cumsum(inside.to(tl.float64), 0), inside, rest, 32)
    return tl.sum(tl.where(number == line, word, 0), 0) * 32 + bit
