"""What every scenario of the suite is told, and how it leaves what it found."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...config import EngineOptions
from ...console import table
from ..adapters.ramify import with_settings
from ..bounds import Bounds
from ..checkpoints import SHAPES, TOKENIZER_SIZE, Shape, without_weights
from .limits import limits, name_of

Line = dict[str, Any]
"""One line of a table: heading -> value, in order. A heading that begins with _ is in the JSON alone."""


@dataclass(frozen=True)
class Setting:
    """quick: a tiny model and little work, which shows that it runs. options: of an engine, over the defaults of the scenario.
    seconds: after which a scenario begins nothing new. in_process: the engine's steps run on a thread of this process."""

    device: str
    shape: Shape
    quick: bool
    repeats: int
    seconds: float
    folder: Path
    settings: dict[str, str]
    in_process: bool
    begun: float
    bounds: Bounds

    def model(self, tokens: int = TOKENIZER_SIZE) -> Path:
        """A folder of the shape for `load_format` dummy, whose tokenizer has at most `tokens` tokens."""
        return without_weights(self.shape, self.folder, tokens=min(tokens, TOKENIZER_SIZE) if self.quick else tokens)

    def options(self, *, tokens: int = TOKENIZER_SIZE, **sizes: Any) -> EngineOptions:
        """Of an engine with random weights. sizes: fields of EngineOptions; what was said on the command line goes first."""
        plain = EngineOptions(
            model=str(self.model(tokens)), load_format="dummy", device=self.device, dtype="bfloat16", queue=100_000, **sizes
        )
        return with_settings(plain, self.settings)

    @property
    def left_s(self) -> float:
        """Seconds until nothing new should begin."""
        return self.begun + self.seconds - time.monotonic()


def parse(name: str, argv: Sequence[str], doc: str | None) -> tuple[Setting, str, Path | None]:
    """The arguments, the limits measured; the result's name, and the folder for it. Exits where they make no sense."""
    parser = argparse.ArgumentParser(prog=f"ramify bench --suite gpu {name}", description=doc)
    parser.add_argument("--quick", action="store_true", help="a tiny model, little work: shows that it runs, also on a CPU")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--shape", choices=list(SHAPES), default=None, help="the model's sizes (default: Qwen3-0.6B)")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each (default: 1)")
    parser.add_argument("--seconds", type=float, default=60, help="after which nothing new begins (default: 60)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ramify-bench", help="of checkpoints")
    parser.add_argument("--engine", default="", metavar="NAME=VALUE,...", help="options of the engine, such as depth=1")
    parser.add_argument("--in-process", action="store_true", help="the engine on a thread beside the scenario, not in a process")
    parser.add_argument("--out", type=Path, default=None, help="a folder for the results")
    parser.add_argument("--name", default=name, help=argparse.SUPPRESS)
    said = parser.parse_args(argv)
    device = said.device if said.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    shape = SHAPES[said.shape or ("tiny" if said.quick else "Qwen3-0.6B")]
    said.folder.mkdir(parents=True, exist_ok=True)
    measured = limits(device, quick=said.quick)
    setting = Setting(
        device=device,
        shape=shape,
        quick=said.quick,
        repeats=said.repeats,
        seconds=said.seconds,
        folder=said.folder,
        settings=dict(word.split("=", 1) for word in said.engine.split(",") if word),
        in_process=said.in_process,
        begun=time.monotonic(),
        bounds=Bounds(shape, measured),
    )
    return setting, said.name, said.out


def scenario(name: str, argv: Sequence[str], doc: str | None, run: Callable[[Setting], Iterator[Line]]) -> int:
    """`main` of every scenario: lines as they are found, a table, one line of JSON, and NAME.json in the folder for results,
    written anew after each line, so that what was found survives what comes after. 1 where it did not come to its end."""
    setting, name, out = parse(name, argv, doc)
    rates = setting.bounds.limits
    result: dict[str, Any] = {
        "bench": name,
        "question": (doc or "").partition("\n")[0].removeprefix("Question:").strip(),
        "device": name_of(setting.device),
        "torch": torch.__version__,
        "shape": setting.shape.name,
        "quick": setting.quick,
        "engine": setting.settings,
        "copy_GBps": round(rates.bandwidth / 1e9, 1),
        "bf16_TFLOPs": round(rates.flops / 1e12, 2),
        "lines": [],
        "failed": None,
    }
    try:
        for line in run(setting):
            result["lines"].append(line)
            print(" ".join(f"{key}={show(value)}" for key, value in line.items() if key[0] != "_"), flush=True)
            save(result, name, out)
    except Exception as error:  # whatever it is, the lines before it were measured
        traceback.print_exc()
        result["failed"] = f"{type(error).__name__}: {error}"
    result["seconds"] = round(time.monotonic() - setting.begun, 1)
    save(result, name, out)
    report(result)
    print(json.dumps(result))
    return int(result["failed"] is not None)


def through(lines: AsyncIterator[Line]) -> Iterator[Line]:
    """The lines of an asyncio scenario, each as soon as it is there; the loop turns only meanwhile."""
    with asyncio.Runner() as runner:
        while True:
            try:
                line = runner.run(_next(lines))
            except StopAsyncIteration:
                return
            yield line


async def _next(lines: AsyncIterator[Line]) -> Line:
    return await anext(lines)


def save(result: dict[str, Any], name: str, out: Path | None) -> None:
    """NAME.json in the folder, whole at all times, if there is one to be."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        unfinished = out / f"{name}.unfinished"
        unfinished.write_text(json.dumps(result) + "\n", encoding="utf-8")
        unfinished.replace(out / f"{name}.json")


def report(result: dict[str, Any]) -> None:
    """Its table, on stdout."""
    print(
        f"\n{result['bench']}: {result['shape']}, {result['device']}, {result['copy_GBps']:.0f} GB/s, "
        f"{result['bf16_TFLOPs']:.1f} TFLOP/s, {result.get('seconds', 0):.0f} s"
        + (f"; FAILED: {result['failed']}" if result["failed"] else "")
    )
    headers = list(dict.fromkeys(key for line in result["lines"] for key in line if key[0] != "_"))
    if headers:
        rows = [[show(line.get(key, "")) for key in headers] for line in result["lines"]]
        table(headers, rows, right=range(1, len(headers)), file=sys.stdout)


def show(value: Any) -> str:
    """A value as a table has it. Pure."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return "-" if value is None else str(value)


@contextmanager
def freed() -> Iterator[None]:
    """What is dropped inside goes back to the device at the end."""
    try:
        yield
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
