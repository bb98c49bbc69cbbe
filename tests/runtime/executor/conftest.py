"""A small random checkpoint, and executors over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from executor_steps import Steps

from ramify.runtime.config import EngineOptions
from ramify.runtime.executor.load import Loaded, load_executor


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of three layers with random weights large enough that its choices vary."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=200,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,
        eos_token_id=1,
        bos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("checkpoint")
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def load(checkpoint: Path) -> Callable[..., Loaded]:
    """An executor over the checkpoint, loaded once for each set of options."""
    made: dict[tuple, Loaded] = {}

    def loaded(dtype: str = "float32", page_size: int = 1) -> Loaded:
        if (dtype, page_size) not in made:
            options = EngineOptions(
                model=str(checkpoint), device="cpu", dtype=dtype, page_size=page_size, kv_tokens=4096, max_running=40, threads=1
            )
            made[dtype, page_size] = load_executor(options)
        return made[dtype, page_size]

    return loaded


@pytest.fixture
def steps(load: Callable[..., Loaded]) -> Callable[..., Steps]:
    """`Steps` over a poisoned pool: steps(dtype="float32", page_size=1)."""
    return lambda dtype="float32", page_size=1: Steps(load(dtype, page_size).executor)
