"""Steps become results: the executor carries out plans on the device, in the order in which they come.

    forward(plan):  rows enter, page table writes, page copies -> batch -> all layers -> logits of the wanted tokens
    sample(masks):  tokens drawn, log-probabilities, last tokens set on the device
    result():       the host waits, and reads

On the CPU each call has done its work when it returns; on CUDA work is queued, and only `result` waits. Whatever goes wrong
inside a step is raised by its `result` as StepFailed; the step's row entries and page table writes hold nevertheless.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.decoder import Decoder
from ..plan import StepPlan
from .batch import Batch, build
from .kv_pool import KVPool
from .launched import TorchLaunched
from .sampler import Sampler
from .sequence_table import SequenceTable


class TorchExecutor:
    """The plan's `Executor` on one device. All calls must come from one thread."""

    def __init__(
        self, decoder: Decoder, *, pool: KVPool, max_rows: int, context_length: int, tree_attention: bool = True
    ):
        """tree_attention: attention is told which rows share pages. It changes what is read, and no bit of the results."""
        self.decoder, self.pool = decoder, pool
        self.table = SequenceTable(
            max_rows=max_rows,
            max_pages=-(-context_length // pool.page_size),
            vocab=decoder.config.vocab_size,
            device=pool.device,
            tree_attention=tree_attention,
        )
        self._sampler = Sampler(self.table, decoder.kernels.sampling)

    def forward(self, plan: StepPlan) -> TorchLaunched:
        """Start a step. Changes the table's rows, the pool's pages, and nothing else."""
        launched, table = TorchLaunched(plan, self._sampler), self.table
        with launched.working():
            table.enter(plan.entering)
            table.write_pages(plan.table_row, plan.table_index, plan.table_page)
            self.pool.copy_pages(plan.copy_src, plan.copy_dst)
            launched.batch = batch = build(plan, table, self.pool.page_size)
            table.penalties.feed(plan.rows, plan.starts, plan.lengths, batch.token_ids)
            launched.logits = self._logits(batch)
        return launched

    def _logits(self, batch: Batch) -> Tensor:
        """[wanted logits rows, vocab] in the model's dtype; writes K and V of the step's tokens."""
        if not len(batch.token_ids):
            return torch.empty(0, self.table.vocab, device=self.table.device)
        return self.decoder.forward(
            batch.token_ids,
            batch.positions,
            kv=self.pool,
            slots=batch.slots,
            attention_plan=self.decoder.plan_attention(batch.attention),
            logit_rows=batch.logit_rows,
        )
