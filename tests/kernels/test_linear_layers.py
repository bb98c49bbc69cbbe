"""Linear layers: equal to the plain product, and a row's bits do not depend on the rows beside it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ramify.kernels.gemm import native
from ramify.kernels.gemm.reference import TorchLinear
from ramify.kernels.gemm.rows import packed_rows
from ramify.kernels.gemm.selftest import FORMS, BlockedLinear, CheckedLinears, PaddedLinear, invariant, random_rows
from ramify.kernels.native import load
from ramify.kernels.table import choose
from ramify.runtime.config import kernel_cache

CPU = torch.device("cpu")
SHAPES = [(64, 96), (256, 688), (688, 256), (96, 4096), (1504, 64)]


def weights(in_features: int, out_features: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(in_features)
    weight = torch.randn((out_features, in_features), generator=generator) / in_features**0.5
    return weight.to(dtype), torch.randn(out_features, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_chosen_linear_equals_the_plain_product_and_keeps_bits_from_1_to_2048_rows(shape, dtype: torch.dtype) -> None:
    with torch.inference_mode():
        kernels = choose("cpu", dtype, load(kernel_cache()))
        weight, bias = weights(*shape, dtype)
        linear = kernels.linear(weight, bias)
        x = torch.randn((2048, shape[0]), generator=torch.Generator().manual_seed(1)).to(dtype)
        whole = linear(x)
        expected = F.linear(x.double(), weight.double(), bias.double())
        assert (whole - expected).abs().max() < (1e-4 if dtype == torch.float32 else 0.05)
        for rows in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 257, 512, 1000):
            assert torch.equal(linear(x[:rows]), whole[:rows]), rows
            assert torch.equal(linear(x[11 : 11 + rows]), whole[11 : 11 + rows]), rows


class Fickle:
    """A product whose bits depend on the number of rows, as far as `same` says that they differ."""

    def __init__(self, weight: torch.Tensor, same) -> None:
        self.inner, self.same = TorchLinear(weight), same
        self.out_features, self.in_features = weight.shape

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.cat([self.inner(F.pad(row[None], (0, 0, 0, 15)))[:1] for row in x])
        return out if self.same(x.shape[0]) else out + 1e-3


@pytest.mark.parametrize(
    ("same", "form"),
    [
        (lambda rows: True, FORMS[0].name),
        (lambda rows: rows > 1, FORMS[1].name),
        (lambda rows: rows % 16 == 0, FORMS[2].name),
        (lambda rows: rows == 16, FORMS[3].name),
    ],
)
def test_the_cheapest_form_that_keeps_bits_is_taken_and_reported(same, form: str) -> None:
    reasons: list[str] = []
    linears = CheckedLinears(lambda weight, bias: Fickle(weight, same), "linear", reasons)
    weight, _ = weights(32, 8, torch.float32)
    assert invariant(linears(weight), random_rows(32, torch.float32, CPU))
    assert reasons == [] if form == "as they are" else form in reasons[0]


def test_a_product_that_never_keeps_bits_is_reported() -> None:
    reasons: list[str] = []
    calls = iter(range(10**6))
    weight, _ = weights(32, 8, torch.float32)
    linear = TorchLinear(weight)

    class Drifting:
        in_features, out_features = 32, 8

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return linear(x) + next(calls)

    CheckedLinears(lambda weight, bias: Drifting(), "linear", reasons)(weight)
    assert "depend on the other rows" in reasons[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("shape", [*SHAPES, (250, 4097), (33, 97), (64, 5000)], ids=str)
def test_rows_read_out_of_a_layer_are_those_of_its_weight(shape, dtype: torch.dtype) -> None:
    with torch.inference_mode():
        kernels = choose("cpu", dtype, load(kernel_cache()))
        weight, bias = weights(*shape, dtype)
        weight[0, 0] = float("nan")
        for form in (lambda linear: linear, lambda linear: PaddedLinear(linear, 16, 16), BlockedLinear):
            rows = form(kernels.linear(weight.clone(), bias)).rows_of(weight)
            if rows is None:
                pytest.skip("this CPU packs weights in another layout")
            bits = torch.int16 if dtype == torch.bfloat16 else torch.int32
            assert torch.equal(rows(torch.arange(shape[1])).view(bits), weight.view(bits))
            assert rows(torch.zeros(0, dtype=torch.int64)).shape == (0, shape[0])
            for outside in (-1, shape[1], 10**9):
                with pytest.raises(IndexError):
                    rows(torch.tensor([0, outside]))


@pytest.mark.skipif(not native.available(torch.float32), reason="needs packed linears")
def test_rows_are_not_read_where_the_packed_weight_is_not_laid_out_as_known() -> None:
    with torch.inference_mode():
        weight, _ = weights(128, 256, torch.float32)
        other = torch.ops.mkldnn._reorder_linear_weight(weight.roll(1, dims=1).contiguous())
        smaller = torch.ops.mkldnn._reorder_linear_weight(weight[:64].contiguous())
        assert packed_rows(other, weight) is None
        assert packed_rows(smaller, weight) is None


def test_padding_and_blocks_change_nothing_but_the_shape_of_the_call() -> None:
    weight, bias = weights(48, 24, torch.float32)
    x = torch.randn(37, 48)
    expected = F.linear(x, weight, bias)
    for form in (PaddedLinear(TorchLinear(weight, bias), 16, 16), BlockedLinear(TorchLinear(weight, bias))):
        assert form(x).shape == (37, 24)
        torch.testing.assert_close(form(x), expected)


def test_the_table_says_what_it_chose_and_refuses_other_dtypes() -> None:
    reasons = " ".join(choose("cpu", torch.float32).reasons)
    assert ("oneDNN" if native.available(torch.float32) else "unpacked") in reasons
    with pytest.raises(ValueError, match="float16"):
        choose("cpu", torch.float16)
