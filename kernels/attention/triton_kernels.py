"""Attention over pages as Triton programs: one for an item of `work_lists.py` and a KV head, one to merge partial results.

A program's rows are its queries with all heads of the group, row r is query r // GROUP and head r % GROUP, so K and V are read
once for the whole group. Scores are kept times log2(e), because the device has a power of two. A partial result is the sum of
V weighted by 2^(score - m), in fp32, with the largest score m and the sum of the weights l:

    out = sum over parts p of  2^(m_p - m) * acc_p  /  sum over parts of  2^(m_p - m) * l_p,     m = max of m_p

A masked score is a large negative number and not minus infinity: a row that sees nothing of an item has finite results of weight
0, and what it gathered before the first key it sees is multiplied by exactly 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

MASKED = tl.constexpr(-1e30)
OPEN_KEYS = tl.constexpr(False)
ANY_KEYS = tl.constexpr(True)
"""Whether keys need a mask."""


@triton.jit
def _scores(q, k, scale, cap, SOFT_CAP: tl.constexpr):
    """Scores times log2(e). scale: with log2(e), or where there is a soft cap, over it; cap: times log2(e)."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    if SOFT_CAP:  # tanh(x) = 1 - 2 / (1 + e^2x), which is right at both ends
        s = cap - 2.0 * cap / (1.0 + tl.exp2(s * 2.8853900817779268))
    return s


@triton.jit
def _advance(
    acc,
    total,
    m,
    q,
    position,
    page,
    first,
    begin,
    end,
    table,
    k_head,
    v_head,
    scale,
    cap,
    MASK: tl.constexpr,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ALIGN: tl.constexpr,
    PAGE: tl.constexpr,
    SLOT: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The keys [first, first + BLOCK_N), of which those outside of [begin, end) are not there. page: int32 [BLOCK_N], of each
    key; that of the keys of the next block is returned. k_head, v_head: the head in slot 0."""
    key = first + tl.arange(0, BLOCK_N)
    d = tl.arange(0, D_PAD)
    there = key < end
    if ALIGN:
        there = there & (key >= begin)
    slot = page.to(tl.int64) * PAGE + key.to(tl.uint32) % PAGE
    place = slot[:, None] * SLOT + d[None, :]
    if MASK:
        k = tl.load(k_head + place, mask=there[:, None] & (d < D)[None, :], other=0.0)
        v = tl.load(v_head + place, mask=there[:, None] & (d < D)[None, :], other=0.0)
    elif D_PAD != D:
        k = tl.load(k_head + place, mask=(d < D)[None, :], other=0.0)
        v = tl.load(v_head + place, mask=(d < D)[None, :], other=0.0)
    else:
        k = tl.load(k_head + place)
        v = tl.load(v_head + place)
    s = _scores(q, k.to(q.dtype), scale, cap, SOFT_CAP)
    if MASK:
        seen = there[None, :]
        if CAUSAL:
            seen = seen & (key[None, :] <= position[:, None])
        if WINDOW > 0:
            seen = seen & (key[None, :] > position[:, None] - WINDOW)
        s = tl.where(seen, s, MASKED)
    highest = tl.maximum(m, tl.max(s, 1))
    p = tl.exp2(s - highest[:, None])
    keep = tl.exp2(m - highest)
    total = total * keep + tl.sum(p, 1)
    acc = tl.dot(p.to(q.dtype), v.to(q.dtype), acc * keep[:, None], input_precision="ieee")
    return acc, total, highest, _pages(table, first + BLOCK_N, end, PAGE, BLOCK_N)


@triton.jit
def _pages(table, first, end, PAGE: tl.constexpr, BLOCK_N: tl.constexpr):
    """int32 [BLOCK_N], of the keys from `first` on; of the last one for those that are not there."""
    key = tl.minimum(first + tl.arange(0, BLOCK_N), end - 1).to(tl.uint32)  # a shift, where a signed division is more
    return tl.load(table + key // PAGE)


@triton.jit(do_not_specialize=["table_stride", "q_stride"])
def attend(
    count,
    items,
    tokens,
    positions,
    table,
    table_stride,
    q_pool,
    q_stride,
    k_pool,
    v_pool,
    out,
    part_acc,
    part_ml,
    scale,
    cap,
    CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    OPEN: tl.constexpr,
    ALIGN: tl.constexpr,
    PAGE: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One item and KV head. Grid: [capacity * KV_HEADS], the heads of an item beside each other.

    count: int32 [1], items there are. items: int32 [capacity, 8], see `work_layout.py`. tokens, positions: int32, of the step's
    order. table: [rows, table_stride]. q_pool, out: [tokens, heads, D]; in the former a token lies q_stride behind the one
    before, a multiple of 8. part_acc: fp32 [parts, heads, D]; part_ml: fp32 [parts, heads, 2]. WINDOW 0: none. OPEN: keys that
    all queries see are taken without a mask. ALIGN: blocks of keys begin at multiples of BLOCK_N. WIDE: products of fp32.
    """
    pid = tl.program_id(0)
    item = pid // KV_HEADS
    head = pid % KV_HEADS
    if item >= tl.load(count):
        return
    at = items + item * 8
    q_begin = tl.load(at)
    q_count = tl.load(at + 1)
    row = tl.load(at + 2)
    begin = tl.load(at + 3)
    end = tl.load(at + 4)
    open_begin = tl.load(at + 5)
    open_end = tl.load(at + 6)
    part = tl.load(at + 7)

    r = tl.arange(0, BLOCK_M)
    d = tl.arange(0, D_PAD)
    query = r // GROUP
    live = query < q_count
    token = tl.load(tokens + q_begin + query, mask=live, other=0).to(tl.int64)
    position = tl.load(positions + q_begin + query, mask=live, other=0)
    q_head = head * GROUP + r % GROUP
    whole = live[:, None] & (d < D)[None, :]
    q_stride = tl.multiple_of(q_stride, 8)
    q = tl.load(q_pool + token[:, None] * q_stride + q_head[:, None] * D + d[None, :], mask=whole, other=0.0)
    if WIDE:
        q = q.to(tl.float32)
    else:
        q = q.to(k_pool.dtype.element_ty)

    table += row.to(tl.int64) * table_stride
    k_head = k_pool + head * D
    v_head = v_pool + head * D
    SLOT: tl.constexpr = KV_HEADS * D
    m = tl.full([BLOCK_M], MASKED, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D_PAD], tl.float32)
    here = begin
    if ALIGN:
        here = begin // BLOCK_N * BLOCK_N
    page = _pages(table, here, end, PAGE, BLOCK_N)
    if OPEN:
        if WINDOW > 0:
            until = here + tl.cdiv(tl.maximum(open_begin - here, 0), BLOCK_N) * BLOCK_N
            for first in range(here, tl.minimum(until, end), BLOCK_N):
                acc, total, m, page = _advance(
                    acc, total, m, q, position, page, first, begin, end, table, k_head, v_head, scale, cap,
                    ANY_KEYS, CAUSAL, WINDOW, SOFT_CAP, ALIGN, PAGE, SLOT, D, D_PAD, BLOCK_N,
                )  # fmt: skip
            here = until
        until = here + tl.maximum(tl.minimum(open_end, end) - here, 0) // BLOCK_N * BLOCK_N
        for first in range(here, until, BLOCK_N):
            acc, total, m, page = _advance(
                acc, total, m, q, position, page, first, begin, end, table, k_head, v_head, scale, cap,
                OPEN_KEYS, CAUSAL, WINDOW, SOFT_CAP, ALIGN, PAGE, SLOT, D, D_PAD, BLOCK_N,
            )  # fmt: skip
        here = until
    for first in range(here, end, BLOCK_N):
        acc, total, m, page = _advance(
            acc, total, m, q, position, page, first, begin, end, table, k_head, v_head, scale, cap,
            ANY_KEYS, CAUSAL, WINDOW, SOFT_CAP, ALIGN, PAGE, SLOT, D, D_PAD, BLOCK_N,
        )  # fmt: skip

    HEADS: tl.constexpr = KV_HEADS * GROUP
    if part < 0:
        place = (token * HEADS + q_head)[:, None] * D + d[None, :]
        tl.store(out + place, (acc / total[:, None]).to(out.dtype.element_ty), mask=whole)
    else:
        result = (part + query).to(tl.int64) * HEADS + q_head
        tl.store(part_acc + result[:, None] * D + d[None, :], acc, mask=whole)
        tl.store(part_ml + result * 2, m, mask=live)
        tl.store(part_ml + result * 2 + 1, total, mask=live)


