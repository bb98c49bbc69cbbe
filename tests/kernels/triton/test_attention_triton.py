"""Attention in Triton is the textbook's: flat and over trees, in plain mode within rounding, in deterministic mode bit by bit."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from attention_harness import Sequence, dense
from torch import Tensor
from work_harness import FREE, Step, make_step

from ramify.kernels.attention.interface import AttentionIndex, AttentionSpec, GraphAttention
from ramify.kernels.attention.triton_configs import Launch, Launches
from ramify.kernels.attention.triton_impl import TritonAttention

BF16, FP32 = torch.bfloat16, torch.float32
TOLERANCE = {FP32: 1e-5, BF16: 1e-2}
TINY = Launches(Launch(16, 32, 4, 2, 1, 32, 8), Launch(32, 32, 4, 2, 1, 64, 8, True))
"""Blocks so small that short sequences have everything that long ones have."""


@dataclass
class Made:
    """A step with its tensors on the device, and each span's sequence on the CPU."""

    step: Step
    index: AttentionIndex
    k: Tensor
    v: Tensor
    q: Tensor
    sequences: list[Sequence]

    def truth(self, spec: AttentionSpec) -> Tensor:
        """fp64, [tokens, heads, head_dim]."""
        out = torch.empty(self.q.shape, dtype=torch.float64)
        index = self.index
        for span, sequence in enumerate(self.sequences):
            start, length, at = (int(each[span]) for each in (index.start, index.query_length, index.query_start))
            out[at : at + length] = dense(spec, sequence, start, length)
        return out

    def run(self, attention: TritonAttention, index: AttentionIndex | None = None) -> Tensor:
        return attention.run(attention.plan(index or self.index), self.k, self.v, self.q).cpu()


