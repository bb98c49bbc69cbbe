"""Attention over pages in tests: made-up sequences, a step over scattered pages, and the textbook formula."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from ramify.kernels.attention.interface import Attention, AttentionIndex, AttentionSpec
from ramify.kernels.kv.int8 import quantize, read


@dataclass
class Sequence:
    """K and V of one sequence, [positions, kv_heads, head_dim] (in int8 with their scales, `quantize`), and a query for each
    position, [positions, heads, head_dim]."""

    k: Tensor
    v: Tensor
    q: Tensor


def make_sequence(spec: AttentionSpec, positions: int, dtype: torch.dtype, seed: int) -> Sequence:
    generator = torch.Generator().manual_seed(seed)
    shape = (positions, spec.num_kv_heads, spec.head_dim)
    k, v = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return Sequence(k, v, torch.randn((positions, spec.num_heads, spec.head_dim), generator=generator).to(dtype))


def in_int8(sequence: Sequence) -> Sequence:
    return Sequence(quantize(sequence.k), quantize(sequence.v), sequence.q)


def attend(
    attention: Attention, sequences: list[Sequence], spans: list[tuple[int, int, int]], *, page_size: int = 1, seed: int = 0
) -> list[Tensor]:
    """Spans are (sequence, start, length). The pools hold NaN wherever no span's context is; pages lie in random order."""
    generator = np.random.default_rng(seed)
    longest = max(sequence.k.shape[0] for sequence in sequences)
    per_row = -(-longest // page_size)
    pages = generator.permutation(len(sequences) * per_row + 3)
    table = torch.full((len(sequences), per_row + 2), 10**6, dtype=torch.int32)
    like = sequences[0].k
    poison = -1 if like.dtype == torch.int8 else math.nan  # a scale of two bytes of ones is NaN
    pools = [torch.full((pages.size * page_size, *like.shape[1:]), poison, dtype=like.dtype) for _ in range(2)]
    for row, sequence in enumerate(sequences):
        written = max((start + length for number, start, length in spans if number == row), default=0)
        used = -(-written // page_size)
        table[row, :used] = torch.from_numpy(pages[row * per_row : row * per_row + used].astype(np.int32))
        place = np.arange(written)
        slots = torch.from_numpy(table[row].numpy()[place // page_size].astype(np.int64) * page_size + place % page_size)
        pools[0][slots], pools[1][slots] = sequence.k[:written], sequence.v[:written]
    row, start, length = (np.array(column, np.int32) for column in zip(*spans, strict=True))
    ends = np.cumsum(length)
    index = AttentionIndex((ends - length).astype(np.int32), length, start, row, table, page_size)
    q = torch.cat([sequences[number].q[begin : begin + count] for number, begin, count in spans])
    out = attention.run(attention.plan(index), *pools, q)
    assert out.dtype == q.dtype and not out.isnan().any()
    return list(out.split(length.tolist()))


def dense(spec: AttentionSpec, sequence: Sequence, start: int, length: int) -> Tensor:
    """The textbook formula in fp64 over the whole context of one span."""
    end = start + length
    group = spec.num_heads // spec.num_kv_heads
    q = sequence.q[start:end].double().transpose(0, 1)
    k, v = (read(each[:end]).double().transpose(0, 1).repeat_interleave(group, 0) for each in (sequence.k, sequence.v))
    scores = q @ k.transpose(1, 2) * spec.scale
    if spec.soft_cap is not None:
        scores = spec.soft_cap * torch.tanh(scores / spec.soft_cap)
    query, key = torch.arange(start, end)[:, None], torch.arange(end)[None, :]
    seen = key <= query if spec.causal else torch.ones(length, end, dtype=torch.bool)
    if spec.window is not None:
        seen = seen & (key > query - spec.window)
    return (scores.masked_fill(~seen, -math.inf).softmax(-1) @ v).transpose(0, 1)


SPECS = {
    "grouped": AttentionSpec(4, 2, 16, 0.25),
    "one head each": AttentionSpec(2, 2, 32, 0.2),
    "seven heads a group": AttentionSpec(14, 2, 64, 0.125),
    "window": AttentionSpec(4, 2, 16, 0.25, window=100),
    "narrow window": AttentionSpec(4, 1, 16, 0.25, window=5),
    "wide window": AttentionSpec(4, 4, 16, 0.25, window=400),
    "soft cap": AttentionSpec(4, 2, 16, 0.25, soft_cap=2.0),
    "not causal": AttentionSpec(4, 2, 16, 0.25, causal=False),
}
BATCHES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 30, 63, 64, 200, 255, 256, 257, 511, 600]), st.sampled_from([1, 1, 1, 2, 5, 9, 33, 130, 300])
    ),
    min_size=1,
    max_size=7,
)