@triton.jit
def merge(
    count,
    merge_token,
    merge_ptr,
    merge_part,
    part_acc,
    part_ml,
    out,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    PARTS: tl.constexpr,
):
    """One token and head: its partial results, PARTS at a time in order of position. Grid: [capacity * HEADS].

    count: int32 [1], tokens there are. merge_token: int32 [capacity]; merge_ptr: int32 [capacity + 1], of merge_part. part_acc,
    part_ml, out: as in `attend`.
    """
    pid = tl.program_id(0)
    number = pid // HEADS
    head = pid % HEADS
    if number >= tl.load(count):
        return
    begin = tl.load(merge_ptr + number)
    end = tl.load(merge_ptr + number + 1)
    token = tl.load(merge_token + number).to(tl.int64)
    d = tl.arange(0, D_PAD)
    each = tl.arange(0, PARTS)
    m = tl.full([], MASKED, tl.float32)
    total = tl.zeros([], tl.float32)
    acc = tl.zeros([D_PAD], tl.float32)
    for first in range(begin, end, PARTS):
        there = first + each < end
        part = tl.load(merge_part + first + each, mask=there, other=0).to(tl.int64)
        result = part * HEADS + head
        part_m = tl.load(part_ml + result * 2, mask=there, other=MASKED)
        part_total = tl.load(part_ml + result * 2 + 1, mask=there, other=0.0)
        place = result[:, None] * D + d[None, :]
        results = tl.load(part_acc + place, mask=there[:, None] & (d < D)[None, :], other=0.0)
        highest = tl.maximum(m, tl.max(part_m, 0))
        weight = tl.exp2(part_m - highest)
        keep = tl.exp2(m - highest)
        total = total * keep + tl.sum(part_total * weight, 0)
        acc = acc * keep + tl.sum(results * weight[:, None], 0)
        m = highest
    place = (token * HEADS + head) * D + d
    tl.store(out + place, (acc / total).to(out.dtype.element_ty), mask=d < D)
