"""Question: what does a constraint cost beside free text, and what does it save where it leaves no choice?

16 requests at once, temperature 1, the same number of tokens each: free, under a schema whose tokens are drawn one by one, and
with jump-forward; on a model of 0.5 billion parameters with a vocabulary of 128,000 tokens, and on the bundled one. The schema is
a list of records that does not end before its time; about 60 % of its tokens are forced. Ceiling: free text, and
with jump-forward the forward passes that are saved. Kinds take turns; medians, and the median ratio of the pairs.

Before that (`--only masks` alone): what both grammar engines take for a set of grammars over the large vocabulary, to compile, to
load, and at each token for the mask of one row (`masks.py`). Ceiling: a mask is filled while a step of the model runs, 10 ms and
more on a CPU.
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
from typing import Any

from msgspec.structs import replace

from ...constrained.spec import Constraint, JsonSchema
from ..async_engine import AsyncEngine, complete
from ..bundled import MODEL_DIR
from ..config import EngineOptions
from ..protocol import GenerateRequest, SamplingParams, Text
from . import masks
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
PARTS = ("masks", "whole")
SHORT_RUNS = 8
"""So many times as many pairs of the bundled model, whose runs take a third of a second: three of them say little."""


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
    """Runs of each kind, in turns, after one of each that does not count. Two engines, of which one at a time has work: with and
    without jump-forward."""
    options = EngineOptions(model=str(model), threads=threads, kv_tokens=requests * (output + 128), max_running=requests)
    found: dict[str, list[Found]] = {kind: [] for kind in KINDS}
    async with (
        await AsyncEngine.start(replace(options, jump_forward=False)) as drawing,
        await AsyncEngine.start(replace(options, jump_forward=True)) as jumping,
    ):
        for number in range(repeats + 1):
            for kind in KINDS:
                engine = jumping if kind == "jump-forward" else drawing
                await engine.flush_cache()
                one = await run(engine, None if kind == "free" else SCHEMA, requests=requests, output=output)
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
    parser.add_argument("--only", choices=PARTS, help="masks: of single rows, by grammar engine; whole: requests, by kind")
    parser.add_argument("--schemas", type=Path, help="a folder of JSON files with schemas by name, in place of our grammars")
    said = parser.parse_args(argv)
    models = {"bundled": MODEL_DIR}
    if not said.quick:
        shape = SHAPES["Qwen2.5-0.5B"]
        models[f"{shape.name}'s sizes"] = with_large_vocabulary(make(shape, said.folder), shape)
    result = {}
    if said.only in (None, "masks"):
        result["masks"] = _masks(list(models.values())[-1], said)
    if said.only in (None, "whole"):
        result |= {name: _whole(name, model, said) for name, model in models.items()}
    print(json.dumps({"bench": "constrained", "load": os.getloadavg()[0], **result}))
    return 0


def _masks(model: Path, said: argparse.Namespace) -> dict[str, Any]:
    grammars = masks.GRAMMARS if said.schemas is None else masks.corpus(said.schemas)
    if said.quick:
        grammars = {name: grammars[name] for name in list(grammars)[:2]}
    figures = masks.measure(model, grammars, show_each=said.schemas is None)
    counts = f"{figures['grammars']} grammars, {figures['refused']} refused, {figures['vocabulary']} tokens"
    print(f"{counts} (*: the engine that is taken)")
    for who in (*masks.ENGINES, "as chosen"):
        shown = ", ".join(f"{what} {value:.1f}" for what, value in figures[who].items())
        print(f"  {who:12} {shown}")
    return figures


def _whole(name: str, model: Path, said: argparse.Namespace) -> dict[str, float]:
    output, repeats = (16, 1) if said.quick else (said.output, said.repeats)
    if model == MODEL_DIR and not said.quick:
        repeats *= SHORT_RUNS
    work = compare(model, requests=said.requests, output=output, repeats=repeats, threads=said.threads)
    figures = summary(asyncio.run(work))
    print(f"{name}: {said.requests} requests of {output} tokens")
    for what, value in figures.items():
        print(f"  {what:42} {value:10.3f}")
    return figures
