"""All layers in one call of C++ and the decoder's own loop, operation by operation: the same bits, in whatever steps."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paged_harness import Paged, Pools
from tiny_checkpoints import make_model, save
from torch import Tensor

from ramify.kernels import native
from ramify.kernels.activation.native import NativeSiluMul
from ramify.kernels.attention.interface import AttentionIndex
from ramify.kernels.attention.native import NativeAttention
from ramify.kernels.gemm.few_rows import FewRowsLinear
from ramify.kernels.gemm.formats import FORMATS
from ramify.kernels.gemm.native import PackedLinear
from ramify.kernels.gemm.quantized import QuantizedLinear
from ramify.kernels.layers.interface import LayeredKV, Stack, StackParts
from ramify.kernels.layers.native import NativeStack
from ramify.kernels.norm.native import NativeNorm
from ramify.kernels.rope.native import NativeRotateAndWrite
from ramify.kernels.table import Kernels, choose
from ramify.runtime.config import kernel_cache
from ramify.runtime.models.checkpoint import open_checkpoint
from ramify.runtime.models.config import read_config
from ramify.runtime.models.decoder import Decoder
from ramify.runtime.models.spec import parameters
from ramify.runtime.models.weights import Assembly, stream

LOADED = native.load(kernel_cache())
if not LOADED.available:
    pytest.skip("needs the native kernels", allow_module_level=True)

HAS_BF16 = torch.ops.ramify.linear_has_bf16()
NEEDS_BF16 = pytest.mark.skipif(not HAS_BF16, reason="needs AVX512-BF16")
BF16, FP32 = torch.bfloat16, torch.float32
FORMS = [
    pytest.param((BF16, None, False), id="bf16", marks=NEEDS_BF16),
    pytest.param((BF16, "int8", False), id="int8"),
    pytest.param((BF16, "int4", True), id="int4, K and V in int8"),
    pytest.param((FP32, "int8", True), id="int8 in fp32, K and V in int8"),
]
KINDS = ["llama with biases", "mistral with a window", "qwen 2", "qwen 2 with windows in its upper layers", "qwen 3"]


@dataclass
class Counted:
    """A stack that counts the steps it has run."""

    inner: Stack
    steps: int = 0

    def takes(self, tokens: int, logit_rows: int, kv: LayeredKV) -> bool:
        return self.inner.takes(tokens, logit_rows, kv)

    def run(self, x: Tensor, positions: Tensor, **step: Any) -> Tensor:
        self.steps += 1
        return self.inner.run(x, positions, **step)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = save(make_model(kind).bfloat16(), tmp_path_factory.mktemp("checkpoint"))
        return made[kind]

    return folder


def assemble(folder: Path, kernels: Kernels) -> Decoder:
    config = read_config(folder)
    with torch.inference_mode():
        assembly = Assembly(parameters(config), kernels)
        stream(open_checkpoint(folder), assembly, None)
        return assembly.decoder(config, max_positions=config.max_positions)


def both(folder: Path, kernels: Kernels) -> tuple[Decoder, Counted, Decoder]:
    """A decoder with a stack, that stack, and a decoder without one, of the same weights."""
    stacks: list[Counted] = []

    def counted(parts: StackParts) -> Counted:
        inner = kernels.layers(parts)
        assert inner is not None, kernels.reasons
        stacks.append(Counted(inner))
        return stacks[-1]

    fast = assemble(folder, replace(kernels, layers=counted))
    return fast, stacks[0], assemble(folder, replace(kernels, layers=lambda parts: None))


def bits(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.int8 else tensor.view(torch.int16 if tensor.dtype == BF16 else torch.int32)


def assert_same_steps(fast: Decoder, slow: Decoder, *, seed: int, steps: int, most: int, page_size: int) -> None:
    """Steps with random spans of random sequences, and random wanted rows: logits and pools are compared after each."""
    draw = torch.Generator().manual_seed(seed)

    def below(end: int) -> int:
        return int(torch.randint(end, (1,), generator=draw))

    pair = [Paged(decoder, page_size=page_size, pages=4096 // page_size) for decoder in (fast, slow)]
    streams = [[paged.stream() for _ in range(8)] for paged in pair]
    for _ in range(steps):
        who = torch.randperm(8, generator=draw)[: 1 + below(8)].tolist()
        lengths = [1 if below(2) else 1 + below(most) for _ in who]
        ids = [torch.randint(3, 160, (length,), generator=draw).tolist() for length in lengths]
        wanted = torch.randint(sum(lengths), (below(sum(lengths) + 2),), generator=draw)
        spans = [[(own[number], part) for number, part in zip(who, ids, strict=True)] for own in streams]
        a, b = (paged.rows(step, wanted) for paged, step in zip(pair, spans, strict=True))
        assert torch.equal(bits(a), bits(b)) and not a.isnan().any()
    for one, other in ((pair[0].pools.k, pair[1].pools.k), (pair[0].pools.v, pair[1].pools.v)):
        assert torch.equal(bits(one), bits(other))


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_step_has_the_bits_of_the_loop_over_layers(folder_of, kind: str, form, threads: int) -> None:
    dtype, quantization, int8_kv = form
    kernels = choose("cpu", dtype, LOADED, quantization, kv_dtype=torch.int8 if int8_kv else None)
    fast, stack, slow = both(folder_of(kind), kernels)
    assert_same_steps(fast, slow, seed=threads, steps=8, most=4, page_size=1)
    assert stack.steps >= 3
    before = stack.steps
    assert_same_steps(fast, slow, seed=9 + threads, steps=4, most=70, page_size=16)
    assert stack.steps > before or quantization is None


@pytest.mark.parametrize("level", range(torch.ops.ramify.best_level() + 1))
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=["fp32", "bf16"])
def test_every_set_of_instructions_has_the_bits_of_its_own_loop(folder_of, dtype: torch.dtype, level: int) -> None:
    integers = min(level, torch.ops.ramify.linear_best_level())
    kernels = replace(
        choose("cpu", dtype, LOADED, "int4"),
        linear=lambda weight, bias=None: QuantizedLinear(weight, bias, FORMATS["int4"], integers),
        attention=lambda spec: NativeAttention(spec, level),
        rms_norm=NativeNorm(level),
        rotate_and_write=NativeRotateAndWrite(level),
        silu_mul=NativeSiluMul(level),
        layers=lambda parts: NativeStack(parts, level),
    )
    fast, stack, slow = both(folder_of("qwen 3"), kernels)
    assert_same_steps(fast, slow, seed=level, steps=6, most=30, page_size=4)
    assert stack.steps == 6


@NEEDS_BF16
def test_more_rows_than_a_linear_layer_takes_go_through_the_loop(folder_of) -> None:
    def linear(weight: Tensor, bias: Tensor | None = None) -> FewRowsLinear:
        return FewRowsLinear.beside(PackedLinear(weight, bias), chain=512, most_rows=12)

    fast, stack, _ = both(folder_of("qwen 2"), replace(choose("cpu", BF16, LOADED), linear=linear))
    paged = Paged(fast)
    paged.step([(paged.stream(), list(range(3, 15)))])
    assert stack.steps == 1
    paged.step([(paged.stream(), list(range(3, 16)))])
    paged.rows([(paged.stream(), [5])], torch.zeros(13, dtype=torch.int64))
    assert stack.steps == 1


def test_parts_that_are_not_in_cpp_and_pools_of_another_kind_are_left_to_the_loop(folder_of) -> None:
    plain = choose("cpu", FP32, LOADED)
    decoder = assemble(folder_of("qwen 2"), plain)
    assert plain.layers(StackParts(torch.ones(4), 1e-6, torch.ones(4, 8), ())) is None
    assert any(line.startswith("layers: operation by operation, because some linear layer") for line in plain.reasons)
    without = choose("cpu", FP32)
    assemble(folder_of("qwen 2"), without)
    assert "layers: operation by operation, because there are no native kernels" in without.reasons
    quantized = choose("cpu", BF16, LOADED, "int8")
    fast, stack, _ = both(folder_of("qwen 2"), quantized)
    assert "layers: all in one call of C++" in quantized.reasons
    assert stack.takes(1, 1, Pools(fast, 16))
    assert not stack.takes(1, 1, Pools(decoder, 16))


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        *((name, value, "is not below") for name in ("position", "slot", "wanted") for value in (-1, 8192)),
        ("page", 8192, "not in the pool"),
        ("row", 99, "does not lie within"),
    ],
)
def test_what_does_not_exist_is_refused(folder_of, name: str, value: int, complaint: str) -> None:
    fast, stack, _ = both(folder_of("qwen 2"), choose("cpu", BF16, LOADED, "int8"))
    said = {"position": 0, "slot": 0, "wanted": 0, "page": 0, "row": 0, name: value}
    zero, one = np.zeros(1, np.int32), np.ones(1, np.int32)
    table = torch.full((1, 4), said["page"], dtype=torch.int32)
    index = AttentionIndex(zero, one, zero, np.array([said["row"]], np.int32), table, page_size=1)
    with pytest.raises(RuntimeError, match=complaint):
        fast.hidden(
            torch.tensor([5]),
            torch.tensor([said["position"]]),
            kv=Pools(fast, 16),
            slots=torch.tensor([said["slot"]]),
            attention_plan=fast.plan_attention(index),
            logit_rows=torch.tensor([said["wanted"]]),
        )
    assert stack.steps == 1


def test_a_stack_is_freed_with_its_decoder(folder_of) -> None:
    decoder = assemble(folder_of("qwen 2"), choose("cpu", BF16, LOADED, "int8"))
    stack = decoder.stack
    assert isinstance(stack, NativeStack)
    number = stack.number
    torch.ops.ramify.layers_add_spec(number, 1.0, 0, 0.0, True, 0, 0)
    del decoder, stack
    gc.collect()
    with pytest.raises(RuntimeError, match="there are no layers"):
        torch.ops.ramify.layers_add_spec(number, 1.0, 0, 0.0, True, 0, 0)
