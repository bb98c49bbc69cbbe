"""How a step's attention is cut into items for a GPU, each a program per KV head. NumPy alone, and pure.

    span    -> blocks of as many queries as a program holds rows for, all heads of a KV head's group beside each other
    range   -> blocks of the queries of all its members, which stand side by side (`work_tree.py`)
    block   -> items: some of its keys, so many that the whole device has work
    item    =  one block of queries, one range of keys: K and V are read once for all of its queries

A query with several items has as many partial results, which are merged in order of position. Small items are those of decodes
and of the like: few rows, limited by memory alone. Large ones are those of prefills and of what many rows share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .interface import AttentionIndex
from .work_chunks import MORE_WAVES, chunk_length, up
from .work_layout import (
    ITEM,
    KV_BEGIN,
    KV_END,
    NOTHING,
    OPEN_BEGIN,
    OPEN_END,
    PART,
    Q_BEGIN,
    Q_COUNT,
    ROW,
    Capacity,
    Int32,
    Lists,
)
from .work_tree import Tree, Weighing, share

WHOLE, SPLIT = -1, 0
"""What stands in an item's place for its part before the parts are numbered."""
LEVELS, RESULTS_OF_A_ROW = 4, 6
"""Room that a decode step is given for shared ranges, for each row."""
FEWER = (1, 4, 0)
"""What an attempt divides the number of items by that the device works on at once, where a capacity is too small; 0: no cuts."""

DEARER = (1, 8, 64)
"""By how much dearer sharing is made in an attempt, so that where a capacity is too small the best of it remains."""


@dataclass(frozen=True)
class Kind:
    """How blocks of one kind are cut. queries: most of a block, 0 where there is no such kind. keys: read at once. slots: items
    that the device works on at the same time. least: fewer keys than that are no item of a block that is cut. overhead: an item
    takes as long as so many keys, beside those that it has."""

    queries: int
    keys: int
    slots: int
    least: int
    overhead: int


@dataclass(frozen=True)
class Cutting:
    """The rules of one attention on one device. tile: cuts are at multiples of it and nowhere else, whatever the batch, and no
    mask is ever left out; None: where it suits the device."""

    small: Kind
    large: Kind
    weighing: Weighing
    causal: bool = True
    window: int | None = None
    tile: int | None = None


