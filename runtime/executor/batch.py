"""A plan becomes tensors: which tokens, at which positions, in which slots, and whose logits are wanted.

All index arithmetic is NumPy on the host, where the plan and a copy of the page table are; one upload carries the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...kernels.attention.interface import AttentionIndex, Sharing
from ..plan import FROM_DEVICE, Int32, StepPlan
from .sequence_table import Int64, SequenceTable


@dataclass(frozen=True, slots=True)
class Batch:
    """One step on the device. T tokens, L distinct logits rows, W wanted outputs.

    token_ids, positions, slots: int64 [T]. attention: the spans, on the host. logit_rows: int64 [L], the flat tokens whose
    logits are wanted, each once. which: int64 [W] on the host, the logits row that each wanted output reads.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    attention: AttentionIndex
    logit_rows: Tensor
    which: Int64


def build(plan: StepPlan, table: SequenceTable, page_size: int) -> Batch:
    """Tokens that only the device knows are taken from the table's last tokens. Changes nothing but what the table remembers
    of its rows' order."""
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
    uploaded = upload(columns, table.device)
    token_ids = uploaded[0]
    unknown = np.flatnonzero(plan.tokens == FROM_DEVICE)
    if len(unknown):
        where = upload(np.stack([unknown, row_of[unknown]]), table.device)
        token_ids[where[0]] = table.last_tokens[where[1]]
    rows, which = _distinct(query_start[plan.want_span].astype(np.int64) + plan.want_offset)
    return Batch(
        token_ids=token_ids,
        positions=uploaded[1],
        slots=uploaded[2],
        attention=AttentionIndex(
            query_start, plan.lengths, plan.starts, plan.rows, table.page_table, page_size, _sharing(plan, table, page_size)
        ),
        logit_rows=upload(rows, table.device),
        which=which,
    )


def _sharing(plan: StepPlan, table: SequenceTable, page_size: int) -> Sharing | None:
    """Which spans of the step have pages in common; None for a span alone, and without tree attention."""
    if len(plan.rows) < 2 or table.sharing is None:
        return None
    num_pages: Int32 = -(-(plan.starts + plan.lengths) // page_size)
    order, common = table.sharing.of(plan.rows, num_pages)
    return Sharing(order, common * page_size)


def _distinct(flat: Int64) -> tuple[Int64, Int64]:
    """The distinct values, and for each entry the place of its value among them."""
    if len(flat) < 2 or bool((np.diff(flat) > 0).all()):
        return flat, np.arange(len(flat))
    rows, which = np.unique(flat, return_inverse=True)
    return rows, which.reshape(-1)


def upload(array: NDArray, device: torch.device) -> Tensor:
    """The array on the device; on the CPU it shares the array's memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=True)
