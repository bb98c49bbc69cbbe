"""Attention over pages in Triton, for NVIDIA GPUs: flat and over the tree in one mechanism.

The host cuts a step into items (`work_lists.py`); two launches compute them, small and large ones, and a third one merges where a
query has several results. What a step does not need is not launched. All that differs between steps of one capacity and variant
lies in one array on the device, so that a recorded graph serves them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..upload import upload
from .costs import GPU_COSTS, SharingCosts
from .interface import AttentionIndex, AttentionSpec, HostPlan
from .triton_configs import Launch, Launches, cutting, launches, padded, refusal, wide
from .triton_kernels import attend, merge
from .work_growth import DecodePlan, decode_plan
from .work_layout import NOTHING, Capacity, Variant
from .work_lists import decode_capacity, make

LOG2_E = math.log2(math.e)
PARTS_AT_ONCE = 16
MERGE_WARPS = 4
ONE_OF_EACH = Capacity(tokens=1, small=1, large=1, merges=1, parts=1)


@dataclass(frozen=True)
class Plan:
    """What `run` reads, on the device: the parts of `work_layout.py`. header: int32 [3]."""

    capacity: Capacity
    variant: Variant
    page_table: Tensor
    page_size: int
    header: Tensor
    token: Tensor
    position: Tensor
    small: Tensor
    large: Tensor
    merge_token: Tensor
    merge_ptr: Tensor
    merge_part: Tensor


class TritonAttention:
    """On an NVIDIA GPU, or on the CPU in Triton's interpreter. A `GraphAttention`.

    Scores and sums are fp32; with bf16 in pools and queries the weights of the softmax are rounded to bf16 before they meet V.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        device: torch.device,
        deterministic: bool = False,
        *,
        kv_dtype: torch.dtype = torch.bfloat16,
        costs: SharingCosts = GPU_COSTS,
        max_positions: int | None = None,
        multiprocessors: int | None = None,
        chosen: Launches | None = None,
    ):
        """deterministic: a row's bits do not depend on the other rows, on chunking or on what is shared; its cost: products of 64
        rows for a single one, masks and merging everywhere. kv_dtype, costs: by which it decides what is read together.
        max_positions: of a sequence; only a deterministic one needs it, for `decode_capacity`. multiprocessors: by which work is
        cut, by default the device's. chosen: other launches than those of the table. Raises ValueError for a spec that cannot be
        computed."""
        reason = refusal(spec)
        if reason is not None:
            raise ValueError(f"No attention in Triton: {reason}.")
        self.spec, self.device = spec, device
        self._launches = chosen or launches(spec, deterministic)
        self._longest = max_positions
        self._last: DecodePlan | None = None
        if multiprocessors is None:
            multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
        self._cutting = cutting(spec, self._launches, deterministic, multiprocessors, kv_dtype.itemsize, costs)
        self._d_pad = padded(spec.head_dim)
        self._no_parts = torch.empty(0, dtype=torch.float32, device=device)
        cap = spec.soft_cap
        self._scale = spec.scale * LOG2_E if cap is None else spec.scale / cap
        self._cap = 0.0 if cap is None else cap * LOG2_E

    def decode_capacity(self, rows: int) -> Capacity:
        """See `GraphAttention`. Raises ValueError if deterministic and max_positions is not known."""
        return decode_capacity(self._cutting, rows, self._longest)

    def host_plan(self, index: AttentionIndex, capacity: Capacity | None = None) -> HostPlan:
        """See `GraphAttention`. Raises ValueError for a step that does not fit the capacity. Remembers a decode step, from which
        those of the steps after it follow: how keys are cut may depend on it, and no more."""
        grown = self._last.grown(index, capacity) if self._last is not None else None
        if grown is not None:
            return grown
        lists = make(index, self._cutting, capacity)
        fitting = capacity or lists.capacity
        host = HostPlan(lists.flat(fitting), fitting, lists.variant)
        steady = self._cutting.tile is None and self.spec.window is None
        self._last = decode_plan(index, capacity, lists, host) if steady else None
        return host

    def idle_plan(self, capacity: Capacity) -> HostPlan:
        """See `GraphAttention`."""
        few = self._cutting.small.queries > 0
        return HostPlan(NOTHING.flat(capacity), capacity, Variant(few, not few, False))

    def on_device(self, host: HostPlan, flat: Tensor, page_table: Tensor, page_size: int) -> Plan:
        """See `GraphAttention`."""
        if page_table.stride(1) != 1:
            page_table = page_table.contiguous()
        places = (flat[begin:end] for begin, end in host.capacity.places)
        return Plan(host.capacity, Variant(*host.variant), page_table, page_size, *places)  # type: ignore[misc]

    def plan(self, index: AttentionIndex) -> Plan:
        """See the interface. One copy to the device."""
        host = self.host_plan(index)
        (flat,) = upload([host.flat], index.page_table.device)
        return self.on_device(host, flat, index.page_table, index.page_size)

    def compile(self, k_pool: Tensor, v_pool: Tensor, q: Tensor, page_table: Tensor, page_size: int) -> None:
        """Runs every kernel without any work, with tensors as those of `run`: what Triton compiles, it compiles now."""
        everything = HostPlan(NOTHING.flat(ONE_OF_EACH), ONE_OF_EACH, Variant(True, True, True))
        flat = torch.from_numpy(everything.flat).to(page_table.device)
        self.run(self.on_device(everything, flat, page_table, page_size), k_pool, v_pool, q)

    def run(self, plan: Plan, k_pool: Tensor, v_pool: Tensor, q: Tensor) -> Tensor:
        """See the interface. q may have more tokens than the plan; what comes out for those is not set."""
        spec, capacity = self.spec, plan.capacity
        if q.stride(2) != 1 or q.stride(1) != spec.head_dim or q.stride(0) % 8:
            q = q.contiguous()
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        acc = ml = self._no_parts
        if plan.variant.merge:
            acc = torch.empty((capacity.parts, spec.num_heads, spec.head_dim), dtype=torch.float32, device=q.device)
            ml = torch.empty((capacity.parts, spec.num_heads, 2), dtype=torch.float32, device=q.device)
        tensors = k_pool, v_pool, q, out, acc, ml
        if plan.variant.large:
            self._attend(self._launches.large, capacity.large, plan.header[1:], plan.large, plan, *tensors)
        if plan.variant.small:
            self._attend(self._launches.small, capacity.small, plan.header, plan.small, plan, *tensors)
        if plan.variant.merge:
            program: Any = merge[(capacity.merges * spec.num_heads,)]
            program(
                plan.header[2:],
                plan.merge_token,
                plan.merge_ptr,
                plan.merge_part,
                acc,
                ml,
                out,
                HEADS=spec.num_heads,
                D=spec.head_dim,
                D_PAD=self._d_pad,
                PARTS=PARTS_AT_ONCE,
                num_warps=MERGE_WARPS,
                enable_fp_fusion=True,
            )
        return out

    def _attend(
        self,
        launch: Launch,
        items: int,
        count: Tensor,
        which: Tensor,
        plan: Plan,
        k_pool: Tensor,
        v_pool: Tensor,
        q: Tensor,
        out: Tensor,
        acc: Tensor,
        ml: Tensor,
    ) -> None:
        spec = self.spec
        interpreted = q.device.type == "cpu"
        four_bytes = torch.float32 in (q.dtype, k_pool.dtype)
        if four_bytes and not interpreted:
            launch = wide(launch)
        program: Any = attend[(items * spec.num_kv_heads,)]
        program(
            count,
            which,
            plan.token,
            plan.position,
            plan.page_table,
            plan.page_table.stride(0),
            q,
            q.stride(0),
            k_pool,
            v_pool,
            out,
            acc,
            ml,
            self._scale,
            self._cap,
            CAUSAL=spec.causal,
            WINDOW=spec.window or 0,
            SOFT_CAP=spec.soft_cap is not None,
            OPEN=launch.open,
            ALIGN=self._cutting.tile is not None,
            PAGE=plan.page_size,
            KV_HEADS=spec.num_kv_heads,
            GROUP=spec.num_heads // spec.num_kv_heads,
            D=spec.head_dim,
            D_PAD=self._d_pad,
            WIDE=four_bytes or interpreted,  # the interpreter multiplies bf16 as if they were whole numbers
            BLOCK_M=launch.rows,
            BLOCK_N=launch.keys,
            num_warps=launch.warps,
            num_stages=launch.stages,
            enable_fp_fusion=True,
        )
