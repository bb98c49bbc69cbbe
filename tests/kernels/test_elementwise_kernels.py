"""Norm, rope, activation and KV writes: equal to the formulas, and row by row the same as all at once."""

from __future__ import annotations

import pytest
import torch

from ramify.kernels.table import choose

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def tolerance(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 0.04


@DTYPES
@pytest.mark.parametrize("size", [16, 64, 100, 896])
def test_rms_norm(dtype: torch.dtype, size: int) -> None:
    norm = choose("cpu", dtype).rms_norm
    x, weight = torch.randn(300, size).to(dtype), torch.rand(size).to(dtype)
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    whole = norm(x, weight, 1e-5)
    assert (whole - expected).abs().max() < tolerance(dtype)
    assert all(torch.equal(norm(x[row : row + 1], weight, 1e-5)[0], whole[row]) for row in range(300))
    heads = x.view(50, 6, size)
    assert torch.equal(norm(heads, weight.expand(6, -1), 1e-5).view(300, size), whole)


@DTYPES
def test_rope_rotates_pairs_of_the_two_halves(dtype: torch.dtype) -> None:
    rope = choose("cpu", dtype).apply_rope
    x, angle = torch.randn(90, 3, 32).to(dtype), torch.randn(90, 1, 16)
    cos, sin = torch.cat((angle.cos(), angle.cos()), -1).to(dtype), torch.cat((-angle.sin(), angle.sin()), -1).to(dtype)
    whole = rope(x, cos, sin)
    pairs = torch.complex(x[..., :16].double(), x[..., 16:].double()) * torch.polar(torch.ones_like(angle), angle)
    assert (whole - torch.cat((pairs.real, pairs.imag), -1)).abs().max() < tolerance(dtype)
    assert all(torch.equal(rope(x[t : t + 1], cos[t : t + 1], sin[t : t + 1])[0], whole[t]) for t in range(90))


@DTYPES
def test_silu_mul(dtype: torch.dtype) -> None:
    silu_mul = choose("cpu", dtype).silu_mul
    x = torch.randn(70, 2 * 112).to(dtype)
    gate, up = x.double().chunk(2, -1)
    whole = silu_mul(x.clone())
    assert (whole - gate * gate.sigmoid() * up).abs().max() < tolerance(dtype)
    assert all(torch.equal(silu_mul(x[row : row + 1])[0], whole[row]) for row in range(70))


@DTYPES
def test_kv_is_written_to_its_slots_and_pages_are_copied_whole(dtype: torch.dtype) -> None:
    kernels = choose("cpu", dtype)
    k_pool, v_pool = torch.zeros(24, 2, 8, dtype=dtype), torch.zeros(24, 2, 8, dtype=dtype)
    qkv = torch.randn(5, 10, 8).to(dtype)
    slots = torch.tensor([3, 0, 17, 23, 9])
    kernels.kv_write(k_pool, v_pool, slots, qkv[:, 4:6], qkv[:, 6:8])
    assert torch.equal(k_pool[slots], qkv[:, 4:6]) and torch.equal(v_pool[slots], qkv[:, 6:8])
    assert k_pool.abs().sum(dim=(1, 2)).count_nonzero() == 5
    kernels.kv_copy_pages(k_pool, torch.tensor([0, 4]), torch.tensor([5, 2]), 4)
    assert torch.equal(k_pool[20:24], k_pool[0:4]) and torch.equal(k_pool[8:12], k_pool[16:20])
