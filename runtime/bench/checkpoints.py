"""Checkpoints of real shapes with random weights, and a trained byte-level BPE tokenizer: made once from a seed, then kept.

What a benchmark measures does not depend on what the weights say, so none need to be downloaded. Written directly: config.json,
bf16 safetensors, tokenizer.json and a ChatML template, as every engine here loads them.
"""

from __future__ import annotations

import json
import os
import shutil
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEED = 0
END_OF_TEXT, TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TOKENIZER_SIZE = 8192
"""Tokens that are trained at most; the model's further ids spell nothing."""
LARGE_VOCABULARY = 128_000
"""Tokens of the vocabulary that a constraint's masks are measured over: as many as large models have."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a model. heads: of queries and of keys and values. tied: input and output embedding are one matrix."""

    name: str
    architecture: str
    hidden: int
    layers: int
    heads: tuple[int, int]
    head_dim: int
    ffn: int
    vocab: int
    positions: int
    theta: float
    eps: float = 1e-6
    qkv_bias: bool = False
    qk_norm: bool = False
    tied: bool = True
    rope: dict[str, Any] = field(default_factory=lambda: {"rope_type": "default"})

    @property
    def layer_parameters(self) -> int:
        """Of all layers together: what every token is multiplied with, the vocabulary apart."""
        return sum(rows * columns for rows, columns in self.matrices().values()) * self.layers

    @property
    def vocab_parameters(self) -> int:
        """Of the output embedding: what a token whose logits are wanted is multiplied with."""
        return self.vocab * self.hidden

    @property
    def weight_parameters(self) -> int:
        """Of all matrices that are kept: layers, and one embedding or two."""
        return self.layer_parameters + self.vocab_parameters * (1 if self.tied else 2)

    @property
    def kv_bytes_token(self) -> int:
        """bf16 K and V of one token in all layers."""
        return 2 * self.layers * self.heads[1] * self.head_dim * 2

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Name within a layer -> rows and columns."""
        q, kv = self.heads[0] * self.head_dim, self.heads[1] * self.head_dim
        return {
            "self_attn.q_proj": (q, self.hidden),
            "self_attn.k_proj": (kv, self.hidden),
            "self_attn.v_proj": (kv, self.hidden),
            "self_attn.o_proj": (self.hidden, q),
            "mlp.gate_proj": (self.ffn, self.hidden),
            "mlp.up_proj": (self.ffn, self.hidden),
            "mlp.down_proj": (self.hidden, self.ffn),
        }

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every name of the checkpoint -> its shape."""
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, self.hidden)}
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            for name, shape in self.matrices().items():
                found[f"{at}{name}.weight"] = shape
                if self.qkv_bias and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                    found[f"{at}{name}.bias"] = shape[:1]
            for name in ("input_layernorm", "post_attention_layernorm"):
                found[f"{at}{name}.weight"] = (self.hidden,)
            if self.qk_norm:
                found |= {f"{at}self_attn.{name}.weight": (self.head_dim,) for name in ("q_norm", "k_norm")}
        found["model.norm.weight"] = (self.hidden,)
        if not self.tied:
            found["lm_head.weight"] = (self.vocab, self.hidden)
        return found

    def config(self) -> dict[str, Any]:
        """config.json."""
        return {
            "architectures": [self.architecture],
            "model_type": self.architecture.removesuffix("ForCausalLM").lower(),
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads[0],
            "num_key_value_heads": self.heads[1],
            "head_dim": self.head_dim,
            "max_position_embeddings": self.positions,
            "rms_norm_eps": self.eps,
            "hidden_act": "silu",
            "rope_theta": self.theta,
            "rope_parameters": {"rope_theta": self.theta, **self.rope},
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "tie_word_embeddings": self.tied,
            "torch_dtype": "bfloat16",
            "bos_token_id": None,
            "eos_token_id": 2,
            "pad_token_id": 0,
        }


_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SHAPES = {
    one.name: one
    for one in (
        Shape("tiny", "Qwen3ForCausalLM", 128, 2, (4, 2), 64, 256, 2048, 40_960, 1e6, qk_norm=True),
        Shape("Qwen2.5-0.5B", "Qwen2ForCausalLM", 896, 24, (14, 2), 64, 4864, 151_936, 32_768, 1e6, qkv_bias=True),
        Shape("Qwen3-0.6B", "Qwen3ForCausalLM", 1024, 28, (16, 8), 128, 3072, 151_936, 40_960, 1e6, qk_norm=True),
        Shape("Qwen3-8B", "Qwen3ForCausalLM", 4096, 36, (32, 8), 128, 12_288, 151_936, 40_960, 1e6, qk_norm=True, tied=False),
        Shape("Llama-3.2-1B", "LlamaForCausalLM", 2048, 16, (32, 8), 64, 8192, 128_256, 131_072, 5e5, 1e-5, rope=_LLAMA3),
    )
}
"""By name. `tiny` is for tests and `--quick`; the others have the sizes of the models whose names they bear."""


