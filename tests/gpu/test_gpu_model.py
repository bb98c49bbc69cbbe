"""A whole model's logits on a GPU: fp32 as on the CPU, bf16 as far from it as bf16 is; and random weights drawn there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from stepped_engine import free, prompts

from ramify.kernels.attention.interface import AttentionIndex
from ramify.runtime.bench.checkpoints import SHAPES
from ramify.runtime.bundled import MODEL_DIR
from ramify.runtime.models.decoder import Decoder
from ramify.runtime.models.weights import load_decoder

NEAR = {"float32": 1e-4, "bfloat16": 3e-2}
"""Norm of the difference over the norm of the log-probabilities; bf16 rounds each number by up to 2**-9."""
PAGE = 16


class Pools:
    """K and V of one sequence, which has all pages in order. Layers follow one another, so one pool is enough."""

    def __init__(self, decoder: Decoder, tokens: int):
        spec = decoder.kv_spec
        self._pools = [torch.zeros(spec.pool_shape(tokens), dtype=spec.dtype, device=decoder.device) for _ in range(2)]

    def layer(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._pools[0], self._pools[1]


@pytest.fixture(autouse=True)
def _freed() -> Iterator[None]:
    yield
    free()


def of(folder: Path, device: str, dtype: str, ids: list[int], **more: str) -> torch.Tensor:
    """Log-probabilities at all positions of one prompt, computed in one piece: [tokens, vocabulary], on the CPU, in fp32."""
    decoder = load_decoder(folder, device=device, dtype=getattr(torch, dtype), **more)
    pages = -(-len(ids) // PAGE)
    one = np.array([0], np.int32)
    index = AttentionIndex(
        query_start=one,
        query_length=np.array([len(ids)], np.int32),
        start=one,
        row=one,
        page_table=torch.arange(pages, dtype=torch.int32, device=device)[None],
        page_size=PAGE,
    )
    every = torch.arange(len(ids), device=device)
    logits = decoder.forward(
        torch.tensor(ids, device=device),
        every,
        kv=Pools(decoder, pages * PAGE),
        slots=every,
        attention_plan=decoder.plan_attention(index),
        logit_rows=every,
    )
    return logits.float().log_softmax(-1).cpu()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_are_near_those_of_fp32_on_the_cpu(device: str, dtype: str) -> None:
    ids = [token for prompt in prompts()[3:9] for token in prompt.tolist()]
    reference = of(MODEL_DIR, "cpu", "float32", ids)
    found = of(MODEL_DIR, device, dtype, ids)
    assert (found - reference).norm() / reference.norm() < NEAR[dtype]
    agree = (found.argmax(-1) == reference.argmax(-1)).float().mean()
    assert agree > (0.999 if dtype == "float32" else 0.9)


def test_random_weights_are_the_same_on_every_start(device: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPES["tiny"].config()))
    ids = list(range(10, 60))
    first, again = (of(tmp_path, device, "bfloat16", ids, load_format="dummy") for _ in range(2))
    assert torch.equal(first, again) and first.isfinite().all()
