"""Steps of few tokens as CUDA graphs: the whole forward pass is recorded once for a number of tokens, and replayed as one launch.

Decodes, forced runs, short prompts and ends of long ones: whatever the spans of a step are, a graph sees tokens. One with fewer
tokens than a graph has is filled up with tokens that are written to the pool's spare page and are seen by nobody. All that
differs from step to step lies in one packet, which is copied to where the graph reads it:

    tokens, positions, slots, rows: int64 [tokens] each | one plan of attention for each spec, int32

A graph is known by its tokens and by which launches its attention needs (`HostPlan.variant`): the plain ones are recorded at
start, others when a step first asks for them. Graphs share their memory: they run one after another, and what they leave is read
before the next one runs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...kernels.attention.interface import HostPlan
from ...kernels.upload import fill, layout, split
from .batch import Batch, Computed
from .forward import Forward

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256)
"""Tokens of the graphs up to 256; above, each further 64."""
LEAST = SIZES[-1]
"""Tokens for which there are graphs, however few rows may run."""

Key = tuple[int, tuple[Hashable, ...]]
"""Tokens, and the variants of the attentions."""


class Recorder(Protocol):
    """Makes a call repeatable."""

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Runs `work` once or more and returns what does the same again, on the same memory."""
        ...


def record_nothing(work: Callable[[], None]) -> Callable[[], None]:
    """A recorder for any device: the work itself is what is repeated. It shows that packets and padding are right."""
    return work


class CudaRecorder:
    """Records CUDA graphs, all in one pool of memory."""

    def __init__(self, device: torch.device):
        self._device = device
        self._memory: Any = None

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """See Recorder. The first run is outside of the graph: kernels are compiled and libraries make their handles there."""
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            work()
        torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads of this process (a grammar engine that is imported) may use CUDA while this one records.
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            work()
        self._memory = graph.pool()
        return graph.replay


def sizes(most: int) -> list[int]:
    """Tokens of the graphs for steps of up to so many. Pure."""
    known = [*SIZES, *range(SIZES[-1] + 64, most + 64, 64)]
    return [*(size for size in known if size < most), most]


@dataclass(frozen=True, slots=True)
class _Graph:
    """packet: uint8, what differs between steps. token_ids: int64 [tokens], those fed. work: what was recorded, which keeps the
    tensors that it reads; a recording knows addresses alone."""

    packet: Tensor
    token_ids: Tensor
    work: Callable[[], None]
    replay: Callable[[], None]


class StepGraphs:
    """Computes steps, those of few tokens by graphs, the others plainly. Owns the graphs and the logits they write."""

    def __init__(self, plainly: Forward, record: Recorder, most: int | None = None):
        """plainly: computes what no graph takes; its pool has a spare page, its attentions are `GraphAttention`. most: tokens of
        the largest graph, by default a token for each row, and `LEAST`."""
        self._plainly, self._record = plainly, record
        table, decoder = plainly.table, plainly.decoder
        self._attentions = decoder.graph_attentions()
        self._most = most or max(table.max_rows, LEAST)
        self._sizes = sizes(self._most)
        self._logits = torch.empty(self._most, table.vocab, dtype=decoder.dtype, device=table.device)
        self._graphs: dict[Key, _Graph] = {}

    def __call__(self, batch: Batch) -> Computed:
        """See `Forward`. Records a graph where none fits yet: changes what is kept."""
        tokens = batch.num_tokens
        if not 0 < tokens <= self._most:
            return self._plainly(batch)
        size = self._sizes[bisect_left(self._sizes, tokens)]
        try:
            plans = [attention.host_plan(batch.attention, attention.decode_capacity(size)) for attention in self._attentions]
        except ValueError:  # many long spans that share in many ways: its plan is longer than that of any decode step
            return self._plainly(batch)
        columns = np.zeros((4, size), np.int64)
        columns[:3, :tokens] = batch.columns
        columns[3, :tokens] = batch.rows
        columns[2, tokens:] = self._plainly.pool.spare_slot
        graph = self._run(size, columns, plans)
        return Computed(graph.token_ids, self._logits[:size], batch.wanted)

    def warm(self, progress: Callable[[int, int], None]) -> None:
        """Records the graphs of every size for steps that share nothing, largest first. progress: called with done and all."""
        for done, size in enumerate(reversed(self._sizes)):
            progress(done, len(self._sizes))
            columns = np.zeros((4, size), np.int64)
            columns[2] = self._plainly.pool.spare_slot
            self._run(size, columns, [attention.idle_plan(attention.decode_capacity(size)) for attention in self._attentions])
        progress(len(self._sizes), len(self._sizes))

    def _run(self, size: int, columns: np.ndarray, plans: list[HostPlan]) -> _Graph:
        """Sends the packet and replays the graph, which is recorded first if there is none."""
        arrays = [columns, *(plan.flat for plan in plans)]
        starts, total = layout([array.nbytes for array in arrays])
        on_cuda = self._logits.device.type == "cuda"
        staged = torch.empty(total, dtype=torch.uint8, pin_memory=on_cuda)
        fill(staged.numpy(), arrays, starts)
        key = size, tuple(plan.variant for plan in plans)
        graph = self._graphs.get(key)
        if graph is not None:
            graph.packet.copy_(staged, non_blocking=True)
            graph.replay()
            return graph
        packet = staged.to(self._logits.device, copy=True)
        self._graphs[key] = graph = self._recorded(size, packet, arrays, starts, plans)
        graph.replay()
        return graph

    def _recorded(
        self, size: int, packet: Tensor, arrays: list[np.ndarray], starts: list[int], plans: list[HostPlan]
    ) -> _Graph:
        """A graph that reads this packet, whose contents are those of a step that may be run any number of times."""
        (tokens, positions, slots, rows), *flats = split(packet, arrays, starts)
        table, decoder, pool = self._plainly.table, self._plainly.decoder, self._plainly.pool
        token_ids = torch.empty_like(tokens)
        every = torch.arange(size, device=packet.device)
        attention_plan = tuple(
            attention.on_device(plan, flat, table.page_table, pool.page_size)
            for attention, plan, flat in zip(self._attentions, plans, flats, strict=True)
        )

        def work() -> None:
            torch.where(tokens < 0, table.last_tokens[rows], tokens, out=token_ids)
            logits = decoder.forward(
                token_ids, positions, kv=pool, slots=slots, attention_plan=attention_plan, logit_rows=every
            )
            self._logits[:size].copy_(logits)

        return _Graph(packet, token_ids, work, self._record(work))
