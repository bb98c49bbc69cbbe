"""From options to an executor: what is resolved, what is reported, and what is refused before weights are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ramify.runtime.config import EngineOptions
from ramify.runtime.errors import InvalidRequest, ModelError, ModelNotFound
from ramify.runtime.executor.load import load_executor
from ramify.runtime.executor.memory import count_weights
from ramify.runtime.models.config import read_config


def test_what_was_loaded_is_told(checkpoint: Path) -> None:
    phases: list[tuple[str, float]] = []
    options = EngineOptions(
        model=str(checkpoint),
        device="cpu",
        dtype="bf16",
        kv_tokens=320,
        page_size=16,
        context_length=256,
        max_running=3,
        threads=1,
    )
    loaded = load_executor(options, tokenizer_size=200, progress=lambda phase, share: phases.append((phase, share)))
    assert (loaded.config.dtype, loaded.config.cache.num_pages, loaded.config.schedule.max_running) == ("bfloat16", 20, 3)
    assert loaded.kv_bytes == 320 * 3 * 2 * 2 * 16 * 2
    assert loaded.executor.table.page_table.shape == (3, 16)
    assert loaded.executor.pool.layer(2)[1].shape == (320 + 16, 2, 16), "a page more, that no sequence ever has"
    assert loaded.executor.pool.layer(0)[0].dtype == torch.bfloat16
    assert len(loaded.kernels) >= 2 and loaded.load_s > 0 and loaded.folder == checkpoint
    assert phases[0] == ("weights", 0.0) and ("weights", 1.0) in phases and phases[-1] == ("KV pool", 1.0)


def test_parameters_are_counted_as_transformers_counts_them(checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert count_weights(read_config(checkpoint)) == AutoModelForCausalLM.from_pretrained(checkpoint).num_parameters()


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"context_length": 10_000}, InvalidRequest),
        ({"dtype": "int3"}, InvalidRequest),
        ({"kv_tokens": 3}, InvalidRequest),
        ({"model": "/no/such/folder"}, ModelNotFound),
    ],
)
def test_what_cannot_work_is_refused_before_weights_are_read(checkpoint: Path, wrong: dict, kind: type[Exception]) -> None:
    phases: list[str] = []
    options = EngineOptions(**{"model": str(checkpoint), "device": "cpu", "threads": 1, **wrong})
    with pytest.raises(kind):
        load_executor(options, progress=lambda phase, share: phases.append(phase))
    assert not phases


def test_a_tokenizer_that_is_too_large_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ModelError, match="201 tokens"):
        load_executor(EngineOptions(model=str(checkpoint), device="cpu"), tokenizer_size=201)


def test_a_folder_without_weights_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint / "config.json", tmp_path)
    with pytest.raises(ModelError, match="safetensors"):
        load_executor(EngineOptions(model=str(tmp_path), device="cpu", threads=1))


def test_a_pool_beyond_the_address_space_is_refused_with_its_size(checkpoint: Path) -> None:
    options = EngineOptions(model=str(checkpoint), device="cpu", kv_tokens=1 << 44, threads=1)
    with pytest.raises(InvalidRequest, match=f"{1 << 44} tokens"):
        load_executor(options)


def test_a_large_pool_takes_memory_only_as_it_is_used(checkpoint: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")
    before = resident()
    options = EngineOptions(model=str(checkpoint), device="cpu", kv_tokens=1 << 20, threads=1)
    loaded = load_executor(options)
    assert loaded.kv_bytes > 350 << 20
    assert resident() - before < loaded.kv_bytes // 4
