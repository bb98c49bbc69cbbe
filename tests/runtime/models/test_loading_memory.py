"""Loading needs the memory of the model and of one shard, packing included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

_MEASURE = """
import json, sys
from pathlib import Path
import torch
from ramify.runtime.models.weights import load_decoder
from ramify.kernels.table import choose
import safetensors.torch

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

torch.set_num_threads(1)
choose("cpu", torch.bfloat16).linear(torch.zeros(64, 64, dtype=torch.bfloat16))
before = status("VmRSS")
decoder = load_decoder(Path(sys.argv[1]), device="cpu", dtype=torch.bfloat16)
print(json.dumps({"peak": status("VmHWM") - before, "after": status("VmRSS") - before}))
"""


def write_checkpoint(folder: Path, *, layers: int, hidden: int, inner: int, vocab: int, shards: int, tied: bool) -> int:
    """A random Llama in bf16, cut into shards of about equal size; returns its bytes. Nothing of it stays in memory."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(layers):
        name = f"model.layers.{layer}"
        shapes |= {f"{name}.self_attn.{part}_proj.weight": (hidden, hidden) for part in "qkvo"}
        shapes |= {f"{name}.mlp.{part}_proj.weight": (inner, hidden) for part in ("gate", "up")}
        shapes |= {f"{name}.mlp.down_proj.weight": (hidden, inner)}
        shapes |= {f"{name}.{part}_layernorm.weight": (hidden,) for part in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (hidden,)} | ({} if tied else {"lm_head.weight": (vocab, hidden)})
    total = 2 * sum(torch.Size(shape).numel() for shape in shapes.values())
    weight_map: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    number = 1
    *_, final = shapes
    for name, shape in shapes.items():
        shard[name] = torch.zeros(shape, dtype=torch.bfloat16).uniform_(-0.05, 0.05)
        weight_map[name] = f"model-{number:05d}-of-{shards:05d}.safetensors"
        if name == final or (number < shards and 2 * sum(t.numel() for t in shard.values()) >= total // shards):
            save_file(shard, folder / weight_map[name])
            shard = {}
            number += 1
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": tied,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return total


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("tied", "vocab"), [(False, 48_000), (True, 96_000)], ids=["head apart", "head tied"])
def test_a_checkpoint_of_1_gb_in_four_shards_loads_in_its_size_plus_one_shard_plus_100_mb(
    tmp_path: Path, tied: bool, vocab: int
) -> None:
    model = write_checkpoint(tmp_path, layers=24, hidden=1024, inner=4096, vocab=vocab, shards=4, tied=tied)
    largest = max(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    measured = json.loads(result.stdout)
    print({name: f"{size / 1e6:.0f} MB" for name, size in {"model": model, "largest shard": largest, **measured}.items()})
    assert model > 0.9e9
    assert measured["peak"] <= model + largest + 100e6
