"""Native attention over pages: equal to a dense softmax at every level of instructions, the same bits in any company."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from attention_harness import BATCHES, SPECS, Sequence, attend, dense, make_sequence
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ramify.kernels import native
from ramify.kernels.attention.interface import AttentionIndex, AttentionSpec
from ramify.kernels.attention.native import LEVELS, NativeAttention, refusal
from ramify.kernels.attention.reference import TorchAttention
from ramify.kernels.attention.selftest import holds
from ramify.runtime.config import kernel_cache

LOADED = native.load(kernel_cache())
pytestmark = pytest.mark.skipif(not LOADED.available, reason=LOADED.reason)
CPU = torch.device("cpu")
HERE = range(torch.ops.ramify.best_level() + 1) if LOADED.available else range(1)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

MORE = {
    "one head": AttentionSpec(1, 1, 32, 0.2),
    "eight heads a group": AttentionSpec(16, 2, 64, 0.125),
    "head size 48": AttentionSpec(4, 2, 48, 0.15),
    "head size 128": AttentionSpec(8, 2, 128, 0.09),
    "head size 256 in a window": AttentionSpec(3, 1, 256, 0.06, window=300),
    "more heads a group than a block has rows": AttentionSpec(71, 1, 64, 0.125),
    "window, soft cap": AttentionSpec(6, 2, 80, 0.3, window=260, soft_cap=3.0),
    "window, not causal": AttentionSpec(4, 2, 32, 0.2, window=70, causal=False),
}
ALL = {**SPECS, **MORE}

levels = pytest.mark.parametrize("level", HERE, ids=[LEVELS[level] for level in HERE])
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
specs = pytest.mark.parametrize("spec", ALL.values(), ids=ALL.keys())


def check(result: Tensor, expected: Tensor, sequence: Sequence) -> None:
    """Within what rounding allows: in bf16 once the result, and once the weights of values up to max |v|."""
    allowed = torch.full_like(expected, 2e-5)
    if result.dtype == torch.bfloat16:
        allowed = allowed + 2.0**-9 * (2 * expected.abs() + sequence.v.double().abs().max())
    assert bool(((result - expected).abs() <= allowed).all())


@levels
@specs
@settings(max_examples=3)
@given(batch=BATCHES, page_size=st.sampled_from([1, 3, 16]), dtype=st.sampled_from(list(DTYPES)), seed=st.integers(0, 99))
def test_any_batch_of_spans_equals_a_dense_softmax(level, spec, batch, page_size: int, dtype: str, seed: int) -> None:
    sequences = [make_sequence(spec, start + length, DTYPES[dtype], seed + n) for n, (start, length) in enumerate(batch)]
    spans = [(number, start, length) for number, (start, length) in enumerate(batch)]
    results = attend(NativeAttention(spec, level), sequences, spans, page_size=page_size, seed=seed)
    for (number, start, length), result in zip(spans, results, strict=True):
        check(result, dense(spec, sequences[number], start, length), sequences[number])


@levels
@dtypes
@pytest.mark.parametrize("page_size", [1, 16])
def test_contexts_that_end_beside_a_border_of_tiles(level: int, dtype: torch.dtype, page_size: int) -> None:
    spec = SPECS["seven heads a group"]
    ends = [1, 15, 16, 17, 255, 256, 257, 511, 512, 513, 2000]
    sequences = [make_sequence(spec, end, dtype, end) for end in ends]
    spans = [(n, end - 1, 1) for n, end in enumerate(ends)] + [(n, max(0, end - 30), min(end, 30)) for n, end in enumerate(ends)]
    results = attend(NativeAttention(spec, level), sequences, spans, page_size=page_size)
    for (number, start, length), result in zip(spans, results, strict=True):
        check(result, dense(spec, sequences[number], start, length), sequences[number])


IN_COMPANY = {**{name: spec for name, spec in SPECS.items() if spec.causal}, "head size 128": MORE["head size 128"]}


@levels
@dtypes
@pytest.mark.parametrize("spec", IN_COMPANY.values(), ids=IN_COMPANY.keys())
def test_a_row_has_the_same_bits_in_any_company(spec: AttentionSpec, level: int, dtype: torch.dtype) -> None:
    attention = NativeAttention(spec, level)
    sequences = [make_sequence(spec, positions, dtype, positions) for positions in (40, 300, 777)]
    whole = [attend(attention, [sequence], [(0, 0, sequence.k.shape[0])])[0] for sequence in sequences]
    for sequence, expected in zip(sequences, whole, strict=True):
        positions = sequence.k.shape[0]
        for chunk, page_size in ((7, 16), (64, 1), (200, 16)):
            for start in range(0, positions, chunk)[-4:]:
                length = min(chunk, positions - start)
                (result,) = attend(attention, [sequence], [(0, start, length)], page_size=page_size)
                assert torch.equal(result, expected[start : start + length])
        for position in {0, 1, 17, 63, 64, 255, 256, 511, positions - 1} & set(range(positions)):
            (result,) = attend(attention, [sequence], [(0, position, 1)], page_size=16)
            assert torch.equal(result[0], expected[position])
    crowd = [(2, 700, 77), (0, 39, 1), (1, 299, 1), (2, 0, 530), (0, 20, 2), (2, 300, 1), (1, 3, 9), (2, 529, 1)]
    for (number, start, length), result in zip(crowd, attend(attention, sequences, crowd, page_size=16), strict=True):
        assert torch.equal(result, whole[number][start : start + length])


@levels
@dtypes
def test_the_self_test_of_the_reference_holds_too(level: int, dtype: torch.dtype) -> None:
    for spec in (SPECS["seven heads a group"], SPECS["not causal"]):
        assert holds(NativeAttention(spec, level), CPU, dtype)


@pytest.fixture
def with_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@levels
@dtypes
def test_the_number_of_threads_changes_no_bit(level: int, dtype: torch.dtype, with_threads: None) -> None:
    for spec in (SPECS["seven heads a group"], SPECS["wide window"], SPECS["not causal"]):
        attention = NativeAttention(spec, level)
        sequences = [make_sequence(spec, positions, dtype, positions) for positions in (3000, 260, 900)]
        for spans in ([(0, 2999, 1)], [(0, 2900, 100)], [(0, 2999, 1), (1, 0, 260), (2, 890, 10)]):
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(attend(attention, sequences, spans))
            for other in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@dtypes
def test_it_agrees_with_the_reference(dtype: torch.dtype) -> None:
    spec = SPECS["seven heads a group"]
    sequences = [make_sequence(spec, positions, dtype, positions) for positions in (40, 300, 777)]
    spans = [(0, 39, 1), (1, 0, 300), (2, 700, 77)]
    ours, torchs = (attend(one, sequences, spans) for one in (NativeAttention(spec), TorchAttention(spec, CPU)))
    for a, b in zip(ours, torchs, strict=True):
        assert (a - b).abs().max() < (1e-5 if dtype == torch.float32 else 2e-2)


@levels
def test_queries_may_have_another_dtype_than_keys(level: int) -> None:
    spec = SPECS["grouped"]
    mixed = [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)]
    for of_q, of_kv in mixed:
        sequence = make_sequence(spec, 300, of_kv, 0)
        sequence = replace(sequence, q=sequence.q.to(of_q))
        (result,) = attend(NativeAttention(spec, level), [sequence], [(0, 200, 100)])
        check(result, dense(spec, sequence, 200, 100), sequence)


def step(spec: AttentionSpec, positions: int, table: list[int]) -> tuple[AttentionIndex, Tensor, Tensor]:
    """One span of a whole sequence with a page a position; a pool of `positions` slots, and queries."""
    index = AttentionIndex(
        query_start=np.zeros(1, np.int32),
        query_length=np.array([positions], np.int32),
        start=np.zeros(1, np.int32),
        row=np.zeros(1, np.int32),
        page_table=torch.tensor([table], dtype=torch.int64),
        page_size=1,
    )
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn((positions, spec.num_kv_heads, spec.head_dim), generator=generator)
    return index, pool, torch.randn((positions, 2 * spec.num_heads, spec.head_dim), generator=generator)


def test_queries_may_be_a_view_and_tables_int64() -> None:
    spec = SPECS["grouped"]
    index, pool, wide = step(spec, 20, list(range(20)))
    attention = NativeAttention(spec)
    view = wide[:, : spec.num_heads]
    out = attention.run(attention.plan(index), pool, pool, view)
    assert out.is_contiguous()
    assert torch.equal(out, attention.run(attention.plan(index), pool, pool, view.contiguous()))


@pytest.mark.parametrize("page", [20, -1])
def test_a_page_that_is_not_in_the_pool_is_an_error(page: int) -> None:
    spec = SPECS["grouped"]
    index, pool, wide = step(spec, 20, [*range(19), page])
    attention = NativeAttention(spec)
    with pytest.raises(RuntimeError, match="page that is not in the pool"):
        attention.run(attention.plan(index), pool, pool, wide[:, : spec.num_heads])


def test_what_does_not_fit_together_is_an_error() -> None:
    spec = SPECS["grouped"]
    index, pool, wide = step(spec, 20, list(range(20)))
    attention = NativeAttention(spec)
    q = wide[:, : spec.num_heads]
    with pytest.raises(RuntimeError, match="does not lie within"):
        attention.run(attention.plan(index), pool, pool, q[:19])
    with pytest.raises(RuntimeError, match="float32 or bfloat16"):
        attention.run(attention.plan(index), pool, pool, q.half())
    with pytest.raises(RuntimeError, match="contiguous"):
        attention.run(attention.plan(index), pool, pool, wide[:, ::2])
    with pytest.raises(RuntimeError, match="level"):
        NativeAttention(spec, level=9).run(attention.plan(index), pool, pool, q)


def test_a_spec_that_is_not_built_is_refused() -> None:
    assert refusal(AttentionSpec(2, 2, 64, 1.0)) is None
    for head_dim in (40, 8, 272):
        assert "head_dim" in (refusal(AttentionSpec(2, 2, head_dim, 1.0)) or "")
        with pytest.raises(ValueError, match="head_dim"):
            NativeAttention(AttentionSpec(2, 2, head_dim, 1.0))


@levels
def test_a_query_with_nan_spoils_its_own_row_alone(level: int) -> None:
    spec = SPECS["seven heads a group"]
    index, pool, wide = step(spec, 300, list(range(300)))
    q = wide[:, : spec.num_heads].bfloat16()
    attention = NativeAttention(spec, level)
    whole = attention.run(attention.plan(index), pool.bfloat16(), pool.bfloat16(), q)
    q[17] = torch.nan
    spoiled = attention.run(attention.plan(index), pool.bfloat16(), pool.bfloat16(), q)
    others = torch.arange(300) != 17
    assert spoiled[17].isnan().all() and torch.equal(spoiled[others], whole[others])
