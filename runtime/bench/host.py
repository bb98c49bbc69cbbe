"""Question: what does the host cost a step, when the device costs nothing?

An executor that answers at once; 256 rows decode. The ceiling is the device: at 256 rows a GPU's step takes 5 ms and more, so
0.3 ms of scheduling and settling are 6 % at depth 1 and hidden at depth 2. Also: the time to match a key of 128k tokens; what
entering a queue of 10,000 and stepping beside it costs; what looking up a prompt costs that finds nothing, and a whole
request that finds nothing where it must evict; and how much of its rate the bundled model keeps beside a busy Python thread
of its caller, or beside a busy process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np

from ...constrained.masks import Masks
from ...radix.cache import PrefixCache
from ...radix.keys import Namespace
from ..bundled import MODEL_DIR
from ..config import ScheduleConfig
from ..engine import Engine
from ..plan import StepPlan, StepResult
from ..protocol import pack_ids
from ..wire import Drawing, Submit
from .adapters.base import Generate, needs
from .adapters.ramify import RamifyAdapter
from .machine import cores
from .neighbour import busy_core
from .work import apart


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
    engine = new_engine(rows, rows * 4096, page_size)
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


def _no_grammar(grammar: bytes, *, canonical: bool):
    raise AssertionError("no request here has a grammar")


def match_times(length: int, nodes: int, repeats: int) -> list[float]:
    """Seconds to find a key of `length` tokens, come as bytes as requests do, that is wholly cached, in so many nodes."""
    cache = PrefixCache(num_pages=2 * length, page_size=1)
    ids = np.frombuffer(np.random.default_rng(0).integers(0, 150_000, length, dtype=np.int32).tobytes(), np.int32)
    space = Namespace()
    for part in range(1, nodes + 1):
        upto = length * part // nodes
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


def lookup_times(prompts: int, length: int, repeats: int) -> list[float]:
    """Seconds to look up a prompt of `length` tokens that begins as none of `prompts` cached ones does."""
    cache = PrefixCache(num_pages=2 * prompts * length, page_size=1)
    rng = np.random.default_rng(0)
    space = Namespace()
    for step in range(1, prompts + 1):
        ids = rng.integers(0, 150_000, length, dtype=np.int32)
        lease = cache.acquire(space, ids, limit=length, step=step)
        cache.grow(lease, length)
        cache.insert(lease, ids[lease.length :], step=step)
        cache.settle(step)
        cache.release(lease, step=step)
    times = []
    for _ in range(repeats):
        ids = np.frombuffer(rng.integers(150_000, 300_000, length, dtype=np.int32).tobytes(), np.int32)
        started = time.perf_counter()
        found = cache.match(space, ids, limit=length)
        times.append(time.perf_counter() - started)
        assert found.length == 0
    return times


def new_engine(rows: int, num_tokens: int, page_size: int = 1) -> Engine:
    """An engine whose device costs nothing."""
    config = ScheduleConfig(
        max_running=rows, chunk_tokens=100_000, context_length=8192, policy="prefix", queue=100_000, depth=1
    )
    cache = PrefixCache(num_pages=num_tokens // page_size, page_size=page_size)
    return Engine(config, cache, NullExecutor(), masks=Masks(1000), make_matcher=_no_grammar)


def queue_times(waiting: int, rows: int, steps: int) -> tuple[float, list[float]]:
    """Seconds to order one of `waiting` requests on entry (mean), and of each step while they wait for `rows` busy rows."""
    engine = new_engine(rows, rows * 4096)
    rng = np.random.default_rng(0)
    heads = rng.integers(0, 1000, (64, 200), dtype=np.int32)
    inbox = []
    for key in range(waiting + rows):
        ids = np.concatenate([heads[key % 64], rng.integers(0, 1000, 56, dtype=np.int32)])
        inbox.append(Submit(key=key, ids=pack_ids(ids.tobytes()), drawing=Drawing(limit=steps + 8)))
    started = time.perf_counter()
    engine.enter(inbox)
    entering = (time.perf_counter() - started) / len(inbox)
    for _ in range(4):
        engine.step()
    assert len(engine.scheduler.queue) == waiting
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - started)
    return entering, times


def miss_times(count: int, length: int) -> list[float]:
    """Seconds of a whole request of `length` new tokens and one drawn, where nothing is found and old prompts are evicted."""
    engine = new_engine(8, 16 * length)
    rng = np.random.default_rng(0)
    times = []
    for key in range(count):
        ids = rng.integers(0, 150_000, length, dtype=np.int32)
        submit = Submit(key=key, ids=pack_ids(ids.tobytes()), drawing=Drawing(limit=1))
        started = time.perf_counter()
        engine.step([submit])
        while not engine.idle:
            engine.step()
        times.append(time.perf_counter() - started)
    return times[32:]


@contextmanager
def busy_thread() -> Iterator[None]:
    """A thread of this process that runs Python code without end, until left."""
    ended = threading.Event()

    def compute() -> None:
        number = 0
        while not ended.is_set():
            number += 1

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


async def beside(repeats: int, output: int) -> dict[str, float]:
    """Tokens a second of one stream of the bundled model: quiet, beside a busy thread of the caller, beside a busy process."""
    adapter = RamifyAdapter("ramify", {})
    work = Generate(apart(1, 32, 4000, 40), output)
    rates: dict[str, list[float]] = {"nothing": [], "thread": [], "process": []}
    await adapter.start(MODEL_DIR, needs([work], 3072, dtype="bfloat16", threads=cores()))
    try:
        await adapter.run(work)
        for _ in range(repeats):
            rates["nothing"].append((await adapter.run(work)).decode_rate)
            with busy_thread():
                rates["thread"].append((await adapter.run(work)).decode_rate)
            async with busy_core():
                rates["process"].append((await adapter.run(work)).decode_rate)
    finally:
        await adapter.close()
    return {name: median(values) for name, values in rates.items()}


def main(argv: list[str]) -> int:
    """Run, print medians, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench host", description=__doc__)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--waiting", type=int, default=10_000, help="requests in the queue")
    parser.add_argument("--repeats", type=int, default=5, help="streams of the bundled model in each situation")
    parser.add_argument("--output", type=int, default=128, help="tokens of such a stream")
    said = parser.parse_args(argv)
    figures: dict[str, float] = {}
    for page_size in (1, 16):
        times = step_times(said.rows, said.steps, page_size)
        figures[f"step_ms_page{page_size}"] = 1e3 * median(times)
        figures[f"step_p99_ms_page{page_size}"] = 1e3 * float(np.quantile(times, 0.99))
    for nodes in (1, 64):
        figures[f"match_128k_{nodes}_ms"] = 1e3 * median(match_times(131_072, nodes, 200))
    figures["lookup_miss_us"] = 1e6 * median(lookup_times(1000, 512, 500))
    entering, waiting = queue_times(said.waiting, said.rows, 200)
    figures |= {"enter_queue_us": 1e6 * entering, "step_beside_queue_ms": 1e3 * median(waiting)}
    figures["miss_request_us"] = 1e6 * median(miss_times(500, 512))
    rates = asyncio.run(beside(said.repeats, said.output))
    figures |= {f"stream_beside_{name}_tok_s": value for name, value in rates.items()}
    for name, value in figures.items():
        print(f"{name:24} {value:8.4f}")
    print(json.dumps({"bench": "host", "rows": said.rows, "load": os.getloadavg()[0], **figures}))
    return 0
