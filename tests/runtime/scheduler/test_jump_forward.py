"""Tokens that a grammar forces are computed together, and what is said is the same."""

from __future__ import annotations

import pytest
from world import END, World, expected

from ramify.runtime.protocol import LogprobParams, pack_ids
from ramify.runtime.wire import Drawing

FORCED = [2, 1, 0]
"""How every text of the grammar begins; a later 2 is followed by 1 0 3 0."""


def forcing(world: World, *, logprobs: bool = False, **drawing) -> int:
    """A request under the grammar that forces runs."""
    asked = {"limit": 20, "seed": 1, "stop_ids": (END,), **drawing}
    said = LogprobParams(output=logprobs)
    return world.submit(drawing=Drawing(**asked), grammar=b"forcing", logprobs=said, deadline_s=None)


def run(world: World) -> list[list[int]]:
    """All answers, each checked beside the naive model."""
    world.drain()
    world.verify()
    return [told.tokens for told in world.told.values()]


@pytest.mark.parametrize("page_size", [1, 4])
@pytest.mark.parametrize("depth", [1, 2])
def test_the_same_is_said_in_fewer_steps(page_size, depth):
    outputs, steps = [], []
    for on in (True, False):
        world = World(seed=3, page_size=page_size, num_pages=400 // page_size, depth=depth, jump_forward=on)
        for seed in range(12):
            forcing(world, seed=seed)
        outputs.append(run(world))
        steps.append(world.executor.steps)
        forced = sum(told.end.usage.forced for told in world.told.values() if told.end)
        assert (forced > 36) is on
    assert outputs[0] == outputs[1]
    assert steps[0] < steps[1]


def test_what_is_forced_at_the_beginning_is_computed_with_the_prompt():
    world = World(seed=0, chunk=64)
    key = forcing(world, limit=4)
    world.step()
    assert world.told[key, 0].tokens[:3] == FORCED
    assert len(world.told[key, 0].tokens) == 4, "one step drew the fourth"


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7])
def test_a_limit_within_a_run_is_kept(limit):
    world = World(seed=0)
    for seed in range(8):
        forcing(world, seed=seed, limit=limit)
    for tokens in run(world):
        assert len(tokens) <= limit and tokens == [*FORCED, *tokens[3:]][:limit]
    assert all(told.end and told.end.num_output == len(told.tokens) for told in world.told.values())


def test_an_end_token_within_a_run_ends_the_sequence():
    world = World(seed=0)
    key = forcing(world, stop_ids=(1,))
    assert run(world) == [[2, 1]]
    end = world.told[key, 0].end
    assert end is not None and end.finish.reason == "stop" and end.finish.matched == 1


def test_where_log_probabilities_are_wanted_each_token_is_drawn():
    world = World(seed=0)
    key = forcing(world, logprobs=True)
    run(world)
    end = world.told[key, 0].end
    assert end is not None and end.usage.forced == 0


def test_without_canonical_tokens_the_grammar_alone_decides():
    world = World(seed=0)
    free = forcing(world, canonical_forced=False)
    run(world)
    end = world.told[free, 0].end
    assert end is not None and end.usage.forced == 0
    assert world.told[free, 0].tokens == expected(world.requests[free], 0)


def test_samples_of_a_request_jump_each_for_itself():
    world = World(seed=0)
    forcing(world, n=3)
    outputs = run(world)
    assert len(outputs) == 3 and all(tokens[:3] == FORCED for tokens in outputs)
    assert all(told.end and told.end.usage.forced >= 3 for told in world.told.values())


def test_a_request_that_lost_its_engine_within_a_run_goes_on_there():
    whole = World(seed=0)
    key = forcing(whole)
    run(whole)
    said = whole.told[key, 0].tokens
    for count in range(1, len(said)):
        world = World(seed=0)
        forcing(world)
        request = world.inbox.pop()
        world.inbox.append(type(request)(**{**fields_of(request), "output": pack_ids(said[:count])}))
        world.drain()
        assert world.told[1, 0].tokens == said[count:], f"lost after {count} tokens"


def fields_of(request) -> dict:
    return {name: getattr(request, name) for name in request.__struct_fields__}

