"""bf16 rows on oneDNN's packed memory: near the exact product, and the bits of oneDNN."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ramify.kernels import native
from ramify.kernels.gemm.few_rows import ALL_ROWS, CHAINS, TESTED_ROWS, FewRowsLinear, chained
from ramify.kernels.gemm.native import PackedLinear
from ramify.kernels.gemm.reference import TorchLinear
from ramify.kernels.gemm.selftest import cancelling, invariant, random_rows
from ramify.kernels.gemm.slabs import Slabs
from ramify.kernels.table import choose
from ramify.runtime.config import kernel_cache

if not (native.load(kernel_cache()).available and torch.ops.ramify.linear_has_bf16()):
    pytest.skip("needs the native kernels and AVX512-BF16", allow_module_level=True)

SHAPES = [(1, 1), (2, 64), (33, 97), (250, 4097), (896, 640), (1089, 130), (1536, 200), (2100, 65), (4864, 896)]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def make(shape: tuple[int, int], chain: int, most_rows: int | None) -> tuple[FewRowsLinear, torch.Tensor, torch.Tensor]:
    columns, outputs = shape
    generator = torch.Generator().manual_seed(columns)
    weight = (torch.randn((outputs, columns), generator=generator) / columns**0.5).bfloat16()
    bias = torch.randn(outputs, generator=generator).bfloat16()
    packed = PackedLinear(weight, bias)
    if packed.memory is None:
        pytest.skip("this CPU packs weights in another layout")
    return FewRowsLinear.beside(packed, chain=chain, most_rows=most_rows), weight, bias


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_product_is_exact_up_to_rounding_for_any_number_of_rows(shape, chain: int) -> None:
    linear, weight, bias = make(shape, chain, None)
    x = torch.randn(200, shape[0], generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = F.linear(x.double(), weight.double(), bias.double())
    whole = linear(x)
    assert ((whole - expected).abs() <= 2**-8 * expected.abs() + 1e-4).all()
    for rows in (0, 1, 2, 3, 4, 5, 6, 7, 13, 24, 25, 31, 64, 96, 97, 193):
        assert torch.equal(linear(x[7 : 7 + rows]), whole[7 : 7 + rows]), rows


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_leaves_no_trace(threads: int) -> None:
    linear, _, _ = make((1536, 1000), 1024, None)
    x = torch.randn(150, 1536).bfloat16()
    before = torch.get_num_threads()
    whole = linear(x)
    torch.set_num_threads(threads)
    try:
        for rows in (1, 5, 16, 33, 64, 150):
            assert torch.equal(linear(x[:rows]), whole[:rows])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("columns", [64, 576, 1000, 1024, 1088, 1504, 2048, 4864], ids=str)
def test_the_chosen_layer_hides_no_rounding_from_1_to_1000_rows(columns: int, dtype: torch.dtype) -> None:
    weight, few = cancelling(columns, 192, dtype, CPU)
    linear = choose("cpu", dtype, native.load(kernel_cache())).linear(weight)
    x = few.repeat(16, 1)[:1000]
    whole = linear(x)
    assert whole.count_nonzero() > 0.2 * whole.numel()  # what is seen is what was rounded
    for rows in (1, 2, 3, 7, 8, 16, 31, 32, 33, 48, 64, 65, 127, 128, 256, 500):
        assert torch.equal(linear(x[:rows]), whole[:rows]), rows
    assert torch.equal(linear(x[900:932]), whole[900:932])


def test_onednn_alone_does_not_keep_bits_and_the_test_at_load_sees_it() -> None:
    weight, x = cancelling(2048, 256, torch.bfloat16, CPU)
    packed = PackedLinear(weight)
    if invariant(packed, x):
        pytest.skip("this oneDNN sums one row as it sums many")
    assert invariant(packed, random_rows(2048, torch.bfloat16, CPU), rows=(2, 64))
    linear = choose("cpu", torch.bfloat16, native.load(kernel_cache())).linear(weight)
    assert isinstance(linear, FewRowsLinear) and invariant(linear, x)


def test_one_order_of_summation_is_that_of_onednn_and_the_native_kernel_alone_keeps_bits_too() -> None:
    weight, x = cancelling(2048, 256, torch.bfloat16, CPU)
    own = ALL_ROWS.wrap(PackedLinear(weight))
    assert own is not None and invariant(own, x)
    fits = [form for form in chained(Slabs()) if (linear := form.wrap(PackedLinear(weight))) and invariant(linear, x)]
    assert len(fits) <= 1  # the orders differ, and the test sees it
    assert all(form.wrap(TorchLinear(weight)) is None for form in (*chained(Slabs()), ALL_ROWS))


@pytest.mark.parametrize("columns", [576, 1000, 1536, 4864], ids=str)
def test_from_2_rows_on_the_native_kernel_has_the_bits_of_onednn(columns: int) -> None:
    weight, few = cancelling(columns, 250, torch.bfloat16, CPU)
    packed = PackedLinear(weight, torch.randn(250, generator=torch.Generator().manual_seed(1)).mul_(1e-3).bfloat16())
    linears = [FewRowsLinear.beside(packed, chain=chain, most_rows=None) for chain in CHAINS]
    x = few.repeat(5, 1)[:300]
    fits = [linear for linear in linears if torch.equal(linear(x), packed(x))]
    if not fits:
        pytest.skip("this oneDNN sums in an order of its own")
    for rows in torch.randint(2, 300, (12,), generator=torch.Generator().manual_seed(columns)).tolist():
        assert torch.equal(fits[0](x[-rows:]), packed(x[-rows:])), rows


def test_in_the_test_at_load_more_rows_go_to_onednn_and_later_none() -> None:
    inner, weight, bias = make((64, 96), 0, None)
    for form in chained(Slabs()):
        assert form.taken is not None and inner.inner is not None
        tested, taken = form.wrap(inner.inner), form.taken(weight, bias)
        assert isinstance(tested, FewRowsLinear) and isinstance(taken, FewRowsLinear)
        calls: list[int] = []
        onednn = tested.inner
        tested.inner = lambda x, calls=calls, onednn=onednn: calls.append(x.shape[0]) or onednn(x)  # type: ignore
        for rows in (1, TESTED_ROWS, TESTED_ROWS + 1, 100):
            tested(torch.zeros(rows, 64, dtype=torch.bfloat16))
        assert calls == [TESTED_ROWS + 1, 100]
        assert taken.inner is None


def test_what_we_pack_has_the_bits_of_what_onednn_packs_and_gives_its_rows_back() -> None:
    pages = Slabs()
    for shape in [*SHAPES, (4864, 4000)]:  # the last one is larger than a slab
        beside, weight, bias = make(shape, 1024, None)
        ours = FewRowsLinear.of(weight, bias, chain=1024, pages=pages)
        x = torch.randn(40, shape[0]).bfloat16()
        assert torch.equal(ours(x), beside(x))
        ids = torch.tensor([0, shape[1] - 1, shape[1] // 2])
        rows = ours.rows_of(weight)
        assert rows is not None and torch.equal(rows(ids), weight[ids])
        assert ours.rows_of(-weight) is None


def test_slabs_neither_overlap_nor_move() -> None:
    pages = Slabs()
    tables = [pages.empty(count, 3).fill_(count) for count in (1, 5, 1 << 20, 7, 3 << 20)]
    assert all(int(table.min()) == int(table.max()) == table.shape[0] for table in tables)
    assert all(table.data_ptr() % 64 == 0 for table in tables)
