"""Norm, rope with KV write, activation: equal to the formulas, row by row the same as all at once, and C++ equal to torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ramify.kernels import native
from ramify.kernels.activation import reference as activation
from ramify.kernels.activation.native import NativeSiluMul
from ramify.kernels.norm import reference as norm
from ramify.kernels.norm.native import NativeNorm
from ramify.kernels.rope import reference as rope
from ramify.kernels.rope.native import NativeRotateAndWrite
from ramify.kernels.table import choose
from ramify.runtime.config import kernel_cache

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
LOADED = native.load(kernel_cache())
AVAILABLE = LOADED.available
LEVELS = range(torch.ops.ramify.best_level() + 1) if AVAILABLE else []
NAMES = ["torch", *(f"native level {level}" for level in LEVELS)]
NATIVE = pytest.mark.parametrize("level", LEVELS)


def implementations(reference: Callable, make: Callable) -> Any:
    return pytest.mark.parametrize("kernel", [reference, *map(make, LEVELS)], ids=NAMES)


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def tolerance(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 0.04


@DTYPES
@pytest.mark.parametrize("size", [1, 16, 64, 100, 896])
@implementations(norm.rms_norm, NativeNorm)
def test_rms_norm(kernel: Any, dtype: torch.dtype, size: int) -> None:
    x, weight = torch.randn(300, size).to(dtype), torch.rand(size).to(dtype)
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    before, whole = x.clone(), kernel(x, weight, 1e-5)
    assert (whole - expected).abs().max() < tolerance(dtype)
    assert torch.equal(x, before)
    assert all(torch.equal(kernel(x[row : row + 1], weight, 1e-5)[0], whole[row]) for row in range(300))


@DTYPES
@implementations(norm.rms_norm, NativeNorm)
def test_a_norm_after_a_sum_is_the_norm_of_the_sum_which_replaces_x(kernel: Any, dtype: torch.dtype) -> None:
    x, delta, weight = torch.randn(70, 100).to(dtype), torch.randn(70, 100).to(dtype), torch.rand(100).to(dtype)
    added, before = x + delta, delta.clone()
    found = kernel(x, weight, 1e-6, delta)
    assert torch.equal(x, added) and torch.equal(delta, before)
    assert torch.equal(found, kernel(added, weight, 1e-6))


@DTYPES
@NATIVE
def test_the_native_norm_has_the_bits_of_the_reference(threads: int, level: int, dtype: torch.dtype) -> None:
    kernel = NativeNorm(level)
    for rows, size in ((1, 7), (300, 896), (5, 4096), (41, 33)):
        scale = torch.randn(rows, 1).mul(4).exp()
        x, delta = ((torch.randn(rows, size + 3) * scale).to(dtype)[:, :size] for _ in range(2))
        weight = torch.randn(size).to(dtype)
        ours, theirs = x.clone(), x.clone()
        for added in (None, delta):
            assert torch.equal(kernel(ours, weight, 1e-6, added), norm.rms_norm(theirs, weight, 1e-6, added))
            assert torch.equal(ours, theirs)
        strided = torch.cat((x, x), -1)[:, :size]
        assert torch.equal(kernel(strided, weight, 1e-6), kernel(x.clone(), weight, 1e-6))


class Step:
    """Tokens to be rotated and written, and pools that hold something else."""

    def __init__(self, dtype: torch.dtype, *, tokens: int, heads: int, kv_heads: int, head_dim: int, norm: bool):
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.qkv = torch.randn(tokens, (heads + 2 * kv_heads) * head_dim).to(dtype)
        self.angles = torch.rand(tokens, 1, head_dim // 2) * 6
        cos, sin = self.angles[:, 0].cos(), self.angles[:, 0].sin()
        self.turns = torch.cat((cos, cos, -sin, sin), -1).to(dtype)
        self.norm = torch.rand(heads + kv_heads, head_dim).to(dtype) if norm else None
        self.slots = torch.randperm(2 * tokens + 3)[:tokens]
        self.pools = [torch.randn(2 * tokens + 3, kv_heads, head_dim).to(dtype) for _ in range(2)]

    def run(self, kernel: Any, rows: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q and both pools afterwards."""
        k_pool, v_pool = (pool.clone() for pool in self.pools)
        where = {"k_pool": k_pool, "v_pool": v_pool, "slots": self.slots[rows]}
        q = kernel(self.qkv[rows], self.turns[rows], norm=self.norm, eps=1e-6, **where)
        return q, k_pool, v_pool


ROPES = implementations(rope.rotate_and_write, NativeRotateAndWrite)


@DTYPES
@ROPES
def test_rope_rotates_pairs_of_the_two_halves_of_q_and_k(kernel: Any, dtype: torch.dtype) -> None:
    step = Step(dtype, tokens=90, heads=3, kv_heads=1, head_dim=32, norm=False)
    q, k_pool, v_pool = step.run(kernel)
    heads = step.qkv.view(90, 5, 32).double()
    turn = torch.polar(torch.ones_like(step.angles), step.angles)
    pairs = torch.complex(heads[:, :4, :16], heads[:, :4, 16:]) * turn
    expected = torch.cat((pairs.real, pairs.imag), -1)
    assert (q - expected[:, :3]).abs().max() < tolerance(dtype)
    assert (k_pool[step.slots] - expected[:, 3:]).abs().max() < tolerance(dtype)
    assert torch.equal(v_pool[step.slots], step.qkv.view(90, 5, 32)[:, 4:])


