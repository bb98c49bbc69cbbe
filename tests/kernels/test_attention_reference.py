"""Attention over pages: equal to a dense softmax in fp64, and bit for bit the same in any company."""

from __future__ import annotations

import pytest
import torch
from attention_harness import BATCHES, SPECS, attend, dense, make_sequence
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.kernels.attention.interface import AttentionSpec
from ramify.kernels.attention.reference import TorchAttention
from ramify.kernels.attention.selftest import choose_shapes, holds
from ramify.kernels.attention.tiles import Shapes

CPU = torch.device("cpu")


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
