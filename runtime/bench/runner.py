"""Runs a scenario: starts the engines, lets them take turns at every case, and says what came out, as a table and as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..console import say, table
from . import machine
from .adapters.base import Adapter, Needs, Unusable, needs
from .adapters.choose import KNOWN, choose
from .bounds import Bounds, Limits, unique_tokens
from .checkpoints import SHAPES, make
from .measures import first
from .processes import Neighbours
from .scenario import Case, Measured, Scenario, Setting
from .stats import ratio, spread

WEIGHT_BYTES = {"quantization=int8": 1.0, "quantization=int4": 0.5, "Q8_0": 34 / 32, "Q4_0": 18 / 32, "F32": 4.0}
"""What a weight takes, by a word in the engine's name: an option's value (without scales) or a type of llama.cpp's."""


@dataclass(frozen=True)
class Said:
    """The command line of a scenario."""

    quick: bool
    ours: str
    against: tuple[str, ...]
    repeats: int | None
    shape: str
    dtype: str
    threads: int
    peers: Path
    folder: Path
    out: Path | None
    only: str


def parse(scenario: Scenario, argv: Sequence[str], doc: str | None) -> Said:
    """Read it. Exits with status 2 where it makes no sense."""
    engines = "".join(f"\n  {word:17} {text}" for word, text in KNOWN.items())
    cache = Path(tempfile.gettempdir()) / "ramify-bench"
    parser = argparse.ArgumentParser(
        prog=f"ramify bench {scenario.name}",
        description=f"{doc}\nA full run takes about {scenario.minutes:g} minutes on two quiet cores.",
        epilog=f"engines:{engines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model, little work: shows that it runs")
    parser.add_argument("--ours", default="ramify", metavar="ENGINE", help="compared with each other one (default: ramify)")
    parser.add_argument("--against", default=None, metavar="ENGINES", help="the others, with commas, or 'none'")
    parser.add_argument("--repeats", type=int, default=None, help="runs of each that count (default: 3 or 5, quick 2)")
    parser.add_argument("--shape", choices=list(SHAPES), default=None, help=f"the model's sizes (default: {scenario.shape})")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), help="from `make peers` (default: build/peers)")
    parser.add_argument("--folder", type=Path, default=cache, help="where checkpoints are kept")
    parser.add_argument("--out", type=Path, default=None, help="a folder for NAME.json, which `ramify bench report` reads")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    said = parser.parse_args(argv)
    default = ("transformers",) if said.quick else scenario.peers
    wanted = default if said.against is None else words(said.against)
    against = tuple(dict.fromkeys(word for word in wanted if word != said.ours))
    return Said(
        quick=said.quick,
        ours=said.ours,
        against=against,
        repeats=said.repeats or (2 if said.quick else None),
        shape=said.shape or ("tiny" if said.quick else scenario.shape),
        dtype=said.dtype,
        threads=said.threads,
        peers=said.peers,
        folder=said.folder,
        out=said.out,
        only=said.only,
    )


def words(text: str) -> list[str]:
    """Engines from a list with commas: a comma before `name=` goes on with an engine's options. Pure."""
    found: list[str] = []
    for part in text.split(","):
        if found and "=" in part and ":" not in part.partition("=")[0]:
            found[-1] += f",{part}"
        elif part and part != "none":
            found.append(part)
    return found


def bench(scenario: Scenario, argv: Sequence[str], doc: str | None) -> int:
    """`main` of every scenario: run, print a table, end with one line of JSON. 1 where our own engine could not take part."""
    said = parse(scenario, argv, doc)
    question = (doc or "").partition("\n")[0].removeprefix("Question:").strip()
    result = asyncio.run(run(scenario, said, question))
    show(result)
    line = json.dumps(result)
    if said.out is not None:
        said.out.mkdir(parents=True, exist_ok=True)
        (said.out / f"{scenario.name}.json").write_text(line + "\n", encoding="utf-8")
    print(line)
    return 1 if said.ours in result["skipped"] else 0


async def run(scenario: Scenario, said: Said, question: str) -> dict[str, Any]:
    """All cases. What is returned is what the JSON says."""
    shape = SHAPES[said.shape]
    say(f"Checkpoint: {shape.name}'s sizes, random weights, in {said.folder}")
    place = make(shape, said.folder)
    cases = [case for case in scenario.cases(Setting(shape, place, said.quick)) if said.only in case.name]
    works = [work for case in cases for work in case.works]
    wanted = needs(works, shape.kv_bytes_token, dtype=said.dtype, threads=said.threads)
    begun, limits = time.time(), machine.limits(quick=said.quick)
    skipped: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        engines = []
        for word in (said.ours, *said.against):
            try:
                engines.append(await started(word, place, wanted, said, stack))
            except Unusable as error:
                skipped[word] = str(error)
                say(f"{word} is skipped: {error}")
        lines = [await turns(case, engines, said) for case in cases]
        about = {one.name: {"about": one.about, "keeps_prefixes": one.keeps_prefixes} for one in engines}
    after = machine.limits(quick=said.quick)
    best = Limits(max(limits.bandwidth, after.bandwidth), max(limits.flops, after.flops))
    for case, line in zip(cases, lines, strict=True):
        for name, one in line["engines"].items():
            one["bound"] = case.bound(Bounds(shape, best, weight_bytes(name, said.dtype))) if case.bound else None
    return {
        "bench": scenario.name,
        "question": question,
        "quick": said.quick,
        "shape": shape.name,
        "dtype": said.dtype,
        "date": time.strftime("%Y-%m-%d", time.gmtime(begun)),
        "minutes": round((time.time() - begun) / 60, 1),
        "machine": {
            "cpu": machine.processor(),
            "cores": machine.cores(),
            "threads": said.threads,
            "torch": machine.torch.__version__,
            **rates(limits, after),
        },
        "ours": said.ours,
        "engines": about,
        "skipped": skipped,
        "cases": lines,
    }