@DTYPES
@ROPES
@pytest.mark.parametrize("with_norm", [False, True])
def test_kv_is_written_to_its_slots_alone_and_a_token_is_the_same_in_any_company(
    kernel: Any, dtype: torch.dtype, with_norm: bool
) -> None:
    step = Step(dtype, tokens=40, heads=4, kv_heads=2, head_dim=16, norm=with_norm)
    q, k_pool, v_pool = step.run(kernel)
    others = torch.ones(83, dtype=torch.bool).index_fill_(0, step.slots, False)
    assert torch.equal(k_pool[others], step.pools[0][others]) and torch.equal(v_pool[others], step.pools[1][others])
    for token in range(40):
        alone = step.run(kernel, slice(token, token + 1))
        slot = step.slots[token]
        assert torch.equal(alone[0][0], q[token])
        assert torch.equal(alone[1][slot], k_pool[slot]) and torch.equal(alone[2][slot], v_pool[slot])


@DTYPES
@NATIVE
@pytest.mark.parametrize("with_norm", [False, True])
def test_native_rope_and_write_have_the_bits_of_the_reference(
    threads: int, level: int, with_norm: bool, dtype: torch.dtype
) -> None:
    for tokens, heads, kv_heads, head_dim in ((1, 14, 2, 64), (200, 8, 8, 128), (33, 4, 1, 20), (7, 2, 2, 2), (0, 2, 1, 16)):
        step = Step(dtype, tokens=tokens, heads=heads, kv_heads=kv_heads, head_dim=head_dim, norm=with_norm)
        ours, theirs = step.run(NativeRotateAndWrite(level)), step.run(rope.rotate_and_write)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@NATIVE
def test_a_slot_outside_of_the_pool_is_refused(level: int) -> None:
    step = Step(torch.float32, tokens=3, heads=2, kv_heads=1, head_dim=16, norm=False)
    for slot in (9, -1):
        step.slots[1] = slot
        with pytest.raises(RuntimeError, match="not in the pool"):
            step.run(NativeRotateAndWrite(level))


@DTYPES
@implementations(activation.silu_mul, NativeSiluMul)
def test_silu_mul(kernel: Any, threads: int, dtype: torch.dtype) -> None:
    for size in (1, 16, 115, 700):
        x = torch.randn(70, 2 * size).mul(4).to(dtype)
        gate, up = x.double().chunk(2, -1)
        before, whole = x.clone(), kernel(x)
        expected = gate * gate.sigmoid() * up
        assert ((whole - expected).abs() < tolerance(dtype) * expected.abs().clamp(min=1)).all()
        assert torch.equal(x, before)
        assert all(torch.equal(kernel(x[row : row + 1])[0], whole[row]) for row in range(70))


@NATIVE
def test_native_silu_of_every_bf16_number_is_that_of_torch_or_its_neighbour(level: int) -> None:
    gate = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    gate = gate[gate.isfinite()]
    found = NativeSiluMul(level)(torch.stack((gate, torch.ones_like(gate)), -1)).squeeze(-1)
    expected = activation.silu_mul(torch.stack((gate, torch.ones_like(gate)), -1)).squeeze(-1)
    steps = (found.view(torch.int16).int() - expected.view(torch.int16).int()).abs()
    normal = gate >= -87  # below, what is left of a number is less than 2e-36, and native goes no lower
    assert steps[normal].max() <= 1 and (steps[normal] > 0).sum() < 30
    assert expected[~normal].abs().max() < 2e-36 and (found[~normal] / gate[~normal]).max() < 2e-38


@NATIVE
def test_native_silu_in_fp32_differs_by_some_units_in_the_last_place(level: int) -> None:
    x = torch.randn(50, 2 * 640) * 5
    found, expected = NativeSiluMul(level)(x), activation.silu_mul(x)
    assert ((found - expected).abs() <= 2e-6 * expected.abs() + 1e-30).all()


@DTYPES
def test_pages_are_copied_whole(dtype: torch.dtype) -> None:
    pool = torch.randn(24, 2, 8).to(dtype)
    before = pool.clone()
    choose("cpu", dtype).kv_copy_pages(pool, torch.tensor([0, 4]), torch.tensor([5, 2]), 4)
    assert torch.equal(pool[20:24], before[0:4]) and torch.equal(pool[8:12], before[16:20])
    assert torch.equal(pool[:8], before[:8]) and torch.equal(pool[12:20], before[12:20])


@DTYPES
def test_the_table_says_which_implementation_was_chosen(dtype: torch.dtype) -> None:
    kernels = choose("cpu", dtype, LOADED)
    assert isinstance(kernels.rms_norm, NativeNorm) == AVAILABLE
    assert any(line.startswith("norm, rope with KV write, activation, sampling:") for line in kernels.reasons)
    assert choose("cpu", dtype).rms_norm is norm.rms_norm
