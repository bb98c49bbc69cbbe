"""Jump-forward on the bundled model: the same ids as without it, at temperature 0 and 1, in fewer forward passes."""

from __future__ import annotations

import asyncio
import json

import pytest
from test_json_generation import SCHEMAS, record

from ramify.constrained.spec import Choice, Constraint, JsonSchema, Regex
from ramify.runtime.async_engine import AsyncEngine, complete
from ramify.runtime.config import EngineOptions
from ramify.runtime.protocol import Finished, GenerateRequest, SamplingParams, Text

CONSTRAINTS: list[Constraint] = [
    *(JsonSchema(json.dumps(schema)) for schema in SCHEMAS),
    Regex(r"The answer is [0-9]{1,3}\. That is all I know\."),
    Choice(("yes, certainly", "yes", "no, never")),
]


def request(number: int, *, temperature: float, canonical: bool = True) -> GenerateRequest:
    """One of many: prompts, seeds and constraints differ."""
    sampling = SamplingParams(
        max_new_tokens=40 + number % 50,
        temperature=temperature,
        seed=number,
        n=1 + (number % 7 == 0),
        stop=("e",) if number % 11 == 0 else (),
        frequency_penalty=0.5 if number % 5 == 0 else 0.0,
        canonical_forced=canonical,
    )
    prompt = Text(f"Here is a record, number {number}:\n")
    return GenerateRequest((prompt,), sampling, CONSTRAINTS[number % len(CONSTRAINTS)])


async def answers(requests: list[GenerateRequest], **options) -> tuple[list[Finished], int]:
    """All samples, and the steps that the engine took."""
    async with await AsyncEngine.start(EngineOptions(threads=1, **{"kv_tokens": 30_000, **options}), in_process=True) as engine:
        done = await asyncio.gather(*(complete(engine, one) for one in requests))
        stats = await engine.ask("stats")
        return [sample for samples in done for sample in samples], stats["steps"]


def compare(count: int, temperature: float, **options) -> None:
    """The same with and without."""
    requests = [request(number, temperature=temperature) for number in range(count)]
    found, _ = asyncio.run(answers(requests, **options))
    wanted, _ = asyncio.run(answers(requests, jump_forward=False, **options))
    for one, other in zip(found, wanted, strict=True):
        assert one.output_ids == other.output_ids
        assert (one.text, one.finish) == (other.text, other.finish)
        assert one.usage.output == other.usage.output and other.usage.forced == 0
    forced, output = (sum(getattr(one.usage, name) for one in found) for name in ("forced", "output"))
    assert forced > 0.1 * output


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_forced_tokens_are_the_same_computed_together_or_drawn(temperature):
    compare(44, temperature)


def test_a_sequence_takes_a_step_less_for_each_forced_token():
    """Alone, because the steps of a batch are those of its longest sequence."""
    schema = JsonSchema(json.dumps(record(first={"const": "a rather long text"}, second={"const": "and another one"})))
    sampling = SamplingParams(max_new_tokens=80, temperature=0.0)
    one = GenerateRequest((Text("Here is a record:\n"),), sampling, schema)
    (found,), steps = asyncio.run(answers([one]))
    (wanted,), more_steps = asyncio.run(answers([one], jump_forward=False))
    assert found.output_ids == wanted.output_ids and found.usage.forced > 10
    assert steps == more_steps - found.usage.forced


def test_so_they_are_with_two_steps_in_flight_and_too_little_memory():
    compare(16, 1.0, depth=2, max_running=4, kv_tokens=400)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_two_hundred_requests_say_the_same_with_and_without(dtype, temperature):
    compare(200, temperature, dtype=dtype)


def test_without_canonical_tokens_nothing_is_forced():
    requests = [request(number, temperature=1.0, canonical=False) for number in range(8)]
    found, _ = asyncio.run(answers(requests))
    assert all(one.usage.forced == 0 for one in found)


def test_a_constrained_answer_says_what_its_masks_cost():
    (free, *_), _ = asyncio.run(answers([GenerateRequest((Text("Hello"),), SamplingParams(max_new_tokens=4))]))
    (constrained, *_), _ = asyncio.run(answers([request(1, temperature=0.0)]))
    assert free.timings.mask_s == 0.0
    assert 0.0 < constrained.timings.mask_s < constrained.timings.prefill_s + constrained.timings.decode_s
