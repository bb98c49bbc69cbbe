"""Arrays of a step -> logits, operation by operation: any step, on any device."""

from __future__ import annotations

import numpy as np
import torch

from ...kernels.upload import upload
from ..models.decoder import Decoder
from ..plan import FROM_DEVICE
from .batch import Batch, Computed
from .kv_pool import KVPool
from .sequence_table import Int64, SequenceTable


class Forward:
    """The plain way through the decoder. Keeps no state of its own."""

    def __init__(self, decoder: Decoder, pool: KVPool, table: SequenceTable):
        self.decoder, self.pool, self.table = decoder, pool, table

    def __call__(self, batch: Batch) -> Computed:
        """Logits of the wanted tokens, each computed once. Writes K and V of the step's tokens."""
        device = self.table.device
        wanted, which = distinct(batch.wanted)
        unknown = np.flatnonzero(batch.columns[0] == FROM_DEVICE)
        columns, logit_rows, *where = upload([batch.columns, wanted, unknown, batch.rows[unknown].astype(np.int64)], device)
        token_ids, positions, slots = columns
        if len(unknown):
            token_ids[where[0]] = self.table.last_tokens[where[1]]
        if not batch.num_tokens:
            return Computed(token_ids, torch.empty(0, self.table.vocab, device=device), which)
        logits = self.decoder.forward(
            token_ids,
            positions,
            kv=self.pool,
            slots=slots,
            attention_plan=self.decoder.plan_attention(batch.attention),
            logit_rows=logit_rows,
        )
        return Computed(token_ids, logits, which)


def distinct(flat: Int64) -> tuple[Int64, Int64]:
    """The distinct values, and for each entry the place of its value among them. Pure."""
    if len(flat) < 2 or bool((np.diff(flat) > 0).all()):
        return flat, np.arange(len(flat))
    rows, which = np.unique(flat, return_inverse=True)
    return rows, which.reshape(-1)
