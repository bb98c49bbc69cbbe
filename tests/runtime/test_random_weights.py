"""`load_format` dummy: a model of a real shape without its weights, for benchmarks and for trying things out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch

from ramify.runtime.async_engine import AsyncEngine, complete
from ramify.runtime.bench.checkpoints import SHAPES
from ramify.runtime.bundled import MODEL_DIR
from ramify.runtime.config import EngineOptions, validate
from ramify.runtime.errors import InvalidRequest, ModelError
from ramify.runtime.models.config import read_config
from ramify.runtime.models.spec import parameters
from ramify.runtime.models.weights import load_decoder
from ramify.runtime.protocol import GenerateRequest, greedy, tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model's folder without its weights."""
    place = tmp_path_factory.mktemp("weightless")
    for file in MODEL_DIR.iterdir():
        if file.suffix != ".safetensors":
            (place / file.name).symlink_to(file)
    return place


def generate(folder: Path, **options) -> bytes:
    async def run() -> bytes:
        said = EngineOptions(model=str(folder), device="cpu", threads=1, kv_tokens=1024, load_format="dummy", **options)
        async with await AsyncEngine.start(said, in_process=True) as engine:
            assert any("drawn at random" in line for line in engine.info.kernels)
            [sample] = await complete(engine, GenerateRequest((tokens([300, 301, 302]),), greedy(16, ignore_eos=True)))
            return sample.output_ids

    return asyncio.run(run())


def test_a_folder_without_weights_generates_and_says_the_same_on_every_start(folder: Path) -> None:
    said = generate(folder)
    assert len(said) == 4 * 16
    assert generate(folder) == said


def test_the_weights_of_a_checkpoint_that_has_some_are_not_read(folder: Path) -> None:
    assert generate(MODEL_DIR) == generate(folder)


def test_without_it_the_missing_weights_are_named(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"no \.safetensors file"):
        asyncio.run(AsyncEngine.start(EngineOptions(model=str(folder), device="cpu")))


def test_an_unknown_load_format_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"load_format 'random' is not known\. Use one of auto, dummy"):
        validate(EngineOptions(load_format="random"))


def test_weights_are_small_and_norms_lie_around_one(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    decoder = load_decoder(
        folder, device="cpu", dtype=torch.float32, load_format="dummy", progress=lambda done, total: seen.append((done, total))
    )
    norm = decoder._layers[0].mlp_norm.weight
    assert norm.mean() == pytest.approx(1.0, abs=0.01) and norm.std() == pytest.approx(0.02, rel=0.3)
    embedding = decoder._embedding(torch.arange(64))
    assert embedding.mean() == pytest.approx(0.0, abs=0.002) and embedding.std() == pytest.approx(0.02, rel=0.1)
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize("name", ["tiny", "Qwen2.5-0.5B", "Qwen3-8B"])
def test_a_shapes_tensors_are_those_that_its_configuration_asks_for(name: str, tmp_path: Path) -> None:
    """So that a shape's counts are those of the model; also where input and output embedding are two matrices."""
    shape = SHAPES[name]
    (tmp_path / "config.json").write_text(json.dumps(shape.config()))
    config = read_config(tmp_path)
    wanted = [part for one in parameters(config) for part in (*one.weights, *one.biases)]
    assert {part.name: part.shape for part in wanted} == shape.tensors()
    matrices = sum(torch.Size(part.shape).numel() for part in wanted if len(part.shape) == 2)
    assert matrices == shape.weight_parameters


def test_the_shape_of_eight_billion_has_eight_billion_parameters() -> None:
    assert SHAPES["Qwen3-8B"].weight_parameters == pytest.approx(8.19e9, rel=0.001)
    assert SHAPES["Qwen3-8B"].kv_bytes_token == 147_456
