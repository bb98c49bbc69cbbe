"""Steps become results: the executor carries out plans on the device, in the order in which they come.

    forward(plan):  rows enter, page table writes, page copies -> batch -> all layers -> logits of the wanted tokens
    sample(masks):  tokens drawn, log-probabilities, last tokens set on the device
    result():       the host waits, and reads

On the CPU each call has done its work when it returns; on CUDA work is queued, and only `result` waits. Whatever goes wrong
inside a step is raised by its `result` as StepFailed; the step's row entries and page table writes hold nevertheless.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..models.decoder import Decoder
from ..plan import StepPlan
from .batch import build
from .forward import Forward
from .graphs import Recorder, StepGraphs
from .kv_pool import KVPool
from .launched import TorchLaunched
from .sampler import Sampler
from .sequence_table import SequenceTable


class TorchExecutor:
    """The plan's `Executor` on one device. All calls must come from one thread."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        pool: KVPool,
        max_rows: int,
        context_length: int,
        tree_attention: bool = True,
        record: Recorder | None = None,
        graph_tokens: int | None = None,
    ):
        """tree_attention: attention is told which rows share pages. It changes what is read, and no bit of the results.
        record: what makes graphs of steps of few tokens (`graphs.py`), None: no graphs.
        graph_tokens: of the largest graph, see `StepGraphs`."""
        self.decoder, self.pool = decoder, pool
        self.table = SequenceTable(
            max_rows=max_rows,
            max_pages=-(-context_length // pool.page_size),
            vocab=decoder.config.vocab_size,
            device=pool.device,
            tree_attention=tree_attention,
        )
        self._sampler = Sampler(self.table, decoder.kernels.sampling)
        plainly = Forward(decoder, pool, self.table)
        self._graphs = None if record is None else StepGraphs(plainly, record, graph_tokens)
        self._compute = self._graphs or plainly

    @torch.inference_mode()
    def warm(self, progress: Callable[[int, int], None]) -> None:
        """Records the graphs that most steps use. progress: called with those done and all. Before the first step."""
        if self._graphs is not None:
            self._graphs.warm(progress)

    def forward(self, plan: StepPlan) -> TorchLaunched:
        """Start a step. Changes the table's rows, the pool's pages, and nothing else."""
        launched, table = TorchLaunched(plan, self._sampler), self.table
        with launched.working():
            table.enter(plan.entering)
            table.write_pages(plan.table_row, plan.table_index, plan.table_page)
            self.pool.copy_pages(plan.copy_src, plan.copy_dst)
            launched.computed = computed = self._compute(build(plan, table, self.pool.page_size))
            table.penalties.feed(plan.rows, plan.starts, plan.lengths, computed.token_ids)
        return launched
