"""Compiled grammars outlive the engine that asked for them, and reading one keeps nobody waiting who does not need it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ramify.constrained.spec import Constraint, JsonSchema
from ramify.runtime import async_engine
from ramify.runtime.async_engine import AsyncEngine, complete
from ramify.runtime.config import EngineOptions
from ramify.runtime.process import SocketMailbox
from ramify.runtime.protocol import Finished, GenerateRequest, SamplingParams, Text
from ramify.runtime.wire import GrammarLoaded

SCHEMA = JsonSchema('{"type":"object","properties":{"city":{"type":"string","maxLength":12}},"required":["city"]}')


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In place of the user's cache folder."""
    place = tmp_path_factory.mktemp("cache") / "grammars"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(async_engine, "grammar_cache", lambda: place)
        yield place


@pytest.fixture(scope="module")
def first(folder: Path) -> Finished:
    """The answer of the start that compiled."""
    done, workers = asyncio.run(life())
    assert workers == 1
    return done


async def answer(engine: AsyncEngine, constraint: Constraint | None, tokens: int = 40) -> Finished:
    sampling = SamplingParams(max_new_tokens=tokens, temperature=1.0, seed=3, ignore_eos=constraint is None)
    [done] = await complete(engine, GenerateRequest((Text("A city:"),), sampling, constraint))
    return done


async def life(*, in_process: bool = False) -> tuple[Finished, int]:
    """An engine's only answer, and how many compile processes it took."""
    said = EngineOptions(threads=1, kv_tokens=4_000)
    async with await AsyncEngine.start(said, in_process=in_process) as engine:
        done = await answer(engine, SCHEMA)
        await engine.ask("check")
        assert engine._compiler is not None
        return done, len(engine._compiler.pids)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("in_process", [False, True])
def test_a_later_start_compiles_nothing_and_says_the_same(folder: Path, first: Finished, in_process: bool):
    [file] = folder.iterdir()
    before = file.stat().st_mtime_ns
    again, workers = asyncio.run(life(in_process=in_process))
    assert workers == 0 and again.text == first.text
    assert file.stat().st_mtime_ns > before, "it was used"


def test_the_cache_can_be_turned_off():
    async def disk() -> object:
        async with await AsyncEngine.start(EngineOptions(threads=1, kv_tokens=4_000, grammar_cache=False)) as engine:
            assert engine._compiler is not None
            return engine._compiler._disk

    assert asyncio.run(disk()) is None


@pytest.mark.timeout(300)
def test_free_text_goes_on_while_the_first_grammar_is_read(first: Finished):
    """It comes from disk at once, and the engine process has seconds of imports before it can read one."""

    async def race() -> tuple[float, float]:
        async with await AsyncEngine.start(EngineOptions(threads=1, kv_tokens=4_000)) as engine:

            async def ended(constraint: Constraint | None) -> float:
                await answer(engine, constraint)
                return time.monotonic()

            return await asyncio.gather(ended(SCHEMA), ended(None))

    constrained, free = asyncio.run(race())
    assert free < constrained


def test_a_message_from_a_thread_wakes_who_waits_for_one_and_nothing_wakes_without(tmp_path: Path):
    mailbox = SocketMailbox(f"ipc://{tmp_path}/m")
    try:
        thread = threading.Timer(0.2, lambda: [mailbox.post(GrammarLoaded(n)) for n in range(3)])
        thread.start()
        started, received = time.monotonic(), []
        while len(received) < 3:
            received += mailbox.receive(30)
        assert [message.ticket for message in received] == [0, 1, 2] and time.monotonic() - started < 20
        thread.join()
        mailbox.receive(0.01)  # a wake may be left of what was received already
        started = time.monotonic()
        assert mailbox.receive(0.1) == [] and time.monotonic() - started >= 0.09
        mailbox.post(GrammarLoaded(7))
        assert mailbox.receive(0) == [GrammarLoaded(7)]
    finally:
        mailbox.close()
