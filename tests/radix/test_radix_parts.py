"""Keys, pages and the eviction queue by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.radix.evict import Ghosts, LeafQueue, lru
from ramify.radix.keys import NO_IDS, as_ids, common_prefix, common_tokens
from ramify.radix.node import Node
from ramify.radix.pages import PagePool


def naive_common_prefix(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@given(st.lists(st.integers(-2, 2), max_size=20), st.lists(st.integers(-2, 2), max_size=20), st.integers(0, 3000))
def test_common_prefixes_are_those_of_a_loop(a: list[int], b: list[int], same: int) -> None:
    x, y = [7] * same + a, [7] * same + b
    expected = naive_common_prefix(x, y)
    assert common_prefix(as_ids(x), as_ids(y)) == expected
    assert common_tokens(as_ids(x).tobytes(), as_ids(y).tobytes()) == expected


def test_ids_are_rows_of_int32() -> None:
    row = np.arange(4, dtype=np.int32)
    assert as_ids(row) is row
    assert as_ids([1, 2]).dtype == np.int32 and as_ids(np.arange(8)[::2]).flags.c_contiguous
    with pytest.raises(TypeError, match="float64"):
        as_ids([1.5])
    with pytest.raises(TypeError, match=r"shape \(2, 2\)"):
        as_ids(np.zeros((2, 2), np.int32))
    with pytest.raises(OverflowError, match="2147483648"):
        as_ids([2**31])


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(-1, 39)), max_size=30), st.randoms(use_true_random=False))
def test_no_page_is_ever_handed_out_twice(wishes: list[tuple[int, int]], random) -> None:
    pool, held, pinned = PagePool(40), [], []
    for count, after in wishes:
        if count <= pool.free:
            out = np.empty(count, np.int32)
            pool.take(out, after)
            held.append(out)
        elif held:
            pages = held.pop(random.randrange(len(held)))
            if random.random() < 0.3:
                pool.pin(int(pages[0]))
                pinned.append(int(pages[0]))
            pool.give(random.choice([pages, pages[::-1]]))
        elif pinned:
            pool.unpin(pinned.pop())
        pool.check()
        out_now = [p for pages in held for p in pages.tolist()] + pool.pages_aside()
        free = [p for first, length in pool.runs() for p in range(first, first + length)]
        assert sorted(out_now + free) == list(range(40))


def test_pages_come_behind_the_last_one_where_they_are_free() -> None:
    pool, out = PagePool(16), np.empty(4, np.int32)
    pool.take(out, -1)
    last = int(out[-1])
    pool.take(out, last)
    assert out.tolist() == list(range(last + 1, last + 5))


def test_the_queue_gives_the_least_recently_used_leaf_even_if_it_was_used_since() -> None:
    queue = LeafQueue(lru)
    nodes = [Node(uid, None, NO_IDS, NO_IDS, pending=0, created=uid) for uid in range(4)]
    for node in nodes:
        queue.push(node)
    nodes[0].used = 10
    nodes[1].locks = 1
    queue.check()
    assert [queue.pop(), queue.pop(), queue.pop(), queue.pop()] == [nodes[2], nodes[3], nodes[0], None]
    nodes[1].locks = 0
    queue.push(nodes[1])
    assert queue.pop() is nodes[1]


def test_the_queue_does_not_grow_with_what_has_died() -> None:
    queue = LeafQueue(lru)
    for uid in range(1000):
        node = Node(uid, None, NO_IDS, NO_IDS, pending=0, created=uid)
        queue.push(node)
        node.dead = True
        queue.forget(node)
        assert len(queue.entries()) <= 200
    queue.check()
    assert queue.pop() is None


def test_ghosts_are_forgotten_in_time() -> None:
    ghosts = Ghosts(capacity=2)
    for name in "abc":
        ghosts.add(name, "evicted")
    assert [ghosts.reason(name) for name in "abc"] == [None, "evicted", "evicted"]
