"""Attention over a tree: what rows share is read once, and every bit is the one that the row has alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from attention_harness import SPECS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ramify.kernels import native
from ramify.kernels.attention.interface import AttentionIndex, AttentionSpec, Sharing
from ramify.kernels.attention.native import LEVELS, NativeAttention, bytes_read
from ramify.kernels.attention.reference import TorchAttention
from ramify.runtime.config import kernel_cache

LOADED = native.load(kernel_cache())
pytestmark = pytest.mark.skipif(not LOADED.available, reason=LOADED.reason)
HERE = range(torch.ops.ramify.best_level() + 1) if LOADED.available else range(1)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MORE = {
    "two rows a head": AttentionSpec(16, 8, 128, 0.09),
    "forty rows a head": AttentionSpec(80, 2, 32, 0.2),
    "more heads a group than a block has rows": AttentionSpec(71, 1, 64, 0.125),
    "window, soft cap": AttentionSpec(6, 2, 80, 0.3, window=260, soft_cap=3.0),
    "head size 48": AttentionSpec(4, 2, 48, 0.15),
}
ALL = {**SPECS, **MORE}
levels = pytest.mark.parametrize("level", HERE, ids=[LEVELS[level] for level in HERE])
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
specs = pytest.mark.parametrize("spec", ALL.values(), ids=ALL.keys())


@dataclass
class Step:
    """A step over a pool: what the kernel gets, the pages of each span, and what these share."""

    index: AttentionIndex
    pages: list[list[int]]
    sharing: Sharing
    k: Tensor
    v: Tensor
    q: Tensor
    unique: int  # slots that some span sees

    def run(self, attention: NativeAttention | TorchAttention, sharing: Sharing | None) -> Tensor:
        plan = attention.plan(replace(self.index, sharing=sharing))
        return attention.run(plan, self.k, self.v, self.q)


Path = list[tuple[int, int]]
"""A row's nodes, (name, pages) each: rows whose nodes begin alike have the pages of these in common."""


def alike(a: list[int], b: list[int]) -> int:
    """How many entries two lists begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def truth(pages: list[list[int]], page_size: int) -> Sharing:
    """What spans with these pages share."""
    order = sorted(range(len(pages)), key=lambda span: pages[span])
    common = [0, *(alike(pages[a], pages[b]) for a, b in pairwise(order))]
    return Sharing(np.array(order, np.int32), np.array(common, np.int32) * page_size)


def make_step(
    spec: AttentionSpec, paths: list[Path], lengths: list[int], dtype: torch.dtype, page_size: int = 1, seed: int = 0
) -> Step:
    """lengths: of the spans, at each row's end. Spans and pages lie in random order; slots that no row has hold NaN."""
    generator = np.random.default_rng(seed)
    tables, made = [], {}
    free = iter(generator.permutation(10 + sum(pages for path in paths for _, pages in path)).tolist())
    for path in paths:
        pages = []
        for depth in range(len(path)):
            key = tuple(path[: depth + 1])
            made.setdefault(key, [next(free) for _ in range(path[depth][1])])
            pages += made[key]
        tables.append(pages)
    table = torch.full((len(tables), max(map(len, tables)) + 1), 10**6, dtype=torch.int32)
    for row, pages in enumerate(tables):
        table[row, : len(pages)] = torch.tensor(pages)
    rows = generator.permutation(len(tables)).astype(np.int32)
    length = np.array([min(lengths[row], len(tables[row]) * page_size) for row in rows], np.int32)
    ends = np.array([len(tables[row]) * page_size for row in rows], np.int32)
    index = AttentionIndex((np.cumsum(length) - length).astype(np.int32), length, ends - length, rows, table, page_size)
    used = sorted({page for pages in tables for page in pages})
    slots = (np.array(used)[:, None] * page_size + np.arange(page_size)).reshape(-1)
    draw = torch.Generator().manual_seed(seed)
    pools = []
    for _ in range(2):
        pool = torch.full(((max(used) + 1) * page_size, spec.num_kv_heads, spec.head_dim), math.nan, dtype=dtype)
        pool[slots] = torch.randn((slots.size, *pool.shape[1:]), generator=draw).to(dtype)
        pools.append(pool)
    q = torch.randn((int(length.sum()), spec.num_heads, spec.head_dim), generator=draw).to(dtype)
    pages = [tables[row] for row in rows]
    return Step(index, pages, truth(pages, page_size), *pools, q, slots.size)


NODES = st.tuples(st.integers(0, 1), st.sampled_from([1, 5, 31, 32, 40, 97, 200, 255, 256, 257, 300, 520]))
TREES = st.lists(st.lists(NODES, min_size=1, max_size=4), min_size=2, max_size=12)
LENGTHS = st.lists(st.sampled_from([1, 1, 1, 1, 2, 5, 33, 70, 150]), min_size=12, max_size=12)


@levels
@specs
@settings(max_examples=6)
@given(paths=TREES, lengths=LENGTHS, page_size=st.sampled_from([1, 1, 3]), dtype=st.sampled_from(list(DTYPES)))
def test_any_tree_of_rows_has_the_bits_that_it_has_without_sharing(level, spec, paths, lengths, page_size, dtype) -> None:
    step = make_step(spec, paths, lengths, DTYPES[dtype], page_size, seed=len(paths))
    attention = NativeAttention(spec, level)
    alone, together = (step.run(attention, sharing) for sharing in (None, step.sharing))
    assert not alone.isnan().any() and torch.equal(alone, together)