def rates(before: Limits, after: Limits) -> dict[str, list[float]]:
    """The machine's rates before and after the cases."""
    return {
        "read_GBps": [round(one.bandwidth / 1e9, 1) for one in (before, after)],
        "bf16_GFLOPs": [round(one.flops / 1e9) for one in (before, after)],
    }


def weight_bytes(engine: str, dtype: str) -> float:
    """Of an engine's weights, by its name, as in `ramify:quantization=int8`; else by the dtype of the run. Pure."""
    default = 4.0 if dtype == "float32" else 2.0
    return next((size for word, size in WEIGHT_BYTES.items() if word in engine), default)


async def started(word: str, model: Path, wanted: Needs, said: Said, stack: AsyncExitStack) -> Adapter:
    """One engine, loaded; ended with `stack`. Raises Unusable."""
    adapter = choose(word, said.peers, said.folder)
    stack.push_async_callback(adapter.close)
    began = time.monotonic()
    await adapter.start(model, wanted)
    say(f"{adapter.about}: up after {time.monotonic() - began:.1f} s")
    return adapter


async def turns(case: Case, engines: Sequence[Adapter], said: Said) -> dict[str, Any]:
    """One case: each engine once, then each again, and so on. A line of the results, but for the bounds."""
    repeats = said.repeats or case.repeats
    values: dict[str, list[float]] = {one.name: [] for one in engines if one.name not in case.without}
    facts: dict[str, dict[str, float]] = {}
    failed = {one.name: case.without[one.name] for one in engines if one.name in case.without}
    say(f"{case.name} ...")
    neighbours = Neighbours()
    for engine in engines:
        if engine.name in values:
            await attempt(engine, "flush", engine.flush(), values, failed)
    for number in range(repeats + case.warm_up):
        for engine in engines:
            if engine.name not in values:
                continue
            measured = await attempt(engine, case.name, once(case, engine), values, failed)
            if measured is not None and number >= case.warm_up:
                values[engine.name].append(measured.value)
                facts[engine.name] = {name: round(value, 4) for name, value in measured.facts.items()}
    line = {
        "case": case.name,
        "unit": case.unit,
        "cache": case.cache,
        "unique": unique_tokens([prompt for work in case.works for prompt in work.prompts]),
        "load": os.getloadavg()[0],
        "neighbour_cores": round(neighbours.cores(), 2),
        "engines": summary(case, said.ours, values, facts),
        "failed": failed,
    }
    say(f"{case.name}: " + ", ".join(f"{name} {one['median']:.4g} {case.unit}" for name, one in line["engines"].items()))
    return line


async def attempt(engine: Adapter, what: str, doing: Any, values: dict[str, list[float]], failed: dict[str, str]) -> Any:
    """Await it; an engine that cannot leaves the case, with its reason."""
    try:
        return await doing
    except Unusable as error:
        values.pop(engine.name, None)
        failed[engine.name] = str(error)
        say(f"{engine.name} leaves {what!r}: {error}")
        return None


async def once(case: Case, engine: Adapter) -> Measured:
    """One run, of fewer prompts where this engine is too slow for all of them; its seconds are then scaled up."""
    few = case.few.get(engine.name)
    if few is None:
        return await case.measure(engine, case.works)
    [work] = case.works
    measured = await case.measure(engine, (first(work, few),))
    scale = len(work.prompts) / few if case.unit == "s" else 1.0
    return replace(measured, value=measured.value * scale, facts={"prompts_run": few, "prompts": len(work.prompts)})


def summary(case: Case, ours: str, values: dict[str, list[float]], facts: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Medians, spreads, and how many times better our engine is than each other one. Pure."""
    found = {}
    for name, own in values.items():
        if not own:
            continue
        found[name] = {**asdict(spread(own)), "values": [round(one, 6) for one in own], "facts": facts.get(name, {})}
        if name != ours and values.get(ours):
            against = ratio(values[ours], own, more_is_better=case.more_is_better)
            found[name]["ratio"] = {**asdict(against), "says": str(against)}
    return found


def show(result: dict[str, Any]) -> None:
    """The table, on stdout."""
    rows = []
    for line in result["cases"]:
        for name, one in line["engines"].items():
            share = share_of_bound(line["unit"], one)
            reached = f"{share:.0%}" if share is not None else ""
            better = one["ratio"]["says"] if "ratio" in one else ""
            value = f"{one['median']:.4g} ({one['least']:.4g} to {one['most']:.4g})"
            rows.append((line["case"], name, line["unit"], value, reached, better, f"{line['neighbour_cores']:.1f}"))
    against = f"{result['ours']} is better by"
    headers = ("case", "engine", "unit", "median (least to most)", "of bound", against, "others' cores")
    table(headers, rows, file=sys.stdout)


def share_of_bound(unit: str, one: dict[str, Any]) -> float | None:
    """How much of the bound an engine reached: 1.0 is the best possible. Pure."""
    if not one.get("bound"):
        return None
    return one["bound"] / one["median"] if unit == "s" else one["median"] / one["bound"]
