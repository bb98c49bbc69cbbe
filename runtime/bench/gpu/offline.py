"""Question: how many tokens a second do 256 requests of mixed lengths get, all of them there from the beginning?

Prompts and outputs of 100 to 1,024 tokens, drawn from a seed, temperature 0.6, whatever the end-of-text token says: the
benchmark of mini-sglang and nano-vllm. Bound: each prompt computed once, then steps of all that are not through, each the
longer of what it must read and what it must multiply.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...async_engine import AsyncEngine
from ...protocol import Delta, Finished, GenerateRequest, SamplingParams, Usage, tokens
from ..adapters.base import Ids
from ..bounds import Bounds, prefill_of
from ..work import drawn
from .setting import Line, Setting, scenario, through


@dataclass(frozen=True)
class Requests:
    """What is asked: prompts, and how many tokens of each."""

    prompts: tuple[Ids, ...]
    outputs: tuple[int, ...]

    @property
    def places(self) -> int:
        """Tokens of K and V when all of them have ended."""
        return sum(map(len, self.prompts)) + sum(self.outputs)


def mixed(count: int, least: int, most: int, vocab: int, seed: int = 0) -> Requests:
    """Both lengths uniform from least to most. Pure."""
    draw = np.random.default_rng(seed)
    lengths, outputs = draw.integers(least, most + 1, (2, count)).tolist()
    return Requests(tuple(drawn(length, vocab, seed, i) for i, length in enumerate(lengths)), tuple(outputs))


def bound_s(bounds: Bounds, asked: Requests) -> float:
    """Least seconds of all of it: the prompts, which give the first tokens, then a step for every further one."""
    seconds = prefill_of(bounds, asked.prompts)
    for step in range(1, max(asked.outputs)):
        seen = [len(prompt) + step for prompt, output in zip(asked.prompts, asked.outputs, strict=True) if output > step]
        seconds += bounds.decode_s(len(seen), sum(seen), sum(seen))
    return seconds


async def at_once(engine: AsyncEngine, asked: Requests, limit_s: float) -> tuple[float, int, list[Usage]]:
    """Seconds, tokens generated and what the requests used; after `limit_s` those that still run are ended."""
    told, usages = 0, []
    started = time.perf_counter()

    async def one(number: int) -> None:
        nonlocal told
        sampling = SamplingParams(
            max_new_tokens=asked.outputs[number],
            temperature=0.6,
            top_p=1.0,
            top_k=-1,
            min_p=0.0,
            repetition_penalty=1.0,
            ignore_eos=True,
            seed=number,
        )
        request = GenerateRequest((tokens(asked.prompts[number]),), sampling, rid="offline")
        async for event in engine.generate(request, 64):
            if isinstance(event, Delta):
                told += len(event.ids) // 4
            elif isinstance(event, Finished):
                usages.append(event.usage)

    running = asyncio.gather(*(one(number) for number in range(len(asked.prompts))))
    try:
        await asyncio.wait_for(asyncio.shield(running), max(limit_s, 1.0))
        return time.perf_counter() - started, told, usages
    except TimeoutError:
        seconds, made = time.perf_counter() - started, told
        await engine.abort("offline")
        await running
        return seconds, made, usages


async def measure(setting: Setting) -> AsyncIterator[Line]:
    """A line a run, the first after a short one that does not count."""
    count, least, most = (6, 4, 16) if setting.quick else (256, 100, 1024)
    asked = mixed(count, least, most, setting.shape.vocab)
    sizes: dict[str, Any] = {"max_running": count, "context_length": 2 * most + 64}
    sizes["kv_tokens"] = int(asked.places * 1.02) + count * 32
    bound = bound_s(setting.bounds, asked)
    async with await AsyncEngine.start(setting.options(**sizes), in_process=setting.in_process) as engine:
        await at_once(engine, mixed(count, least, min(most, 2 * least), setting.shape.vocab, 1), setting.left_s)
        for number in range(setting.repeats):
            if setting.left_s < 0:
                return
            await engine.flush_cache()
            before = (await engine.ask("stats"))["steps"]
            seconds, made, usages = await at_once(engine, asked, setting.left_s)
            whole = made == sum(asked.outputs)
            yield {
                "run": number,
                "tokens/s": made / seconds,
                "seconds": seconds,
                "output": made,
                "prompt": sum(map(len, asked.prompts)),
                "steps": (await engine.ask("stats"))["steps"] - before,
                "of bound": bound / seconds if whole else None,
                "ended": f"{len(usages)} of {count}" if not whole else "all",
            }


def run(setting: Setting) -> Iterator[Line]:
    """See `measure`."""
    return through(measure(setting))


def main(argv: list[str]) -> int:
    """Run it."""
    return scenario("g1", argv, __doc__, run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
