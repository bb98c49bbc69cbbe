"""Attention over pages in C++ (`kernels/cpp/attention.cpp`): K and V are read where they lie, once per KV head and tile,
and once for all spans of a step that share them (`AttentionIndex.sharing`).

Tiles are those of `reference.py`, and partial results are merged in order of position too. Where both q and KV are bf16 and the
CPU has AVX512-BF16, scores are sums of exact products in fp32, and the weights of the softmax are rounded to bf16 before they
meet V (and are summed as rounded, so that they add up to 1); everywhere else all arithmetic is fp32. KV in int8 is multiplied in
whole numbers (`kernels/cpp/attention_int8.inc`), whatever the dtype of q.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .costs import DEFAULT_COSTS, SharingCosts
from .interface import AttentionIndex, AttentionSpec

LEVELS = ("baseline", "AVX2", "AVX512", "AVX512-BF16")
"""By the number that the C++ knows them by."""


def refusal(spec: AttentionSpec) -> str | None:
    """Why this spec cannot be computed here; None if it can."""
    if spec.head_dim % 16 or not 16 <= spec.head_dim <= 256:
        return f"head_dim {spec.head_dim} is not a multiple of 16 up to 256"
    return None


@dataclass(frozen=True)
class Plan:
    """spans: int32 [4, spans]: query_start, query_length, start, row. sharing: int32 [2, spans]: order, shared; or [2, 0].

    page_table: int32 [rows, max_pages], not a copy. A plan is the same for all specs.
    """

    spans: Tensor
    sharing: Tensor
    page_table: Tensor
    page_size: int


def bytes_read() -> int:
    """Bytes of K and V that all calls of this process have asked memory for: what was read once for several spans counts once.

    Callers take differences. `kernels.native.load` must have succeeded before.
    """
    return torch.ops.ramify.attention_bytes()


class NativeAttention:
    """On the CPU. `kernels.native.load` must have succeeded before.

    The page table is read by `run`: it stays as it is from `plan` to the last `run` of the step.
    """

    def __init__(self, spec: AttentionSpec, level: int | None = None, costs: SharingCosts = DEFAULT_COSTS):
        """level: one that this CPU has, by default the best. costs: by which it decides what is read together; they change no
        bit. Raises ValueError for a spec that cannot be computed."""
        reason = refusal(spec)
        if reason is not None:
            raise ValueError(f"No native attention: {reason}.")
        self.spec = spec
        self.level = torch.ops.ramify.best_level() if level is None else level
        self.costs = costs
        self._attend = torch.ops.ramify.attention.default

    def plan(self, index: AttentionIndex) -> Plan:
        """See the interface. Copies the spans, keeps the page table."""
        spans = np.array((index.query_start, index.query_length, index.start, index.row), np.int32)
        share = index.sharing
        sharing = np.empty((2, 0), np.int32) if share is None else np.array((share.order, share.shared), np.int32)
        page_table = index.page_table
        if page_table.dtype != torch.int32 or not page_table.is_contiguous():
            page_table = page_table.to(torch.int32).contiguous()
        return Plan(torch.from_numpy(spans), torch.from_numpy(sharing), page_table, index.page_size)

    def run(self, plan: Plan, k_pool: Tensor, v_pool: Tensor, q: Tensor) -> Tensor:
        """See the interface. q's last two dimensions are contiguous. Raises RuntimeError for a page outside of the pool."""
        out = torch.empty(q.shape, dtype=q.dtype)
        spec = self.spec
        self._attend(
            q,
            k_pool,
            v_pool,
            plan.page_table,
            plan.page_size,
            plan.spans,
            plan.sharing,
            spec.scale,
            spec.window or 0,
            spec.soft_cap or 0.0,
            spec.causal,
            self.level,
            self.costs.piece_bytes,
            self.costs.joining_bytes,
            out,
        )
        return out
