"""A row's logits have the same bits in every company: a cache, a chunk size or a batch changes speed, never results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from paged_harness import Paged
from tiny_checkpoints import make_model, save

from ramify.kernels.native import load
from ramify.runtime.config import kernel_cache
from ramify.runtime.models.decoder import Decoder
from ramify.runtime.models.weights import load_decoder

LENGTH = 290
"""More than one tile."""


@pytest.fixture(scope="module", params=["llama 2", "mistral with a window", "qwen 2", "qwen 3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make_model(request.param), tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def decoder(request: pytest.FixtureRequest, folder: Path) -> Decoder:
    return load_decoder(folder, device="cpu", dtype=request.param, native=load(kernel_cache()))


def ids_of(count: int, seed: int) -> list[int]:
    return torch.randint(3, 160, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_whole_equals_chunks_and_page_sizes(decoder: Decoder) -> None:
    ids = ids_of(LENGTH, seed=0)
    _, whole = Paged(decoder).prefill(ids)
    assert not whole.isnan().any()
    for chunk, page_size in ((1, 16), (7, 1), (64, 16), (None, 16)):
        _, logits = Paged(decoder, page_size=page_size).prefill(ids, chunk)
        assert torch.equal(logits, whole), (chunk, page_size)


def test_alone_equals_in_a_batch_of_32_with_a_chunk_beside(decoder: Decoder) -> None:
    prompts = [ids_of(5 + 9 * number, seed=number) for number in range(32)]
    alone = [Paged(decoder).prefill(prompt)[1] for prompt in prompts]
    paged = Paged(decoder, page_size=16)
    streams = [paged.stream() for _ in prompts]
    paged.step([(stream, prompt[:-1]) for stream, prompt in zip(streams, prompts, strict=True)])
    beside = (paged.stream(), ids_of(100, seed=99))
    spans = [(stream, prompt[-1:]) for stream, prompt in zip(streams, prompts, strict=True)]
    together = paged.step([*spans[:10], beside, *spans[10:]], "last")
    del together[10]
    for expected, logits in zip(alone, together, strict=True):
        assert torch.equal(expected[-1], logits[0])


def test_only_the_wanted_rows_come_back_in_the_order_asked(decoder: Decoder) -> None:
    ids = ids_of(20, seed=5)
    paged = Paged(decoder)
    stream = paged.stream()
    every = paged.step([(stream, ids)])[0]
    again = Paged(decoder)
    last = again.step([(again.stream(), ids)], "last")[0]
    assert torch.equal(last[0], every[-1])
