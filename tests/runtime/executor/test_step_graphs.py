"""Steps of few tokens by graphs are those of the plain way: packets, padding, plans of attention, sharing.

Runs where Triton's kernels run: on a GPU, which records real graphs, or in Triton's interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from executor_steps import Steps, Want

from ramify.kernels.table import choose
from ramify.runtime.executor.executor import TorchExecutor
from ramify.runtime.executor.graphs import CudaRecorder, Recorder, record_nothing, sizes
from ramify.runtime.executor.kv_pool import KVPool
from ramify.runtime.models.check import check_checkpoint
from ramify.runtime.models.spec import parameters
from ramify.runtime.models.weights import Assembly, stream

ON_CUDA = torch.cuda.is_available()
needs_triton = pytest.mark.skipif(
    not ON_CUDA and os.environ.get("TRITON_INTERPRET") != "1", reason="no NVIDIA GPU here, and not in Triton's interpreter"
)
DEVICE = torch.device("cuda" if ON_CUDA else "cpu")


def _executor(checkpoint: Path, record: Recorder | None, page_size: int = 4, rows: int = 11) -> Steps:
    """fp32, with Triton's attention whatever the device."""
    from ramify.kernels.attention.triton_impl import TritonAttention

    kernels = choose(DEVICE, torch.float32)
    kernels = replace(kernels, attention=lambda spec: TritonAttention(spec, DEVICE))
    config, files = check_checkpoint(checkpoint)
    with torch.inference_mode():
        loaded = Assembly(parameters(config), kernels)
        stream(files, loaded, None)
        decoder = loaded.decoder(config, max_positions=512)
    pool = KVPool(decoder.kv_spec, num_pages=400, page_size=page_size, device=DEVICE, copy=kernels.kv_copy_pages)
    executor = TorchExecutor(decoder, pool=pool, max_rows=rows, context_length=128, record=record, graph_tokens=16)
    executor.warm(lambda done, total: None)
    return Steps(executor)


def _decoded(run: Steps, rows: int, steps: int) -> list[list[int]]:
    """Prompts that share the pages of their first 24 tokens; then tokens that only the device knows."""
    rng = np.random.default_rng(rows)
    common = rng.integers(2, 200, 24).tolist()
    prompts = [common + rng.integers(2, 200, 3 + row).tolist() for row in range(rows)]
    for row in range(rows):
        run.enter(row)
    run.run([(0, 0, common)], [])
    shared = np.array(run.pages[0], np.int32)
    for row in range(1, rows):
        run.pages[row] = shared.tolist()
        run.executor.table.write_pages(np.full_like(shared, row), np.arange(len(shared), dtype=np.int32), shared)
    spans = [(row, 24, prompt[24:]) for row, prompt in enumerate(prompts)]
    drawn = [run.run(spans, [Want(row, len(prompt) - 25) for row, prompt in enumerate(prompts)]).tokens.tolist()]
    for step in range(steps):
        spans = [(row, len(prompt) + step, [-1]) for row, prompt in enumerate(prompts)]
        drawn.append(run.run(spans, [Want(row, 0) for row in range(rows)]).tokens.tolist())
    return drawn


@needs_triton
@pytest.mark.parametrize("rows", [1, 3, 11] if ON_CUDA else [5])
def test_a_step_by_a_graph_draws_the_tokens_of_the_plain_way(checkpoint: Path, rows: int) -> None:
    record = CudaRecorder(DEVICE) if ON_CUDA else record_nothing
    assert _decoded(_executor(checkpoint, record), rows, 2) == _decoded(_executor(checkpoint, None), rows, 2)


def test_there_is_a_graph_for_every_number_of_rows_and_none_is_larger_than_the_table() -> None:
    for most in (1, 3, 64, 100, 256, 300, 1000):
        found = sizes(most)
        assert found == sorted(set(found)) and found[-1] == most
        assert all(any(rows <= size <= max(rows * 2, rows + 64) for size in found) for rows in range(1, most + 1))
