"""When choices are scored, what only the losing ones put into the cache leaves it at once."""

from __future__ import annotations

import numpy as np
import pytest
from fake_executor import logprob
from world import World

from ramify.radix.cache import Namespace
from ramify.runtime.choosing import RULES
from ramify.runtime.protocol import LogprobParams, pack_ids
from ramify.runtime.wire import Drawing, SubmitScore

PROMPT = [0, 1, 2, 3, 0, 1, 1, 2]
CHOICES = [[1, 1, 1], [1, 2, 3, 0], [2, 0, 1], [2, 1, 3, 3]]


def score(world: World, choices: list[list[int]], *, keep: str = "mean", prompt: list[int] = PROMPT, alone=()) -> None:
    world.keys += 1
    packed = tuple(pack_ids(choice) for choice in choices)
    request = SubmitScore(key=world.keys, ids=pack_ids(prompt), choices=packed, keep=keep, alone=alone)
    world.requests[world.keys] = request
    world.inbox.append(request)


def cached(world: World, ids: list[int]) -> int:
    return world.cache.match(Namespace(), ids).length


def rows(choices: list[list[int]]) -> list[list[float]]:
    return [[logprob([*PROMPT, *choice[:i]], choice[i]) for i in range(len(choice))] for choice in choices]


@pytest.mark.parametrize("chunk", [3, 64])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("rule", list(RULES))
def test_only_the_winners_branch_stays(rule, depth, chunk):
    world = World(seed=0, depth=depth, chunk=chunk, max_running=8)
    alone = tuple(tuple(-3.0 * (i + k) for k in range(len(choice))) for i, choice in enumerate(CHOICES))
    winner = CHOICES[RULES[rule](rows(CHOICES), alone)]
    score(world, CHOICES, keep=rule, alone=alone)
    world.drain()
    assert world.cache.stats().tokens == len(PROMPT) + len(winner) - 1
    assert cached(world, [*PROMPT, *winner]) == len(PROMPT) + len(winner) - 1
    world.verify()


@pytest.mark.parametrize("page_size", [2, 4, 16])
def test_with_larger_pages_the_winners_tokens_are_found_and_little_else_stays(page_size):
    world = World(seed=0, page_size=page_size, max_running=8, chunk=64)
    winner = CHOICES[RULES["mean"](rows(CHOICES), ())]
    score(world, CHOICES)
    world.drain()
    kept = len(PROMPT) + len(winner) - 1
    assert cached(world, [*PROMPT, *winner]) == kept
    assert world.cache.stats().cached <= -(-kept // page_size) + 1
    world.verify()


def test_what_a_losing_choice_computed_of_a_winner_that_it_continues_stays():
    choices = [[1, 2], [1, 2, 3, 0, 0], [1, 2, 3, 1]]
    assert RULES["greedy"](rows(choices), ()) == 0, "the test needs the shortest to win"
    world = World(seed=0, max_running=8, chunk=64)
    score(world, choices, keep="greedy")
    world.drain()
    assert world.cache.stats().tokens == cached(world, [*PROMPT, 1, 2]) == len(PROMPT) + 2
    world.verify()


@pytest.mark.parametrize(("keep", "tokens"), [("all", 8 + 1 + 1 + 2 + 1 + 1 + 2), ("none", 8)])
def test_all_branches_stay_or_none(keep, tokens):
    world = World(seed=0, max_running=8, chunk=64)
    score(world, CHOICES, keep=keep)
    world.drain()
    assert world.cache.stats().tokens == tokens
    world.verify()


def test_choices_without_a_prompt_leave_nothing_behind():
    world = World(seed=0, max_running=8, chunk=64)
    score(world, CHOICES, keep="none", prompt=[])
    world.drain()
    assert world.cache.stats().cached == 0
    world.verify()


def test_what_was_cached_before_the_choices_came_stays():
    world = World(seed=0, max_running=8, chunk=64)
    for choice in CHOICES:
        ids = np.array([*PROMPT, *choice], np.int32)
        world.submit(ids=ids, drawing=Drawing(limit=0), grammar=None, logprobs=LogprobParams(), tenant="", deadline_s=None)
    world.drain()
    before = world.cache.stats().tokens
    score(world, CHOICES, keep="none")
    world.drain()
    assert world.cache.stats().tokens == before
    world.verify()


def test_a_branch_that_somebody_else_goes_on_from_stays():
    world = World(seed=0, max_running=8, chunk=64)
    loser = CHOICES[1 - RULES["mean"](rows(CHOICES[:2]), ())]
    score(world, CHOICES[:2])
    plain = {"grammar": None, "logprobs": LogprobParams(), "tenant": "", "deadline_s": None}
    world.submit(ids=np.array([*PROMPT, *loser[:-1], 3], np.int32), drawing=Drawing(limit=5), **plain)
    world.drain()
    assert cached(world, [*PROMPT, *loser[:-1], 3]) == len(PROMPT) + len(loser)
    world.verify()


def test_branches_of_sequences_that_were_preempted_meanwhile_go_too():
    world = World(seed=0, num_pages=40, max_running=8, chunk=2)
    score(world, CHOICES)
    scheduler = world.engine.scheduler
    while scheduler.preemptions < 3:
        world.step()
        if running := scheduler.rows.running():
            scheduler.preempt(running[-1])
    world.drain()
    winner = CHOICES[RULES["mean"](rows(CHOICES), ())]
    assert world.cache.stats().tokens == len(PROMPT) + len(winner) - 1
    world.verify()
