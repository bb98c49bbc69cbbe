"""Question: what does the host cost a step, when the device costs nothing?

An executor that answers at once; 256 rows decode. The ceiling is the device: at 256 rows a GPU's step takes 5 ms and more, so
0.3 ms of scheduling and settling are 6 % at depth 1 and hidden at depth 2. Also: the time to match a key of 128k tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from statistics import median

import numpy as np

from ...constrained.masks import Masks
from ...radix.cache import PrefixCache
from ...radix.keys import Namespace
from ..config import ScheduleConfig
from ..engine import Engine
from ..plan import StepPlan, StepResult
from ..protocol import pack_ids
from ..wire import Drawing, Submit


class NullLaunched:
    """A step that was over before it began."""

    def __init__(self, plan: StepPlan):
        self._plan = plan

    @property
    def step(self) -> int:
        """See `plan.Launched`."""
        return self._plan.step

    def sample(self, masks: np.ndarray | None) -> None:
        """See `plan.Launched`."""

    def result(self) -> StepResult:
        """Token 7 for everyone."""
        count = len(self._plan.want_span)
        zeros = np.zeros(count, np.float32)
        none = np.zeros(0, np.float32)
        tokens = np.full(count, 7, np.int32)
        return StepResult(self._plan.step, tokens, zeros, none, np.zeros(0, np.int32), none, np.zeros(count, np.bool_))


class NullExecutor:
    """Computes nothing."""

    def forward(self, plan: StepPlan) -> NullLaunched:
        """See `plan.Executor`."""
        return NullLaunched(plan)


def step_times(rows: int, steps: int, page_size: int) -> list[float]:
    """Seconds of each decode step with `rows` sequences running, in order."""
    config = ScheduleConfig(
        max_running=rows, chunk_tokens=100_000, context_length=8192, policy="prefix", queue=100_000, depth=1
    )
    cache = PrefixCache(num_pages=rows * 4096 // page_size, page_size=page_size)
    engine = Engine(config, cache, NullExecutor(), masks=Masks(1000), make_matcher=_no_grammar)
    rng = np.random.default_rng(0)
    for key in range(rows):
        ids = rng.integers(0, 1000, 64, dtype=np.int32)
        engine.enter([Submit(key=key, ids=pack_ids(ids.tobytes()), drawing=Drawing(limit=steps + 8))])
    for _ in range(4):
        engine.step()
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - started)
    return times


def _no_grammar(_: bytes):
    raise AssertionError("no request here has a grammar")


def match_times(length: int, repeats: int) -> list[float]:
    """Seconds to find a key of `length` tokens that is wholly cached, in 16 nodes."""
    cache = PrefixCache(num_pages=2 * length, page_size=1)
    ids = np.random.default_rng(0).integers(0, 150_000, length, dtype=np.int32)
    space = Namespace()
    for part in range(1, 17):
        upto = length * part // 16
        lease = cache.acquire(space, ids[:upto], limit=upto, step=part)
        cache.grow(lease, upto)
        cache.insert(lease, ids[lease.length : upto], step=part)
        cache.settle(part)
        cache.release(lease, step=part)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        found = cache.match(space, ids, limit=length)
        times.append(time.perf_counter() - started)
        assert found.length == length
    return times


def main(argv: list[str]) -> int:
    """Run, print medians, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench host", description=__doc__)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1000)
    said = parser.parse_args(argv)
    figures: dict[str, float] = {}
    for page_size in (1, 16):
        times = step_times(said.rows, said.steps, page_size)
        figures[f"step_ms_page{page_size}"] = 1e3 * median(times)
        figures[f"step_p99_ms_page{page_size}"] = 1e3 * float(np.quantile(times, 0.99))
    figures["match_128k_ms"] = 1e3 * median(match_times(131_072, 200))
    for name, value in figures.items():
        print(f"{name:24} {value:8.4f}")
    print(json.dumps({"bench": "host", "rows": said.rows, "load": os.getloadavg()[0], **figures}))
    return 0
