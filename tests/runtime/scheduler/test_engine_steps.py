"""What one engine does with few requests: sharing, chunks, siblings, scores, order."""

from __future__ import annotations

import numpy as np
import pytest
from world import World, expected

from ramify.runtime.protocol import LogprobParams, pack_ids
from ramify.runtime.wire import Drawing, Submit, SubmitScore


def plain(world: World, ids: list[int], *, limit: int = 4, n: int = 1, **fields) -> int:
    fields = {"grammar": None, "logprobs": LogprobParams(), "tenant": "", "priority": 0, "deadline_s": None, **fields}
    return world.submit(ids=np.array(ids, np.int32), drawing=Drawing(limit=limit, n=n), **fields)


def unique_prefix_tokens(prompts: list[list[int]]) -> int:
    """Nodes of the tree that the prompts form: what must be computed at least once."""
    return len({tuple(p[: i + 1]) for p in prompts for i in range(len(p))})


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("chunk", [3, 8, 64, 1000])
def test_identical_cold_prompts_compute_their_prefix_once(depth, chunk):
    world = World(seed=0, depth=depth, chunk=chunk, max_running=16, num_pages=512, context=128)
    shared = [(i * 7) % 4 for i in range(40)]
    prompts = [[*shared, i % 4, i // 4, 1] for i in range(8)]
    for prompt in prompts:
        plain(world, prompt, limit=1)
    world.drain()
    world.verify()
    assert world.executor.computed_tokens == unique_prefix_tokens(prompts)


def test_the_prompts_last_token_is_computed_once_for_all_samples():
    world = World(seed=0, max_running=8, chunk=64)
    key = plain(world, [0, 1, 2, 3, 0, 1], limit=1, n=5)
    world.drain()
    world.verify()
    assert world.executor.computed_tokens == 6
    assert [world.told[key, i].end.usage.computed for i in range(5)] == [6, 0, 0, 0, 0]


def test_more_samples_than_rows_still_all_end():
    world = World(seed=0, max_running=2)
    plain(world, [0, 1, 2, 3], limit=3, n=7)
    world.drain()
    world.verify()


@pytest.mark.parametrize("page_size", [1, 4])
def test_a_conversation_computes_only_its_new_tokens_and_one_more(page_size):
    world = World(seed=0, page_size=page_size, num_pages=128, chunk=64, context=128)
    history, new = [0, 1, 2, 3, 1], 0
    for turn in range(5):
        key = plain(world, history, limit=4)
        world.drain()
        told = world.told[key, 0]
        if turn:
            assert told.end.usage.computed <= new + 1, (turn, told.end.usage)
        new_tokens = [turn % 4, 2, 1]
        history = [*history, *told.tokens, *new_tokens]
        new = len(new_tokens)
    world.verify()


def test_choices_are_scored_as_a_tree_without_computing_a_token_twice():
    world = World(seed=0, max_running=8, chunk=64)
    prompt = [0, 1, 2, 3, 0, 1, 1, 2]
    choices = [[1], [1, 2], [1, 2, 3], [2, 0], [2, 1]]
    world.keys += 1
    request = SubmitScore(key=world.keys, ids=pack_ids(prompt), choices=tuple(pack_ids(c) for c in choices))
    world.requests[world.keys] = request
    world.inbox.append(request)
    world.drain()
    world.verify()
    # The prompt, then the contexts [1], [1, 2] and [2]: last tokens of choices are scored, not computed.
    assert world.executor.computed_tokens == len(prompt) + 3
    usage = world.scores[world.keys].usage
    assert (usage.prompt, usage.cached, usage.computed) == (len(prompt) + 3, 0, len(prompt) + 3)


def test_a_sequence_that_was_preempted_says_the_same():
    calm = World(seed=3, num_pages=512, max_running=8)
    short = World(seed=3, num_pages=45, max_running=8)
    for world in (calm, short):
        for i in range(8):
            plain(world, [i % 4, 1, i // 4, 2, 0], limit=36)
        world.drain()
        world.verify()
    assert short.engine.scheduler.preemptions > 0
    assert [t.tokens for t in calm.told.values()] == [t.tokens for t in short.told.values()]


def test_what_can_never_fit_is_refused_with_both_numbers():
    world = World(seed=0, num_pages=20, context=64)
    too_long = plain(world, [0] * 60, limit=10)
    too_big = plain(world, [0] * 18, limit=10)
    empty = plain(world, [], limit=1)
    world.drain()
    assert "60 tokens" in world.refused[too_long].failure.message and "64" in world.refused[too_long].failure.message
    assert "pool holds 20" in world.refused[too_big].failure.message
    assert world.refused[empty].failure.code == "empty_prompt"


def test_priority_runs_first_and_nobody_starves():
    world = World(seed=0, policy="priority", max_running=1, chunk=64)
    low = plain(world, [0, 1], limit=2)
    for _ in range(300):
        plain(world, [1, 0, 1], limit=1, priority=5)
        world.step()
        if world.told[low, 0].end is not None:
            break
    assert world.told[low, 0].end is not None, "the least important request starved"


def test_a_deadline_that_passes_in_the_queue_or_while_running_ends_the_request_with_an_error():
    world = World(seed=0, max_running=1)
    running = plain(world, [0, 1], limit=20, deadline_s=1.0)
    queued = plain(world, [1, 1], limit=20, deadline_s=1.0)
    for _ in range(5):
        world.step()
    world.now += 2.0
    world.step()
    assert world.told[running, 0].end.failure.code == world.told[queued, 0].end.failure.code == "deadline_exceeded"
    world.drain()
    world.verify()


def test_a_request_goes_on_after_its_engine_was_lost_as_if_nothing_had_happened():
    first = World(seed=0)
    key = plain(first, [0, 1, 2, 0], limit=12, n=2)
    for _ in range(6):
        first.step()
    told = [first.told[key, i].tokens for i in range(2)]
    assert 0 < len(told[0]) < 12
    request = first.requests[key]
    assert isinstance(request, Submit)
    second = World(seed=1)
    second.requests[key] = request
    for index in range(2):
        second.told[key, index] = type(first.told[key, 0])(tokens=list(told[index]))
        fields = {f: getattr(request, f) for f in request.__struct_fields__}
        fields |= {"index": index, "output": pack_ids(told[index]), "drawing": Drawing(limit=12, n=1)}
        second.inbox.append(Submit(**fields))
    second.drain()
    assert [second.told[key, i].tokens for i in range(2)] == [expected(request, i) for i in range(2)]


def test_the_tenants_do_not_share():
    world = World(seed=0, chunk=64)
    for tenant in ("a", "b"):
        plain(world, [0, 1, 2, 3], limit=1, tenant=tenant)
        world.drain()
    assert world.executor.computed_tokens == 8
    world.verify()