def decode_capacity(cutting: Cutting, rows: int, longest: int | None = None) -> Capacity:
    """Room for every step of up to `rows` spans of one token. longest: most positions of a sequence; with a tile it is needed,
    because cuts cannot be left out there: raises ValueError without it."""
    if cutting.tile is None:
        small, large = cutting.small, cutting.large
        own = rows + (1 + MORE_WAVES) * small.slots
        shared = RESULTS_OF_A_ROW * rows + min(large.queries, rows) * 2 * large.slots
        ranges = min(rows, 1 + LEVELS * rows // (small.queries + 1))  # each has more queries than a small item holds
        return Capacity(rows, own + rows // 2, ranges + (1 + MORE_WAVES) * large.slots, rows, own + shared)
    if longest is None:
        raise ValueError("A deterministic attention needs `max_positions` to know how many items a decode step may have.")
    own = rows * -(-longest // cutting.tile)
    return Capacity(rows, 0, own, rows, own)


def make(index: AttentionIndex, cutting: Cutting, capacity: Capacity | None = None) -> Lists:
    """The lists of a step; in a capacity if one is given. Where that is too small for the best ones, less is cut, then less is
    shared. Raises ValueError where it is too small for all that is possible."""
    attempt = None
    for tree, fewer in _attempts(index, cutting, capacity):
        attempt = _lists(index, cutting, tree, fewer)
        if capacity is None or capacity.holds(attempt.capacity):
            return attempt
    raise ValueError(f"A step that needs {attempt and attempt.capacity} does not fit {capacity}. Plan it in a larger one.")


def _attempts(index: AttentionIndex, cutting: Cutting, capacity: Capacity | None) -> Iterator[tuple[Tree | None, int]]:
    """Best first: what is read together, and a number of `FEWER`. Without a capacity the first will do."""
    fewer = FEWER if capacity is not None and cutting.tile is None else FEWER[:1]
    for dearer in DEARER:
        if index.sharing is None or len(index.start) < 2:
            break
        tree = share(index.sharing, index.start, index.query_length, cutting.weighing.dearer(dearer), cutting.window)
        if tree is None:
            break
        if capacity is None or tree.results <= capacity.parts:
            yield from ((tree, one) for one in fewer)
    yield from ((None, one) for one in fewer)


def _lists(index: AttentionIndex, cutting: Cutting, tree: Tree | None, fewer: int) -> Lists:
    columns = index.query_start, index.query_length, index.start, index.row
    if tree is not None:
        columns = tuple(column[tree.order] for column in columns)
    query_start, length, start, row = (np.asarray(column, np.int32) for column in columns)
    if len(length) == int(length.sum()):  # decoding: a token a span
        token, position, offset = query_start, start, np.arange(len(start), dtype=np.int32)
    else:
        offset = (np.cumsum(length) - length).astype(np.int32)
        within = np.arange(int(length.sum()), dtype=np.int32) - np.repeat(offset, length)
        token, position = np.repeat(query_start, length) + within, np.repeat(start, length) + within
    small, large = _span_blocks(offset, length, start, row, tree, cutting)
    if tree is not None:
        more = _range_blocks(tree, np.append(offset, len(token)), row, cutting)
        small, large = (np.concatenate(pair) for pair in zip((small, large), more, strict=True))
    small, large = _cut(small, cutting.small, cutting.tile, fewer), _cut(large, cutting.large, cutting.tile, fewer)
    return Lists(token, position, small, large, *_merges(small, large, token, position, cutting))


def _span_blocks(
    offset: Int32, length: Int32, start: Int32, row: Int32, tree: Tree | None, cutting: Cutting
) -> tuple[Int32, Int32]:
    """The spans' own blocks, small and large: items that are not cut yet. Columns: int32 [spans]."""
    few = length <= cutting.small.queries
    own = np.zeros_like(start) if tree is None else tree.own
    end = start + length
    most = cutting.large.queries
    if int(length.max(initial=0)) <= most:
        first, count, last = start, length, end
    else:
        blocks = -(-length // most)
        span = np.repeat(np.arange(len(length)), blocks)
        done = most * (np.arange(len(span), dtype=np.int32) - np.repeat(np.cumsum(blocks) - blocks, blocks))
        offset, first, row, own, end, few = offset[span] + done, start[span] + done, row[span], own[span], end[span], few[span]
        count = np.minimum(length[span] - done, most)
        last = first + count
    items = np.empty((len(first), len(ITEM)), np.int32)
    items[:, Q_BEGIN], items[:, Q_COUNT], items[:, ROW] = offset, count, row
    items[:, KV_BEGIN], items[:, OPEN_BEGIN] = own, 0
    items[:, KV_END], items[:, OPEN_END] = (last, first + 1) if cutting.causal else (end, end)
    items[:, PART] = WHOLE if tree is None else np.where(own > 0, SPLIT, WHOLE)
    if cutting.window is not None:
        items[:, KV_BEGIN] = np.maximum(own, first - (cutting.window - 1))
        items[:, OPEN_BEGIN] = np.maximum(last - cutting.window, 0)
    return items[few], items[~few]


def _range_blocks(tree: Tree, offset: Int32, row: Int32, cutting: Cutting) -> tuple[Int32, Int32]:
    """The blocks of shared ranges, small and large. offset: int32 [spans + 1], where each span's queries begin."""
    first, last, begin, end = np.array(tree.ranges, np.int32).T
    count = offset[last] - offset[first]
    few, most = count <= cutting.small.queries, cutting.large.queries
    blocks = np.where(few, 1, -(-count // most))
    of = np.repeat(np.arange(len(first)), blocks)
    number = np.arange(len(of), dtype=np.int32) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    size = -(-count // blocks)[of]  # equal shares
    items = np.empty((len(of), len(ITEM)), np.int32)
    items[:, Q_BEGIN] = offset[first][of] + number * size
    items[:, Q_COUNT] = np.minimum(count[of] - number * size, size)
    items[:, ROW] = row[first][of]
    items[:, KV_BEGIN], items[:, KV_END] = begin[of], end[of]
    items[:, OPEN_BEGIN], items[:, OPEN_END] = 0, end[of]
    items[:, PART] = SPLIT
    items = items[items[:, Q_COUNT] > 0]  # equal shares, rounded up, may need a block less
    few = items[:, Q_COUNT] <= cutting.small.queries
    return items[few], items[~few]


def _cut(blocks: Int32, kind: Kind, tile: int | None, fewer: int) -> Int32:
    """Blocks become items, those with most keys first; items with the same keys stand beside each other."""
    if not len(blocks):
        return blocks
    begin, end = blocks[:, KV_BEGIN], blocks[:, KV_END]
    origin, step = begin, None
    if tile is None:
        length = end - begin
        slots = kind.slots // fewer if fewer else 0
        pieces = -(-length // chunk_length(length, slots, least=kind.least, keys=kind.keys, overhead=kind.overhead))
        if int(pieces.max()) > 1:
            step = up(-(-length // pieces), kind.keys)
            pieces = -(-length // step)
    else:
        origin = begin // tile * tile
        step = np.full_like(begin, tile)
        pieces = -(-(end - origin) // tile)
    items = blocks
    if step is not None:
        of = np.repeat(np.arange(len(blocks)), pieces)
        number = np.arange(len(of), dtype=np.int32) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        items = blocks[of]
        from_here = origin[of] + number * step[of]
        items[:, KV_BEGIN] = np.maximum(items[:, KV_BEGIN], from_here)
        items[:, KV_END] = np.minimum(items[:, KV_END], from_here + step[of])
        items[pieces[of] > 1, PART] = SPLIT
    begin = items[:, KV_BEGIN].astype(np.int64)
    return items[np.argsort(begin - ((items[:, KV_END] - begin) << 32), kind="stable")]


def _merges(small: Int32, large: Int32, token: Int32, position: Int32, cutting: Cutting) -> tuple[Int32, Int32, Int32, int]:
    """merge_token, merge_ptr, merge_part and how many parts there are (`Lists`). Numbers the parts: changes the items."""
    split_small, split_large = small[:, PART] != WHOLE, large[:, PART] != WHOLE
    if not split_small.any() and not split_large.any():
        return NOTHING.merge_token, NOTHING.merge_ptr, NOTHING.merge_part, 0
    split = np.concatenate((small[split_small], large[split_large]))
    count = split[:, Q_COUNT]
    base = (np.cumsum(count) - count).astype(np.int32)
    few = int(split_small.sum())
    small[split_small, PART], large[split_large, PART] = base[:few], base[few:]
    parts = int(count.sum())
    of = np.repeat(np.arange(len(split)), count)
    part = np.arange(parts, dtype=np.int32)
    query, begin = split[of, Q_BEGIN] + part - base[of], split[of, KV_BEGIN]
    seen = None  # an item may hold queries that see none of its keys
    if cutting.causal and len(part) > len(split):
        seen = begin <= position[query]
    if cutting.window is not None:
        in_window = split[of, KV_END] > position[query] - (cutting.window - 1)
        seen = in_window if seen is None else seen & in_window
    if seen is not None and not seen.all():
        query, begin, part = query[seen], begin[seen], part[seen]
    order = np.argsort((query.astype(np.int64) << 32) + begin)
    query, part = query[order], part[order]
    heads = np.flatnonzero(np.concatenate(([True], query[1:] != query[:-1])))
    return token[query[heads]], np.append(heads, len(query)).astype(np.int32), part, parts
