"""Small random checkpoints of each family, written by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

SIZES: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN_ROPE = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama 2": ("Llama", {"num_key_value_heads": 4}),
    "llama 3 with rope scaling": ("Llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama with linear rope": ("Llama", {"rope_parameters": LINEAR_ROPE, "tie_word_embeddings": True}),
    "llama with yarn": ("Llama", {"rope_parameters": YARN_ROPE}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral without a window": ("Mistral", {"sliding_window": None, "head_dim": 32}),
    "mistral with a window": ("Mistral", {"sliding_window": 37}),
    "mistral with a window over tiles": ("Mistral", {"sliding_window": 300}),
    "qwen 2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen 2 with windows in its upper layers": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 29, "max_window_layers": 1},
    ),
    "qwen 3": ("Qwen3", {"head_dim": 32}),
    "qwen 3 tied": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
}


def make_model(kind: str, **changes: Any) -> transformers.PreTrainedModel:
    """The transformers model of a kind in fp32, eager attention, with lively random weights."""
    family, options = KINDS[kind]
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **options, **changes})
    config._attn_implementation = "eager"
    torch.manual_seed(7)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.5)
            elif "norm" in name:
                weight.uniform_(0.5, 1.5)
            else:
                weight.normal_(0, 0.1)
    return model


def save(model: transformers.PreTrainedModel, folder: Path, shard_size: str = "1GB") -> Path:
    """Writes config and safetensors; `shard_size` cuts the weights into shards."""
    model.save_pretrained(folder, max_shard_size=shard_size)
    return folder
