"""Linear layers in fp8, the reference: near the product, row by row."""

from __future__ import annotations

import pytest
import torch

from ramify.kernels.gemm.fp8_reference import LARGEST, Fp8TorchLinear, quantize_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_product_is_near_that_of_the_numbers_themselves(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in ((96, 256), (96,)))
    x = torch.randn((40, 256), generator=generator).to(dtype)
    linear = Fp8TorchLinear(weight, bias)
    exact = x.double() @ weight.double().T + bias.double()
    found = linear(x)
    assert found.dtype == dtype and (linear.in_features, linear.out_features) == (256, 96)
    assert (found - exact).square().mean().sqrt() < 0.04 * exact.square().mean().sqrt()  # two roundings to 4 bits
    torch.testing.assert_close(linear.rows_of(weight)(torch.tensor([5, 0])), weight[[5, 0]], rtol=0.07, atol=0.01)


def test_the_largest_number_of_a_row_is_kept_and_the_others_follow_by_rows() -> None:
    x = torch.tensor([[1.0, -896.0, 448.0], [1e-30, 2e-30, 0.0], [0.0, 0.0, 0.0]])
    q, scales = quantize_rows(x)
    assert q.float().abs().amax(-1).tolist() == [LARGEST, LARGEST, 0.0]
    torch.testing.assert_close(q.float() * scales, x, rtol=0.07, atol=0)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_spoils_itself_alone(number: float) -> None:
    linear = Fp8TorchLinear(torch.ones(4, 8))
    x = torch.ones(2, 8)
    x[0, 3] = number
    y = linear(x)
    assert not y[0].isfinite().any() and torch.allclose(y[1], torch.tensor(8.0))