def fill_in(
    step: Step, spec: AttentionSpec, dtype: torch.dtype, device: torch.device, q_dtype: torch.dtype | None = None
) -> Made:
    """Random K, V and queries. Slots that no span sees hold NaN, and so do the places behind each head of a query."""
    index, size = step.index, step.index.page_size
    draw = torch.Generator().manual_seed(0)
    slots = 1 + max(page for pages in step.pages for page in pages)
    shape = (slots * size, spec.num_kv_heads, spec.head_dim)
    k, v = (torch.full(shape, math.nan, dtype=dtype) for _ in range(2))
    tokens = int(index.query_length.sum())
    wide = torch.full((tokens, 2, spec.num_heads, spec.head_dim), math.nan, dtype=q_dtype or dtype)
    wide[:, 0] = torch.randn((tokens, spec.num_heads, spec.head_dim), generator=draw).to(wide.dtype)
    sequences, places = [], []
    for pages, end in zip(step.pages, (index.start + index.query_length).tolist(), strict=True):
        at = np.arange(end)
        places.append(torch.from_numpy(np.array(pages)[at // size] * size + at % size))
    for place in places:
        fresh = place[k[place, 0, 0].isnan()]
        k[fresh], v[fresh] = (torch.randn((len(fresh), *shape[1:]), generator=draw).to(dtype) for _ in range(2))
    for span, place in enumerate(places):
        start, length, at = (int(each[span]) for each in (index.start, index.query_length, index.query_start))
        q = torch.zeros(len(place), spec.num_heads, spec.head_dim, dtype=wide.dtype)
        q[start:] = wide[at : at + length, 0]
        sequences.append(Sequence(k[place], v[place], q))
    on_device = replace(index, page_table=index.page_table.to(device))
    return Made(step, on_device, k.to(device), v.to(device), wide.to(device)[:, 0], sequences)


def make(spec: AttentionSpec, device: torch.device, **how) -> TritonAttention:
    """Reads everything together that it can, and cuts as for a device of 8 multiprocessors."""
    how = {"costs": FREE, "multiprocessors": 8, **how}
    if device.type == "cpu" and not how.get("deterministic") and spec.num_heads // spec.num_kv_heads <= TINY.small.rows:
        how["chosen"] = TINY
    return TritonAttention(spec, device, **how)


def close(found: Tensor, truth: Tensor, dtype: torch.dtype) -> None:
    assert not found.isnan().any()
    assert (found.double() - truth).abs().max() <= TOLERANCE[dtype] * max(1.0, float(truth.abs().max()))


MIXED = [[(0, 32), (row % 2, 16), (10 + row, 3 * row)] for row in range(5)], [1, 1, 3, 1, 20]
"""Two levels of sharing, decodes, a short span and a chunk."""
CASES = {
    "two KV heads": (AttentionSpec(2, 2, 16, 0.25), FP32, 4),
    "two heads a group, bf16": (AttentionSpec(4, 2, 32, 0.2), BF16, 2),
    "four heads a group, page 1": (AttentionSpec(4, 1, 16, 0.25), FP32, 1),
    "seven heads a group, bf16": (AttentionSpec(7, 1, 64, 0.125), BF16, 2),
    "twenty heads a group": (AttentionSpec(20, 1, 16, 0.25), FP32, 2),
    "head size 48": (AttentionSpec(2, 1, 48, 0.15), FP32, 2),
    "window": (AttentionSpec(2, 1, 16, 0.25, window=67), FP32, 2),
    "narrow window": (AttentionSpec(2, 1, 16, 0.25, window=3), FP32, 2),
    "soft cap": (AttentionSpec(2, 1, 16, 0.25, soft_cap=2.0), FP32, 2),
    "not causal": (AttentionSpec(2, 1, 16, 0.25, causal=False), FP32, 2),
}
cases = pytest.mark.parametrize(("spec", "dtype", "page_size"), CASES.values(), ids=CASES.keys())


@cases
def test_a_step_of_everything_is_the_textbooks(spec, dtype, page_size, device: torch.device) -> None:
    """Shared, by a page table of int64."""
    made = fill_in(make_step(*MIXED, page_size), spec, dtype, device)
    attention = make(spec, device)
    assert isinstance(attention, GraphAttention)
    plan = attention.plan(replace(made.index, page_table=made.index.page_table.long()))
    assert plan.variant.large and plan.variant.small
    close(attention.run(plan, made.k, made.v, made.q).cpu(), made.truth(spec), dtype)


def test_a_step_that_shares_nothing_is_the_textbooks(device: torch.device) -> None:
    spec = AttentionSpec(4, 2, 16, 0.25)
    made = fill_in(make_step(*MIXED, 4), spec, FP32, device)
    close(made.run(make(spec, device), replace(made.index, sharing=None)), made.truth(spec), FP32)


def test_queries_and_pools_may_have_different_dtypes(device: torch.device) -> None:
    spec = AttentionSpec(2, 1, 16, 0.25)
    for dtype, q_dtype in ((BF16, FP32), (FP32, BF16)):
        made = fill_in(make_step([[(0, 20), (1 + row, row)] for row in range(2)], [1, 20]), spec, dtype, device, q_dtype)
        found = made.run(make(spec, device))
        assert found.dtype == q_dtype
        close(found, made.truth(spec), q_dtype)


def test_the_tables_launches_give_the_same(device: torch.device, big: bool) -> None:
    specs = AttentionSpec(2, 1, 64, 0.125), AttentionSpec(4, 2, 128, 0.09), AttentionSpec(8, 2, 256, 0.06)
    pages, rows = (800, 40) if big else (9, 3)
    paths = [[(0, pages), (row % 3, pages // 9), (10 + row, row)] for row in range(rows)]
    for spec in specs if big else specs[:1]:
        made = fill_in(make_step(paths, [1] * (rows - 2) + [70, 2], 16), spec, BF16, device)
        close(made.run(TritonAttention(spec, device, costs=FREE, multiprocessors=132)), made.truth(spec), BF16)


def test_a_plan_in_a_larger_capacity_and_a_longer_batch_gives_the_same_bits(device: torch.device) -> None:
    """As a graph does it: arrays for more rows, queries of rows that nobody asked for, and a step without any work."""
    spec = AttentionSpec(4, 2, 16, 0.25)
    made = fill_in(make_step([[(0, 9), (1 + row, row)] for row in range(5)], [1] * 5, 8), spec, FP32, device)
    attention = make(spec, device)
    plain = made.run(attention)
    capacity = attention.decode_capacity(7)
    host = attention.host_plan(made.index, capacity)
    flat = torch.from_numpy(host.flat).to(device)
    plan = attention.on_device(host, flat, made.index.page_table, 8)
    q = torch.cat((made.q, torch.full_like(made.q[:2], math.nan)))
    assert torch.equal(attention.run(plan, made.k, made.v, q)[:5].cpu(), plain)
    idle = attention.idle_plan(capacity)
    assert idle.variant == attention.host_plan(replace(made.index, start=made.index.start * 0, sharing=None), capacity).variant
    flat.copy_(torch.from_numpy(idle.flat))
    assert attention.run(plan, made.k, made.v, q).shape == q.shape


def test_compiling_runs_every_kernel_on_nothing(device: torch.device) -> None:
    spec = AttentionSpec(4, 2, 16, 0.25)
    made = fill_in(make_step([[(0, 1)]], [1], 8), spec, BF16, device)
    make(spec, device).compile(made.k.fill_(math.nan), made.v, made.q, made.index.page_table, 8)


DETERMINISTIC = {
    "bf16, soft cap": (AttentionSpec(2, 1, 16, 0.25, soft_cap=3.0), BF16),
    "window": (AttentionSpec(1, 1, 16, 0.25, window=518), FP32),
    "not causal": (AttentionSpec(1, 1, 16, 0.25, causal=False), FP32),
}


@pytest.mark.parametrize(("spec", "dtype"), DETERMINISTIC.values(), ids=DETERMINISTIC.keys())
def test_a_deterministic_row_has_its_bits_in_any_company(spec: AttentionSpec, dtype: torch.dtype, device, big: bool) -> None:
    """Alone, batched, shared, and with its span cut into chunks."""
    paths = [[(0, 62), (row % 2, 2), (10 + row, row)] for row in range(3 if not big else 42)]
    lengths = [1, 6, 1] * (len(paths) // 3)
    made = fill_in(make_step(paths, lengths, 8), spec, dtype, device)
    attention = make(spec, device, deterministic=True, max_positions=700)
    index = made.index
    shared = made.run(attention)
    close(shared, made.truth(spec), dtype)
    assert torch.equal(made.run(attention, replace(index, sharing=None)), shared)
    for span in range(3):
        start, length, at = (int(each[span]) for each in (index.start, index.query_length, index.query_start))
        cut = -(-length // 2) if spec.causal else length
        for done in range(0, length, cut):
            count = min(cut, length - done)
            one = [np.array([number], np.int32) for number in (0, count, start + done, index.row[span])]
            part = AttentionIndex(*one, index.page_table, index.page_size)
            q = made.q[at + done : at + done + count]
            found = attention.run(attention.plan(part), made.k, made.v, q).cpu()
            assert torch.equal(found, shared[at + done : at + done + count])


def test_a_decode_step_of_a_deterministic_attention_fits_its_capacity(device: torch.device) -> None:
    spec = AttentionSpec(4, 2, 16, 0.25)
    made = fill_in(make_step([[(0, 70), (1 + row, row)] for row in range(3)], [1] * 3, 8), spec, FP32, device)
    attention = make(spec, device, deterministic=True, max_positions=700)
    host = attention.host_plan(made.index, attention.decode_capacity(3))
    plan = attention.on_device(host, torch.from_numpy(host.flat).to(device), made.index.page_table, 8)
    assert torch.equal(attention.run(plan, made.k, made.v, made.q).cpu(), made.run(attention))


def test_a_spec_that_cannot_be_computed_is_refused(device: torch.device) -> None:
    for spec in (AttentionSpec(2, 1, 264, 1.0), AttentionSpec(2, 1, 20, 1.0), AttentionSpec(130, 1, 64, 1.0)):
        with pytest.raises(ValueError, match="No attention in Triton"):
            TritonAttention(spec, device)
