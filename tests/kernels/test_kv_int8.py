"""K and V in int8: the error of a code, C++ writes the bits of torch, attention equals a softmax over what the pool holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from attention_harness import BATCHES, SPECS, Sequence, attend, dense, in_int8, make_sequence
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attention_tree import LENGTHS, TREES, make_step
from test_elementwise_kernels import Step
from torch import Tensor

from ramify.kernels import native
from ramify.kernels.attention.interface import AttentionIndex, AttentionSpec
from ramify.kernels.attention.native import LEVELS, NativeAttention, bytes_read
from ramify.kernels.attention.reference import TorchAttention
from ramify.kernels.attention.selftest import holds
from ramify.kernels.kv.int8 import dequantize, quantize, row_size, row_width
from ramify.kernels.kv.reference import copy_pages
from ramify.kernels.rope import reference as rope
from ramify.kernels.rope.native import NativeRotateAndWrite
from ramify.kernels.table import choose
from ramify.runtime.config import kernel_cache

LOADED = native.load(kernel_cache())
CPU = torch.device("cpu")
HERE = range(torch.ops.ramify.best_level() + 1) if LOADED.available else []
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MORE = {
    "eight heads a group": AttentionSpec(16, 2, 64, 0.125),
    "two rows a head": AttentionSpec(16, 8, 128, 0.09),
    "head size 48": AttentionSpec(4, 2, 48, 0.15),
    "head size 256 in a window": AttentionSpec(3, 1, 256, 0.06, window=300),
    "more heads a group than a block has rows": AttentionSpec(71, 1, 64, 0.125),
    "window, soft cap": AttentionSpec(6, 2, 80, 0.3, window=260, soft_cap=3.0),
}
ALL = {**SPECS, **MORE}
levels = pytest.mark.parametrize("level", HERE, ids=[LEVELS[level] for level in HERE])
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
specs = pytest.mark.parametrize("spec", ALL.values(), ids=ALL.keys())


# ---- codes and scales


@dtypes
def test_a_number_comes_back_within_half_a_code_and_the_largest_is_127_codes(dtype: torch.dtype) -> None:
    x = (torch.randn(500, 3, 64) * torch.randn(500, 3, 1).mul(8).exp()).to(dtype)
    rows = quantize(x)
    assert rows.shape == (500, 3, row_width(64, torch.int8)) and rows.is_contiguous() and row_size(64, torch.int8) == 66
    largest = x.float().abs().amax(-1, keepdim=True)
    # Half a code; the last code of all ends up to a quarter further out, because its scale was rounded to bf16.
    assert ((dequantize(rows) - x.float()).abs() <= largest / 127 * (0.5 + 2.0**-7)).all()
    assert (rows[..., :64].abs().amax(-1) >= 126).all()


def test_what_has_no_size_is_zero_and_what_is_not_finite_is_nan() -> None:
    x = torch.randn(5, 32)
    x[0], x[1, 3], x[2, 31], x[3] = 0, torch.nan, -torch.inf, 1e-45
    back = dequantize(quantize(x))
    assert (back[0] == 0).all() and back[1].isnan().all() and back[2].isnan().all() and not back[4].isnan().any()
    assert (back[3] - x[3]).abs().max() <= 1e-45


@dtypes
@levels
@pytest.mark.parametrize("with_norm", [False, True])
def test_rope_and_write_have_the_bits_of_the_reference(level: int, with_norm: bool, dtype: torch.dtype) -> None:
    for tokens, heads, kv_heads, head_dim in ((1, 14, 2, 64), (200, 8, 8, 128), (33, 4, 1, 20), (7, 2, 2, 2), (0, 2, 1, 16)):
        step = Step(dtype, tokens=tokens, heads=heads, kv_heads=kv_heads, head_dim=head_dim, norm=with_norm)
        step.qkv *= torch.randn(tokens, 1).mul(9).exp().to(dtype)
        if tokens > 9:
            step.qkv[3], step.qkv[5, -1], step.qkv[6, heads * head_dim], step.qkv[8] = 0, torch.nan, torch.inf, 1e-42
        step.pools = [quantize(pool) for pool in step.pools]
        ours, theirs = step.run(NativeRotateAndWrite(level)), step.run(rope.rotate_and_write)
        assert torch.equal(ours[0].nan_to_num(), theirs[0].nan_to_num())
        assert torch.equal(ours[1], theirs[1]) and torch.equal(ours[2], theirs[2])


@pytest.mark.skipif(not LOADED.available, reason=LOADED.reason)
def test_a_slot_outside_of_the_pool_and_a_pool_of_another_shape_are_refused() -> None:
    step = Step(torch.float32, tokens=3, heads=2, kv_heads=1, head_dim=16, norm=False)
    step.pools = [quantize(pool) for pool in step.pools]
    step.slots[1] = 9
    with pytest.raises(RuntimeError, match="not in the pool"):
        step.run(NativeRotateAndWrite(0))
    step.slots[1] = 0
    step.pools[1] = step.pools[1][..., :16].contiguous()
    with pytest.raises(RuntimeError, match="v_pool"):
        step.run(NativeRotateAndWrite(0))


def test_pages_are_copied_with_their_scales() -> None:
    pool = quantize(torch.randn(24, 2, 8))
    before = pool.clone()
    copy_pages(pool, torch.tensor([0, 4]), torch.tensor([5, 2]), 4)
    assert torch.equal(pool[20:24], before[0:4]) and torch.equal(pool[8:12], before[16:20])
    assert torch.equal(pool[:8], before[:8]) and torch.equal(pool[12:20], before[12:20])


# ---- attention


def check(result: Tensor, expected: Tensor, sequence: Sequence) -> None:
    """Queries and weights are rounded to 1 in 2^16, which scores of some size multiply; results in bf16 once more."""
    largest = dequantize(sequence.v).abs().max().double()
    allowed = torch.full_like(expected, 4e-4) * largest
    if result.dtype == torch.bfloat16:
        allowed = allowed + 2.0**-8 * expected.abs()
    assert bool(((result - expected).abs() <= allowed).all())


def random_batch(spec: AttentionSpec, batch: list[tuple[int, int]], dtype: torch.dtype, seed: int):
    sequences = [in_int8(make_sequence(spec, start + length, dtype, seed + n)) for n, (start, length) in enumerate(batch)]
    return sequences, [(number, start, length) for number, (start, length) in enumerate(batch)]


@levels
@specs
@settings(max_examples=2)
@given(batch=BATCHES, page_size=st.sampled_from([1, 3, 16]), dtype=st.sampled_from(list(DTYPES)), seed=st.integers(0, 99))
def test_any_batch_of_spans_equals_a_softmax_over_what_the_pool_holds(level, spec, batch, page_size, dtype, seed) -> None:
    sequences, spans = random_batch(spec, batch, DTYPES[dtype], seed)
    results = attend(NativeAttention(spec, level), sequences, spans, page_size=page_size, seed=seed)
    for (number, start, length), result in zip(spans, results, strict=True):
        check(result, dense(spec, sequences[number], start, length), sequences[number])


@pytest.mark.parametrize("name", ["grouped", "seven heads a group", "window", "not causal"])
@settings(max_examples=2)
@given(batch=BATCHES, dtype=st.sampled_from(list(DTYPES)), seed=st.integers(0, 99))
def test_the_reference_equals_it_too(name, batch, dtype, seed) -> None:
    spec = ALL[name]
    sequences, spans = random_batch(spec, batch, DTYPES[dtype], seed)
    for (number, start, length), result in zip(spans, attend(TorchAttention(spec, CPU), sequences, spans), strict=True):
        check(result, dense(spec, sequences[number], start, length), sequences[number])


@levels
@dtypes
def test_a_row_has_the_same_bits_in_any_company(level: int, dtype: torch.dtype) -> None:
    for spec in (SPECS["seven heads a group"], SPECS["window"], MORE["head size 48"]):
        attention = NativeAttention(spec, level)
        sequences = [in_int8(make_sequence(spec, positions, dtype, positions)) for positions in (40, 300, 777)]
        whole = [attend(attention, [one], [(0, 0, one.k.shape[0])])[0] for one in sequences]
        for one, expected in zip(sequences, whole, strict=True):
            positions = one.k.shape[0]
            for chunk, page_size in ((7, 16), (64, 1), (200, 16)):
                for start in range(0, positions, chunk)[-3:]:
                    length = min(chunk, positions - start)
                    (result,) = attend(attention, [one], [(0, start, length)], page_size=page_size)
                    assert torch.equal(result, expected[start : start + length])
        crowd = [(2, 700, 77), (0, 39, 1), (1, 299, 1), (2, 0, 530), (0, 20, 2), (2, 300, 1), (1, 3, 9), (2, 529, 1)]
        for (number, start, length), result in zip(crowd, attend(attention, sequences, crowd, page_size=16), strict=True):
            assert torch.equal(result, whole[number][start : start + length])
        assert holds(attention, CPU, dtype, torch.int8)


@dtypes
def test_the_reference_keeps_a_rows_bits_as_well(dtype: torch.dtype) -> None:
    attention = choose("cpu", dtype, kv_dtype=torch.int8).attention(SPECS["seven heads a group"])
    assert isinstance(attention, TorchAttention) and holds(attention, CPU, dtype, torch.int8)


@pytest.fixture
def with_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@levels
@dtypes
def test_the_number_of_threads_changes_no_bit(level: int, dtype: torch.dtype, with_threads: None) -> None:
    for name in ("seven heads a group", "two rows a head", "not causal"):
        paths = [[(0, 900), (row // 4, 300), (row, 10 + 30 * row)] for row in range(12)]
        step = make_step(ALL[name], paths, [1] * 10 + [3, 90], dtype)
        step = replace(step, k=quantize(step.k), v=quantize(step.v))
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results += [step.run(NativeAttention(ALL[name], level), sharing) for sharing in (None, step.sharing)]
        assert not results[0].isnan().any() and all(torch.equal(results[0], other) for other in results[1:])


@levels
@specs
@settings(max_examples=2)
@given(paths=TREES, lengths=LENGTHS, page_size=st.sampled_from([1, 1, 3]), dtype=st.sampled_from(list(DTYPES)))
def test_any_tree_of_rows_has_the_bits_that_it_has_without_sharing(level, spec, paths, lengths, page_size, dtype) -> None:
    step = make_step(spec, paths, lengths, DTYPES[dtype], page_size, seed=len(paths))
    step = replace(step, k=quantize(step.k), v=quantize(step.v))
    alone, together = (step.run(NativeAttention(spec, level), sharing) for sharing in (None, step.sharing))
    assert not alone.isnan().any() and torch.equal(alone, together)


@levels
def test_what_is_not_finite_spoils_the_rows_that_see_it_and_no_other(level: int) -> None:
    spec = SPECS["seven heads a group"]
    attention = NativeAttention(spec, level)
    plain = make_sequence(spec, 300, torch.bfloat16, 0)
    (whole,) = attend(attention, [in_int8(plain)], [(0, 0, 300)])
    for part, spoiled in (("k", range(17, 300)), ("v", range(17, 300)), ("q", [17])):
        broken = replace(plain, **{part: getattr(plain, part).clone()})
        getattr(broken, part)[17] = torch.nan
        result = run_whole(attention, in_int8(broken))
        rows = torch.zeros(300, dtype=torch.bool).index_fill_(0, torch.tensor(list(spoiled)), True)
        assert result[rows].isnan().all() and torch.equal(result[~rows], whole[~rows])


def run_whole(attention: NativeAttention, sequence: Sequence) -> Tensor:
    """As `attend` of the whole sequence, but the result may hold NaN."""
    count = len(sequence.q)
    zero = np.zeros(1, np.int32)
    index = AttentionIndex(zero, np.array([count], np.int32), zero, zero, torch.arange(count, dtype=torch.int32)[None], 1)
    return attention.run(attention.plan(index), sequence.k, sequence.v, sequence.q)


@pytest.mark.skipif(not LOADED.available, reason=LOADED.reason)
def test_little_more_than_half_the_bytes_of_bf16_are_read() -> None:
    spec = MORE["two rows a head"]
    step = make_step(spec, [[(row, 700)] for row in range(3)], [1] * 3, torch.bfloat16)
    read = []
    for one in (step, replace(step, k=quantize(step.k), v=quantize(step.v))):
        before = bytes_read()
        one.run(NativeAttention(spec), None)
        read.append(bytes_read() - before)
    assert read[1] * 256 == read[0] * 130


@pytest.mark.skipif(not LOADED.available, reason=LOADED.reason)
def test_pools_that_do_not_fit_are_an_error() -> None:
    spec = SPECS["grouped"]
    step = make_step(spec, [[(0, 30)], [(1, 30)]], [1, 1], torch.float32)
    with pytest.raises(RuntimeError, match="pools must be"):
        replace(step, k=step.k.to(torch.int8), v=step.v.to(torch.int8)).run(NativeAttention(spec), None)
    with pytest.raises(RuntimeError, match="one dtype"):
        replace(step, k=quantize(step.k), v=torch.zeros(*step.v.shape[:2], 18)).run(NativeAttention(spec), None)


def test_it_is_refused_where_it_cannot_be_had() -> None:
    with pytest.raises(ValueError, match="No K and V in int8 on meta"):
        choose("meta", torch.float32, kv_dtype=torch.int8)
    with pytest.raises(ValueError, match="Use int8, or leave it out"):
        choose("cpu", torch.float32, kv_dtype=torch.float16)
