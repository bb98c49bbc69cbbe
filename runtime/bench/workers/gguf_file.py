"""A checkpoint folder's weights as a GGUF file, every matrix in one type. Runs in llama.cpp's environment.

The file holds no vocabulary: the benchmarks speak in token ids.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import math
import os
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open

ARCHITECTURES = {
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
}
TYPES = {
    "F32": gguf.GGMLQuantizationType.F32,
    "BF16": gguf.GGMLQuantizationType.BF16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
}


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k in the order in which llama.cpp rotates a Llama's: pairs beside each other, not half a head apart."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def llama3_factors(config: dict, rope: dict, head_dim: int) -> np.ndarray:
    """Divisors of the rotary frequencies that a Llama 3.1 or later asks for."""
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    original = rope["original_max_position_embeddings"]
    wave = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = (original / wave - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    return np.where(wave < original / high, 1.0, np.where(wave > original / low, factor, between)).astype(np.float32)


def write(folder: Path, kind: str) -> Path:
    """The file for `kind` beside the checkpoint's, made where it is missing or older than the weights."""
    place = folder / f"model.{kind}.gguf"
    weights = folder / "model.safetensors"
    if place.exists() and place.stat().st_mtime >= weights.stat().st_mtime:
        return place
    config = json.loads((folder / "config.json").read_text())
    [name] = config["architectures"]
    arch = ARCHITECTURES[name]
    unfinished = place.with_suffix(f".{os.getpid()}")
    writer = gguf.GGUFWriter(str(unfinished), gguf.MODEL_ARCH_NAMES[arch])
    _header(writer, config, arch)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    with safe_open(weights, "pt") as file:
        for original in file.keys():
            value = file.get_tensor(original).to(torch.float32).numpy()
            if arch == gguf.MODEL_ARCH.LLAMA and ".q_proj." in original:
                value = interleaved(value, config["num_attention_heads"])
            if arch == gguf.MODEL_ARCH.LLAMA and ".k_proj." in original:
                value = interleaved(value, config["num_key_value_heads"])
            mapped = names.get_name(original, try_suffixes=(".weight", ".bias"))
            assert mapped is not None, original
            if value.ndim == 1:
                writer.add_tensor(mapped, value)
            else:
                writer.add_tensor(mapped, gguf.quants.quantize(value, TYPES[kind]), raw_dtype=TYPES[kind])
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config, rope, config["head_dim"]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(place)
    return place


def _header(writer: gguf.GGUFWriter, config: dict, arch: gguf.MODEL_ARCH) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    if arch == gguf.MODEL_ARCH.LLAMA:
        writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
