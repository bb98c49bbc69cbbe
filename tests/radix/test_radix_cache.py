"""What the prefix cache promises, one sentence a test."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ramify.radix.cache import Lease, Namespace, PrefixCache
from ramify.radix.events import Removed, Stored
from ramify.radix.evict import ORDERS

NS = Namespace()


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, np.int32)


def run(cache: PrefixCache, tokens: list[int] | np.ndarray, *, step: int, namespace: Namespace = NS) -> Lease:
    """A prompt that is leased, computed in one step, and still held."""
    lease = cache.acquire(namespace, tokens, limit=len(tokens) - 1, step=step)
    assert cache.grow(lease, len(tokens))
    cache.insert(lease, tokens[lease.length :], step=step)
    return lease


def remember(cache: PrefixCache, tokens: list[int] | np.ndarray, *, step: int, namespace: Namespace = NS) -> None:
    """A prompt that came, was computed and left."""
    lease = run(cache, tokens, step=step, namespace=namespace)
    cache.settle(step)
    cache.release(lease, step=step)


def test_what_was_computed_once_is_found_again() -> None:
    cache = PrefixCache(num_pages=8)
    remember(cache, [1, 2, 3], step=1)
    found = cache.match(NS, ids(1, 2, 3, 4))
    assert (found.length, found.settled_length, found.diverged_at, found.reason) == (3, 3, 3, "never seen")
    lease = cache.acquire(NS, [1, 2, 3, 4], limit=3, step=2)
    assert lease.length == 3 and len(lease.pages) == 3 and cache.stats().locked == 3


def test_two_identical_cold_prompts_compute_their_prefix_once() -> None:
    cache = PrefixCache(num_pages=8)
    leader = run(cache, [1, 2, 3, 4], step=1)
    follower = cache.acquire(NS, [1, 2, 3, 4], limit=3, step=1)
    assert follower.length == 3 and follower.pages.tolist() == leader.pages.tolist()[:3]
    assert cache.match(NS, [1, 2, 3, 4]).settled_length == 0
    cache.settle(1)
    assert cache.match(NS, [1, 2, 3, 4]).settled_length == 4


def test_a_follower_goes_on_from_the_tree_when_its_leader_leaves() -> None:
    cache = PrefixCache(num_pages=8)
    leader = run(cache, [1, 2, 3, 4], step=1)
    follower = cache.acquire(NS, [1, 2, 3, 5], limit=3, step=1)
    cache.release(leader, step=1)
    assert cache.grow(follower, 4)
    cache.insert(follower, [5], step=1)
    cache.settle(1)
    cache.check()
    assert cache.match(NS, [1, 2, 3, 5]).settled_length == 4


def test_a_locked_prefix_is_never_evicted() -> None:
    cache = PrefixCache(num_pages=6)
    held = run(cache, [1, 2, 3], step=1)
    cache.settle(1)
    remember(cache, [7, 8, 9], step=2)
    other = cache.acquire(NS, [5] * 6, limit=5, step=3)
    assert cache.grow(other, 3) and not cache.grow(other, 4)
    assert cache.match(NS, [1, 2, 3]).length == 3
    assert cache.match(NS, [7, 8, 9]).reason == "evicted"
    assert set(held.pages.tolist()).isdisjoint(other.pages.tolist())


def test_grow_gives_all_pages_or_none() -> None:
    cache = PrefixCache(num_pages=4)
    lease = cache.acquire(NS, [], limit=0, step=1)
    assert not cache.grow(lease, 5) and lease.capacity == 0 and cache.stats().free == 4
    assert cache.grow(lease, 4) and lease.capacity == 4


def test_pages_are_neighbours_where_they_can_be() -> None:
    cache = PrefixCache(num_pages=256)
    first, second = (cache.acquire(NS, [], limit=0, step=1) for _ in range(2))
    for length in range(1, 33):
        assert cache.grow(first, length) and cache.grow(second, length)
    for lease in (first, second):
        assert (np.diff(lease.pages) == 1).all()


def test_a_page_of_a_left_owner_is_freed_only_when_its_step_has_settled() -> None:
    cache = PrefixCache(num_pages=4)
    lease = cache.acquire(NS, [1, 2], limit=1, step=1)
    assert cache.grow(lease, 3)
    cache.release(lease, step=2)
    assert (cache.stats().draining, cache.stats().free) == (3, 1)
    cache.settle(1)
    assert cache.stats().free == 1
    cache.settle(2)
    assert cache.stats().free == 4


def test_a_prefix_that_a_launched_step_reads_is_not_evicted_before_it_has_settled() -> None:
    cache = PrefixCache(num_pages=4)
    remember(cache, [1, 2, 3, 4], step=1)
    reader = cache.acquire(NS, [1, 2, 3, 4], limit=4, step=2)
    cache.release(reader, step=2)
    other = cache.acquire(NS, [9], limit=0, step=3)
    assert cache.view().available == 0 and not cache.grow(other, 1)
    cache.settle(2)
    assert cache.view().available == 4 and cache.grow(other, 1)


def test_of_a_long_leaf_only_the_end_is_evicted_that_is_needed() -> None:
    cache = PrefixCache(num_pages=8)
    remember(cache, list(range(8)), step=1)
    lease = cache.acquire(NS, [99], limit=0, step=2)
    assert cache.grow(lease, 3)
    found = cache.match(NS, list(range(8)))
    assert (found.length, found.diverged_at, found.reason) == (5, 5, "evicted")
    assert cache.stats().evicted_tokens == 3


@pytest.mark.parametrize(("policy", "first_to_go"), [("lru", [2, 2]), ("lfu", [3, 3]), ("fifo", [1, 1])])
def test_the_order_of_eviction_is_a_choice(policy: str, first_to_go: list[int]) -> None:
    cache = PrefixCache(num_pages=6, policy=policy)
    for step, token in enumerate([1, 2, 3], start=1):
        remember(cache, [token, token], step=step)
    for token in (2, 2, 3, 1, 1):
        cache.release(cache.acquire(NS, [token, token], limit=2, step=4), step=3)
    assert cache.grow(cache.acquire(NS, [9], limit=0, step=4), 1)
    assert [t for t in (1, 2, 3) if cache.match(NS, [t, t]).length < 2] == first_to_go[:1]


def test_orders_are_pure_functions_in_a_table() -> None:
    class Standing:
        used, hits, created = 7, 2, 3

    assert {name: order(Standing()) for name, order in ORDERS.items()} == {"lru": (7,), "lfu": (2, 7), "fifo": (3,)}


def test_a_lease_keeps_its_own_pages_when_another_inserted_the_same_tokens_first() -> None:
    cache = PrefixCache(num_pages=8)
    first = cache.acquire(NS, [1, 2, 3], limit=2, step=1)
    second = cache.acquire(NS, [1, 2, 3], limit=2, step=1)
    for lease in (first, second):
        assert cache.grow(lease, 3)
        cache.insert(lease, [1, 2, 3], step=1)
    assert set(first.pages.tolist()).isdisjoint(second.pages.tolist())
    assert cache.stats().cached == 3 and cache.stats().private == 3
    cache.grow(second, 4)
    cache.settle(1)
    cache.commit(second, [4])
    assert cache.match(NS, [1, 2, 3, 4]).length == 4
    cache.release(second, step=2)
    assert cache.stats().draining == 3
    cache.settle(2)
    assert cache.stats().free == 4
    cache.check()


def test_sampled_tokens_are_shared_once_they_are_committed() -> None:
    cache = PrefixCache(num_pages=64)
    lease = run(cache, [1, 2], step=1)
    cache.settle(1)
    for token in range(3, 40):
        assert cache.grow(lease, lease.length + 1)
        assert cache.match(NS, [*range(1, token), token]).length == token - 1
        cache.commit(lease, [token])
    assert cache.match(NS, range(1, 40)).length == 39
    assert len(cache.tree()["nodes"]) == 1, "a decoding sequence lengthens one leaf"


def test_namespaces_share_nothing() -> None:
    cache = PrefixCache(num_pages=16)
    remember(cache, [1, 2, 3], step=1, namespace=Namespace(tenant="a"))
    for other in (NS, Namespace(tenant="b"), Namespace(tenant="a", adapter="x"), Namespace(tenant="a", weights=1)):
        assert cache.acquire(other, [1, 2, 3], limit=3, step=2).length == 0
    assert cache.match(Namespace(tenant="a"), [1, 2, 3]).length == 3


def test_a_miss_is_explained() -> None:
    cache = PrefixCache(num_pages=4)
    remember(cache, [1, 2, 3], step=1, namespace=Namespace(tenant="a"))
    a, tuned, b = Namespace(tenant="a"), Namespace(tenant="a", adapter="x"), Namespace(tenant="b")
    assert cache.match(a, [1, 2, 3]).reason == "hit"
    assert cache.match(a, [1, 2, 3], limit=2).reason == "limit"
    assert cache.match(a, [1, 5, 3]).reason == "never seen" and cache.match(a, [1, 5, 3]).diverged_at == 1
    assert cache.match(tuned, [1, 2, 3]).reason == "other namespace"
    assert cache.match(b, [1, 2, 3]).reason == "never seen", "another tenant's prompts are nobody's business"
    assert cache.flush() == 3
    assert cache.match(a, [1, 2, 3]).reason == "evicted"


def test_a_failed_step_takes_what_was_pending_on_it_and_all_below() -> None:
    cache = PrefixCache(num_pages=16)
    remember(cache, [1, 2], step=1)
    leader = run(cache, [1, 2, 3, 4], step=2)
    follower = run(cache, [1, 2, 3, 5], step=2)
    cache.fail(2)
    assert cache.match(NS, [1, 2, 3, 4]).length == 2
    assert leader.is_cut and follower.is_cut
    assert cache.rewind(leader, 2, step=2) == 2 and (leader.length, leader.capacity) == (2, 2)
    cache.release(follower, step=2)
    cache.check()
    assert cache.grow(leader, 4)
    cache.insert(leader, [3, 4], step=3)
    cache.settle(3)
    assert cache.match(NS, [1, 2, 3, 4]).settled_length == 4
    cache.release(leader, step=3)
    cache.check()
    assert cache.stats().free == 12


def test_a_follower_cannot_keep_what_a_failed_step_of_its_leader_should_have_computed() -> None:
    cache = PrefixCache(num_pages=16)
    leader = run(cache, [1, 2, 3, 4], step=1)
    follower = cache.acquire(NS, [1, 2, 3, 4], limit=3, step=1)
    cache.fail(1)
    assert cache.rewind(follower, 3, step=1) == 0
    assert cache.rewind(leader, 0, step=1) == 0
    cache.settle(1)
    assert cache.stats().free == 16


def test_a_lease_keeps_what_it_computed_before_the_step_that_failed() -> None:
    cache = PrefixCache(num_pages=8)
    lease = run(cache, [1, 2], step=1)
    cache.settle(1)
    assert cache.grow(lease, 5)
    cache.insert(lease, [3, 4, 5], step=3)  # token 3 was drawn and computed by step 2, 4 and 5 are forced
    pages = lease.pages.tolist()
    cache.settle(2)
    cache.fail(3)
    assert cache.rewind(lease, 3, step=3) == 3
    assert lease.pages.tolist() == pages[:3] and lease.length == 2
    cache.commit(lease, [3])
    cache.check()
    assert cache.match(NS, [1, 2, 3]).length == 3


def test_a_step_that_fails_inside_a_page_takes_its_lease_along() -> None:
    cache = PrefixCache(num_pages=8, page_size=4)
    lease = run(cache, [1, 2], step=1)
    cache.fail(1)
    assert lease.is_cut
    cache.release(lease, step=1)
    cache.settle(1)
    assert cache.match(NS, [1, 2]).length == 0 and cache.stats().free == 8


def test_after_a_rewind_only_what_is_computed_for_sure_can_be_shared() -> None:
    cache = PrefixCache(num_pages=8, page_size=4)
    lease = run(cache, range(6), step=1)
    assert cache.grow(lease, 7)
    cache.insert(lease, [6], step=2)
    cache.fail(2)
    assert cache.rewind(lease, 6, step=2) == 6
    assert lease.length == 4 and lease.capacity == 8
    cache.settle(1)
    cache.commit(lease, [4, 5])
    cache.release(lease, step=1)
    cache.check()
    assert cache.match(NS, range(6)).settled_length == 6


def test_a_page_that_is_being_copied_is_left_rather_than_written_again() -> None:
    cache = PrefixCache(num_pages=8, page_size=4)
    lease = run(cache, range(6), step=1)
    cache.settle(1)
    fork = cache.acquire(NS, range(7), limit=6, step=2)
    assert fork.copy is not None and fork.copy.src_page == lease.pages[1]
    assert cache.rewind(lease, 5, step=1) == 4
    assert lease.capacity == 4
    cache.check()


def test_a_leader_that_leaves_at_once_still_holds_what_its_step_will_write() -> None:
    cache = PrefixCache(num_pages=4)
    cache.release(run(cache, [1, 2, 3], step=1), step=0)
    assert cache.view().available == 1 and cache.flush() == 0
    cache.settle(1)
    assert cache.view().available == 4 and cache.match(NS, [1, 2, 3]).settled_length == 3


def test_rewind_gives_pages_back_once_their_step_has_settled() -> None:
    cache = PrefixCache(num_pages=8)
    lease = run(cache, [1, 2, 3, 4], step=1)
    assert cache.rewind(lease, 2, step=1) == 2
    assert cache.stats().cached == 4 and cache.view().available == 4
    cache.settle(1)
    assert cache.view().available == 6 and cache.match(NS, [1, 2, 3, 4]).length == 4


def test_only_whole_pages_are_shared_and_the_rest_is_copied() -> None:
    cache = PrefixCache(num_pages=8, page_size=4)
    first = run(cache, range(6), step=1)
    assert cache.match(NS, range(6)).length == 4
    cache.settle(1)
    assert cache.match(NS, range(6)).length == 6
    fork = cache.acquire(NS, [*range(6), 9], limit=6, step=2)
    assert fork.length == 6 and fork.copy is not None
    assert (fork.copy.src_page, fork.copy.num_tokens) == (first.pages[1], 2)
    assert fork.pages.tolist() == [first.pages[0], fork.copy.dst_page]
    cache.check()


def test_a_fork_inside_a_whole_page_copies_its_beginning() -> None:
    cache = PrefixCache(num_pages=8, page_size=4)
    remember(cache, range(8), step=1)
    fork = cache.acquire(NS, [0, 1, 2, 3, 4, 5, 99], limit=6, step=2)
    assert fork.length == 6 and fork.copy is not None and fork.copy.num_tokens == 2


def test_a_page_that_is_still_being_computed_is_not_copied() -> None:
    cache = PrefixCache(num_pages=8, page_size=4)
    run(cache, range(8), step=1)
    fork = cache.acquire(NS, range(8), limit=7, step=1)
    assert fork.length == 4 and fork.copy is None
    found = cache.match(NS, range(8), limit=7)
    assert (found.length, found.reason) == (4, "pending page")


def test_a_conversation_goes_on_in_its_last_page_without_a_copy() -> None:
    cache = PrefixCache(num_pages=8, page_size=4)
    remember(cache, range(6), step=1)
    turn = cache.acquire(NS, range(10), limit=9, step=2)
    assert turn.length == 6 and turn.copy is None
    other = cache.acquire(NS, range(10), limit=9, step=2)
    assert other.length == 6 and other.copy is not None, "the page has an owner now"
    assert cache.grow(turn, 10)
    cache.insert(turn, range(6, 10), step=2)
    cache.settle(2)
    cache.check()
    assert cache.match(NS, range(10)).length == 10


def test_the_source_of_a_copy_outlives_its_eviction() -> None:
    cache = PrefixCache(num_pages=3, page_size=4)
    remember(cache, range(8), step=1)
    fork = cache.acquire(NS, [0, 1, 2, 3, 4, 5, 99], limit=6, step=2)
    assert fork.copy is not None
    other = cache.acquire(NS, [50], limit=0, step=2)
    assert not cache.grow(other, 1)
    assert cache.flush() == 4
    assert cache.stats().draining == 1, "the page waits for the copy"
    cache.insert(fork, [99], step=2)
    cache.settle(2)
    assert cache.grow(other, 1) and other.pages.tolist() == [fork.copy.src_page]
    cache.check()


def test_a_copy_that_was_never_planned_is_not_shared() -> None:
    cache = PrefixCache(num_pages=8, page_size=4)
    remember(cache, range(8), step=1)
    fork = cache.acquire(NS, [0, 1, 2, 3, 4, 5, 99], limit=6, step=2)
    assert fork.copy is not None
    cache.flush()
    cache.release(fork, step=1)
    assert cache.match(NS, range(6)).length == 4
    cache.check()


def test_without_a_page_for_the_copy_the_match_ends_at_the_page_before() -> None:
    cache = PrefixCache(num_pages=2, page_size=4)
    held = run(cache, range(8), step=1)
    cache.settle(1)
    fork = cache.acquire(NS, [0, 1, 2, 3, 4, 5, 99], limit=6, step=2)
    assert fork.length == 4 and fork.copy is None and held.length == 8


def test_a_copy_in_a_failed_step_has_not_happened() -> None:
    cache = PrefixCache(num_pages=8, page_size=4)
    remember(cache, range(6), step=1)
    first = cache.acquire(NS, range(10), limit=9, step=2)
    fork = cache.acquire(NS, range(10), limit=9, step=2)
    assert fork.copy is not None and cache.grow(fork, 10)
    cache.insert(fork, range(6, 10), step=2)
    cache.fail(2)
    assert fork.is_cut and cache.rewind(fork, 6, step=2) == 4 and fork.copy is None
    assert not first.is_cut
    cache.check()


def test_a_lease_waits_with_sharing_for_another_ones_node_and_then_goes_on() -> None:
    cache = PrefixCache(num_pages=16)
    lease = run(cache, [1], step=1)
    cache.settle(1)
    assert cache.grow(lease, 3)  # tokens 2 and 3 are drawn and computed by steps 2 and 3
    cache.settle(3)
    other = run(cache, [1, 2, 3, 9], step=4)
    cache.commit(lease, [2, 3])
    assert lease.length == 3 and cache.match(NS, [1, 2, 3]).settled_length == 1
    cache.check()
    cache.fail(4)
    assert not lease.is_cut, "what it computed itself does not depend on step 4"
    cache.release(other, step=4)
    cache.settle(4)
    assert cache.grow(lease, 4)
    cache.commit(lease, [4])
    assert cache.match(NS, [1, 2, 3, 4]).settled_length == 4
    cache.check()


def test_the_tree_can_be_looked_at_and_its_tokens_add_up() -> None:
    cache = PrefixCache(num_pages=32, page_size=2)
    for step, tokens in enumerate([[1, 2, 3, 4], [1, 2, 5, 6], [7, 7, 7]], start=1):
        remember(cache, tokens, step=step)
    view = json.loads(json.dumps(cache.tree()))
    assert sum(node["length"] for node in view["nodes"]) == view["tokens"] == cache.stats().tokens == 9


def test_events_say_what_came_and_went_and_how_many_were_lost() -> None:
    cache = PrefixCache(num_pages=4, num_events=2)
    assert cache.events is not None
    remember(cache, [1, 2, 3], step=1)
    (stored,), lost = cache.events.drain()
    assert isinstance(stored, Stored) and stored.ids.tolist() == [1, 2, 3] and stored.parent_page == -1 and not lost
    cache.flush()
    (removed,), _ = cache.events.drain()
    assert isinstance(removed, Removed) and removed.num_tokens == 3 and removed.reason == "evicted"
    for step in (2, 3, 4):
        remember(cache, [step], step=step)
    assert cache.events.drain()[1] == 1


def test_hits_are_counted() -> None:
    cache = PrefixCache(num_pages=8)
    remember(cache, [1, 2, 3], step=1)
    cache.release(cache.acquire(NS, [1, 2, 9, 9], limit=3, step=2), step=1)
    stats = cache.stats()
    assert (stats.acquired, stats.queried_tokens, stats.hit_tokens) == (2, 5, 2)


def test_a_cache_that_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="0 pages of 1"):
        PrefixCache(num_pages=0)
    with pytest.raises(ValueError, match="Choose one of lru, lfu, fifo"):
        PrefixCache(num_pages=1, policy="random")


def test_the_check_finds_a_page_that_is_lost() -> None:
    cache = PrefixCache(num_pages=4)
    remember(cache, [1, 2], step=1)
    cache.check()
    cache._pool.take(np.empty(1, np.int32), -1)
    with pytest.raises(AssertionError, match="do not add up"):
        cache.check()


# ----------------------------------------------------------------------------------------------------------- retraction


def branch(cache: PrefixCache, tokens: list[int], *, step: int) -> Lease:
    """A prompt that came, was computed and left; the lease by which it can be taken back."""
    lease = run(cache, tokens, step=step)
    cache.settle(step)
    cache.release(lease, step=step)
    return lease


def test_a_branch_that_is_taken_back_leaves_at_once_and_what_it_shares_stays() -> None:
    cache = PrefixCache(num_pages=16, num_events=10)
    winner, loser = branch(cache, [1, 2, 3, 4], step=1), branch(cache, [1, 2, 5, 6, 7], step=2)
    assert cache.events is not None
    cache.events.drain()
    assert cache.retract(loser, 2) == 3
    cache.check()
    assert cache.stats().free == 12 and cache.stats().evicted_tokens == 0
    assert cache.match(NS, [1, 2, 3, 4]).length == 4
    found = cache.match(NS, [1, 2, 5, 6])
    assert (found.length, found.reason) == (2, "dropped")
    (removed,) = cache.events.drain()[0]
    assert isinstance(removed, Removed) and (removed.num_tokens, removed.reason) == (3, "dropped")
    assert cache.retract(winner, 4) == 0 and cache.retract(loser, 2) == 0


def test_only_what_the_lease_itself_gave_can_be_taken_back() -> None:
    cache = PrefixCache(num_pages=16)
    branch(cache, [1, 2, 3, 4], step=1)
    double = cache.acquire(NS, [1, 2, 3, 4, 5], limit=2, step=2)
    assert cache.grow(double, 5)
    cache.insert(double, [3, 4, 5], step=2)
    cache.settle(2)
    cache.release(double, step=2)
    assert cache.retract(double, 2) == 1
    cache.check()
    assert cache.match(NS, [1, 2, 3, 4, 5]).length == 4


def test_what_somebody_leases_or_goes_on_from_is_not_taken_back() -> None:
    cache = PrefixCache(num_pages=16)
    lease = branch(cache, [1, 2, 3, 4], step=1)
    reader = cache.acquire(NS, [1, 2, 3], limit=3, step=2)
    assert cache.retract(lease, 1) == 1, "of a leased path the end that is free goes"
    cache.release(reader, step=1)
    below = branch(cache, [1, 2, 3, 9], step=2)
    assert cache.retract(lease, 1) == 0
    assert cache.retract(below, 3) == 1 and cache.retract(lease, 1) == 2
    cache.check()
    assert cache.match(NS, [1, 2, 3]).length == 1


def test_a_page_that_took_the_place_of_an_evicted_one_is_not_taken_back() -> None:
    cache = PrefixCache(num_pages=16)
    lease = branch(cache, [1, 2, 3], step=1)
    assert cache.flush() == 3
    held = run(cache, [8, 8, 8, 8], step=2)  # so that the pages have other numbers now
    branch(cache, [1, 2, 3], step=2)
    assert cache.retract(lease, 0) == 0
    cache.release(held, step=2)
    cache.check()


def test_of_a_page_that_begins_with_kept_tokens_the_last_copy_stays() -> None:
    cache = PrefixCache(num_pages=16, page_size=4)
    leases = [branch(cache, [1, 2, 3, 4, 5, 6, token, token, 9], step=step) for step, token in enumerate([7, 8], start=1)]
    assert [cache.retract(lease, 6) for lease in leases] == [5, 1], "the second page begins as the first did, with 5 and 6"
    cache.check()
    assert cache.match(NS, [1, 2, 3, 4, 5, 6, 0]).length == 6
