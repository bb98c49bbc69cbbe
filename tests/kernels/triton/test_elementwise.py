"""Norm, rope with KV write and activation in Triton do what the references do, and a row's bits need no company."""

from __future__ import annotations

import pytest
import torch

from ramify.kernels.activation import reference as activation
from ramify.kernels.activation.triton_impl import TritonSiluMul
from ramify.kernels.norm import reference as norm
from ramify.kernels.norm.triton_impl import TritonNorm
from ramify.kernels.rope import reference as rope
from ramify.kernels.rope.triton_impl import TritonRotateAndWrite

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy's, in the interpreter
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def assert_near(found: torch.Tensor, expected: torch.Tensor, *, small: float = 1e-2) -> None:
    """To the last places of fp32; in bf16 to what two roundings in a row may do, and that seldom, but the interpreter cuts off
    what it should round. small: numbers that are less are compared by their difference."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    limit = {torch.float32: 4e-6, torch.bfloat16: 2**-6 if found.is_cuda else 2**-5}[found.dtype]
    torch.testing.assert_close(found, expected, rtol=limit, atol=limit * small)
    if found.dtype == torch.bfloat16 and found.is_cuda:
        assert (found != expected).float().mean() < 0.02


@DTYPES
@pytest.mark.parametrize(("rows", "size"), [(1, 7), (5, 64), (3, 1000), (2, 4096), (300, 5120), (2, 16384)])
def test_a_norm_is_that_of_the_reference_and_x_becomes_the_sum(
    device: torch.device, big: bool, dtype: torch.dtype, rows: int, size: int
) -> None:
    rows = rows if big else min(rows, 5)
    scale = torch.randn(rows, 1).mul(2).exp()
    x, delta = ((torch.randn(rows, size + 16) * scale).to(device, dtype)[:, :size] for _ in range(2))
    weight, before = torch.randn(size).to(device, dtype), delta.clone()
    ours, theirs = torch.cat((x, x), 1)[:, :size], x.clone()
    for added in (None, delta):
        assert_near(TritonNorm()(ours, weight, 1e-6, added), norm.rms_norm(theirs, weight, 1e-6, added))
        assert torch.equal(delta, before)
        assert_near(ours, theirs)
        if ours.is_cuda:  # the interpreter does not round to bf16
            assert torch.equal(ours, theirs)
        theirs.copy_(ours)


@DTYPES
@pytest.mark.parametrize("size", [48, 896, 2048])
def test_a_row_is_normed_to_the_same_bits_alone_as_among_others(device: torch.device, dtype: torch.dtype, size: int) -> None:
    x, weight = torch.randn(23, size).to(device, dtype), torch.randn(size).to(device, dtype)
    whole = TritonNorm()(x, weight, 1e-6)
    for first, last in ((0, 1), (7, 8), (20, 23)):
        assert torch.equal(TritonNorm()(x[first:last], weight, 1e-6), whole[first:last])


def test_a_row_that_is_too_long_for_registers_is_refused(device: torch.device) -> None:
    x = torch.zeros(1, (1 << 15) + 1, device=device)
    with pytest.raises(ValueError, match="32769"):
        TritonNorm()(x, x[0], 1e-6)


@DTYPES
@pytest.mark.parametrize("with_norm", [False, True], ids=["plain", "qk norm"])
@pytest.mark.parametrize(
    ("tokens", "heads", "kv_heads", "head_dim"),
    [(1, 16, 8, 128), (5, 3, 1, 32), (4, 7, 1, 80), (3, 4, 4, 256), (500, 32, 8, 128)],
)
def test_heads_are_turned_and_written_as_by_the_reference(
    device: torch.device, big: bool, dtype: torch.dtype, with_norm: bool, tokens: int, heads: int, kv_heads: int, head_dim: int
) -> None:
    if tokens > 5 and not big:
        pytest.skip("large shapes run on a GPU")
    total = (heads + 2 * kv_heads) * head_dim
    qkv = torch.randn(tokens, total + 8).to(device, dtype)[:, :total]
    angles = torch.rand(tokens, head_dim // 2) * 6
    turns = torch.cat((angles.cos(), angles.cos(), -angles.sin(), angles.sin()), -1).to(device, dtype)
    weights = torch.rand(heads + kv_heads, head_dim).to(device, dtype) if with_norm else None
    slots = torch.randperm(2 * tokens + 3)[:tokens].to(device)
    pools = [torch.randn(2 * tokens + 3, kv_heads, head_dim).to(device, dtype) for _ in range(2)]
    theirs, ours = [pool.clone() for pool in pools], [pool.clone() for pool in pools]
    said = {"norm": weights, "eps": 1e-6, "slots": slots}
    expected = rope.rotate_and_write(qkv.contiguous(), turns, k_pool=theirs[0], v_pool=theirs[1], **said)
    found = TritonRotateAndWrite()(qkv, turns, k_pool=ours[0], v_pool=ours[1], **said)
    assert found.is_contiguous()
    if dtype == torch.bfloat16 and not with_norm and found.is_cuda:  # every product is exact, so nothing is left to chance
        assert torch.equal(found, expected) and torch.equal(ours[0], theirs[0])
    assert_near(found, expected, small=2.0)  # a turn adds two products, each of which may be far larger than their sum
    assert_near(ours[0], theirs[0], small=2.0)
    assert torch.equal(ours[1], theirs[1])
    one = slice(tokens - 1, tokens)
    alone = TritonRotateAndWrite()(
        qkv[one], turns[one], k_pool=pools[0], v_pool=pools[1], norm=weights, eps=1e-6, slots=slots[one]
    )
    assert torch.equal(alone, found[one])
    assert torch.equal(pools[0][slots[one]], ours[0][slots[one]]) and torch.equal(pools[1][slots[one]], ours[1][slots[one]])


def test_a_token_without_a_slot_is_written_nowhere(device: torch.device) -> None:
    qkv, turns = torch.randn(2, 4 * 16, device=device), torch.randn(2, 32, device=device)
    pools = [torch.zeros(3, 1, 16, device=device) for _ in range(2)]
    slots = torch.tensor([-1, 1], device=device)
    q = TritonRotateAndWrite()(qkv, turns, norm=None, eps=0.0, k_pool=pools[0], v_pool=pools[1], slots=slots)
    assert q.shape == (2, 2, 16)
    assert all(pool[1].any() and not pool[0].any() and not pool[2].any() for pool in pools)


@DTYPES
@pytest.mark.parametrize(("tokens", "size"), [(1, 3072), (3, 17), (2, 1025), (4000, 12288)])
def test_the_activation_is_that_of_the_reference(
    device: torch.device, big: bool, dtype: torch.dtype, tokens: int, size: int
) -> None:
    if tokens > 3 and not big:
        pytest.skip("large shapes run on a GPU")
    gate_up = (torch.randn(tokens, 2 * size) * 8).to(device, dtype)
    gate_up[0, :2] = torch.tensor([-200.0, 200.0])
    before = gate_up.clone()
    found = TritonSiluMul()(gate_up)
    assert_near(found, activation.silu_mul(before.clone()))
    assert torch.equal(gate_up, before)
    assert torch.equal(TritonSiluMul()(gate_up[-1:]), found[-1:])


def test_no_rows_are_no_work(device: torch.device) -> None:
    nothing = torch.zeros(0, 64, device=device)
    assert TritonNorm()(nothing, nothing.new_zeros(64), 1e-6).shape == (0, 64)
    assert TritonSiluMul()(nothing).shape == (0, 32)
