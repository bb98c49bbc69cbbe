"""One engine driven step by step, on contexts that are declared instead of computed: how long do its decode steps take?

The cache is told that prompts are known, and the pool of K and V is filled with random numbers, so that 64 rows of 8,192 tokens
begin to decode at once. What a step costs does not depend on what was in its context.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from ....constrained.masks import Masks
from ....radix.cache import PrefixCache
from ....radix.keys import Namespace
from ...config import EngineOptions
from ...engine import Engine
from ...executor.load import Loaded, load_executor
from ...plan import Executor, Int32, Launched, StepPlan, StepResult
from ...protocol import pack_ids
from ...wire import AbortKey, Drawing, Refused, SequenceEnd, Submit
from ..adapters.base import Ids
from ..bounds import unique_tokens

PROFILED = 4
"""Steps under the profiler, apart from those that are timed."""
MOST_ENTERING = 1000
"""Steps in which all rows must have begun to decode."""


@dataclass(frozen=True)
class Steps:
    """Decode steps of some rows. wall_s: from the end of one to the end of the next, median, least and most; device_s: by the
    device's clock, from its first kernel's launch to the end of its last, gaps included, median. busy_s: kernels alone, a step;
    None where no profiler tells. kernels: the largest, (name, seconds a step, launches a step)."""

    wall_s: float
    least_s: float
    most_s: float
    device_s: float
    busy_s: float | None = None
    kernels: tuple[tuple[str, float, float], ...] = ()

    @property
    def idle(self) -> float | None:
        """Share of a step in which no kernel runs."""
        return None if self.busy_s is None else max(0.0, 1 - self.busy_s / self.wall_s)


@dataclass
class Recording:
    """A step under way, whose device time is written down when it ends."""

    launched: Launched
    times: list[float] = field(default_factory=list)

    @property
    def step(self) -> int:
        """See `plan.Launched`."""
        return self.launched.step

    def sample(self, masks: Int32 | None) -> None:
        """See `plan.Launched`."""
        self.launched.sample(masks)

    def result(self) -> StepResult:
        """See `plan.Launched`."""
        result = self.launched.result()
        self.times.append(result.forward_s)
        return result


class Recorder:
    """An executor that writes down how long the device worked for each step that has ended. times: in order."""

    def __init__(self, executor: Executor):
        self.times: list[float] = []
        self._executor = executor

    def forward(self, plan: StepPlan) -> Recording:
        """See `plan.Executor`."""
        return Recording(self._executor.forward(plan), self.times)


class Stepper:
    """The engine, its pool filled. options: as for any engine."""

    def __init__(self, options: EngineOptions):
        self.loaded: Loaded = load_executor(options)
        config, pool = self.loaded.config, self.loaded.executor.pool
        with torch.inference_mode():
            for number in range(pool.spec.num_layers):
                for tensor in pool.layer(number):
                    tensor.normal_()
        self._recorder = Recorder(self.loaded.executor)
        cache = PrefixCache(num_pages=config.cache.num_pages, page_size=config.cache.page_size)
        masks = Masks(self.loaded.model.vocab_size)
        self.engine = Engine(config.schedule, cache, self._recorder, masks=masks, make_matcher=_no_grammar)
        self._keys = 0

    @property
    def capacity(self) -> int:
        """Tokens that the pool holds."""
        cache = self.loaded.config.cache
        return cache.num_pages * cache.page_size

    def decode(self, prompts: Sequence[Ids], *, steps: int, warm: int, profiled: bool = True) -> Steps:
        """Times of `steps` decode steps with a row a prompt, after `warm` ones that do not count. Drops the contexts at the
        end. Raises RuntimeError where a row could not run."""
        drawing = Drawing(limit=steps + warm + PROFILED + 16, temperature=0.6)
        needed = unique_tokens(prompts) + len(prompts) * (steps + warm + PROFILED + 16)
        if needed > self.capacity:
            raise RuntimeError(f"{needed} tokens do not fit into {self.capacity}.")
        self._declare(prompts)
        first, self._keys = self._keys, self._keys + len(prompts)
        entering = [
            Submit(key=first + number, ids=pack_ids(np.array(prompt, np.int32).tobytes()), drawing=drawing)
            for number, prompt in enumerate(prompts)
        ]
        self._step(entering)
        for _ in range(MOST_ENTERING):
            if len(self.engine.scheduler.rows.ready()) == len(prompts):
                break
            self._step()
        else:
            raise RuntimeError(f"Only {self.engine.scheduler.rows.num_running} of {len(prompts)} rows decode.")
        for _ in range(warm):
            self._step()
        seen, walls = len(self._recorder.times), []
        ended = time.perf_counter()
        for _ in range(steps):
            self._step()
            now = time.perf_counter()
            walls.append(now - ended)
            ended = now
        device = self._recorder.times[seen:]
        busy, kernels = _busy(self._step, PROFILED) if profiled else (None, ())
        for number in range(len(prompts)):
            self.engine.enter([AbortKey(first + number)])
        while not self.engine.idle:
            self.engine.step()
        self.engine.flush()
        return Steps(median(walls), min(walls), max(walls), median(device), busy, kernels)

    def _step(self, inbox: Sequence[Submit] = ()) -> None:
        for message in self.engine.step(inbox):
            if isinstance(message, Refused) or (isinstance(message, SequenceEnd) and message.failure is not None):
                raise RuntimeError(f"A row could not run: {message.failure}")

    def _declare(self, prompts: Sequence[Ids]) -> None:
        """Whole pages of all prompts are computed, as far as the cache knows."""
        cache, space, step = self.engine.scheduler.cache, Namespace(), self.engine.scheduler.launched
        for prompt in prompts:
            ids = np.array(prompt, np.int32)
            known = (len(ids) - 1) // cache.page_size * cache.page_size
            lease = cache.acquire(space, ids, limit=known, step=step)
            if not cache.grow(lease, known):
                raise RuntimeError(f"The contexts do not fit into {self.capacity} tokens, cut into pages.")
            cache.commit(lease, ids[lease.length : known])
            cache.release(lease, step=step)


def _no_grammar(grammar: bytes, *, canonical: bool):
    raise AssertionError("no request here has a grammar")


def _busy(step: Callable[[], None], count: int) -> tuple[float | None, tuple[tuple[str, float, float], ...]]:
    """Seconds a step in which a kernel or a copy runs on a GPU, and the largest kernels; None where no profiler tells."""
    if not torch.cuda.is_available():
        return None, ()
    torch.cuda.synchronize()
    try:
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            for _ in range(count):
                step()
            torch.cuda.synchronize()
        events = [
            (event.time_range.start, event.time_range.end, event.name)
            for event in profiler.events() or ()
            if event.device_type.name == "CUDA"
        ]
    except RuntimeError as error:  # a profiler that does not work here costs no measurement
        print(f"No profile: {error}")
        return None, ()
    if not events:
        return None, ()
    totals: dict[str, list[float]] = {}
    for begin, end, name in events:
        entry = totals.setdefault(name, [0.0, 0.0])
        entry[0] += (end - begin) / 1e6 / count
        entry[1] += 1 / count
    largest = sorted(totals.items(), key=lambda item: -item[1][0])[:12]
    kernels = tuple((name[:80], seconds, launches) for name, (seconds, launches) in largest)
    return covered([(begin, end) for begin, end, _ in events]) / 1e6 / count, kernels


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of these. Pure."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
