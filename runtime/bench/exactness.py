"""Question: does a prompt say the same, bit for bit, however the engine came by it?

40 prompts, greedy, with the log-probability of every token: cold and alone is the reference; then warm, after hits of three
lengths, beside 16 other streams and 16 branches of itself, in chunks of 64 tokens, and without tree attention. Ids and
log-probabilities must be identical: the bound is 100 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from ..async_engine import AsyncEngine, complete
from ..config import EngineOptions
from ..console import say, table
from ..protocol import GenerateRequest, LogprobParams, greedy, tokens
from .adapters.base import Ids
from .adapters.choose import settings
from .adapters.ramify import with_settings
from .checkpoints import SHAPES, make
from .work import drawn

OTHERS = 16
LENGTHS = (5, 17, 64, 100, 129, 255, 256, 300)
"""Of prompts: around the borders of chunks, pages and tiles."""

Said = tuple[bytes, bytes]
"""A continuation: its ids, and its log-probabilities as fp64."""


def prompts(count: int, vocab: int) -> list[Ids]:
    """Of several lengths; every second one begins as the one before it."""
    made: list[Ids] = []
    for number in range(count):
        length = LENGTHS[number % len(LENGTHS)]
        own = drawn(length, vocab, 30, number)
        made.append(made[-1][: length // 2] + own[length // 2 :] if number % 2 else own)
    return made


async def said(engine: AsyncEngine, prompt: Ids, output: int) -> Said:
    """What the engine goes on with."""
    request = GenerateRequest((tokens(prompt),), greedy(output, ignore_eos=True), logprobs=LogprobParams(output=True))
    [end] = await complete(engine, request)
    values = [one.logprob for one in end.logprobs if one.logprob is not None]
    return end.output_ids, struct.pack(f"{len(values)}d", *values)


async def alone(engine: AsyncEngine, asked: Sequence[Ids], output: int) -> list[Said]:
    """One after the other, each from an empty cache."""
    found = []
    for prompt in asked:
        await engine.flush_cache()
        found.append(await said(engine, prompt, output))
    return found


async def warm(engine: AsyncEngine, asked: Sequence[Ids], output: int) -> list[Said]:
    """Each right after the same, so that all but its last token is found."""
    found = []
    for prompt in asked:
        await said(engine, prompt, output)
        found.append(await said(engine, prompt, output))
    return found


def after_hit(part: float) -> Callable[[AsyncEngine, Sequence[Ids], int], Awaitable[list[Said]]]:
    """Each after its first `part` was computed, and nothing else."""

    async def hit(engine: AsyncEngine, asked: Sequence[Ids], output: int) -> list[Said]:
        found = []
        for prompt in asked:
            await engine.flush_cache()
            await said(engine, prompt[: max(1, int(len(prompt) * part))], 1)
            found.append(await said(engine, prompt, output))
        return found

    return hit


async def beside_others(engine: AsyncEngine, asked: Sequence[Ids], output: int) -> list[Said]:
    """Each from an empty cache while 16 other streams decode."""
    found = []
    vocab = engine.info.vocab_size
    for number, prompt in enumerate(asked):
        await engine.flush_cache()
        others = [drawn(3 + 11 * i, vocab, 31, number, i) for i in range(OTHERS)]
        running = [asyncio.create_task(said(engine, other, 2 * output)) for other in others]
        await asyncio.sleep(0)
        found.append(await said(engine, prompt, output))
        await asyncio.gather(*running)
    return found


async def beside_branches(engine: AsyncEngine, asked: Sequence[Ids], output: int) -> list[Said]:
    """Each from an empty cache while 16 streams decode that begin as it does: what they share may be read once for all."""
    found = []
    vocab = engine.info.vocab_size
    for number, prompt in enumerate(asked):
        await engine.flush_cache()
        shared = [len(prompt) * (1 + i) // (OTHERS + 1) for i in range(OTHERS)]
        others = [prompt[:length] + drawn(3 + i, vocab, 32, number, i) for i, length in enumerate(shared)]
        running = [asyncio.create_task(said(engine, other, 2 * output)) for other in others]
        await asyncio.sleep(0)
        found.append(await said(engine, prompt, output))
        await asyncio.gather(*running)
    return found


WAYS: Mapping[str, Callable[[AsyncEngine, Sequence[Ids], int], Awaitable[list[Said]]]] = {
    "cold again": alone,
    "warm": warm,
    "hit of a quarter": after_hit(0.25),
    "hit of a half": after_hit(0.5),
    "hit of nine tenths": after_hit(0.9),
    f"beside {OTHERS} other streams": beside_others,
    f"beside {OTHERS} branches of itself": beside_branches,
}
CHUNKED = "in chunks of 64"
APART = "without tree attention, "
"""A prefix of the names of WAYS."""


def same(reference: Sequence[Said], found: Sequence[Said]) -> tuple[int, int]:
    """How many have the same ids, and how many the same ids and log-probabilities to the bit. Pure."""
    pairs = list(zip(reference, found, strict=True))
    return sum(a[0] == b[0] for a, b in pairs), sum(a == b for a, b in pairs)


async def compare(options: EngineOptions, asked: Sequence[Ids], output: int) -> dict[str, tuple[int, int]]:
    """Every way against the reference: (same ids, same to the bit)."""
    counts = {}
    async with await AsyncEngine.start(msgspec.structs.replace(options, chunk_tokens=4096)) as engine:
        reference = await alone(engine, asked, output)
        if len({one for one, _ in reference}) <= len(asked) // 3:
            say("The continuations are nearly all alike: this says little.")
        for name, way in WAYS.items():
            counts[name] = same(reference, await way(engine, asked, output))
            say(f"{name}: {counts[name][1]} of {len(asked)}")
    async with await AsyncEngine.start(msgspec.structs.replace(options, chunk_tokens=64)) as engine:
        counts[CHUNKED] = same(reference, await alone(engine, asked, output))
    async with await AsyncEngine.start(msgspec.structs.replace(options, chunk_tokens=4096, tree_attention=False)) as engine:
        for name in ("cold again", f"beside {OTHERS} branches of itself"):
            counts[APART + name] = same(reference, await WAYS[name](engine, asked, output))
    return counts


def main(argv: list[str]) -> int:
    """Compare, print a table, end with one line of JSON. 1 where anything differs."""
    parser = argparse.ArgumentParser(prog="ramify bench exactness", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model, 8 prompts")
    parser.add_argument("--shape", choices=list(SHAPES), default=None, help="the model's sizes (default: Qwen2.5-0.5B)")
    parser.add_argument("--prompts", type=int, default=None, help="how many (default: 40, quick 8)")
    parser.add_argument("--output", type=int, default=16, help="tokens of each")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--engine", default="", metavar="NAME=VALUE,...", help="options of the engine")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ramify-bench", help="of checkpoints")
    line = parser.parse_args(argv)
    shape = SHAPES[line.shape or ("tiny" if line.quick else "Qwen2.5-0.5B")]
    asked = prompts(line.prompts or (8 if line.quick else 40), shape.vocab)
    place = str(make(shape, line.folder))
    plain = EngineOptions(model=place, dtype=line.dtype, kv_tokens=16_000, max_running=OTHERS + 1)
    options = with_settings(plain, settings(line.engine))
    counts = asyncio.run(compare(options, asked, line.output))
    rows = [(name, f"{ids} of {len(asked)}", f"{bits} of {len(asked)}") for name, (ids, bits) in counts.items()]
    table(("beside a cold prompt alone", "same ids", "same to the bit"), rows, file=sys.stdout)
    exact = all(bits == len(asked) for _, bits in counts.values())
    print(json.dumps({"bench": "exactness", "shape": shape.name, "dtype": line.dtype, "prompts": len(asked), **counts}))
    return 0 if exact else 1
