"""Question: at which rate of arrivals is the engine saturated, and what do requests wait for until then?

Arrivals are a Poisson process: three in four are chats on one hot prefix of 1,024 tokens, one in four is asked for JSON under a
schema. The rate doubles until requests take longer to end than to arrive. Times are those of the caller.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....constrained.spec import JsonSchema
from ...async_engine import AsyncEngine
from ...protocol import Delta, Finished, GenerateRequest, SamplingParams, Text, tokens
from ..constrained import RECORD
from ..work import drawn
from .setting import Line, Setting, scenario, through

ONE_RECORD = JsonSchema(json.dumps(RECORD))
SATURATED = 1.5
"""Times as long as the arrivals take: from where on the rate is too high."""


@dataclass(frozen=True)
class Mix:
    """Lengths in tokens of what arrives: of the hot prefix; what a chat adds to it and what it is answered, from and to; most of
    an answer in JSON."""

    prefix: int
    own: tuple[int, int]
    output: tuple[int, int]
    record: int

    @property
    def longest(self) -> int:
        """Of a whole request."""
        return self.prefix + self.own[1] + max(self.output[1], self.record)


@dataclass
class Seen:
    """One request as its caller saw it: when it was sent, when each delta came, tokens, tokens that were found cached."""

    sent: float
    times: list[float]
    output: int = 0
    cached: int = 0
    prompt: int = 0


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds at which requests come, of a Poisson process. At least one. Pure."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds * 2) + 16)
    times = np.cumsum(gaps)
    return times[times < seconds].tolist() or [0.0]


def request(mix: Mix, vocab: int, rate: int, number: int) -> GenerateRequest:
    """The one with this number, of those that come at this rate. Pure."""
    draw = np.random.default_rng((rate, number))
    if number % 4 == 3:
        sampling = SamplingParams(max_new_tokens=mix.record, temperature=1.0, seed=number)
        return GenerateRequest((Text(f"Record {rate}/{number} as JSON: "),), sampling, ONE_RECORD)
    own, output = (int(draw.integers(low, high + 1)) for low, high in (mix.own, mix.output))
    sampling = SamplingParams(max_new_tokens=output, temperature=0.6, ignore_eos=True, seed=number)
    return GenerateRequest((tokens(drawn(mix.prefix, vocab, 30) + drawn(own, vocab, 31, rate, number)),), sampling)


async def watch(engine: AsyncEngine, asked: GenerateRequest, begun: float, at: float) -> Seen:
    """Send it at its time, and write down what comes."""
    await asyncio.sleep(max(0.0, begun + at - time.perf_counter()))
    seen = Seen(time.perf_counter(), [])
    async for event in engine.generate(asked):
        if isinstance(event, Delta):
            seen.times.append(time.perf_counter())
            seen.output += len(event.ids) // 4
        elif isinstance(event, Finished):
            seen.cached, seen.prompt = event.usage.cached, len(event.prompt_ids) // 4
    return seen


def line(rate: int, arriving_s: float, whole_s: float, all_seen: list[Seen]) -> Line:
    """What came of one rate. Pure."""
    first = [1e3 * (one.times[0] - one.sent) for one in all_seen if one.times]
    gaps = [1e3 * gap for one in all_seen for gap in np.diff(one.times)] or [0.0]
    quantiles: dict[str, Any] = {}
    for name, values in (("first_ms", first), ("gap_ms", gaps)):
        quantiles |= {f"{name} p50": float(np.quantile(values, 0.5)), f"{name} p99": float(np.quantile(values, 0.99))}
    return {
        "requests/s": rate,
        "requests": len(all_seen),
        "tokens/s": sum(one.output for one in all_seen) / whole_s,
        **quantiles,
        "cached": sum(one.cached for one in all_seen) / max(1, sum(one.prompt for one in all_seen)),
        "ended/arrived": whole_s / arriving_s,
    }


async def measure(setting: Setting) -> AsyncIterator[Line]:
    """A line a rate, until it is too high or the time is over."""
    small = setting.quick
    mix = Mix(64, (2, 8), (2, 8), 64) if small else Mix(1024, (32, 256), (32, 128), 96)
    rates, arriving_s = ((8, 16), 0.5) if small else ((4, 8, 16, 32, 64, 128, 256), 5.0)
    sizes: dict[str, Any] = {"max_running": 16, "kv_tokens": 8192} if small else {"max_running": 256}
    options = setting.options(context_length=mix.longest + 256, **sizes)
    async with await AsyncEngine.start(options, in_process=setting.in_process) as engine:
        for number in (2, 3):  # the prefix is computed; the grammar engines are imported
            await watch(engine, request(mix, setting.shape.vocab, 0, number), time.perf_counter(), 0.0)
        for rate in rates:
            if setting.left_s < 2 * arriving_s and not small:
                return
            times = arrivals(rate, arriving_s, rate)
            begun = time.perf_counter()
            sent = (watch(engine, request(mix, setting.shape.vocab, rate, n), begun, at) for n, at in enumerate(times))
            seen = await asyncio.gather(*sent)
            whole_s = time.perf_counter() - begun
            yield line(rate, max(times[-1], arriving_s), whole_s, seen)
            if whole_s > SATURATED * arriving_s + 1.0:
                return


def run(setting: Setting) -> Iterator[Line]:
    """See `measure`."""
    return through(measure(setting))


def main(argv: list[str]) -> int:
    """Run it."""
    return scenario("g5", argv, __doc__, run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
