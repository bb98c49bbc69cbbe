"""Question: what do constraints that were made to do harm cost the others?

One stream of the bundled model is read token by token, alone and then while constraints from a hostile list arrive, two at once:
nested quantifiers, recursion without a base, counts of 10^18, enums of 18,000 texts (20,000 are over the cap on bytes), 2,000
properties, oneOf nested 12 deep, left recursion, remote references, deep nesting. Told are the slowest answer to one of them, the
99th percentile of the stream's gaps between tokens in both situations and their ratio, and the memory of all processes before and
after 200 of them. Promised: an answer within 2.5 s, a ratio below 3. Each is another text every time it comes, so that nothing is
answered from the cache.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...constrained.spec import Constraint, Ebnf, JsonSchema, Regex
from ..async_engine import AsyncEngine, complete
from ..config import EngineOptions
from ..errors import RamifyError
from ..protocol import Delta, GenerateRequest, SamplingParams, Text
from .machine import cores
from .processes import family_pss_mb


def _schema(value: Any, number: int) -> JsonSchema:
    return JsonSchema(json.dumps({"$comment": f"{number}", **value}))


def _nested_one_of(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "string"}
    for level in range(depth):
        record = {"type": "object", "properties": {"k": {"const": level}, "v": inner}, "required": ["k"]}
        inner = {"oneOf": [record, {"type": "null"}]}
    return inner


def _deep(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        inner = {"type": "array", "items": inner}
    return inner


HOSTILE: dict[str, Callable[[int], Constraint]] = {
    "nested quantifiers": lambda n: Regex(f"((a{{1,{50 + n % 7}}}){{1,50}}){{1,50}}b{n}"),
    "a starred regex of prefixes": lambda n: Regex("(" + "|".join("a" * i for i in range(1, 60)) + f")+{n}"),
    "recursion without a base": lambda n: _schema(
        {"type": "object", "properties": {f"p{n}": {"$ref": "#"}}, "required": [f"p{n}"]}, n
    ),
    "maxItems of 10^18": lambda n: _schema({"type": "array", "items": {"type": "integer"}, "maxItems": 10**18}, n),
    "an enum of 18,000 texts": lambda n: JsonSchema('{"enum":[' + ",".join(f'"{i:x}"' for i in range(n, n + 18_000)) + "]}"),
    "2,000 properties": lambda n: _schema(
        {"type": "object", "properties": {f"p{n}_{i}": {"type": "string"} for i in range(2000)}}, n
    ),
    "oneOf nested 12 deep": lambda n: _schema(_nested_one_of(12), n),
    "left recursion": lambda n: Ebnf(f'root ::= root "a{n}"'),
    "a remote reference": lambda n: _schema({"$ref": f"http://127.0.0.1:9/{n}.json"}, n),
    "deep nesting": lambda n: _schema(_deep(60), n),
}


async def gaps(engine: AsyncEngine, until: Callable[[], bool], seed: Iterator[int]) -> np.ndarray:
    """Seconds between the tokens of streams, one after the other, until told to stop."""
    found: list[float] = []
    while not until():
        last = 0.0
        sampling = SamplingParams(max_new_tokens=400, ignore_eos=True, temperature=1.0, seed=next(seed))
        async for event in engine.generate(GenerateRequest((Text("Once upon a time"),), sampling)):
            if isinstance(event, Delta):
                now = time.perf_counter()
                if last:
                    found.append(now - last)
                last = now
            if until():
                break
    return np.array(found)


def hostile(rounds: range) -> list[tuple[str, Constraint]]:
    """The list once for each number, with its names."""
    return [(name, make(number)) for number in rounds for name, make in HOSTILE.items()]


async def attack(engine: AsyncEngine, constraints: list[tuple[str, Constraint]]) -> dict[str, list[float]]:
    """Asks for each, two at once. Returns the seconds of the answers, by name."""
    took: dict[str, list[float]] = {name: [] for name in HOSTILE}
    work = iter(constraints)

    async def attacker() -> None:
        for name, constraint in work:
            started = time.perf_counter()
            try:
                await complete(engine, GenerateRequest((Text("x"),), SamplingParams(max_new_tokens=1), constraint))
            except RamifyError:
                pass
            took[name].append(time.perf_counter() - started)

    await asyncio.gather(attacker(), attacker())
    return took


async def measure(rounds: int, quiet_s: float, threads: int) -> dict[str, Any]:
    """The figures."""
    seed = itertools.count()
    async with await AsyncEngine.start(EngineOptions(threads=threads, kv_tokens=20_000, grammar_cache=False)) as engine:
        await attack(engine, hostile(range(1)))  # both compile processes have started, and everything is imported
        constraints = hostile(range(1, rounds + 1))  # to write them is the attackers' work, not this process's
        end = time.perf_counter() + quiet_s
        alone = await gaps(engine, lambda: time.perf_counter() > end, seed)
        before = family_pss_mb(os.getpid())
        task = asyncio.create_task(attack(engine, constraints))
        beside = await gaps(engine, task.done, seed)
        took = await task
        await asyncio.sleep(3)
        after = family_pss_mb(os.getpid())
    p99 = {"alone": float(np.quantile(alone, 0.99)), "beside": float(np.quantile(beside, 0.99))}
    return {
        "answers": sum(map(len, took.values())),
        "slowest_s": {name: max(times) for name, times in took.items()},
        "p99_gap_ms_alone": 1e3 * p99["alone"],
        "p99_gap_ms_beside": 1e3 * p99["beside"],
        "p99_ratio": p99["beside"] / p99["alone"],
        "memory_before_mb": before,
        "memory_after_mb": after,
    }


def main(argv: list[str]) -> int:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench hostile", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each once: shows that it runs")
    parser.add_argument("--rounds", type=int, default=20, help="of the list of ten (default: 20)")
    parser.add_argument("--threads", type=int, default=cores())
    said = parser.parse_args(argv)
    figures = asyncio.run(measure(1 if said.quick else said.rounds, 1.0 if said.quick else 10.0, said.threads))
    for name, seconds in sorted(figures["slowest_s"].items(), key=lambda one: -one[1]):
        print(f"  {name:32} answered within {seconds:6.3f} s")
    print(f"p99 gap between tokens: {figures['p99_gap_ms_alone']:.2f} ms alone, {figures['p99_gap_ms_beside']:.2f} ms beside")
    print(f"ratio {figures['p99_ratio']:.2f}; memory {figures['memory_before_mb']:,.0f} -> {figures['memory_after_mb']:,.0f} MB")
    print(json.dumps({"bench": "hostile", "load": os.getloadavg()[0], **figures}))
    return 0
