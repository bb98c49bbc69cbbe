"""A checkpoint folder's config.json and generation_config.json -> `ModelConfig`, or a refusal that says what is not built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .spec import FAMILIES, Family

_MOST = 2**31 - 1
_MOST_LAYERS = 10_000
_LAYER_TYPES = ("full_attention", "sliding_attention")
_SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class RopeConfig:
    """Rotary embedding: base `theta` and how its frequencies are scaled. `kind`: default, linear, llama3 or yarn.

    `options` holds the numbers of the scaling under the checkpoint's own names (factor, low_freq_factor, ...).
    """

    kind: str
    theta: float
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of a dense decoder and what its checkpoint says about its use.

    `windows`: per layer, the number of positions a query sees (itself included), or None for all. `eos_ids` come from
    config.json and generation_config.json together. `sampling_defaults`: generation_config.json's own, by protocol names.
    `dtype`: the checkpoint's (float32, bfloat16 or float16), None if it does not say.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    rope: RopeConfig
    max_positions: int
    tie_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    windows: tuple[int | None, ...]
    eos_ids: tuple[int, ...]
    bos_id: int | None
    sampling_defaults: Mapping[str, float]
    dtype: str | None

    @property
    def architecture(self) -> str:
        """The checkpoint's word for the model's class, such as Qwen3ForCausalLM."""
        return self.family.architecture


def read_config(folder: Path) -> ModelConfig:
    """Reads the folder's config files. Raises ModelError if one is missing, malformed, or asks for what is not built."""
    raw = _Fields(folder / "config.json", _read_json(folder / "config.json", required=True))
    generation = _read_json(folder / "generation_config.json", required=False)
    family = _family(raw)
    if raw.get("quantization_config") is not None:
        raise ModelError(f"{raw.path}: this checkpoint is quantized, which is not supported. Use its unquantized form.")
    if raw.get("hidden_act", "silu") != "silu":
        raise ModelError(f"{raw.path}: hidden_act is {raw.get('hidden_act')!r}; only 'silu' is supported.")
    hidden_size, num_heads = raw.count("hidden_size"), raw.count("num_attention_heads")
    num_layers = raw.count("num_hidden_layers")
    if num_layers > _MOST_LAYERS:
        raise ModelError(f"{raw.path}: num_hidden_layers is {num_layers}; at most {_MOST_LAYERS} are taken.")
    head_dim = raw.count("head_dim", family.head_dim or hidden_size // num_heads)
    num_kv_heads = raw.count("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads or head_dim % 2:
        raise ModelError(
            f"{raw.path}: {num_heads} attention heads of size {head_dim} over {num_kv_heads} key/value heads do not fit: the "
            "heads must divide evenly and their size must be even."
        )
    max_positions = raw.count("max_position_embeddings", 2048)
    vocab_size = raw.count("vocab_size")
    return ModelConfig(
        family=family,
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=raw.count("intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        norm_eps=raw.number("rms_norm_eps", 1e-6),
        rope=_rope(raw),
        max_positions=max_positions,
        tie_embeddings=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=family.has_qkv_bias(raw.values),
        o_bias=family.has_o_bias(raw.values),
        mlp_bias=family.has_mlp_bias(raw.values),
        windows=_windows(raw, family, num_layers, max_positions),
        eos_ids=_token_ids(raw, [raw.get("eos_token_id"), generation.get("eos_token_id")], vocab_size),
        bos_id=next(iter(_token_ids(raw, [raw.get("bos_token_id")], vocab_size)), None),
        sampling_defaults={name: generation[name] for name in _SAMPLING_FIELDS if isinstance(generation.get(name), (int, float))},
        dtype=_dtype(raw),
    )


def check_tokenizer(config: ModelConfig, tokenizer_size: int) -> None:
    """Raises ModelError if the tokenizer can produce ids (0 ... tokenizer_size - 1) that have no row in the embedding."""
    if tokenizer_size > config.vocab_size:
        raise ModelError(
            f"The tokenizer has {tokenizer_size} tokens but the model's embedding only {config.vocab_size} rows. They do not "
            "belong together: take tokenizer.json from the same checkpoint, or one whose embedding was resized."
        )


@dataclass(frozen=True)
class _Fields:
    """A JSON object and the file it came from, for messages."""

    path: Path
    values: dict[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def count(self, name: str, default: int | None = None) -> int:
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
            raise ModelError(f"{self.path}: {name} is {value!r}, but must be a whole number from 1 to {_MOST}.")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.values.get(name)
        value = default if value is None else value
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ModelError(f"{self.path}: {name} is {value!r}, but must be a number.")
        return float(value)


def _read_json(path: Path, *, required: bool) -> dict[str, Any]:
    if not path.is_file():
        if not required:
            return {}
        raise ModelError(f"{path.parent} has no {path.name}. Name the folder of a Hugging Face checkpoint.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable JSON ({error}). Download it again.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds a {type(values).__name__}, not an object. Download it again.")
    return values


def _family(raw: _Fields) -> Family:
    said = raw.get("architectures") or []
    named = [name for name in said if isinstance(name, str)] if isinstance(said, list) else [str(said)]
    for name in named:
        if name in FAMILIES:
            return FAMILIES[name]
    said = ", ".join(named) or "none"
    raise ModelError(f"{raw.path}: architecture {said} is not supported. Supported: {', '.join(sorted(FAMILIES))}.")


def _rope(raw: _Fields) -> RopeConfig:
    """Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before)."""
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise ModelError(f"{raw.path}: the rotary parameters are {scaling!r}, but must be an object.")
    scaling = dict(scaling)
    if any(isinstance(value, dict) for value in scaling.values()):
        raise ModelError(f"{raw.path}: rotary parameters per layer type are not supported.")
    kind = scaling.pop("rope_type", None) or scaling.pop("type", None) or "default"
    scaling.pop("type", None)
    inner = _Fields(raw.path, {name: scaling.pop(name, None) for name in ("rope_theta", "partial_rotary_factor")})
    theta = inner.number("rope_theta", raw.number("rope_theta", 10000.0))
    if inner.number("partial_rotary_factor", raw.number("partial_rotary_factor", 1.0)) != 1.0:
        raise ModelError(f"{raw.path}: partial rotary embedding is not supported.")
    needs = {
        "default": (),
        "linear": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
        "yarn": ("factor", "original_max_position_embeddings"),
    }
    if not isinstance(kind, str) or kind not in needs:
        raise ModelError(f"{raw.path}: rope type {kind!r} is not supported. Supported: {', '.join(needs)}.")
    if kind == "yarn":
        scaling.setdefault("original_max_position_embeddings", raw.get("max_position_embeddings"))
    missing = [name for name in needs[kind] if not isinstance(scaling.get(name), (int, float))]
    if missing:
        raise ModelError(f"{raw.path}: rope type {kind!r} needs numbers for {', '.join(missing)}.")
    options = {name: value for name, value in scaling.items() if isinstance(value, (int, float))}
    return RopeConfig(kind, theta, options if kind != "default" else {})


def _windows(raw: _Fields, family: Family, num_layers: int, max_positions: int) -> tuple[int | None, ...]:
    """Windows as wide as the context never hide anything and count as None."""
    kinds = raw.get("layer_types") or []
    unknown = [kind for kind in kinds if kind not in _LAYER_TYPES] if isinstance(kinds, list) else [kinds]
    if unknown:
        raise ModelError(f"{raw.path}: layer type {unknown[0]!r} is not supported. Supported: {', '.join(_LAYER_TYPES)}.")
    try:
        windows = family.windows(raw.values, num_layers)
    except TypeError as error:
        raise ModelError(f"{raw.path}: max_window_layers is {raw.get('max_window_layers')!r}, but must be a number.") from error
    if len(windows) != num_layers:
        raise ModelError(f"{raw.path}: layer_types has {len(windows)} entries for {num_layers} layers.")
    for window in windows:
        if window is not None and (not isinstance(window, int) or window < 1):
            raise ModelError(f"{raw.path}: sliding_window is {window!r}, but must be a whole number of at least 1.")
    return tuple(None if window is None or window >= max_positions else window for window in windows)


def _token_ids(raw: _Fields, said: list[Any], vocab_size: int) -> tuple[int, ...]:
    ids: list[int] = []
    for value in said:
        for token_id in value if isinstance(value, list) else [value]:
            if token_id is None or token_id in ids:
                continue
            if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id < vocab_size:
                raise ModelError(
                    f"{raw.path.parent}: config or generation_config names token id {token_id!r}, but the vocabulary has "
                    f"{vocab_size} ids. Correct eos_token_id and bos_token_id."
                )
            ids.append(token_id)
    return tuple(ids)


def _dtype(raw: _Fields) -> str | None:
    said = raw.get("dtype") or raw.get("torch_dtype")
    return str(said).removeprefix("torch.") if said is not None else None
