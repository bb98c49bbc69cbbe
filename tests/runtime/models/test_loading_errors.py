"""A checkpoint that cannot be loaded is refused before anything long starts, with what is wrong and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import make_model, save

from ramify.runtime.errors import ModelError, ModelNotFound
from ramify.runtime.models.checkpoint import INDEX, resolve_checkpoint
from ramify.runtime.models.config import check_tokenizer, read_config
from ramify.runtime.models.weights import load_decoder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save(make_model("qwen 2", tie_word_embeddings=False), tmp_path_factory.mktemp("sharded"), shard_size="150KB")
    assert len(list(folder.glob("*.safetensors"))) >= 3
    return folder


@pytest.fixture
def folder(sharded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sharded, tmp_path / "checkpoint"))


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_shard(folder: Path, tensor: str, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    shard = folder / json.loads((folder / INDEX).read_text())["weight_map"][tensor]
    tensors = load_file(shard)
    change(tensors)
    save_file(tensors, shard)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_decoder(folder, device="cpu", dtype=torch.float32, progress=lambda done, total: pytest.fail("weights were read"))
    return str(caught.value)


def test_sharded_weights_load_with_progress_up_to_the_end(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    load_decoder(folder, device="cpu", dtype=torch.float32, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] == sum(p.stat().st_size for p in folder.glob("*.safetensors"))


@pytest.mark.parametrize("name", ["/no/such/folder", "no_such_folder", "./a/b", "a/b/c", "~/no_such_folder"])
def test_a_wrong_path_is_named(name: str) -> None:
    with pytest.raises(ModelNotFound, match="There is no folder"):
        resolve_checkpoint(name)


def test_a_file_is_not_a_checkpoint(folder: Path) -> None:
    with pytest.raises(ModelNotFound, match="is a file"):
        resolve_checkpoint(folder / "config.json")
    assert resolve_checkpoint(str(folder)) == folder


def test_a_hub_id_that_cannot_be_fetched_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFound, match="could not be fetched as a hub id"):
        resolve_checkpoint("no-such-owner/no-such-model")


def test_a_folder_without_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "has no config.json" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "[]", "\x00", "[" * 100_000])
def test_a_config_that_is_not_json(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json" in refusal(folder)


def test_an_unknown_architecture_lists_the_known_ones(folder: Path) -> None:
    edit_json(folder / "config.json", lambda raw: raw.update(architectures=["MambaForCausalLM"]))
    message = refusal(folder)
    assert "MambaForCausalLM" in message and "LlamaForCausalLM" in message and "Qwen3ForCausalLM" in message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "longrope"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}}, "low_freq_factor"),
        ({"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"partial_rotary_factor": 0.5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "partial"),
        ({"hidden_size": "many"}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"vocab_size": 10**30}, "vocab_size"),
        ({"architectures": 7}, "architecture 7"),
        ({"architectures": [["LlamaForCausalLM"]]}, "architecture none"),
        ({"rope_parameters": [1]}, "rotary parameters"),
        ({"rope_parameters": {"rope_type": ["yarn"]}}, "rope type"),
        ({"rope_parameters": {"rope_theta": "many"}}, "rope_theta"),
        ({"layer_types": ["full_attention", "linear_attention", "full_attention"]}, "linear_attention"),
        ({"use_sliding_window": True, "sliding_window": 8, "layer_types": None, "max_window_layers": "all"}, "max_window_layers"),
        ({"num_key_value_heads": 3}, "3 key/value heads"),
        ({"use_sliding_window": True, "sliding_window": "wide", "layer_types": None, "max_window_layers": 0}, "sliding_window"),
        ({"eos_token_id": [2, 5000]}, "5000"),
    ],
)
def test_what_is_not_built_is_refused_never_computed_wrongly(folder: Path, change: dict[str, Any], said: str) -> None:
    edit_json(folder / "config.json", lambda raw: raw.update(change))
    assert said in refusal(folder)


def test_a_missing_shard(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refusal(folder)


@pytest.mark.parametrize("keep", [0, 5, 300, -1, -4000])
def test_a_truncated_shard(folder: Path, keep: int) -> None:
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:keep])
    message = refusal(folder)
    assert shard.name in message and "truncated or damaged" in message


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "a/../../b.safetensors", "..", "x\\..\\y.safetensors", "w.bin"]
)
def test_an_index_that_names_a_file_outside_the_folder(folder: Path, name: str) -> None:
    shutil.copy(sorted(folder.glob("*.safetensors"))[0], folder.parent / "outside.safetensors")
    edit_json(folder / INDEX, lambda raw: raw["weight_map"].update({"model.norm.weight": name}))
    assert "in the checkpoint's own folder" in refusal(folder)


def test_an_index_that_is_none(folder: Path) -> None:
    for text in ("{}", "[1]", '{"weight_map": 3}', '{"weight_map": {}}', "nonsense"):
        (folder / INDEX).write_text(text)
        assert INDEX in refusal(folder)


def test_an_index_that_names_tensors_that_are_not_there(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0].name
    edit_json(folder / INDEX, lambda raw: raw["weight_map"].update({"model.layers.9.ghost": shard}))
    assert "model.layers.9.ghost" in refusal(folder)


def test_shards_without_an_index(folder: Path) -> None:
    (folder / INDEX).unlink()
    assert INDEX in refusal(folder)


def test_only_pickled_weights(folder: Path) -> None:
    for path in [*folder.glob("*.safetensors"), folder / INDEX]:
        path.unlink()
    assert "no .safetensors" in refusal(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not to be opened")
    message = refusal(folder)
    assert "pytorch_model.bin" in message and "Convert" in message


def test_missing_tensors_are_listed(folder: Path) -> None:
    names = ["model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"]
    for name in names:
        edit_shard(folder, name, lambda tensors, name=name: tensors.pop(name))
        edit_json(folder / INDEX, lambda raw, name=name: raw["weight_map"].pop(name))
    message = refusal(folder)
    assert "2 tensors are missing" in message and all(name in message for name in names)


def test_tensors_that_belong_to_nothing_are_listed_up_to_a_bound(folder: Path) -> None:
    extra = {f"model.layers.0.extra.{number}": torch.zeros(1) for number in range(30)}
    edit_shard(folder, "model.norm.weight", lambda tensors: tensors.update(extra))
    message = refusal(folder)
    assert "30 tensors belong to nothing" in message and "extra.0" in message and "and 22 more" in message


def test_wrong_shapes_and_dtypes_are_listed(folder: Path) -> None:
    edit_shard(folder, "model.norm.weight", lambda tensors: tensors.update({"model.norm.weight": torch.zeros(65)}))
    name = "model.layers.0.mlp.down_proj.weight"
    edit_shard(folder, name, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    message = refusal(folder)
    assert "model.norm.weight is [65], not [64]" in message and f"{name} is I8" in message


def test_old_rotary_tables_and_a_stored_copy_of_a_tied_head_are_passed_over(tmp_path: Path) -> None:
    folder = save(make_model("qwen 3 tied"), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros(160, 64)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(16)
    save_file(tensors, folder / "model.safetensors")
    load_decoder(folder, device="cpu", dtype=torch.float32)


def test_a_tokenizer_that_does_not_fit_the_embedding(folder: Path) -> None:
    config = read_config(folder)
    check_tokenizer(config, 160)
    with pytest.raises(ModelError, match=r"161 tokens .* only 160 rows"):
        check_tokenizer(config, 161)
    with pytest.raises(ModelError, match="161 tokens"):
        load_decoder(folder, device="cpu", dtype=torch.float32, tokenizer_size=161)


def test_end_tokens_and_sampling_defaults_come_from_both_files(folder: Path) -> None:
    generation = {"eos_token_id": [2, 7], "temperature": 0.6, "top_k": 20, "top_p": 0.9, "do_sample": True, "max_length": 9}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    config = read_config(folder)
    assert config.eos_ids == (2, 7)
    assert config.sampling_defaults == {"temperature": 0.6, "top_k": 20, "top_p": 0.9}
    assert config.bos_id == 1 and config.dtype == "float32" and config.architecture == "Qwen2ForCausalLM"


def test_a_window_that_never_bites_or_is_switched_off_is_none(folder: Path) -> None:
    assert read_config(folder).windows == (None, None, None)
    edit_json(folder / "config.json", lambda raw: raw.update(use_sliding_window=True, sliding_window=1024, layer_types=None))
    edit_json(folder / "config.json", lambda raw: raw.update(max_window_layers=1))
    assert read_config(folder).windows == (None, None, None)
    edit_json(folder / "config.json", lambda raw: raw.update(sliding_window=1023))
    assert read_config(folder).windows == (None, 1023, 1023)