def make(shape: Shape, folder: Path, *, seed: int = SEED) -> Path:
    """The checkpoint's folder below `folder`, made if it is missing (one to five seconds for each billion bytes, and tens
    of seconds for the first tokenizer). The same seed gives the same bytes."""
    place = folder / f"{shape.name.lower()}-random-{seed}"
    if (place / "config.json").exists():
        return place
    unfinished = folder / f".{place.name}.{os.getpid()}"
    unfinished.mkdir(parents=True, exist_ok=True)
    _write_weights(shape, unfinished / "model.safetensors", seed)
    _write_texts(shape, unfinished, min(TOKENIZER_SIZE, shape.vocab), kept=folder)
    if place.exists():
        shutil.rmtree(place)
    unfinished.rename(place)
    return place


def without_weights(shape: Shape, folder: Path, *, tokens: int = TOKENIZER_SIZE) -> Path:
    """A folder for `load_format` dummy: config and tokenizer, of at most `tokens` tokens. Made below `folder` if missing."""
    size = min(tokens, shape.vocab)
    place = folder / f"{shape.name.lower()}-dummy-{size}"
    if not (place / "config.json").exists():
        unfinished = folder / f".{place.name}.{os.getpid()}"
        unfinished.mkdir(parents=True, exist_ok=True)
        _write_texts(shape, unfinished, size, kept=folder)
        shutil.rmtree(place, ignore_errors=True)
        unfinished.rename(place)
    return place


def with_large_vocabulary(place: Path, shape: Shape) -> Path:
    """A checkpoint with the same weights and another tokenizer, of `LARGE_VOCABULARY` tokens, trained on the Python sources of
    the packages that are installed here (a minute, once). Its folder, made if it is missing."""
    other = place.with_name(f"{place.name}-{LARGE_VOCABULARY // 1000}k")
    if (other / "config.json").exists():
        return other
    unfinished = other.with_name(f".{other.name}.{os.getpid()}")
    unfinished.mkdir(parents=True, exist_ok=True)
    os.link(place / "model.safetensors", unfinished / "model.safetensors")
    _write_tokenizer(unfinished, LARGE_VOCABULARY, shape.positions, kept=place.parent)
    for name in ("generation_config.json", "config.json"):
        shutil.copyfile(place / name, unfinished / name)
    if other.exists():
        shutil.rmtree(other)
    unfinished.rename(other)
    return other


def _sources() -> Iterator[str]:
    """Texts of installed packages, 64 million bytes at most, in an order that does not depend on the file system."""
    left = 64 << 20
    for file in sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py")):
        text = file.read_text(encoding="utf-8", errors="replace")
        left -= len(text)
        if left < 0:
            return
        yield text


def _bundled_texts() -> Iterator[str]:
    """What the bundled model was trained on."""
    from ..bundled.corpus import training_text

    draw = training_text(0)
    return ("".join(text for text, _ in draw()) for _ in range(4_000))


def _write_texts(shape: Shape, folder: Path, tokens: int, *, kept: Path) -> None:
    """All of a checkpoint but its weights; config.json, by which a folder is known to be whole, comes last."""
    _write_tokenizer(folder, tokens, shape.positions, kept=kept)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "pad_token_id": 0}) + "\n")
    (folder / "config.json").write_text(json.dumps(shape.config(), indent=2) + "\n")


def _write_weights(shape: Shape, file: Path, seed: int) -> None:
    """Normal with a deviation of 0.02; the norms' weights around 1. Each tensor is drawn by its own name."""
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for name, size in shape.tensors().items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        drawn = torch.empty(size, dtype=torch.float32).normal_(0.0, 0.02, generator=generator)
        tensors[name] = (drawn + 1 if "norm" in name else drawn).to(torch.bfloat16)
    save_file(tensors, file, {"format": "pt"})


def tokenizer_file(size: int, kept: Path) -> Path:
    """The tokenizer.json of `size` tokens in the folder `kept`, trained if it is missing: up to `TOKENIZER_SIZE` of them on the
    bundled model's texts (tens of seconds), more on the Python sources of the packages that are installed here (a minute)."""
    trained = kept / f"tokenizer-{size}.json"
    if not trained.exists():
        unfinished = trained.with_suffix(f".{os.getpid()}")
        _train(size, _bundled_texts() if size <= TOKENIZER_SIZE else _sources()).save(str(unfinished))
        unfinished.rename(trained)
    return trained


def _write_tokenizer(folder: Path, size: int, positions: int, *, kept: Path) -> None:
    """tokenizer.json (trained once for each size, then copied), its config and the chat template."""
    shutil.copyfile(tokenizer_file(size, kept), folder / "tokenizer.json")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": positions,
        "clean_up_tokenization_spaces": False,
        "bos_token": None,
        "eos_token": END_OF_TURN,
        "pad_token": END_OF_TEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE)


def _train(size: int, texts: Iterator[str]) -> Any:
    """Byte-level BPE of up to `size` tokens; ids 0 to 2 are the control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT, TURN, END_OF_TURN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
