"""Attention over pages: equal to a dense softmax in fp64, and bit for bit the same in any company."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ramify.kernels.attention.interface import AttentionIndex, AttentionSpec
from ramify.kernels.attention.reference import TorchAttention
from ramify.kernels.attention.selftest import choose_shapes, holds
from ramify.kernels.attention.tiles import Shapes

CPU = torch.device("cpu")


@dataclass
class Sequence:
    """K and V of one sequence, [positions, kv_heads, head_dim], and a query for each position, [positions, heads, head_dim]."""

    k: Tensor
    v: Tensor
    q: Tensor


def make_sequence(spec: AttentionSpec, positions: int, dtype: torch.dtype, seed: int) -> Sequence:
    generator = torch.Generator().manual_seed(seed)
    shape = (positions, spec.num_kv_heads, spec.head_dim)
    k, v = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return Sequence(k, v, torch.randn((positions, spec.num_heads, spec.head_dim), generator=generator).to(dtype))


def attend(
    attention: TorchAttention, sequences: list[Sequence], spans: list[tuple[int, int, int]], *, page_size: int = 1, seed: int = 0
) -> list[Tensor]:
    """Spans are (sequence, start, length). The pools hold NaN wherever no span's context is; pages lie in random order."""
    generator = np.random.default_rng(seed)
    longest = max(sequence.k.shape[0] for sequence in sequences)
    per_row = -(-longest // page_size)
    pages = generator.permutation(len(sequences) * per_row + 3)
    table = torch.full((len(sequences), per_row + 2), 10**6, dtype=torch.int32)
    like = sequences[0].k
    pools = [torch.full((pages.size * page_size, *like.shape[1:]), math.nan, dtype=like.dtype) for _ in range(2)]
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
    k, v = (each[:end].double().transpose(0, 1).repeat_interleave(group, 0) for each in (sequence.k, sequence.v))
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


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@settings(max_examples=12)
@given(batch=BATCHES, page_size=st.sampled_from([1, 3, 16]), seed=st.integers(0, 99))
def test_any_batch_of_spans_equals_a_dense_softmax(spec: AttentionSpec, batch, page_size: int, seed: int) -> None:
    attention = TorchAttention(spec, CPU)
    sequences = [make_sequence(spec, start + length, torch.float32, seed + n) for n, (start, length) in enumerate(batch)]
    spans = [(number, start, length) for number, (start, length) in enumerate(batch)]
    results = attend(attention, sequences, spans, page_size=page_size, seed=seed)
    for (number, start, length), result in zip(spans, results, strict=True):
        assert (result - dense(spec, sequences[number], start, length)).abs().max() < 2e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.causal])
def test_a_row_has_the_same_bits_in_any_company(name: str, dtype: torch.dtype) -> None:
    spec = SPECS[name]
    shapes, found = choose_shapes(spec, CPU, dtype)
    assert found
    attention = TorchAttention(spec, CPU, shapes)
    sequences = [make_sequence(spec, positions, dtype, positions) for positions in (40, 300, 530, 777)]
    whole = [attend(attention, [sequence], [(0, 0, sequence.k.shape[0])])[0] for sequence in sequences]
    for sequence, expected in zip(sequences, whole, strict=True):
        positions = sequence.k.shape[0]
        for chunk, page_size in ((7, 16), (64, 1), (200, 16)):
            for start in range(0, positions, chunk):
                length = min(chunk, positions - start)
                (result,) = attend(attention, [sequence], [(0, start, length)], page_size=page_size)
                assert torch.equal(result, expected[start : start + length])
        for position in {0, 1, 17, 63, 64, 255, 256, 511, positions - 1} & set(range(positions)):
            (result,) = attend(attention, [sequence], [(0, position, 1)], page_size=16)
            assert torch.equal(result[0], expected[position])
    crowd = [(3, 700, 77), (0, 39, 1), (1, 299, 1), (2, 0, 530), (0, 20, 2), (3, 300, 1), (1, 3, 9), (2, 529, 1)]
    for (number, start, length), result in zip(crowd, attend(attention, sequences, crowd, page_size=16), strict=True):
        assert torch.equal(result, whole[number][start : start + length])


def test_a_context_too_long_for_one_piece_is_computed_in_pieces_with_the_same_bits() -> None:
    for spec in (SPECS["grouped"], SPECS["wide window"], SPECS["not causal"]):
        attention = TorchAttention(spec, CPU)
        sequence = make_sequence(spec, 2100, torch.float32, 1)
        spans = [(0, 2000, 100)]
        (expected,) = attend(attention, [sequence], spans)
        (result,) = attend(TorchAttention(spec, CPU, scores_per_batch=256 * 256 * 2), [sequence], spans)
        assert torch.equal(result, expected)
        assert (result - dense(spec, sequence, 2000, 100)).abs().max() < 2e-5


def test_the_self_test_tells_shapes_that_change_bits_from_shapes_that_do_not() -> None:
    class Uneven(TorchAttention):
        """Adds a number that only a large batch gets: what a library does that picks another inner loop."""

        def run(self, plan, k_pool, v_pool, q):
            out = super().run(plan, k_pool, v_pool, q)
            return out + 1e-6 if plan.tokens > 20 else out

    spec = SPECS["grouped"]
    assert holds(TorchAttention(spec, CPU, choose_shapes(spec, CPU, torch.float32)[0]), CPU, torch.float32)
    assert not holds(Uneven(spec, CPU, Shapes(16, (256,))), CPU, torch.float32)
