"""Grammars are read beside the steps: who waits for one waits alone, and everything else goes on."""

from __future__ import annotations

import itertools

import pytest
from world import END, World, expected

from ramify.runtime.protocol import pack_ids
from ramify.runtime.wire import AbortKey, Drawing, GrammarLoaded, StopAt

WIRINGS = list(itertools.product([1, 4], [1, 2], ["prefix", "fcfs", "priority"]))


def constrained(world: World, grammar: bytes = b"forcing", **fields) -> int:
    drawing = Drawing(limit=9, seed=1, stop_ids=(END,), n=fields.pop("n", 1))
    return world.submit(drawing=drawing, grammar=grammar, **{"deadline_s": None, **fields})


def free(world: World) -> int:
    return world.submit(drawing=Drawing(limit=9, seed=2), grammar=None, deadline_s=None)


def late() -> World:
    return World(seed=0, late_grammars=True)


def read(world: World, *tickets: int) -> None:
    world.inbox += [GrammarLoaded(ticket) for ticket in tickets or list(world.reader.under_way)]
    world.step()


@pytest.mark.parametrize(("page_size", "depth", "policy"), WIRINGS)
def test_every_answer_is_the_naive_models_whenever_grammars_arrive(page_size, depth, policy):
    """Among aborts, stops, deadlines, and grammars that are forgotten and read again."""
    waited = 0
    for seed in range(2):
        world = World(
            seed=seed, page_size=page_size, num_pages=96 // page_size, depth=depth, policy=policy, late_grammars=True
        )
        for _ in range(200):
            what = world.random.random()
            if what < 0.25:
                world.submit()
            elif what < 0.30:
                world.abort()
            elif what < 0.34:
                world.stop()
            elif what < 0.36:
                world.now += world.random.choice([1.0, 20.0])
            else:
                world.read_some()
                world.step()
        while not world.engine.idle or world.inbox:
            world.read_some()
            world.step()
        world.verify()
        waited += world.reader.tickets
    assert waited > 5, "no grammar was waited for: the test tests nothing"


def test_others_go_on_while_a_grammar_is_read():
    world = late()
    waiting, running = constrained(world), free(world)
    for _ in range(20):
        world.step()
    assert world.told[running, 0].end is not None
    assert not world.told[waiting, 0].tokens and world.engine.scheduler.num_waiting == 1
    assert not world.engine.idle and world.engine.awaits_grammars
    read(world)
    assert not world.engine.awaits_grammars
    world.drain()
    world.verify()


def test_a_grammar_is_read_once_for_all_who_want_it():
    world = late()
    keys = [constrained(world), constrained(world, n=3), constrained(world)]
    other = constrained(world, b"alternating")
    world.step()
    assert world.reader.tickets == 2
    read(world, 1)
    later = constrained(world)
    for _ in range(30):
        world.step()
    assert all(world.told[key, 0].end is not None for key in [*keys, later]), "what is kept is not read again"
    assert world.told[other, 0].end is None
    read(world)
    world.drain()
    world.verify()


def test_an_abort_while_its_grammar_is_read_is_answered_at_once_for_every_sample():
    world = late()
    key = constrained(world, n=3)
    world.step()
    world.aborted.add(key)
    world.inbox.append(AbortKey(key))
    world.step()
    for index in range(3):
        end = world.told[key, index].end
        assert end is not None and end.finish.reason == "abort" and end.num_output == 0
    assert world.engine.idle
    read(world)
    assert world.engine.idle and world.engine.scheduler.num_waiting == 0 and b"forcing" in world.reader.kept
    world.verify()


def test_a_deadline_passes_while_its_grammar_is_read():
    world = late()
    key, patient = constrained(world, deadline_s=30.0), constrained(world)
    world.step()
    world.now += 31.0
    world.step()
    end = world.told[key, 0].end
    assert end is not None and end.failure is not None and end.failure.code == "deadline_exceeded"
    read(world)
    world.drain()
    assert world.told[patient, 0].tokens == expected(world.requests[patient], 0)
    world.verify()


@pytest.mark.parametrize("is_late", [True, False])
def test_who_asked_for_a_grammar_that_cannot_be_read_fails_alone_with_the_same_error(is_late):
    world = World(seed=0, late_grammars=is_late)
    broken = [constrained(world, b"broken"), constrained(world, b"broken", n=3)]
    others = [constrained(world), free(world)]
    world.step()
    if is_late:
        read(world)
    assert {key: world.refused[key].failure.code for key in broken} == dict.fromkeys(broken, "invalid_grammar")
    assert all("cannot be read" in world.refused[key].failure.message for key in broken)
    assert not any(world.told[key, 0].end for key in broken)
    again = constrained(world, b"broken")
    world.step()
    if is_late:
        assert again not in world.refused
        read(world)
    assert again in world.refused
    world.drain()
    assert all(world.told[key, 0].tokens == expected(world.requests[key], 0) for key in others)
    for key in (*broken, again):
        del world.requests[key]
    world.verify()


def test_one_that_was_aborted_is_not_told_that_its_grammar_cannot_be_read():
    world = late()
    key = constrained(world, b"broken")
    world.step()
    world.aborted.add(key)
    world.inbox += [AbortKey(key), GrammarLoaded(1)]
    world.step()
    assert key not in world.refused and world.engine.idle
    world.verify()


def test_requests_that_wait_for_their_grammar_count_as_waiting():
    world = World(seed=0, late_grammars=True, queue=2)
    constrained(world), constrained(world)
    refused = constrained(world)
    world.step()
    assert world.refused[refused].failure.code == "queue_full"


def test_a_sample_that_was_told_to_stop_leaves_the_others_their_grammar():
    world = late()
    key = constrained(world, n=2)
    world.step()
    world.told[key, 0].stopped_at = 0
    world.inbox.append(StopAt(key, 0, 0))
    world.step()
    assert world.told[key, 0].end is not None and world.told[key, 1].end is None
    read(world)
    world.drain()
    assert world.told[key, 1].tokens == expected(world.requests[key], 1)


def test_a_request_that_lost_its_engine_goes_on_where_it_was():
    whole = World(seed=0)
    constrained(whole)
    whole.drain()
    said = whole.told[1, 0].tokens
    world = late()
    constrained(world)
    request = world.inbox.pop()
    fields = {name: getattr(request, name) for name in request.__struct_fields__}
    world.inbox.append(type(request)(**{**fields, "output": pack_ids(said[:4])}))
    world.step()
    read(world)
    world.drain()
    assert world.told[1, 0].tokens == said[4:]


def test_the_reader_is_closed_with_the_engine():
    world = late()
    world.engine.close()
    assert world.reader.closed == 1
