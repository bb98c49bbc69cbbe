"""The scheduler beside the naive model, over thousands of random operations and every wiring."""

from __future__ import annotations

import itertools

import pytest
from world import World

WIRINGS = list(itertools.product([1, 2, 4], [1, 2], ["prefix", "fcfs", "priority"]))


def live(world: World, operations: int) -> None:
    """Random operations, then silence until everything has ended."""
    r = world.random
    for _ in range(operations):
        what = r.random()
        if what < 0.22:
            world.submit()
        elif what < 0.27:
            world.submit_score()
        elif what < 0.31:
            world.abort()
        elif what < 0.35:
            world.stop()
        elif what < 0.36:
            world.now += r.choice([1.0, 20.0])
        else:
            world.step()
    world.drain()


@pytest.mark.parametrize(("page_size", "depth", "policy"), WIRINGS)
def test_every_answer_is_the_naive_models_whatever_happens(page_size, depth, policy):
    for seed in range(2):
        world = World(seed=seed, page_size=page_size, num_pages=96 // page_size, depth=depth, policy=policy)
        live(world, 250)
        world.verify()


@pytest.mark.parametrize(("page_size", "depth"), itertools.product([1, 4], [1, 2]))
def test_nothing_is_lost_when_memory_is_so_short_that_sequences_are_preempted(page_size, depth):
    preempted = 0
    for seed in range(4):
        pages = 100 // page_size + 1
        world = World(
            seed=seed, page_size=page_size, num_pages=pages, depth=depth, max_running=8, chunk=16, context=100, limits=(9, 60)
        )
        live(world, 150)
        world.verify()
        preempted += world.engine.scheduler.preemptions
    assert preempted > 0, "the pool was never short: the test tests nothing"


@pytest.mark.parametrize(("page_size", "depth"), itertools.product([1, 2], [1, 2]))
def test_failed_steps_cost_time_and_nothing_else(page_size, depth):
    for seed in range(4):
        world = World(seed=seed, page_size=page_size, num_pages=120 // page_size, depth=depth, fail_rate=0.05)
        live(world, 200)
        world.verify(failing=True)


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("eviction", ["lru", "lfu", "fifo"])
def test_chunk_size_and_eviction_order_never_show_in_an_answer(chunk, eviction):
    world = World(seed=5, chunk=chunk, eviction=eviction, num_pages=80)
    live(world, 250)
    world.verify()
