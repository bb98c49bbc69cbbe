"""Our decoder computes what transformers computes, for each family, over pages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from paged_harness import Paged
from tiny_checkpoints import KINDS, make_model, save
from transformers import AutoModelForCausalLM

from ramify.kernels.gemm.reference import TorchLinear
from ramify.kernels.native import load
from ramify.kernels.table import choose
from ramify.runtime.config import kernel_cache
from ramify.runtime.models.checkpoint import open_checkpoint
from ramify.runtime.models.config import read_config
from ramify.runtime.models.spec import parameters
from ramify.runtime.models.weights import Assembly, load_decoder, stream


def random_ids(count: int, seed: int, vocab: int = 160) -> list[int]:
    return torch.randint(3, vocab, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_64_greedy_tokens_equal_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = make_model(kind)
    decoder = load_decoder(save(model, tmp_path), device="cpu", dtype=torch.float32, native=load(kernel_cache()))
    for page_size, length in ((1, 70), (16, 333)):
        ids = random_ids(length, seed=length)
        with torch.inference_mode():
            expected = model(torch.tensor([ids])).logits[0]
        _, logits = Paged(decoder, page_size=page_size).prefill(ids)
        assert (logits - expected).abs().max() < 1e-4
    prompts = [random_ids(9, seed=1), random_ids(40, seed=2)]
    outputs = Paged(decoder, page_size=16).greedy(prompts, steps=64)
    for prompt, output in zip(prompts, outputs, strict=True):
        generated = model.generate(
            torch.tensor([prompt]), max_new_tokens=64, min_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert output == generated[0, len(prompt) :].tolist()


def test_a_checkpoint_of_older_transformers_with_rope_theta_and_rope_scaling_loads_alike(tmp_path: Path) -> None:
    model = make_model("llama 3 with rope scaling")
    folder = save(model, tmp_path)
    new = load_decoder(folder, device="cpu", dtype=torch.float32)
    raw = json.loads((folder / "config.json").read_text())
    rope = raw.pop("rope_parameters")
    raw["rope_theta"] = rope.pop("rope_theta")
    raw["rope_scaling"] = rope
    (folder / "config.json").write_text(json.dumps(raw))
    old = load_decoder(folder, device="cpu", dtype=torch.float32)
    assert old.config.rope == new.config.rope
    ids = random_ids(200, seed=3)
    assert torch.equal(Paged(old).prefill(ids)[1], Paged(new).prefill(ids)[1])


def test_in_bf16_the_logits_stay_near_those_of_fp32(tmp_path: Path) -> None:
    model = make_model("qwen 3 tied")
    decoder = load_decoder(save(model, tmp_path), device="cpu", dtype=torch.bfloat16, native=load(kernel_cache()))
    ids = random_ids(100, seed=4)
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0]
    _, logits = Paged(decoder).prefill(ids)
    assert logits.dtype == torch.bfloat16
    assert (logits - expected).norm() / expected.norm() < 0.03


def test_a_tied_head_that_cannot_be_read_by_rows_has_a_table_beside_it(tmp_path: Path) -> None:
    class Packed(TorchLinear):
        def rows_of(self, weight: torch.Tensor) -> None:
            return None

    folder = save(make_model("qwen 3 tied"), tmp_path)
    read = load_decoder(folder, device="cpu", dtype=torch.float32)
    config = read_config(folder)
    kernels = replace(choose("cpu", torch.float32), linear=lambda weight, bias=None: Packed(weight.clone(), bias))
    with torch.inference_mode():
        loaded = Assembly(parameters(config), kernels)
        stream(open_checkpoint(folder), loaded, None)
    kept = loaded.decoder(config, max_positions=config.max_positions)
    (folder / "model.safetensors").unlink()
    ids = random_ids(50, seed=6)
    torch.testing.assert_close(Paged(kept).prefill(ids)[1], Paged(read).prefill(ids)[1], atol=1e-5, rtol=0)
    assert any("embedding: kept beside the head" in line for line in kernels.reasons)


@pytest.mark.parametrize("kind", ["qwen 2", "qwen 3"])
def test_without_packed_linears_the_model_computes_the_same(kind: str, tmp_path: Path) -> None:
    folder = save(make_model(kind).bfloat16(), tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    config = read_config(folder)
    kernels = replace(choose("cpu", torch.float32), linear=TorchLinear, packs=False)
    with torch.inference_mode():
        loaded = Assembly(parameters(config), kernels)
        stream(open_checkpoint(folder), loaded, None)
        decoder = loaded.decoder(config, max_positions=config.max_positions)
        ids = random_ids(50, seed=6)
        expected = model(torch.tensor([ids])).logits[0]
    (folder / "model.safetensors").unlink()  # nothing of the model is a view of the file
    _, logits = Paged(decoder).prefill(ids)
    assert (logits - expected).abs().max() < 1e-4
