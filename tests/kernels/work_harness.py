"""Steps over a tree of pages for the tests of work lists and of the Triton kernels, and what their items cover."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from hypothesis import strategies as st

from ramify.kernels.attention.costs import SharingCosts
from ramify.kernels.attention.interface import AttentionIndex, Sharing
from ramify.kernels.attention.work_layout import KV_BEGIN, KV_END, OPEN_BEGIN, OPEN_END, PART, Q_BEGIN, Q_COUNT, ROW, Lists
from ramify.kernels.attention.work_lists import Cutting

FREE = SharingCosts(0, 0)
"""Everything is read together that can be."""

Path = list[tuple[int, int]]
"""A row's nodes, (name, pages) each: rows whose nodes begin alike have the pages of these in common."""

NODES = st.tuples(st.integers(0, 1), st.sampled_from([1, 2, 5, 16, 40, 90]))
TREES = st.lists(st.lists(NODES, min_size=1, max_size=4), min_size=1, max_size=14)
LENGTHS = st.lists(st.sampled_from([1, 1, 1, 1, 2, 5, 33, 70, 150]), min_size=14, max_size=14)


@dataclass
class Step:
    """What a kernel gets, and the pages of each span."""

    index: AttentionIndex
    pages: list[list[int]]


def alike(a: list[int], b: list[int]) -> int:
    """How many entries two lists begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def make_step(paths: list[Path], lengths: list[int], page_size: int = 1, seed: int = 0) -> Step:
    """lengths: of the spans, at each row's end. Spans, rows and pages are in random order, and each row has positions of its own
    at its end, as many as its span has."""
    generator = np.random.default_rng(seed)
    made: dict[tuple, list[int]] = {}
    own = [-(-length // page_size) for length in lengths[: len(paths)]]
    free = iter(generator.permutation(10 + sum(own) + sum(pages for path in paths for _, pages in path)).tolist())
    tables, ends = [], []
    for path, length, more in zip(paths, lengths, own, strict=False):
        pages = []
        for depth in range(len(path)):
            key = tuple(path[: depth + 1])
            made.setdefault(key, [next(free) for _ in range(path[depth][1])])
            pages += made[key]
        ends.append(len(pages) * page_size + length)
        tables.append(pages + [next(free) for _ in range(more)])
    table = np.full((len(tables), max(map(len, tables)) + 1), 10**6, np.int32)
    for row, pages in enumerate(tables):
        table[row, : len(pages)] = pages
    rows = generator.permutation(len(tables)).astype(np.int32)
    length = np.array([lengths[row] for row in rows], np.int32)
    start = np.array([ends[row] for row in rows], np.int32) - length
    query_start = np.empty_like(length)
    turn = generator.permutation(len(rows))  # tokens of the spans need not stand in the order of the spans
    query_start[turn] = np.cumsum(length[turn]) - length[turn]
    pages = [tables[row] for row in rows]
    order = sorted(range(len(pages)), key=lambda span: pages[span])
    shared = [0, *(alike(pages[a], pages[b]) * page_size for a, b in pairwise(order))]
    sharing = Sharing(np.array(order, np.int32), np.array(shared, np.int32))
    return Step(AttentionIndex(query_start, length, start, rows, torch.from_numpy(table), page_size, sharing), pages)


def check(lists: Lists, step: Step, cutting: Cutting) -> None:
    """Every query meets every key that it may see exactly once, in slots of its own, and its results are merged in order."""
    index = step.index
    tokens = int(index.query_length.sum())
    assert sorted(lists.token.tolist()) == list(range(tokens))
    span_of = {}
    for span in range(len(index.start)):
        for i in range(index.query_length[span]):
            span_of[int(index.query_start[span]) + i] = span, int(index.start[span]) + i
    results = defaultdict(list)
    parts = set()
    for items, kind in ((lists.small, cutting.small), (lists.large, cutting.large)):
        for item in items.tolist():
            begin, end, part = item[KV_BEGIN], item[KV_END], item[PART]
            assert 0 <= begin < end and 0 < item[Q_COUNT] <= kind.queries
            if cutting.tile is not None:
                assert begin // cutting.tile == (end - 1) // cutting.tile
            for i in range(item[Q_COUNT]):
                token, position = (int(each[item[Q_BEGIN] + i]) for each in (lists.token, lists.position))
                span, truth = span_of[token]
                assert position == truth
                lowest, highest = visible(index, span, position, cutting)
                sees = max(begin, lowest), min(end, highest)
                open_keys = max(begin, item[OPEN_BEGIN]), min(end, item[OPEN_END])
                assert open_keys[0] >= open_keys[1] or lowest <= open_keys[0] <= open_keys[1] <= highest
                if sees[0] < sees[1]:
                    results[token].append((begin, sees, None if part < 0 else part + i))
                    mine, theirs = (step.pages[row] for row in (span, index.row.tolist().index(item[ROW])))
                    pages = slice(sees[0] // index.page_size, (sees[1] - 1) // index.page_size + 1)
                    assert mine[pages] == theirs[pages]
                assert part >= 0 or sees[0] < sees[1]
                if part >= 0:
                    assert part + i not in parts and part + i < lists.parts
                    parts.add(part + i)
    assert len(parts) == lists.parts
    merged = {
        int(token): lists.merge_part[lists.merge_ptr[i] : lists.merge_ptr[i + 1]].tolist()
        for i, token in enumerate(lists.merge_token)
    }
    assert len(merged) == len(lists.merge_token) and lists.merge_ptr[-1] == len(lists.merge_part)
    for token, (span, position) in span_of.items():
        found = sorted(results[token])
        lowest, highest = visible(index, span, position, cutting)
        assert [found[0][1][0], found[-1][1][1]] == [lowest, highest]
        assert all(a[1][1] == b[1][0] for a, b in pairwise(found))
        if found[0][2] is None:
            assert len(found) == 1 and token not in merged
        else:
            assert merged.pop(token) == [part for _, _, part in found]
    assert not merged


def visible(index: AttentionIndex, span: int, position: int, cutting: Cutting) -> tuple[int, int]:
    """[begin, end) of the keys that a query sees."""
    end = position + 1 if cutting.causal else int(index.start[span] + index.query_length[span])
    return (0 if cutting.window is None else max(0, position - cutting.window + 1)), end
