"""How attention is cut into items: every pair of query and key once, nothing beyond the capacity, and less read where it pays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from work_harness import FREE, LENGTHS, TREES, check, make_step

from ramify.kernels.attention.costs import GPU_COSTS, SharingCosts
from ramify.kernels.attention.interface import HostPlan, Sharing
from ramify.kernels.attention.work_chunks import MORE_WAVES, chunk_length, count, shortest, time, up
from ramify.kernels.attention.work_growth import MOST_STEPS, decode_plan
from ramify.kernels.attention.work_layout import HEADER, KV_BEGIN, KV_END, NOTHING, Q_COUNT, Capacity, Lists
from ramify.kernels.attention.work_lists import Cutting, Kind, decode_capacity, make
from ramify.kernels.attention.work_tree import Weighing, share


def cutting(
    *, small: int = 8, large: int = 32, slots: int = 6, costs: SharingCosts = FREE, tile: int | None = None, **how
) -> Cutting:
    """In small numbers, so that everything is cut."""
    kinds = Kind(0 if tile else small, 4, slots, 8, 3), Kind(large, 4, slots, 16, 6)
    return Cutting(*kinds, Weighing(4096, 2048, large, costs, tile or 1), tile=tile, **how)


RULES = {
    "causal": cutting(),
    "one query an item": cutting(small=1, large=1),
    "no difference between kinds": cutting(small=16, large=16),
    "few slots": cutting(slots=1),
    "many slots": cutting(slots=40),
    "window": cutting(window=50),
    "narrow window": cutting(window=3),
    "not causal": cutting(causal=False),
    "tiles": cutting(tile=32),
    "tiles, window": cutting(tile=32, window=50),
    "tiles, not causal": cutting(tile=32, causal=False),
}
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())


@rules
@settings(max_examples=30)
@given(paths=TREES, lengths=LENGTHS, page_size=st.sampled_from([1, 4]), shares=st.booleans())
def test_every_query_meets_every_key_that_it_sees_exactly_once(rule, paths, lengths, page_size, shares) -> None:
    step = make_step(paths, lengths, page_size, seed=len(paths))
    index = step.index if shares else replace(step.index, sharing=None)
    check(make(index, rule), step, rule)


@rules
@settings(max_examples=20)
@given(paths=TREES, more=st.integers(0, 3), data=st.data())
def test_every_decode_step_fits_the_capacity_of_its_rows(rule: Cutting, paths, more, data) -> None:
    """Also in the smallest array that holds every step which shares nothing and is not cut."""
    step = make_step(paths, [1] * len(paths))
    rows = len(paths) + more
    longest = int(step.index.start.max()) + 1
    full = decode_capacity(rule, rows, longest)
    bare = Capacity(rows, rows if rule.small.queries else 0, rows, 0, 0)
    capacity = full if rule.tile else data.draw(st.sampled_from([full, bare, replace(full, parts=40, merges=7)]))
    lists = make(step.index, rule, capacity)
    assert capacity.holds(lists.capacity)
    check(lists, step, rule)


def test_a_step_that_cannot_fit_is_refused_with_both_sizes() -> None:
    step = make_step([[(0, 3)]] * 4, [1] * 4)
    with pytest.raises(ValueError, match=r"tokens=4.*does not fit.*tokens=3"):
        make(step.index, RULES["causal"], decode_capacity(RULES["causal"], 3))


@given(length=st.lists(st.integers(1, 5000), min_size=1, max_size=70), slots=st.integers(1, 50), least=st.integers(1, 600))
def test_chunks_end_sooner_than_whole_blocks_and_are_not_too_many(length: list[int], slots: int, least: int) -> None:
    keys, overhead = 16, 40
    lengths = np.array(length, np.int32)
    chunk = chunk_length(lengths, slots, least=least, keys=keys, overhead=overhead)
    longest = up(max(length), keys)
    assert chunk % keys == 0 and (chunk >= least or chunk == longest)
    assert time(length, chunk, slots, overhead) <= time(length, longest, slots, overhead)
    assert count(length, chunk) <= len(length) + (1 + MORE_WAVES) * slots
    assert chunk_length(lengths, 0, least=least, keys=keys, overhead=overhead) == longest


@given(length=st.lists(st.integers(1, 3000), min_size=1, max_size=20), more=st.integers(0, 60), lowest=st.integers(1, 20))
def test_the_shortest_chunks_are_the_shortest(length: list[int], more: int, lowest: int) -> None:
    keys, limit = 16, len(length) + more
    chunk = shortest(length, limit, lowest * keys, keys)
    assert count(length, chunk) <= limit and (chunk == lowest * keys or count(length, chunk - keys) > limit)


@pytest.mark.parametrize(("rows", "pieces"), [(1, 4), (20, 3), (33, 1), (40, 3), (256, 1)])
def test_rows_of_a_thousand_keys_fill_waves_of_33_items(rows: int, pieces: int) -> None:
    """20 rows leave 13 slots empty, 60 pieces hardly one; 33 fit as they are."""
    lengths = np.full(rows, 1000, np.int32)
    assert -(-1000 // chunk_length(lengths, 33, least=256, keys=64, overhead=96)) == pieces


def test_a_row_alone_occupies_the_device_and_many_equal_rows_are_not_cut() -> None:
    rule = cutting(slots=40)
    alone = make(make_step([[(0, 600)]], [1]).index, rule)
    assert 30 <= len(alone.small) <= 40 and alone.parts == len(alone.small) and len(alone.merge_token) == 1
    many = make(make_step([[(row, 300)] for row in range(170)], [1] * 170).index, rule)
    assert len(many.small) == 170 and many.parts == 0 and many.variant == (True, False, False)


def test_one_long_row_among_short_ones_is_cut() -> None:
    step = make_step([[(0, 5000)], *([(row, 20)] for row in range(1, 30))], [1] * 30)
    lists = make(step.index, cutting(slots=10))
    assert len(lists.merge_token) == 1 and lists.small[:, KV_END].max() == 5001
    keys = lists.small[:, KV_END] - lists.small[:, KV_BEGIN]
    assert keys.max() < 700 and (np.diff(keys) <= 0).all()


def keys_read(lists: Lists) -> int:
    """By all items, each key once an item."""
    return sum(int((items[:, KV_END] - items[:, KV_BEGIN]).sum()) for items in (lists.small, lists.large))


def test_what_many_rows_share_is_read_once_for_as_many_as_an_item_holds() -> None:
    """Two levels: 64 rows on 1000 keys, eight groups of eight on 200 more, nine keys alone."""
    paths = [[(0, 1000), (row // 8, 200), (100 + row, 8)] for row in range(64)]
    step = make_step(paths, [1] * 64)
    rule = cutting(slots=1, costs=GPU_COSTS)
    lists = make(step.index, rule)
    check(lists, step, rule)
    assert keys_read(lists) == 2 * 1000 + 8 * 200 + 64 * 9
    assert keys_read(make(replace(step.index, sharing=None), rule)) == 64 * 1209


def test_blocks_of_one_shared_range_stand_beside_each_other_with_equal_shares() -> None:
    step = make_step([[(0, 1000), (1 + row, 2)] for row in range(70)], [1] * 70)
    lists = make(step.index, cutting(slots=12))
    assert lists.large[:, Q_COUNT].tolist() == [24, 24, 22] * 4
    assert lists.large[:, KV_BEGIN].tolist() == sorted(lists.large[:, KV_BEGIN].tolist())


def test_where_nothing_pays_a_step_is_that_without_sharing() -> None:
    step = make_step([[(0, 16), (1 + row, 50)] for row in range(8)], [1] * 8)
    dear = cutting(costs=GPU_COSTS)
    assert step.index.sharing is not None and share(
        step.index.sharing, step.index.start, step.index.query_length, cutting().weighing, None
    )
    lists, flat = make(step.index, dear), make(replace(step.index, sharing=None), dear)
    for one, other in zip(vars(lists).values(), vars(flat).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_long_chunk_takes_no_part_and_does_not_part_the_others() -> None:
    """A prefill of the prefix itself stands between decodes that share it."""
    paths = [[(0, 400), (1 + row, 3)] for row in range(9)] + [[(0, 400)]]
    step = make_step(paths, [1] * 9 + [150])
    tree = share(step.index.sharing, step.index.start, step.index.query_length, cutting().weighing, None)
    assert tree is not None and [one[:] for one in tree.ranges] == [(0, 9, 0, 400)]
    assert sorted(tree.own.tolist()) == [0] + [400] * 9


def test_rows_whose_window_has_left_the_beginning_share_nothing() -> None:
    step = make_step([[(0, 100), (1 + row, 3)] for row in range(4)], [1] * 4)
    weighing = cutting().weighing
    index = step.index
    assert share(index.sharing, index.start, index.query_length, weighing, 104) is not None
    assert share(index.sharing, index.start, index.query_length, weighing, 103) is None


def test_a_tiles_cuts_do_not_depend_on_company_or_sharing() -> None:
    rule = RULES["tiles"]
    step = make_step([[(0, 90), (1 + row, 7 * row)] for row in range(6)], [1, 5, 1, 33, 70, 1])

    def cuts(lists: Lists, token: int, position: int) -> list[tuple[int, int]]:
        found = []
        for item in lists.large.tolist():
            queries = lists.token[item[0] : item[0] + item[1]].tolist()
            if token in queries and item[KV_BEGIN] <= position:
                found.append((item[KV_BEGIN], min(item[KV_END], position + 1)))
        return sorted(found)

    together, apart = make(step.index, rule), make(replace(step.index, sharing=None), rule)
    for token, position in zip(together.token.tolist(), together.position.tolist(), strict=True):
        truth = [(at, min(at + 32, position + 1)) for at in range(0, position + 1, 32)]
        assert cuts(together, token, position) == cuts(apart, token, position) == truth


def test_an_array_holds_every_list_at_the_place_that_its_capacity_says() -> None:
    rule = RULES["many slots"]
    lists = make(make_step([[(0, 60), (1 + row, 9)] for row in range(5)], [1, 1, 40, 1, 2]).index, rule)
    needed = lists.capacity
    for capacity in (needed, Capacity(*(size + 3 for size in vars(needed).values()))):
        flat = lists.flat(capacity)
        assert flat.dtype == np.int32 and len(flat) == capacity.size
        header, *parts = (flat[begin:end] for begin, end in capacity.places)
        assert header.tolist() == [len(lists.small), len(lists.large), len(lists.merge_token)] and len(header) == len(HEADER)
        assert all(begin % 8 == 0 for begin, _ in capacity.places)
        wanted = list(vars(lists).values())[:7]
        for part, array in zip(parts, wanted, strict=True):
            np.testing.assert_array_equal(part[: array.size], array.reshape(-1))
    assert not NOTHING.flat(needed).any()


def read_back(host: HostPlan) -> Lists:
    """The lists in a plan's array."""
    (few, many, merges), *parts = (host.flat[begin:end] for begin, end in host.capacity.places)
    token, position, small, large, merge_token, merge_ptr, merge_part = parts
    ptr = merge_ptr[: merges + 1]
    return Lists(
        token, position, small.reshape(-1, 8)[:few], large.reshape(-1, 8)[:many], merge_token[:merges], ptr,
        merge_part[: ptr[-1]], int(ptr[-1]),
    )  # fmt: skip


