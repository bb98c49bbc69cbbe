"""An engine with K and V in int8: the same tokens however it came by them, almost twice the tokens in a pool, clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_engine_equality import Runner, prompts

from ramify.kernels import native
from ramify.kernels.kv.int8 import SCALE_BYTES
from ramify.runtime import config
from ramify.runtime.bundled import MODEL_DIR
from ramify.runtime.config import EngineOptions, Hardware, ModelFacts, kernel_cache, resolve
from ramify.runtime.errors import InvalidRequest
from ramify.runtime.executor.load import load_executor
from ramify.runtime.executor.memory import model_facts
from ramify.runtime.models.config import read_config
from ramify.runtime.models.decoder import Decoder
from ramify.runtime.models.weights import load_decoder

LOADED = native.load(kernel_cache())
FEW = slice(0, None, 5)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def expected(dtype) -> list[list[int]]:
    outputs = Runner(MODEL_DIR, dtype=dtype, kv_dtype="int8").run(prompts()[FEW], alone=True, cold=True)
    assert len({tuple(o) for o in outputs}) > len(outputs) // 3, "outputs are all alike: the test would see nothing"
    return outputs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunk_tokens": 7},
        {"chunk_tokens": 64, "page_size": 16},
        {"max_running": 32, "depth": 2},
        {"max_running": 32, "tree_attention": False},
        {"max_running": 8, "kv_tokens": 2400, "chunk_tokens": 256, "preempt_every": 2},
    ],
    ids=["one after the other", "in chunks", "in pages", "together", "without tree attention", "preempted"],
)
def test_tokens_are_those_of_a_cold_prompt_alone(dtype, expected, options):
    runner = Runner(MODEL_DIR, dtype=dtype, kv_dtype="int8", **options)
    alone = "max_running" not in options
    assert runner.run(prompts()[FEW], alone=alone) == expected
    assert runner.run(prompts()[FEW], alone=alone) == expected, "warm"


def test_tree_attention_changes_no_token(dtype):
    some = prompts()[FEW]
    on, off = (Runner(MODEL_DIR, dtype=dtype, max_running=32, tree_attention=tree) for tree in (True, False))
    assert on.run(some) == off.run(some)


def logits(decoder: Decoder, ids: list[int]) -> torch.Tensor:
    from ramify.runtime.bench.quantization import log_probabilities

    return log_probabilities(decoder, torch.tensor(ids))


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_without_a_compiler_it_says_nearly_the_same_and_the_plain_model_is_not_far(name: str) -> None:
    how = {"device": "cpu", "dtype": getattr(torch, name)}
    ids = np.random.default_rng(0).integers(0, 4000, 300).tolist()
    plain = logits(load_decoder(MODEL_DIR, native=LOADED, **how), ids)
    made = (load_decoder(MODEL_DIR, native=one, kv_dtype=torch.int8, **how) for one in (LOADED, native.NONE))
    native8, torch8 = (logits(one, ids) for one in made)
    close = 0.01 if name == "float32" else 0.03  # a last bit of fp32 may move a code
    assert (native8 - torch8).float().norm() / torch8.float().norm() < close
    assert 0 < (native8 - plain).float().norm() / plain.float().norm() < 0.05


def test_a_pool_of_the_same_bytes_holds_almost_twice_the_tokens_of_bf16() -> None:
    facts = model_facts(read_config(MODEL_DIR))
    hardware = Hardware("cpu", 1 << 26, 2, True)
    pages = {name: resolve(EngineOptions(kv_dtype=name), hardware, facts).cache.num_pages for name in ("auto", "int8")}
    width = facts.head_dim
    assert pages["int8"] / pages["auto"] == pytest.approx(2 * width / (width + 2), rel=0.01)


def test_what_the_configuration_foresees_is_what_the_pool_has() -> None:
    assert config.SCALE_BYTES == SCALE_BYTES
    loaded = load_executor(EngineOptions(device="cpu", kv_dtype="int8", threads=1, kv_tokens=640))
    facts = model_facts(read_config(MODEL_DIR))
    assert loaded.config.kv_dtype == "int8" and loaded.kv_bytes == 640 * config.kv_bytes(facts, "int8")
    held = sum(tensor.nbytes for number in range(loaded.model.num_layers) for tensor in loaded.executor.pool.layer(number))
    assert held * 640 == loaded.kv_bytes * 641, "and a page that no sequence ever has"
    assert any(line.startswith("K and V: int8") for line in loaded.kernels)


def test_an_unknown_format_and_one_on_a_gpu_are_refused() -> None:
    facts = ModelFacts(context_length=64, kv_values_token=128, weight_values=100)
    with pytest.raises(InvalidRequest, match="Use one of auto, int8"):
        resolve(EngineOptions(kv_dtype="int4"), Hardware("cpu", 1 << 30, 2, True), facts)
    with pytest.raises(InvalidRequest, match="kv_dtype int8 works on the CPU only"):
        resolve(EngineOptions(kv_dtype="int8"), Hardware("cuda", 1 << 30, 2, True), facts)
