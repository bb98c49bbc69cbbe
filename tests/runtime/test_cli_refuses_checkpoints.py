"""A checkpoint that cannot work, as a user meets it: one line that says so, exit status 2, before torch is even imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ramify.runtime.bundled import MODEL_DIR

INDEX = "model.safetensors.index.json"
_RUN = """
import sys
from ramify.runtime.cli import main

code = main(sys.argv[1:])
assert "torch" not in sys.modules, "torch was imported"
sys.exit(code)
"""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in two shards."""
    folder = tmp_path_factory.mktemp("sharded")
    for path in MODEL_DIR.iterdir():
        if path.name != "model.safetensors" and path.is_file():
            shutil.copy(path, folder)
    tensors = sorted(load_file(MODEL_DIR / "model.safetensors").items())
    weight_map = {}
    for number, part in enumerate((tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]), start=1):
        name = f"model-{number:05d}-of-00002.safetensors"
        save_file(dict(part), folder / name)
        weight_map |= {tensor: name for tensor, _ in part}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def second_shard(folder: Path) -> Path:
    return folder / "model-00002-of-00002.safetensors"


def only_pickled(folder: Path) -> None:
    for path in (*folder.glob("*.safetensors"), folder / INDEX):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")


def outside(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = "../other.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def smaller_embedding(folder: Path) -> None:
    rows = 4095
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        cut = {n: t[:rows].contiguous() if "embed_tokens" in n or "lm_head" in n else t for n, t in tensors.items()}
        save_file({name: torch.clone(tensor) for name, tensor in cut.items()}, path)
    edit(folder / "config.json", vocab_size=rows)


def truncated(folder: Path) -> None:
    path = second_shard(folder)
    path.write_bytes(path.read_bytes()[:-1000])


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a missing shard": (lambda folder: second_shard(folder).unlink(), "lacks model-00002-of-00002.safetensors"),
    "a truncated shard": (truncated, "is truncated or damaged"),
    "an index that names a file outside": (outside, "in the checkpoint's own folder"),
    "only pickled weights": (only_pickled, "only pickled weights (pytorch_model.bin)"),
    "an unknown architecture": (
        lambda folder: edit(folder / "config.json", architectures=["MambaForCausalLM"]),
        "architecture MambaForCausalLM is not supported",
    ),
    "a tokenizer that does not fit": (smaller_embedding, "the model's embedding only 4095 rows"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "a template that is no template": (
        lambda folder: (folder / "chat_template.jinja").write_text("{% if %}"),
        "is not valid Jinja",
    ),
    "a tokenizer_config of another shape": (
        lambda folder: edit(folder / "tokenizer_config.json", added_tokens_decoder=3),
        "tokenizer_config.json",
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "no folder": (shutil.rmtree, "There is no folder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_checkpoint_that_cannot_work_is_refused_in_one_line(sharded: Path, tmp_path: Path, name: str) -> None:
    change, said = WRONG[name]
    folder = Path(shutil.copytree(sharded, tmp_path / "checkpoint"))
    change(folder)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)}
    command = [sys.executable, "-c", _RUN, "generate", "--model", str(folder), "hello"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("ramify generate: ") and said in done.stderr
