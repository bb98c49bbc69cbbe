"""An entry a family: where our dense decoder's parts stand in the checkpoint, and what the family adds to the plain Llama."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import ModelConfig

Windows = Callable[[Mapping[str, Any], int], tuple[int | None, ...]]


def _never(raw: Mapping[str, Any]) -> bool:
    return False


def _always(raw: Mapping[str, Any]) -> bool:
    return True


def _flag(name: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda raw: bool(raw.get(name, False))


def _no_windows(raw: Mapping[str, Any], num_layers: int) -> tuple[int | None, ...]:
    return (None,) * num_layers


def _mistral_windows(raw: Mapping[str, Any], num_layers: int) -> tuple[int | None, ...]:
    """Every layer has the window; version 0.2 and later say null."""
    return (raw.get("sliding_window", 4096),) * num_layers


def _qwen_windows(raw: Mapping[str, Any], num_layers: int) -> tuple[int | None, ...]:
    """Only with use_sliding_window; then by layer_types, or in layers max_window_layers and above."""
    window = raw.get("sliding_window", 4096) if raw.get("use_sliding_window") else None
    if window is None:
        return (None,) * num_layers
    if raw.get("layer_types"):
        return tuple(window if kind == "sliding_attention" else None for kind in raw["layer_types"])
    full = raw.get("max_window_layers", 28)
    return tuple(None if layer < full else window for layer in range(num_layers))


@dataclass(frozen=True)
class Family:
    """One architecture. The three bias questions and `windows` are asked of the raw config.json.

    `head_dim`: size of a head where config.json does not say; None: hidden size / heads.
    """

    architecture: str
    has_qkv_bias: Callable[[Mapping[str, Any]], bool] = _never
    has_o_bias: Callable[[Mapping[str, Any]], bool] = _never
    has_mlp_bias: Callable[[Mapping[str, Any]], bool] = _never
    qk_norm: bool = False
    head_dim: int | None = None
    windows: Windows = _no_windows


FAMILIES: Mapping[str, Family] = {
    family.architecture: family
    for family in (
        Family(
            "LlamaForCausalLM",
            has_qkv_bias=_flag("attention_bias"),
            has_o_bias=_flag("attention_bias"),
            has_mlp_bias=_flag("mlp_bias"),
        ),
        Family("MistralForCausalLM", windows=_mistral_windows),
        Family("Qwen2ForCausalLM", has_qkv_bias=_always, windows=_qwen_windows),
        Family(
            "Qwen3ForCausalLM",
            has_qkv_bias=_flag("attention_bias"),
            has_o_bias=_flag("attention_bias"),
            qk_norm=True,
            head_dim=128,
            windows=_qwen_windows,
        ),
    )
}


@dataclass(frozen=True)
class Part:
    """One tensor of the checkpoint: its name and shape."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """One thing of ours, made of the checkpoint's parts laid one below the other along the first axis.

    `target`: our name, such as layers.3.qkv. `linear`: it becomes a packed linear layer; otherwise a plain tensor. `biases`
    has as many parts as `weights`, or none. `embeds`: its rows are the token embeddings.
    """

    target: str
    weights: tuple[Part, ...]
    biases: tuple[Part, ...] = ()
    linear: bool = True
    embeds: bool = False


def parameters(config: ModelConfig) -> list[Parameter]:
    """All parameters of the dense decoder in order of use. With tied embeddings lm_head is both, under the embedding's name."""
    hidden, vocab = config.hidden_size, config.vocab_size
    embedding = Part("model.embed_tokens.weight", (vocab, hidden))
    tied = config.tie_embeddings
    found = [] if tied else [Parameter("embedding", (embedding,), linear=False, embeds=True)]
    for layer in range(config.num_layers):
        found += _layer_parameters(config, layer)
    found.append(Parameter("norm", (Part("model.norm.weight", (hidden,)),), linear=False))
    head = embedding if tied else Part("lm_head.weight", (vocab, hidden))
    found.append(Parameter("lm_head", (head,), embeds=tied))
    return found


def unused(config: ModelConfig, name: str) -> bool:
    """True for tensors that some checkpoints carry and nothing needs: old rotary tables, a stored copy of a tied head."""
    return name.endswith("rotary_emb.inv_freq") or (config.tie_embeddings and name == "lm_head.weight")


def _layer_parameters(config: ModelConfig, layer: int) -> list[Parameter]:
    hidden, inner = config.hidden_size, config.intermediate_size
    q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    theirs, ours = f"model.layers.{layer}", f"layers.{layer}"

    def linear(target: str, rows: Mapping[str, int], columns: int, bias: bool) -> Parameter:
        weights = tuple(Part(f"{theirs}.{name}.weight", (size, columns)) for name, size in rows.items())
        biases = tuple(Part(f"{theirs}.{name}.bias", (size,)) for name, size in rows.items())
        return Parameter(f"{ours}.{target}", weights, biases if bias else ())

    def vector(target: str, name: str, size: int) -> Parameter:
        return Parameter(f"{ours}.{target}", (Part(f"{theirs}.{name}.weight", (size,)),), linear=False)

    qkv = {"self_attn.q_proj": q_size, "self_attn.k_proj": kv_size, "self_attn.v_proj": kv_size}
    found = [
        vector("attention_norm", "input_layernorm", hidden),
        linear("qkv", qkv, hidden, config.qkv_bias),
        linear("o", {"self_attn.o_proj": hidden}, q_size, config.o_bias),
        vector("mlp_norm", "post_attention_layernorm", hidden),
        linear("gate_up", {"mlp.gate_proj": inner, "mlp.up_proj": inner}, hidden, config.mlp_bias),
        linear("down", {"mlp.down_proj": hidden}, inner, config.mlp_bias),
    ]
    if config.family.qk_norm:
        found += [
            vector("q_norm", "self_attn.q_norm", config.head_dim),
            vector("k_norm", "self_attn.k_norm", config.head_dim),
        ]
    return found
