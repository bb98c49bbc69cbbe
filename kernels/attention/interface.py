"""Attention over pages: what a step tells the kernel once, and what the kernel does in every layer.

K and V of the step's own tokens are in the pools before `run` is called. A row's result depends on its own query and on the
keys it may see, never on the other rows, on how its prompt was cut into chunks, on what was cached, or on the page size.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class AttentionSpec:
    """What one layer's attention computes. Layers with equal specs share one plan.

    `window` w: a query at position p sees keys p - w + 1 ... p; None: all keys up to p. `soft_cap` c: scores become
    c * tanh(score / c). `causal` False: every query of a span sees the span's whole context.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None
    soft_cap: float | None = None
    causal: bool = True


@dataclass(frozen=True)
class Sharing:
    """Which spans have the beginnings of their sequences in the same slots: spans in an order in which neighbours share most.

    order: int32 [spans], each span once. shared: int32 [spans]: the first shared[i] positions of spans order[i - 1] and
    order[i] are the same slots; shared[0] is 0. Any two spans share the least of the counts between them, so this is the whole
    tree of a step, in any number of levels. A smaller count than the true one is allowed, a larger one is not.
    """

    order: np.ndarray
    shared: np.ndarray


@dataclass(frozen=True)
class AttentionIndex:
    """Where the queries of a step are, and where their keys lie. One entry a span; spans may have any length >= 1.

    The tokens of the step stand on one flat axis, and each belongs to exactly one span. Span i owns the tokens [query_start[i],
    query_start[i] + query_length[i]); they are positions [start[i], start[i] + query_length[i]) of their sequence, whose KV
    lies in the pages page_table[row[i]]: position p is slot page_table[row[i], p // page_size] * page_size + p % page_size.
    Entries of the table beyond the sequence's last page are never read.

    query_start, query_length, start, row: int32 [spans], on the host. page_table: int32 or int64 [rows, max_pages], on the
    device; the entries of the step's rows stay as they are until its last `run`. sharing: lets a kernel read K and V once for
    all spans that share them; it changes no bit of the result, and None says nothing.
    """

    query_start: np.ndarray
    query_length: np.ndarray
    start: np.ndarray
    row: np.ndarray
    page_table: Tensor
    page_size: int
    sharing: Sharing | None = None


class Attention(Protocol):
    """Attention of one spec."""

    spec: AttentionSpec

    def plan(self, index: AttentionIndex) -> Any:
        """Everything of a step that is the same in all layers of this spec. Changes no state; the result is opaque."""
        ...

    def run(self, plan: Any, k_pool: Tensor, v_pool: Tensor, q: Tensor) -> Tensor:
        """q: [tokens, num_heads, head_dim] after rope; k_pool, v_pool: [slots, num_kv_heads, head_dim] of one layer, float32 or
        bfloat16; or int8, [slots, num_kv_heads, head_dim + 2] as `kernels/kv/int8.py` says.

        Both pools are contiguous. Returns [tokens, num_heads, head_dim] in q's dtype. Changes no state.
        """
        ...


@dataclass(frozen=True)
class HostPlan:
    """A step's plan before it is on the device. flat: int32 [n], all that the kernels read of it; n depends on `capacity` alone.
    variant: which launches it needs; a plan of the same capacity and variant may take its place in a recorded graph."""

    flat: np.ndarray
    capacity: Any
    variant: Hashable


@runtime_checkable
class GraphAttention(Attention, Protocol):
    """An attention whose launches depend on nothing but capacity and variant, so that they can be recorded."""

    def decode_capacity(self, rows: int) -> Any:
        """Room for every step of up to `rows` spans of one token each. Pure."""
        ...

    def host_plan(self, index: AttentionIndex, capacity: Any = None) -> HostPlan:
        """The plan of a step, in this capacity or in one that just fits. Changes no state."""
        ...

    def idle_plan(self, capacity: Any) -> HostPlan:
        """The plan of a step without any work, of the variant that a step has that shares nothing and splits nothing. Pure."""
        ...

    def on_device(self, host: HostPlan, flat: Tensor, page_table: Tensor, page_size: int) -> Any:
        """What `run` takes. flat: int32 [n] on the device, where `host.flat` is or will be. Changes no state."""
        ...
