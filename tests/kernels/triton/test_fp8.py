"""Linear layers in fp8: the Triton kernel quantises as the reference, and on a GPU the product is the reference's."""

from __future__ import annotations

import pytest
import torch

from ramify.kernels.gemm.fp8 import Fp8Linear, quantize
from ramify.kernels.gemm.fp8_reference import Fp8TorchLinear, quantize_rows

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy's, in the interpreter


@pytest.mark.parametrize(("rows", "size"), [(1, 16), (3, 100), (4, 1024), (300, 12288)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_row_is_quantised_as_by_the_reference(
    device: torch.device, big: bool, rows: int, size: int, dtype: torch.dtype
) -> None:
    rows = rows if big else min(rows, 4)
    x = (torch.randn(rows, size) * torch.randn(rows, 1).mul(3).exp()).to(device, dtype)
    x[-1] = 0
    q, scales = quantize(x)
    expected, expected_scales = quantize_rows(x)
    assert torch.equal(scales, expected_scales)
    differ = q.float() != expected.float()
    # The interpreter rounds, but loses what is carried into the exponent; a GPU may be off where a product lies half way.
    assert differ.float().mean() < (1e-3 if q.is_cuda else 0.04)
    limit = 0.13 if q.is_cuda else 0.55
    torch.testing.assert_close(q.float(), expected.float(), rtol=limit, atol=2**-8)


def test_a_row_with_a_number_that_is_not_finite_stays_recognisable(device: torch.device) -> None:
    x = torch.ones(3, 64, device=device)
    x[0, 5], x[1, 6] = float("nan"), float("inf")
    assert quantize(x)[1].isfinite().flatten().tolist() == [False, False, True]


@pytest.mark.parametrize("rows", [1, 7, 64, 300])
@pytest.mark.parametrize("with_bias", [False, True], ids=["plain", "bias"])
def test_the_product_is_that_of_the_reference(device: torch.device, big: bool, rows: int, with_bias: bool) -> None:
    if not big:
        pytest.skip("a GPU multiplies here")
    weight = (torch.randn(512, 1024, device=device) / 32).bfloat16()
    bias = torch.randn(512, device=device).bfloat16() if with_bias else None
    x = torch.randn(rows, 1024, device=device).bfloat16()
    found, expected = Fp8Linear(weight, bias)(x), Fp8TorchLinear(weight, bias)(x)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.05)  # a term may be an eighth off where x lies half way
    assert (found - expected).float().square().mean().sqrt() < 0.01


def test_a_weight_that_the_product_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match="24 x 40"):
        Fp8Linear(torch.zeros(24, 40))
