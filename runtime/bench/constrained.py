"""Question: what does a constraint cost beside free text, and what does it save where it leaves no choice?

16 requests at once, temperature 1, the same number of tokens each: free, under a schema whose tokens are drawn one by one, and
with jump-forward; on a model of 0.5 billion parameters with a vocabulary of 128,000 tokens, and on the bundled one. The schema is
a list of records that does not end before its time; between 13 and 50 % of its tokens are forced. Ceiling: free text, and
with jump-forward the forward passes that are saved. Engines take turns; medians, and the median ratio of the pairs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from msgspec.structs import replace

from ...constrained.spec import Constraint, JsonSchema
from ..async_engine import AsyncEngine, complete
from ..bundled import MODEL_DIR
from ..config import EngineOptions
from ..protocol import GenerateRequest, SamplingParams, Text
from .checkpoints import SHAPES, make, with_large_vocabulary
from .machine import cores

RECORD = {
    "type": "object",
    "properties": {
        "identifier": {"type": "integer", "minimum": 100, "maximum": 99_999},
        "name": {"type": "string", "minLength": 8, "maxLength": 32},
        "category": {"enum": ["electronics", "furniture", "groceries", "clothing"]},
        "in_stock": {"type": "boolean"},
    },
    "required": ["identifier", "name", "category", "in_stock"],
    "additionalProperties": False,
}
SCHEMA = JsonSchema(json.dumps({"type": "array", "items": RECORD, "minItems": 200, "maxItems": 200}))
KINDS = ("free", "constrained", "jump-forward")


@dataclass(frozen=True)
class Found:
    """Of one run: seconds, tokens generated, how many of them were forced, steps of the engine."""

    seconds: float
    output: int
    forced: int
    steps: int


async def run(engine: AsyncEngine, constraint: Constraint | None, *, requests: int, output: int) -> Found:
    """All requests at once. Seconds of wall clock."""
    sampling = [SamplingParams(max_new_tokens=output, temperature=1.0, seed=seed, ignore_eos=True) for seed in range(requests)]
    prompts = [(Text(f"Here is list number {number}, as JSON:\n"),) for number in range(requests)]
    before = (await engine.ask("stats"))["steps"]
    started = time.perf_counter()
    answers = await asyncio.gather(
        *(complete(engine, GenerateRequest(p, s, constraint)) for p, s in zip(prompts, sampling, strict=True))
    )
    seconds = time.perf_counter() - started
    usages = [sample.usage for samples in answers for sample in samples]
    steps = (await engine.ask("stats"))["steps"] - before
    return Found(seconds, sum(u.output for u in usages), sum(u.forced for u in usages), steps)


async def compare(model: Path, *, requests: int, output: int, repeats: int, threads: int) -> dict[str, list[Found]]:
    """Runs of each kind, in turns, after one of each that does not count. Two engines: with and without jump-forward."""
    options = EngineOptions(model=str(model), threads=threads, kv_tokens=requests * (output + 128), max_running=requests)
    found: dict[str, list[Found]] = {kind: [] for kind in KINDS}
    for number in range(repeats + 1):
        for kind in KINDS:
            async with await AsyncEngine.start(replace(options, jump_forward=kind == "jump-forward")) as engine:
                constraint = None if kind == "free" else SCHEMA
                await run(engine, SCHEMA, requests=2, output=8)  # else free text would run beside the grammar engines' import
                await engine.flush_cache()
                one = await run(engine, constraint, requests=requests, output=output)
            assert one.output == requests * output, "a text ended before its time"
            if number:
                found[kind].append(one)
    return found


def summary(found: dict[str, list[Found]]) -> dict[str, float]:
    """Tokens a second of each kind; median ratio of the pairs to free text; share of forced tokens; steps a token and row."""
    figures: dict[str, float] = {}
    for kind, runs in found.items():
        figures[f"{kind} tokens/s"] = median(one.output / one.seconds for one in runs)
        if kind != "free":
            pairs = zip(found["free"], runs, strict=True)
            figures[f"{kind} against free"] = median(free.seconds / one.seconds for free, one in pairs)
    jumped, drawn = found["jump-forward"][-1], found["constrained"][-1]
    figures["forced share"] = jumped.forced / jumped.output
    figures["steps, jump-forward against constrained"] = jumped.steps / drawn.steps
    return figures


def main(argv: list[str]) -> int:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench constrained", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the bundled model alone, little work: shows that it runs")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--output", type=int, default=128, help="tokens of each (default: 128)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ramify-bench", help="of checkpoints")
    said = parser.parse_args(argv)
    models = {"bundled": MODEL_DIR}
    if not said.quick:
        shape = SHAPES["Qwen2.5-0.5B"]
        models[f"{shape.name}'s sizes"] = with_large_vocabulary(make(shape, said.folder), shape)
    output, repeats = (16, 1) if said.quick else (said.output, said.repeats)
    result = {}
    for name, model in models.items():
        work = compare(model, requests=said.requests, output=output, repeats=repeats, threads=said.threads)
        figures = result[name] = summary(asyncio.run(work))
        print(f"{name}: {said.requests} requests of {output} tokens")
        for what, value in figures.items():
            print(f"  {what:42} {value:10.3f}")
    print(json.dumps({"bench": "constrained", "load": os.getloadavg()[0], **result}))
    return 0
