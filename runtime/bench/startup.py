"""Question: how long until something happens, and in how much memory: `import ramify`, `--help`, a first token?

Ceiling: starting Python itself, measured beside them in the same turn. Each run is a process of its own; the first one of
each kind is thrown away, because it may find cold files. Then a model of 0.5 billion parameters, from the command to its first
token, beside the peers from the start of their process to theirs, in turns: seconds, and the most memory that all processes
held together. Wall clock, medians and spread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from .adapters.base import Generate, Unusable, needs
from .adapters.choose import choose
from .checkpoints import SHAPES, Shape, make
from .machine import cores
from .processes import family, family_pss_mb
from .work import apart

BARE = [sys.executable, "-c", "pass"]
CLI = [sys.executable, "-m", "ramify.runtime.cli"]
IMPORT = [sys.executable, "-c", "import ramify; ramify.__version__"]
HELP = [*CLI, "--help"]
FIRST_TOKEN = [*CLI, "generate", "--stream", "--chat", "--max-tokens", "8", "Hello!"]
LIMITS_S = {"import ramify": 0.15, "ramify --help": 0.3, "first token": 10.0}


def whole_s(command: list[str]) -> float:
    """Seconds from the command to its end."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_byte_s(command: list[str]) -> float:
    """Seconds from the command to the first byte on its stdout."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        took = time.perf_counter() - started
        process.stdout.read()
    if not first or process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode} and without a token")
    return took


class PeakMemory:
    """The most memory (MB, shared pages once) that processes started within held together, looked at twenty times a second."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._before = set(family(os.getpid()))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Until left."""
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.05):
                children = [pid for pid in family(os.getpid()) if pid not in self._before]
                started = set(children)
                roots = [pid for pid in children if parent(pid) not in started]
                self.mb = max(self.mb, sum(family_pss_mb(pid) for pid in roots))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def parent(pid: int) -> int:
    """Its parent's pid, 0 where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def one_token(model: Path, threads: int) -> float:
    """Seconds from `ramify generate` to its first byte: one token is generated."""
    return first_byte_s([*CLI, "generate", "--model", str(model), "--threads", str(threads), "--max-tokens", "1", "Hello!"])


async def peer_token(word: str, model: Path, shape: Shape, peers: Path, threads: int) -> float:
    """Seconds from the start of a peer's process to its first token. Raises Unusable."""
    work = Generate(apart(1, 8, shape.vocab, 50), 1)
    adapter = choose(word, peers)
    started = time.perf_counter()
    try:
        await adapter.start(model, needs([work], shape.kv_bytes_token, dtype="bfloat16", threads=threads))
        await adapter.run(work)
        return time.perf_counter() - started
    finally:
        await adapter.close()


def cold_starts(words: list[str], said: argparse.Namespace) -> dict[str, Any]:
    """Engine -> its seconds and its peak memory, one value a run; or why it has none."""
    shape = SHAPES["tiny" if said.quick else "Qwen2.5-0.5B"]
    model = make(shape, said.folder)
    found: dict[str, Any] = {word: {"s": [], "MB": []} for word in words}
    for number in range(said.token_runs + 1):
        for word in words:
            if "why" in found[word]:
                continue
            peak = PeakMemory()
            try:
                with peak.watching():
                    if word == "ramify":
                        seconds = one_token(model, cores())
                    else:
                        seconds = asyncio.run(peer_token(word, model, shape, said.peers, cores()))
            except Unusable as error:
                found[word] = {"why": str(error)}
                continue
            if number:
                found[word]["s"].append(round(seconds, 3))
                found[word]["MB"].append(round(peak.mb))
    return {"shape": shape.name, "engines": found}


def commands(runs: int, token_runs: int) -> dict[str, dict[str, float]]:
    """The short ones and the bundled model's first token, in turns; prints a line each."""
    rows: dict[str, list[float]] = {"python": [], "import ramify": [], "ramify --help": [], "first token": []}
    for _ in range(runs + 1):
        bare = whole_s(BARE)
        rows["python"].append(bare)
        rows["import ramify"].append(whole_s(IMPORT) - bare)
        rows["ramify --help"].append(whole_s(HELP))
    for _ in range(token_runs + 1):
        rows["first token"].append(first_byte_s(FIRST_TOKEN))
    result = {}
    for name, times in rows.items():
        kept = sorted(times[1:])
        middle = median(kept)
        result[name] = {"median_s": round(middle, 4), "least_s": round(kept[0], 4), "most_s": round(kept[-1], 4)}
        limit = f", limit {LIMITS_S[name]} s" if name in LIMITS_S else ""
        print(f"{name:14} {middle:7.3f} s  ({kept[0]:.3f} to {kept[-1]:.3f}, {len(kept)} runs{limit})")
    return result


def main(argv: list[str]) -> int:
    """Measure and print; the last line is JSON. Seconds. `import ramify` is without the start of Python itself."""
    parser = argparse.ArgumentParser(prog="ramify bench startup", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny model in place of the one of 0.5 billion parameters")
    parser.add_argument("--runs", type=int, default=7, help="of the short ones (default: 7)")
    parser.add_argument("--token-runs", type=int, default=3, help="of the first token (default: 3)")
    parser.add_argument("--against", default="transformers,vllm,llama.cpp", help="peers (default: all), with commas, or 'none'")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), help="from `make peers` (default: build/peers)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ramify-bench", help="of checkpoints")
    said = parser.parse_args(argv)
    result = commands(said.runs, said.token_runs)
    cold = cold_starts(["ramify", *(word for word in said.against.split(",") if word != "none")], said)
    for word, one in cold["engines"].items():
        if "why" in one:
            print(f"{word} is left out: {one['why']}")
            continue
        seconds, memory = sorted(one["s"]), median(one["MB"])
        spread = f"{seconds[0]:.2f} to {seconds[-1]:.2f}, {len(seconds)} runs"
        print(f"first token of {cold['shape']}'s sizes, {word}: {median(seconds):.2f} s ({spread}), at most {memory:,.0f} MB")
    print(json.dumps({"bench": "startup", "load": os.getloadavg()[0], **result, "cold": cold}))
    return 0
