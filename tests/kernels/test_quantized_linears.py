"""Quantised linears: the C++ is the reference bit for bit on any set of instructions; it is invariant and near the product."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ramify.kernels import native
from ramify.kernels.gemm.formats import FORMATS, Format
from ramify.kernels.gemm.quantized import LEVELS, QuantizedLinear, packed_bytes
from ramify.kernels.gemm.quantized_reference import QuantizedTorchLinear, quantize_weight
from ramify.runtime.config import kernel_cache

LOADED = native.load(kernel_cache())
if not LOADED.available:
    pytest.skip(LOADED.reason, allow_module_level=True)

HERE = range(torch.ops.ramify.linear_best_level() + 1)
SHAPES = [(64, 64), (32, 1), (1, 65), (7, 3), (33, 97), (250, 130), (896, 192), (1100, 100), (160, 512)]
DTYPES = [torch.float32, torch.bfloat16]
formats = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "bf16"])


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def make(shape: tuple[int, int], rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A weight, a bias, and x: some columns of it are much larger than the others, some values are the same, some are 0."""
    columns, outputs = shape
    generator = torch.Generator().manual_seed(1000 * columns + outputs)
    weight = torch.randn((outputs, columns), generator=generator) / columns**0.5
    weight[::3, : columns // 4] = weight[0, 0]
    x = torch.randn((rows, columns), generator=generator)
    x[:, columns // 2] *= 100
    x[::5, : columns // 2] = 0
    return weight.to(dtype), torch.randn(outputs, generator=generator).to(dtype), x.to(dtype)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int16 if x.dtype == torch.bfloat16 else torch.int32)


@formats
@dtypes
@pytest.mark.parametrize("level", HERE, ids=[LEVELS[level] for level in HERE])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_set_of_instructions_gives_the_bits_of_the_reference(shape, level: int, dtype, form: Format) -> None:
    weight, bias, x = make(shape, 130, dtype)
    linear, oracle = QuantizedLinear(weight, bias, form, level), QuantizedTorchLinear(weight, bias, form)
    every = torch.arange(shape[1])
    assert torch.equal(linear.rows_of(weight)(every), oracle.rows_of(weight)(every))
    whole = oracle(x)
    for rows in (0, 1, 2, 3, 4, 5, 6, 7, 13, 97, 130):
        assert torch.equal(linear(x[:rows]), whole[:rows]), rows
    no_bias = QuantizedLinear(weight, None, form, level)
    assert torch.equal(no_bias(x[3:9]), QuantizedTorchLinear(weight, None, form)(x[3:9]))


@formats
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_has_the_same_bits_in_any_company_and_with_any_number_of_threads(threads: int, form: Format) -> None:
    weight, bias, x = make((416, 1000), 700, torch.bfloat16)
    linear = QuantizedLinear(weight, bias, form)
    before = torch.get_num_threads()
    alone = torch.cat([linear(row[None]) for row in x])
    torch.set_num_threads(threads)
    try:
        for first, rows in ((0, 700), (0, 8), (3, 17), (100, 96), (50, 97), (11, 192), (0, 500), (699, 1)):
            assert torch.equal(linear(x[first : first + rows]), alone[first : first + rows])
    finally:
        torch.set_num_threads(before)


@formats
def test_the_scale_is_at_least_as_good_as_that_of_the_largest_weight(form: Format) -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    q, scales = quantize_weight(weight, form)
    error = (weight - (q * scales[..., None]).flatten(1)).square().sum()
    groups = weight.unflatten(1, (-1, form.group))
    scale = groups.abs().amax(-1, keepdim=True) / (-1 - form.lowest)
    plain = (groups - (groups / scale).round() * scale).square().sum()
    assert error < (0.8 if form.bits == 4 else 1.005) * plain
    assert q.amin() >= form.lowest and q.amax() <= -1 - form.lowest


@formats
@dtypes
def test_what_is_computed_is_near_the_plain_product(dtype: torch.dtype, form: Format) -> None:
    generator = torch.Generator().manual_seed(2)
    weight = (torch.randn((384, 640), generator=generator) / 25).to(dtype)
    x = torch.randn((50, 640), generator=generator).to(dtype)
    expected = F.linear(x.double(), weight.double())
    error = (QuantizedLinear(weight, None, form)(x) - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < (0.011 if form.bits == 8 else 0.09)


@formats
@dtypes
def test_rows_are_read_out_of_the_packed_weight(dtype: torch.dtype, form: Format) -> None:
    weight, _, _ = make((90, 131), 1, dtype)
    rows = QuantizedLinear(weight, None, form).rows_of(weight)
    ids = torch.tensor([130, 0, 64, 63, 64])
    assert torch.equal(rows(ids), QuantizedTorchLinear(weight, None, form).rows_of(weight)(ids))
    assert rows(ids).dtype == dtype and rows(ids[:0]).shape == (0, 90)
    for outside in (-1, 131, 10**12):
        with pytest.raises(IndexError):
            rows(torch.tensor([0, outside]))


@formats
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_a_value_that_is_not_finite_makes_its_own_row_not_a_number_and_no_other(value: float, form: Format) -> None:
    weight, bias, x = make((200, 70), 9, torch.float32)
    linear = QuantizedLinear(weight, bias, form)
    clean = linear(x)
    x[4, 130] = value
    spoiled = linear(x)
    assert spoiled[4].isnan().all()
    others = [row for row in range(9) if row != 4]
    assert torch.equal(spoiled[others], clean[others])
    assert torch.equal(spoiled.isnan(), QuantizedTorchLinear(weight, bias, form)(x).isnan())


@formats
def test_zeros_and_tiny_numbers_stay_finite(form: Format) -> None:
    weight = torch.zeros(70, 100)
    weight[1] = 1e-38
    weight[2] = 3e38
    x = torch.ones(3, 100)
    x[1] = 1e-40
    linear = QuantizedLinear(weight, None, form)
    assert torch.equal(linear(x), QuantizedTorchLinear(weight, None, form)(x))
    assert linear(x)[:, :2].eq(0).all() and linear(x)[1].eq(0).all()


@formats
def test_columns_that_lie_apart_are_copied_and_rows_may_lie_apart(form: Format) -> None:
    weight, bias, x = make((64, 70), 20, torch.bfloat16)
    linear = QuantizedLinear(weight, bias, form)
    expected = linear(x)
    assert torch.equal(linear(x.T.contiguous().T), expected)
    assert torch.equal(linear(torch.cat((x, x), 1)[:, 64:]), expected)


def test_bytes_are_those_of_the_format() -> None:
    assert packed_bytes(128, 256, FORMATS["int8"]) * 8 == 128 * 256 * FORMATS["int8"].bits_a_weight
    assert packed_bytes(128, 256, FORMATS["int4"]) * 8 == 128 * 256 * FORMATS["int4"].bits_a_weight


def test_wrong_shapes_are_refused() -> None:
    weight, bias, x = make((64, 70), 2, torch.float32)
    linear = QuantizedLinear(weight, bias, FORMATS["int8"])
    with pytest.raises(RuntimeError, match="x must be"):
        linear(x[:, :63])
    with pytest.raises(RuntimeError, match="bias must be"):
        linear(x.bfloat16())
