"""A plan becomes arrays: which tokens, at which positions, in which slots, and whose logits are wanted.

All index arithmetic is NumPy on the host, where the plan and a copy of the page table are. How the arrays reach the device is the
business of who computes the step: `forward.py` uploads them, `graphs.py` puts them where its graphs read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...kernels.attention.interface import AttentionIndex, Sharing
from ..plan import Int32, StepPlan
from .sequence_table import Int64, SequenceTable


@dataclass(frozen=True, slots=True)
class Batch:
    """One step on the host. T tokens, W wanted outputs.

    columns: int64 [3, T]: token ids (FROM_DEVICE where only the device knows them), rotary positions, slots. rows: int32 [T],
    whose last token stands for one that only the device knows. attention: the spans. wanted: int64 [W], the flat token whose
    logits each wanted output reads.
    """

    columns: Int64
    rows: Int32
    attention: AttentionIndex
    wanted: Int64

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.columns.shape[1]


@dataclass(frozen=True, slots=True)
class Computed:
    """What a forward pass leaves. token_ids: int64 [T or more], those that were fed, on the device. logits: [rows, vocab] in the
    model's dtype, valid until the next forward pass. which: int64 [W] on the host, the logits row that each wanted output
    reads."""

    token_ids: Tensor
    logits: Tensor
    which: Int64


def build(plan: StepPlan, table: SequenceTable, page_size: int) -> Batch:
    """The step's arrays. Changes nothing but what the table remembers of its rows' order."""
    query_start = (np.cumsum(plan.lengths) - plan.lengths).astype(np.int32)
    if len(plan.tokens) == len(plan.rows):  # decoding: a token a span
        row_of, index_of = plan.rows, plan.starts
    else:
        row_of = np.repeat(plan.rows, plan.lengths)
        index_of = np.arange(len(plan.tokens), dtype=np.int32) - np.repeat(query_start - plan.starts, plan.lengths)
    page, offset = (index_of, 0) if page_size == 1 else np.divmod(index_of, page_size)
    columns = np.empty((3, len(plan.tokens)), np.int64)
    columns[0] = plan.tokens
    columns[1] = plan.positions
    columns[2] = table.host_pages[row_of, page]
    columns[2] *= page_size
    columns[2] += offset
    sharing = _sharing(plan, table, page_size)
    return Batch(
        columns=columns,
        rows=row_of,
        attention=AttentionIndex(
            query_start, plan.lengths, plan.starts, plan.rows, table.page_table, page_size, sharing
        ),
        wanted=query_start[plan.want_span].astype(np.int64) + plan.want_offset,
    )


def _sharing(plan: StepPlan, table: SequenceTable, page_size: int) -> Sharing | None:
    """Which spans of the step have pages in common; None for a span alone, and without tree attention."""
    if len(plan.rows) < 2 or table.sharing is None:
        return None
    num_pages: Int32 = -(-(plan.starts + plan.lengths) // page_size)
    order, common = table.sharing.of(plan.rows, num_pages)
    return Sharing(order, common * page_size)