@settings(max_examples=40)
@given(paths=TREES, tokens=st.integers(0, MOST_STEPS - 1), shares=st.booleans(), rule=st.sampled_from(["causal", "not causal"]))
def test_the_plan_of_a_decode_step_follows_from_the_one_before(paths, tokens: int, shares: bool, rule: str) -> None:
    step = make_step(paths, [1] * len(paths))
    index = step.index if shares else replace(step.index, sharing=None)
    lists = make(index, RULES[rule])
    last = decode_plan(index, None, lists, HostPlan(lists.flat(lists.capacity), lists.capacity, lists.variant))
    assert last is not None
    later = replace(index, start=index.start + np.int32(tokens))
    grown = last.grown(later, None)
    assert grown is not None
    pages = [pages + list(range(10**6 * (span + 1), 10**6 * (span + 1) + tokens)) for span, pages in enumerate(step.pages)]
    check(read_back(grown), replace(step, index=later, pages=pages), RULES[rule])


def test_a_plan_does_not_follow_from_one_of_other_rows_or_of_other_sharing() -> None:
    index = make_step([[(0, 60), (1 + row, row)] for row in range(4)], [1] * 4).index
    lists = make(index, RULES["causal"])
    last = decode_plan(index, None, lists, HostPlan(lists.flat(lists.capacity), lists.capacity, lists.variant))
    assert last is not None and index.sharing is not None and last.grown(index, None) is not None
    one_more = np.array([1, 0, 0, 0], np.int32)
    less = Sharing(index.sharing.order, np.minimum(index.sharing.shared, 59))
    for other in (
        replace(index, start=index.start + one_more),
        replace(index, start=index.start - 1),
        replace(index, start=index.start + MOST_STEPS),
        replace(index, row=index.row[::-1]),
        replace(index, query_start=index.query_start[::-1]),
        replace(index, query_length=index.query_length + one_more),
        replace(index, sharing=None),
        replace(index, sharing=less),
    ):
        assert last.grown(other, None) is None
    assert last.grown(index, decode_capacity(RULES["causal"], 4)) is None
    chunk = make_step([[(0, 3)]], [5]).index
    assert decode_plan(chunk, None, lists, last.host) is None
