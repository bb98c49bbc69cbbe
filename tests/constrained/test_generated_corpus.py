"""The corpus of schemas through the real engine at temperature 1: every text that ends is valid, by an independent judge.

`RAMIFY_GENERATIONS` of them (default: 1000), over all schemas in turn.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from grammar_bench import constraint_of, loads, validator_of

from ramify.runtime.async_engine import AsyncEngine, complete
from ramify.runtime.config import EngineOptions
from ramify.runtime.errors import ConstraintError
from ramify.runtime.protocol import GenerateRequest, SamplingParams, Text

GENERATIONS = int(os.environ.get("RAMIFY_GENERATIONS", "1000"))
STRIDE = 37
"""From one schema to the next, so that few generations, too, meet schemas of every file."""
AT_ONCE = 48
MOST_TOKENS = 500
CORPUS = Path(__file__).parent / "schemas"


def corpus() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in sorted(CORPUS.glob("*.json")):
        found |= json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_text_that_ends_is_valid_under_its_schema():
    """No generation here is chosen. Schemas that are refused are 20 of the 200 (docs/constraints.md)."""
    schemas = corpus()

    async def generate() -> tuple[list[tuple[str, int, str, str]], set[str]]:
        refused: set[str] = set()
        slots = asyncio.Semaphore(AT_ONCE)
        options = EngineOptions(threads=1, kv_tokens=60_000, max_running=AT_ONCE)
        async with await AsyncEngine.start(options) as engine:

            async def one(number: int, name: str) -> tuple[str, int, str, str] | None:
                sampling = SamplingParams(max_new_tokens=MOST_TOKENS, temperature=1.0, seed=number)
                prompt = Text(f"Write one JSON document, {name}, number {number}:\n")
                async with slots:
                    if name in refused:
                        return None
                    try:
                        [done] = await complete(engine, GenerateRequest((prompt,), sampling, constraint_of(schemas[name])))
                    except ConstraintError:
                        refused.add(name)
                        return None
                return name, number, done.text, done.finish.reason

            names, numbers = list(schemas), itertools.count()
            answers: list[tuple[str, int, str, str]] = []
            while len(answers) < GENERATIONS:  # more than once: others come in place of those that were refused
                chosen = [next(numbers) for _ in range(GENERATIONS - len(answers))]
                found = await asyncio.gather(*(one(number, names[number * STRIDE % len(names)]) for number in chosen))
                answers += [answer for answer in found if answer is not None]
            await engine.ask("check")
            return answers, refused

    answers, refused = asyncio.run(generate())
    ended = [(name, number, text) for name, number, text, reason in answers if reason == "stop"]
    wrong = [complaint for answer in ended if (complaint := judge(schemas[answer[0]], *answer)) is not None]
    reasons = Counter(reason for *_, reason in answers)
    print(f"{len(answers)} generations, {dict(reasons)}; {len(refused)} schemas refused; {len(wrong)} texts are not valid")
    assert not wrong, wrong[:5]
    assert len(refused) <= 20, sorted(refused)
    assert set(reasons) <= {"stop", "length"}
    assert len(ended) > len(answers) / 3, f"most should end by themselves: {reasons}"


def judge(schema: Any, name: str, number: int, text: str) -> str | None:
    """What is wrong with a text, None if nothing is."""
    try:
        value = loads(text)
    except ValueError as error:
        return f"{name} {number}: {error}: {text!r}"
    fault = next(validator_of(schema).iter_errors(value), None)
    return None if fault is None else f"{name} {number}: {fault.message}: {text!r}"
