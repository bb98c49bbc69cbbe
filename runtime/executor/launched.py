"""A step under way: its logits on the device, then its draws, then its result on the host."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ...kernels.upload import upload
from ..plan import SAMPLE, Int32, StepFailed, StepPlan, StepResult
from .batch import Computed
from .logprobs import Logprobs, report
from .sampler import Draws, Sampler

DEVICE_LOST: tuple[type[Exception], ...] = (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()
"""A kernel that went wrong on a GPU takes the whole process's use of the GPU with it: the process has to end, and is started
again by who watches over it. Running out of memory is none of these."""


class TorchLaunched:
    """The plan's `Launched`. Exceptions of the step's own work are kept and raised by `result`."""

    def __init__(self, plan: StepPlan, sampler: Sampler):
        self.plan = plan
        self.computed: Computed | None = None
        self._sampler = sampler
        self._clock = DeviceClock(sampler.device)
        self._failure: Exception | None = None
        self._drawn: Tensor | None = None
        self._logprobs: Logprobs | None = None

    @property
    def step(self) -> int:
        return self.plan.step

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work of this step: its time counts as the device's, and an exception becomes the step's failure."""
        try:
            with torch.inference_mode(), self._clock.running():
                yield
        except DEVICE_LOST:
            raise
        except Exception as error:  # whatever it is (out of memory, a kernel's error), it is this step that failed
            self._failure = error
            self.computed = None

    def sample(self, masks: Int32 | None) -> None:
        """Draw what the plan wants. masks: int32 [entries with want_mask, words]. Sets last tokens on the device."""
        if self._failure is not None:
            return
        assert self._drawn is None, f"step {self.step} was sampled twice"
        with self.working():
            computed, self.computed = self.computed, None
            assert computed is not None
            tokens = self._draw(computed, masks)
            logprobs = report(computed.logits, computed.which, self.plan, tokens, self._sampler.ops)
            if logprobs is not None:
                self._logprobs = Logprobs(
                    drawn=_to_host(logprobs.drawn),
                    ids=_to_host(logprobs.ids),
                    top_ids=_to_host(logprobs.top_ids),
                    top=_to_host(logprobs.top),
                    bad=_to_host(logprobs.bad),
                )
            self._drawn = _to_host(tokens)

    def _draw(self, computed: Computed, masks: Int32 | None) -> Tensor:
        """Tokens, int64 [W], -1 where none was drawn: nothing was wanted, or the entry was bad."""
        plan, table, total = self.plan, self._sampler.table, len(self.plan.want_kind)
        (drawing,) = (plan.want_kind == SAMPLE).nonzero()
        if not len(drawing):
            return torch.full((total,), -1, device=table.device)
        rows = plan.want_row[drawing]
        draws = Draws(computed.which[drawing], rows, plan.want_position[drawing], plan.want_mask[drawing] > 0)
        tokens, _ = self._sampler.draw(computed.logits, draws, masks)
        into, where = upload([rows.astype(np.int64), drawing], table.device)
        # A bad row must feed a token all the same: its sequence ends, but the next step may be under way already.
        table.last_tokens.index_copy_(0, into, tokens.clamp(min=0))
        if len(drawing) == total:
            return tokens
        return torch.full((total,), -1, device=table.device).index_copy_(0, where, tokens)

    def result(self) -> StepResult:
        """Wait for the device. A step that nobody sampled is sampled without masks. Raises StepFailed with the cause, and one of
        `DEVICE_LOST` where the device will not work again for this process."""
        if self._drawn is None:
            self.sample(None)
        try:
            seconds = self._clock.wait()
        except DEVICE_LOST:
            raise
        except Exception as error:  # a device reports what a kernel did wrong when one waits for it
            self._failure = error
        if self._failure is not None:
            name = type(self._failure).__name__
            raise StepFailed(f"Step {self.step} failed: {name}: {self._failure}") from self._failure
        assert self._drawn is not None
        plan, tokens, logprobs = self.plan, self._drawn.numpy().astype(np.int32), self._logprobs
        bad = (plan.want_kind == SAMPLE) & (tokens < 0)
        return StepResult(
            step=plan.step,
            tokens=tokens,
            logprobs=np.zeros(len(tokens), np.float32) if logprobs is None else logprobs.drawn.numpy(),
            id_logprobs=np.zeros(0, np.float32) if logprobs is None else logprobs.ids.numpy(),
            top_ids=np.zeros(0, np.int32) if logprobs is None else logprobs.top_ids.numpy().astype(np.int32),
            top_logprobs=np.zeros(0, np.float32) if logprobs is None else logprobs.top.numpy(),
            bad=bad if logprobs is None else bad | logprobs.bad.numpy(),
            forward_s=seconds,
        )


class DeviceClock:
    """Seconds that a device works for one step. On CUDA they are read from events on the stream, when the step has ended."""

    def __init__(self, device: torch.device):
        self._on_cuda = device.type == "cuda"
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """What happens inside is counted. Changes the clock."""
        if not self._on_cuda:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start
            return
        events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        events[0].record()
        yield
        events[1].record()
        self._events.append(events)

    def wait(self) -> float:
        """Wait until everything counted so far has ended. Answers only."""
        for _, end in self._events:
            end.synchronize()
        return self._seconds + sum(start.elapsed_time(end) for start, end in self._events) / 1e3


def _to_host(tensor: Tensor) -> Tensor:
    """A copy in pinned memory, under way when this returns; on the CPU the tensor itself."""
    if tensor.device.type == "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
