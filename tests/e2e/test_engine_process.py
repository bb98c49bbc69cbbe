"""The engine process as programs use it: requests survive its death, nothing is left behind, bad input fails alone."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from ramify.constrained.spec import JsonSchema, Regex
from ramify.runtime.async_engine import AsyncEngine, complete
from ramify.runtime.config import EngineOptions
from ramify.runtime.errors import ContextLengthExceeded, InvalidRequest, ModelError, ModelNotFound, Overloaded, RamifyError
from ramify.runtime.protocol import (
    Chat,
    Delta,
    Finished,
    GenerateRequest,
    LogprobParams,
    Message,
    SamplingParams,
    Text,
    greedy,
    tokens,
    unpack_ids,
)

OPTIONS = EngineOptions(threads=1, kv_tokens=20_000)
LONG = SamplingParams(max_new_tokens=150, temperature=0.0, ignore_eos=True)


def ask(text: str, sampling: SamplingParams = LONG, **fields) -> GenerateRequest:
    return GenerateRequest((Text(text),), sampling, **fields)


async def generated(engine: AsyncEngine, request: GenerateRequest) -> Finished:
    [finished] = await complete(engine, request)
    return finished


def process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.timeout(300)
async def test_requests_survive_the_death_of_the_engine_process_with_the_same_text():
    """8 requests, the process killed in the middle of its work: all end as if nothing had happened, streams included."""
    async with await AsyncEngine.start(OPTIONS) as engine:
        # Greedy, sampled with a seed, and constrained: a grammar, too, goes on where it was.
        sampled = SamplingParams(max_new_tokens=150, temperature=1.0, seed=7, ignore_eos=True)
        requests = [ask(f"Item {i}: a list of words", sampled if i % 2 else LONG) for i in range(7)]
        requests.append(ask("number", LONG, constraint=Regex("[0-9]{140}")))
        calm = [await generated(engine, r) for r in requests]
        streams = [asyncio.create_task(collect(engine, r)) for r in requests]
        first = engine.info.pid
        while sum(1 for p in engine._pending.values() for s in p.streams.values() if len(s.ids) > 3) < 4:
            await asyncio.sleep(0.001)
        os.kill(first, signal.SIGKILL)
        disturbed = await asyncio.gather(*streams)
        assert [d.output_ids for _, d in disturbed] == [c.output_ids for c in calm]
        assert ["".join(parts) for parts, _ in disturbed] == [c.text for c in calm]
        assert engine.info.pid != first
        assert not process_exists(first)


async def collect(engine: AsyncEngine, request: GenerateRequest) -> tuple[list[str], Finished]:
    parts: list[str] = []
    async for event in engine.generate(request):
        if isinstance(event, Delta):
            parts.append(event.text)
        elif isinstance(event, Finished):
            return parts, event
    raise AssertionError("a stream without an end")


async def test_closing_leaves_no_process_and_no_folder(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engine = await AsyncEngine.start(OPTIONS)
    pid = engine.info.pid
    await generated(engine, ask("a", greedy(2)))
    await engine.close()
    assert not process_exists(pid)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Overloaded):
        await generated(engine, ask("b", greedy(2)))


@pytest.fixture(scope="module")
def shared_loop_engine():
    """One engine for the tests below; they run on its loop."""
    loop = asyncio.new_event_loop()
    engine = loop.run_until_complete(AsyncEngine.start(OPTIONS))
    yield loop, engine
    loop.run_until_complete(engine.close())
    loop.close()


def test_closing_a_stream_frees_what_the_request_held(shared_loop_engine):
    loop, engine = shared_loop_engine

    async def leave_early() -> None:
        async for event in (stream := engine.generate(ask("The road goes on"))):
            if isinstance(event, Delta):
                break
        await stream.aclose()
        stats = await engine.ask("stats")
        assert stats["scheduler"]["requests"] == 0
        assert stats["cache"]["private"] == 0
        await engine.ask("check")

    loop.run_until_complete(leave_early())


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (ask(""), InvalidRequest, "empty"),
        (ask("a", SamplingParams(temperature=-1)), InvalidRequest, "temperature"),
        (ask("a", SamplingParams(top_p=0)), InvalidRequest, "top_p"),
        (ask("a", SamplingParams(n=1000)), InvalidRequest, "128"),
        (ask("a", SamplingParams(logit_bias={99999: 1.0})), InvalidRequest, "4095"),
        (ask("a", SamplingParams(max_new_tokens=100_000)), ContextLengthExceeded, "8192"),
        (ask("word " * 9000, SamplingParams(max_new_tokens=10)), ContextLengthExceeded, "context is 8192"),
        (ask("a", SamplingParams(stop_regex=("(?=x)",))), InvalidRequest, "regex"),
        (ask("a", constraint=JsonSchema('{"$ref": "#"}')), InvalidRequest, ""),
        (ask("a", constraint=Regex("(?<=a)b")), InvalidRequest, ""),
        (GenerateRequest((tokens([5, 4096]),)), InvalidRequest, "4096"),
        (GenerateRequest((Chat((Message("user", "\ud800"),)),)), InvalidRequest, ""),
    ],
)
def test_bad_input_gets_a_clear_error_and_the_next_request_succeeds(shared_loop_engine, request_, kind, words):
    loop, engine = shared_loop_engine
    with pytest.raises(kind) as error:
        loop.run_until_complete(generated(engine, request_))
    assert words in error.value.message
    assert loop.run_until_complete(generated(engine, ask("fine", greedy(2)))).usage.output == 2


def test_stops_are_found_across_tokens_and_the_held_ids_spell_what_is_kept(shared_loop_engine):
    loop, engine = shared_loop_engine
    whole = loop.run_until_complete(generated(engine, ask("Tell me about the sea.")))
    stop = whole.text[len(whole.text) // 2 : len(whole.text) // 2 + 5]
    stopping = SamplingParams(max_new_tokens=150, temperature=0.0, ignore_eos=True, stop=(stop,))
    cut = loop.run_until_complete(generated(engine, ask("Tell me about the sea.", stopping)))
    assert cut.finish.reason == "stop" and cut.finish.matched == stop
    assert cut.text == whole.text[: whole.text.index(stop)]
    held = engine.tokenizer.decode(unpack_ids(cut.held), skip_special=True) + cut.tail
    assert held == "Tell me about the sea." + cut.text
    loop.run_until_complete(engine.ask("check"))


def test_logprobs_of_prompt_and_output_agree_with_each_other(shared_loop_engine):
    """What was said about the output is said again about the same tokens as a prompt."""
    loop, engine = shared_loop_engine
    said = loop.run_until_complete(
        generated(engine, ask("Once upon", greedy(12, ignore_eos=True), logprobs=LogprobParams(output=True, top=3)))
    )
    again = GenerateRequest(
        (tokens(unpack_ids(said.prompt_ids + said.output_ids)),),
        greedy(0),
        logprobs=LogprobParams(prompt_from=len(said.prompt_ids) // 4, top=3),
    )
    found = loop.run_until_complete(generated(engine, again))
    assert [v.token for v in found.prompt_logprobs] == [v.token for v in said.logprobs]
    assert [v.logprob for v in found.prompt_logprobs] == [v.logprob for v in said.logprobs]
    assert [v.top for v in found.prompt_logprobs] == [v.top for v in said.logprobs]
    assert all(v.top[0][0] == v.token for v in said.logprobs), "greedy takes the most likely token"


def test_a_deadline_ends_a_request_that_takes_too_long(shared_loop_engine):
    loop, engine = shared_loop_engine
    with pytest.raises(RamifyError) as error:
        loop.run_until_complete(
            generated(engine, ask("a", SamplingParams(max_new_tokens=8000, ignore_eos=True), deadline_s=0.05))
        )
    assert error.value.code == "deadline_exceeded"


def test_a_wrong_model_path_is_said_at_once(tmp_path: Path):
    with pytest.raises(ModelNotFound, match="nowhere"):
        asyncio.run(AsyncEngine.start(EngineOptions(model=str(tmp_path / "nowhere"))))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError):
        asyncio.run(AsyncEngine.start(EngineOptions(model=str(tmp_path))))