@levels
@dtypes
@settings(max_examples=4)
@given(data=st.data())
def test_any_rows_of_a_tree_have_their_own_bits(level: int, dtype: torch.dtype, data: st.DataObject) -> None:
    """A subset of a step's spans, in another order, gives each of them what the whole step gives."""
    spec = SPECS["seven heads a group"]
    paths = [[(0, 300), (row % 3, 90), (row, 1 + 40 * row)] for row in range(9)]
    step = make_step(spec, paths, [1, 1, 2, 1, 5, 1, 1, 40, 1], dtype)
    attention = NativeAttention(spec, level)
    whole = step.run(attention, step.sharing)
    index = step.index
    chosen = np.array(data.draw(st.permutations(range(9)))[: data.draw(st.integers(1, 9))])
    length = index.query_length[chosen]
    start = (np.cumsum(length) - length).astype(np.int32)
    sharing = truth([step.pages[span] for span in chosen], 1)
    some = AttentionIndex(start, length, index.start[chosen], index.row[chosen], index.page_table, 1, sharing)
    places = np.concatenate([np.arange(index.query_start[i], index.query_start[i] + index.query_length[i]) for i in chosen])
    result = attention.run(attention.plan(some), step.k, step.v, step.q[places])
    assert torch.equal(result, whole[places])


@pytest.fixture
def with_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@levels
@dtypes
@pytest.mark.parametrize("name", ["seven heads a group", "two rows a head", "window", "not causal"])
def test_the_number_of_threads_changes_no_bit(name: str, level: int, dtype: torch.dtype, with_threads: None) -> None:
    spec = ALL[name]
    paths = [[(0, 900), (row // 4, 300), (row, 10 + 30 * row)] for row in range(12)]
    step = make_step(spec, paths, [1] * 10 + [3, 90], dtype)
    attention = NativeAttention(spec, level)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results += [step.run(attention, sharing) for sharing in (None, step.sharing)]
    assert all(torch.equal(results[0], other) for other in results[1:])


def ratio(spec: AttentionSpec, paths: list[Path], dtype: torch.dtype, *, sharing: bool) -> float:
    """Bytes read, over those of all slots that somebody sees."""
    step = make_step(spec, paths, [1] * len(paths), dtype)
    before = bytes_read()
    step.run(NativeAttention(spec), step.sharing if sharing else None)
    return (bytes_read() - before) / (step.unique * 2 * spec.num_kv_heads * spec.head_dim * dtype.itemsize)


@dtypes
@pytest.mark.parametrize("prefix", [2048, 2000, 2047, 2100])
@pytest.mark.parametrize("spec", [AttentionSpec(16, 8, 128, 0.09), AttentionSpec(14, 2, 64, 0.125)], ids=["16/8", "14/2"])
def test_32_branches_on_2k_read_little_more_than_what_is_there(spec: AttentionSpec, prefix: int, dtype: torch.dtype) -> None:
    paths = [[(0, prefix), (row, 1 + 4 * row)] for row in range(32)]
    assert 1 <= ratio(spec, paths, dtype, sharing=True) <= 1.1
    assert ratio(spec, paths, dtype, sharing=False) > 10


def test_three_levels_read_little_more_than_what_is_there() -> None:
    paths = [[(0, 1000), (row // 8, 250), (row, 100 + row)] for row in range(32)]
    assert 1 <= ratio(AttentionSpec(16, 8, 128, 0.09), paths, torch.bfloat16, sharing=True) <= 1.1


def test_rows_that_share_nothing_read_what_is_there() -> None:
    paths = [[(row, 100 + row)] for row in range(32)]
    assert ratio(AttentionSpec(16, 8, 128, 0.09), paths, torch.bfloat16, sharing=True) == 1


@dtypes
def test_the_reference_gives_the_same_with_sharing(dtype: torch.dtype) -> None:
    spec = SPECS["grouped"]
    step = make_step(spec, [[(0, 300), (row, 20)] for row in range(4)], [1, 2, 1, 5], dtype)
    theirs = TorchAttention(spec, torch.device("cpu"))
    expected, shared = step.run(theirs, None), step.run(theirs, step.sharing)
    assert torch.equal(expected, shared)
    assert (step.run(NativeAttention(spec), step.sharing) - expected).abs().max() < (1e-5 if dtype == torch.float32 else 2e-2)


def test_counts_beyond_a_span_are_cut() -> None:
    """A table may agree behind the end of a sequence: what nobody sees is not read."""
    spec = SPECS["grouped"]
    step = make_step(spec, [[(0, 300)], [(0, 300), (0, 50)], [(0, 300), (0, 50), (0, 400)]], [1, 2, 1], torch.float32)
    attention = NativeAttention(spec)
    more = Sharing(step.sharing.order, np.array([7, 10**6, 10**6], np.int32))
    assert torch.equal(step.run(attention, more), step.run(attention, None))


def test_sharing_that_is_none_is_an_error() -> None:
    spec = SPECS["grouped"]
    step = make_step(spec, [[(0, 30), (row, 2)] for row in range(3)], [1, 1, 1], torch.float32)
    for order, shared in (([0, 1, 1], [0, 30, 30]), ([0, 1, 3], [0, 30, 30]), ([0, 1, 2], [0, -1, 30]), ([0, 1], [0, 30])):
        with pytest.raises(RuntimeError, match="sharing must"):
            step.run(NativeAttention(spec), Sharing(np.array(order, np.int32), np.array(shared, np.int32)))


def test_a_page_that_is_not_in_the_pool_is_an_error_for_a_tree_too() -> None:
    spec = SPECS["grouped"]
    for at in (10, 270, 310):  # in a whole tile, in what is shared of a tile, in a tail
        step = make_step(spec, [[(0, 300), (row, 20)] for row in range(12)], [1] * 12, torch.float32)
        step.index.page_table[:, at] = 10**6
        with pytest.raises(RuntimeError, match="page that is not in the pool"):
            step.run(NativeAttention(spec), step.sharing)
