"""Masks that several threads fill are those that one fills; and a crew does everything once, whatever goes wrong in it."""

from __future__ import annotations

import gc
import json
import random
import threading
import time
import weakref

import numpy as np
import pytest
from grammar_bench import STOP, Bench

from ramify.constrained.crew import PATIENCE_S, Crew
from ramify.constrained.masks import allowed_tokens
from ramify.constrained.spec import JsonSchema
from ramify.constrained.store import GrammarStore

COUNTED = {"type": "string", "minLength": 2, "maxLength": 9}
RECORD = {"type": "object", "properties": {"name": COUNTED, "size": {"type": "integer"}}, "required": ["name", "size"]}
ITEMS = {"items": {**RECORD, "additionalProperties": False}, "minItems": 3, "maxItems": 9}
LISTS = JsonSchema(json.dumps({"type": "array", **ITEMS}))


def helpers(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_fill_the_masks_that_one_thread_fills(bench: Bench, threads: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ramify.constrained.crew.PATIENCE_S", 0.0)
    grammar = bench.compiler.only("llguidance").compile(LISTS)
    stores = [GrammarStore(bench.vocabulary.to_bytes(), threads=count) for count in (1, threads)]
    rows = [[store.matcher(grammar) for _ in range(11)] for store in stores]
    rng = random.Random(threads)
    for _ in range(60):
        alone, together = (bench.masks.fill(matchers) for matchers in rows)
        assert np.array_equal(alone, together)
        if rng.random() < 0.1:
            one = rng.randrange(11)
            for matchers in rows:
                matchers[one] = matchers[one].fork()
        for place, mask in enumerate(alone):
            texts = [token for token in allowed_tokens(mask, bench.vocabulary.size).tolist() if token != STOP]
            if texts:
                token = rng.choice(texts)
                assert all(matchers[place].accept(token) for matchers in rows)


def test_matchers_of_one_grammar_are_spread_over_its_readings_and_leave_room_when_they_go(bench: Bench):
    store = GrammarStore(bench.vocabulary.to_bytes(), threads=3)
    grammar = bench.compiler.only("llguidance").compile(LISTS)

    def spread(matchers) -> list[int]:
        readings = [matcher.reading for matcher in matchers]
        return sorted(readings.count(reading) for reading in set(readings))

    matchers = [store.matcher(grammar, canonical=False) for _ in range(7)]
    assert spread(matchers) == [2, 2, 3]
    first = matchers[0].reading
    matchers = [matcher for matcher in matchers if matcher.reading is first]
    gc.collect()
    matchers += [store.matcher(grammar, canonical=False) for _ in range(4)]
    assert max(spread(matchers)) == len([matcher for matcher in matchers if matcher.reading is first]) == 3


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_crew_does_each_item_once_and_those_of_a_group_in_order(size: int):
    crew = Crew(size - 1, "ramify-test-crew")
    for groups in ([], [[]], [range(3)], [range(10 * k, 10 * k + 7) for k in range(9)]):
        done: list[int] = []

        def do(item: int, done: list[int] = done) -> None:
            time.sleep(PATIENCE_S)
            done.append(item)

        crew.together(groups, do)
        assert sorted(done) == [item for group in groups for item in group]
        for group in groups:
            assert [item for item in done if item in group] == list(group)


def test_who_helps_is_called_only_when_it_takes_time(monkeypatch: pytest.MonkeyPatch):
    crew = Crew(2, "ramify-test-patience")
    monkeypatch.setattr("ramify.constrained.crew.PATIENCE_S", 3600.0)
    crew.together([[0], [1], [2]], lambda item: None)
    assert not helpers("ramify-test-patience")
    monkeypatch.setattr("ramify.constrained.crew.PATIENCE_S", -1.0)
    crew.together([[0], [1], [2]], lambda item: None)
    assert len(helpers("ramify-test-patience")) == 2


def test_what_goes_wrong_is_raised_once_the_others_have_ended():
    crew = Crew(2, "ramify-test-failures")
    done: list[int] = []

    def do(item: int) -> None:
        time.sleep(PATIENCE_S)
        if item % 10 == 5:
            raise KeyError(item)
        done.append(item)

    for _ in range(3):
        done.clear()
        with pytest.raises(KeyError):
            crew.together([range(3), range(13, 17), range(20, 23)], do)
        assert sorted(done) == [0, 1, 2, 13, 14, 20, 21, 22]


def test_the_threads_of_a_crew_end_with_it():
    crew = Crew(2, "ramify-test-ends")
    crew.together([[0], [1]], lambda item: time.sleep(2 * PATIENCE_S))
    threads, gone = helpers("ramify-test-ends"), weakref.ref(crew)
    del crew
    gc.collect()
    assert gone() is None and len(threads) == 2
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
