"""A model whose linear layers are quantised at load: near the plain one, invariant by row, and as small as was foreseen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from paged_harness import Paged
from tiny_checkpoints import make_model, save

from ramify.kernels import native
from ramify.kernels.gemm.formats import FORMATS
from ramify.kernels.gemm.quantized import QuantizedLinear
from ramify.kernels.gemm.quantized_reference import QuantizedTorchLinear
from ramify.kernels.table import choose
from ramify.runtime.bundled import MODEL_DIR
from ramify.runtime.config import EngineOptions, Hardware, ModelFacts, kernel_cache, resolve
from ramify.runtime.errors import InvalidRequest
from ramify.runtime.executor.load import load_executor
from ramify.runtime.executor.memory import weight_bytes
from ramify.runtime.models.checkpoint import open_checkpoint
from ramify.runtime.models.config import read_config
from ramify.runtime.models.decoder import Decoder
from ramify.runtime.models.spec import parameters
from ramify.runtime.models.weights import Assembly, load_decoder, stream

LOADED = native.load(kernel_cache())
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.fixture(scope="module", params=["llama with biases", "qwen 3 tied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make_model(request.param).bfloat16(), tmp_path_factory.mktemp("checkpoint"))


def ids_of(count: int, seed: int) -> list[int]:
    return torch.randint(3, 160, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def assemble(folder: Path, dtype: torch.dtype, linear) -> tuple[Decoder, Assembly]:
    """A decoder whose linear layers `linear` makes."""
    config = read_config(folder)
    with torch.inference_mode():
        assembly = Assembly(parameters(config), replace(choose("cpu", dtype, LOADED), linear=linear, packs=True))
        stream(open_checkpoint(folder), assembly, None)
        return assembly.decoder(config, max_positions=config.max_positions), assembly


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_row_has_the_same_bits_whole_in_chunks_alone_and_in_a_batch(folder: Path, name: str, dtype: str) -> None:
    decoder = load_decoder(folder, device="cpu", dtype=DTYPES[dtype], quantization=name, native=LOADED)
    ids = ids_of(120, seed=0)
    whole = Paged(decoder).prefill(ids)[1]
    assert not whole.isnan().any()
    for chunk in (1, 7, 64):
        assert torch.equal(Paged(decoder).prefill(ids, chunk)[1], whole)
    paged = Paged(decoder, pages=2048)
    streams = [paged.stream() for _ in range(20)]
    prompts = [ids_of(3 + 5 * number, seed=number) for number in range(20)]
    paged.step([(one, prompt[:-1]) for one, prompt in zip(streams, prompts, strict=True)])
    together = paged.step([(one, prompt[-1:]) for one, prompt in zip(streams, prompts, strict=True)], "last")
    for prompt, logits in zip(prompts, together, strict=True):
        assert torch.equal(Paged(decoder).prefill(prompt)[1][-1], logits[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMATS)
def test_without_a_compiler_the_logits_have_the_same_bits(folder: Path, name: str, dtype: str) -> None:
    form = FORMATS[name]
    slow, _ = assemble(folder, DTYPES[dtype], lambda weight, bias=None: QuantizedTorchLinear(weight, bias, form))
    fast = load_decoder(folder, device="cpu", dtype=DTYPES[dtype], quantization=name, native=LOADED)
    ids = ids_of(50, seed=1)
    assert torch.equal(Paged(slow).prefill(ids)[1], Paged(fast).prefill(ids)[1])


@pytest.mark.parametrize(("name", "most"), [("int8", 0.05), ("int4", 0.5)])
def test_the_logits_stay_near_those_of_the_plain_model(folder: Path, name: str, most: float) -> None:
    how = {"device": "cpu", "dtype": torch.float32, "native": LOADED}
    plain, quantized = (load_decoder(folder, quantization=which, **how) for which in (None, name))
    ids = ids_of(80, seed=2)
    expected = Paged(plain).prefill(ids)[1]
    error = (Paged(quantized).prefill(ids)[1] - expected).norm() / expected.norm()
    assert 0 < error < most


@pytest.mark.skipif(not LOADED.available, reason="needs the native kernels")
@pytest.mark.parametrize("name", FORMATS)
def test_weights_take_the_bytes_that_were_foreseen_and_a_tied_embedding_none_of_its_own(name: str) -> None:
    made: list[QuantizedLinear] = []

    def linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> QuantizedLinear:
        made.append(QuantizedLinear(weight, bias, FORMATS[name]))
        return made[-1]

    _, assembly = assemble(MODEL_DIR, torch.bfloat16, linear)
    taken = sum(one.blocks.nbytes for one in made) + sum(tensor.nbytes for tensor in assembly.tensors.values())
    foreseen = weight_bytes(read_config(MODEL_DIR), torch.bfloat16, name)
    assert read_config(MODEL_DIR).tie_embeddings
    assert foreseen <= taken < 1.02 * foreseen < 0.6 * weight_bytes(read_config(MODEL_DIR), torch.bfloat16, None)


def test_the_engine_says_what_it_took() -> None:
    loaded = load_executor(EngineOptions(device="cpu", quantization="int4", threads=1, kv_tokens=64))
    assert loaded.config.quantization == "int4"
    assert any("int4, groups of 32, 4.5 bits a weight" in line for line in loaded.kernels)


def test_an_unknown_quantization_and_one_on_a_gpu_are_refused() -> None:
    facts = ModelFacts(context_length=64, kv_values_token=8, weight_values=100)
    with pytest.raises(InvalidRequest, match="Use one of int8, int4"):
        resolve(EngineOptions(quantization="int3"), Hardware("cpu", 1 << 30, 2, True), facts)
    with pytest.raises(InvalidRequest, match="works on the CPU only"):
        resolve(EngineOptions(quantization="int8"), Hardware("cuda", 1 << 30, 2, True), facts)
    with pytest.raises(InvalidRequest, match="works on NVIDIA GPUs only"):
        resolve(EngineOptions(quantization="fp8"), Hardware("cpu", 1 << 30, 2, True), facts)
    with pytest.raises(InvalidRequest, match="beside bfloat16 only"):
        resolve(EngineOptions(quantization="fp8", dtype="float32"), Hardware("cuda", 1 << 30, 2, True), facts)
    with pytest.raises(InvalidRequest, match="not deterministic"):
        resolve(EngineOptions(quantization="fp8", deterministic=True), Hardware("cuda", 1 << 30, 2, True), facts)
    with pytest.raises(ValueError, match="No int8 linears on meta"):
        choose("meta", torch.float32, quantization="int8")
