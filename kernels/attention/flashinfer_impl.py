"""Attention over pages by FlashInfer's wrapper (Ye et al., 2025), which compiles what it needs at first use, for minutes.

Its KV layout NHD, [pages, page_size, kv_heads, head_dim], is our pool seen by pages, so nothing is copied. Spans of any length go
through the paged prefill wrapper, whose tensor core kernels group the heads of a KV head as ours do. K and V that rows share are
read for each of them: the tree is `triton_impl.py`'s. Plans are made on the device's stream and cannot be recorded in graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..upload import upload
from .interface import AttentionIndex, AttentionSpec

WORKSPACE_BYTES = 256 << 20


@dataclass(frozen=True)
class Plan:
    """wrapper: planned for this step, until the next plan of the same attention."""

    wrapper: Any
    page_size: int


class FlashInferAttention:
    """On CUDA. Owns the wrapper and its workspace. Raises ImportError where FlashInfer is not installed."""

    def __init__(self, spec: AttentionSpec, device: torch.device, dtype: torch.dtype):
        """dtype: of q and of the pools, bfloat16. Raises ValueError for another one: FlashInfer has no fp32."""
        import flashinfer  # pyright: ignore[reportMissingImports]

        if dtype != torch.bfloat16:
            raise ValueError(f"FlashInfer has no attention in {dtype}. Use bfloat16, or Triton's.")
        self.spec, self._dtype = spec, dtype
        workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self._wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")

    def plan(self, index: AttentionIndex) -> Plan:
        """See the interface. The plan of the step before is no longer valid."""
        spec, size = self.spec, index.page_size
        ends = index.start + index.query_length
        pages, indptr, within = listed_pages(ends, size)
        row = np.repeat(index.row.astype(np.int64), pages)
        (places,) = upload([row * index.page_table.shape[1] + within], index.page_table.device)
        self._wrapper.plan(
            torch.from_numpy(np.concatenate(([0], np.cumsum(index.query_length))).astype(np.int32)),
            torch.from_numpy(indptr),
            index.page_table.view(-1).index_select(0, places).int(),
            torch.from_numpy(((ends - 1) % size + 1).astype(np.int32)),
            spec.num_heads,
            spec.num_kv_heads,
            spec.head_dim,
            size,
            causal=spec.causal,
            sm_scale=spec.scale,
            window_left=-1 if spec.window is None else spec.window - 1,
            logits_soft_cap=spec.soft_cap,
            q_data_type=self._dtype,
            kv_data_type=self._dtype,
        )
        return Plan(self._wrapper, size)

    def run(self, plan: Plan, k_pool: Tensor, v_pool: Tensor, q: Tensor) -> Tensor:
        """See the interface."""
        paged = tuple(pool.view(-1, plan.page_size, *pool.shape[1:]) for pool in (k_pool, v_pool))
        return plan.wrapper.run(q, paged)


def listed_pages(ends: np.ndarray, page_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For contexts of these lengths: the pages of each, where the list of each begins in a list of all (int32 [n + 1]), and every
    entry's number within its context (int64). Pure."""
    pages = -(-ends // page_size)
    indptr = np.concatenate(([0], np.cumsum(pages))).astype(np.int32)
    return pages, indptr, np.arange(indptr[-1], dtype=np.int64) - np.repeat(indptr[:-1].astype(np.int64), pages)
