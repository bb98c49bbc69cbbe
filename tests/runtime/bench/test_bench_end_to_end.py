"""A scenario against transformers on a tiny checkpoint, as `ramify bench NAME --quick` runs it, and the engines' agreement."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ramify.runtime.bench import exactness, single
from ramify.runtime.bench.adapters.base import Generate, Run, Score, needs
from ramify.runtime.bench.adapters.choose import choose
from ramify.runtime.bench.adapters.worker import WORKERS
from ramify.runtime.bench.checkpoints import SHAPES, make
from ramify.runtime.bench.scenario import Setting
from ramify.runtime.bench.scoring import CHOICES, spelled
from ramify.runtime.bench.work import shared

TINY = SHAPES["tiny"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def test_a_quick_scenario_runs_from_the_command_to_its_result(folder: Path, tmp_path: Path, capfd) -> None:
    words = ["--quick", "--repeats", "1", "--only", "first token", "--folder", str(folder), "--out", str(tmp_path)]
    assert single.main([*words, "--against", "transformers,vllm", "--peers", str(tmp_path / "none"), "--threads", "1"]) == 0
    result = json.loads((tmp_path / "single.json").read_text())
    assert capfd.readouterr().out.splitlines()[-1] == json.dumps(result)
    assert list(result["engines"]) == ["ramify", "transformers"] and "make peers" in result["skipped"]["vllm"]
    [line] = result["cases"]
    assert all(one["median"] > one["bound"] > 0 for one in line["engines"].values()), "faster than the machine"
    assert line["engines"]["transformers"]["ratio"]["pairs"] == 1


def test_the_same_ids_come_back_from_every_engine_with_a_time_for_each(folder: Path) -> None:
    """In fp32, on prompts of unequal lengths: workers, the engine process and the engine on a thread agree."""
    place = make(TINY, folder)
    work = Generate(tuple(p[: 20 - 3 * i] for i, p in enumerate(shared(3, 12, 8, TINY.vocab, 1))), 6)
    choices = Score(work.prompts, spelled(Setting(TINY, place, True), CHOICES), CHOICES)
    wanted = needs([work, choices], TINY.kv_bytes_token, dtype="float32", threads=1)

    async def both(word: str) -> tuple[Run, Run]:
        adapter = choose(word, folder)
        try:
            await adapter.start(place, wanted)
            return await adapter.run(work), await adapter.run(choices)
        finally:
            await adapter.close()

    expected, scores = asyncio.run(both("transformers"))
    run, scored = asyncio.run(both("ramify-inprocess"))
    assert [one.ids for one in run.sequences] == [one.ids for one in expected.sequences]
    assert all(len(one.times) == 6 and list(one.times) == sorted(one.times) for one in (*run.sequences, *expected.sequences))
    assert run.computed is not None and run.cached is not None and run.computed + run.cached == sum(map(len, work.prompts))
    for ours, theirs in zip(scored.scores, scores.scores, strict=True):
        assert [pytest.approx(one, abs=1e-3) for one in ours] == list(theirs)


def test_a_worker_says_why_it_failed_and_goes_on() -> None:
    lines = '{"op": "sing"}\n{"op": "flush"}\n{"op": "close"}\n{"op": "flush"}\n'
    command = [sys.executable, str(WORKERS / "main.py"), "transformers"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, check=True)
    first, second = map(json.loads, done.stdout.splitlines())
    assert "sing" in first["error"] and second == {}


def test_a_checkpoint_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    from safetensors import safe_open

    first, again, other = (make(TINY, tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("a", 1)))
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    with safe_open(first / "model.safetensors", "pt") as file:
        assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == TINY.tensors()


def test_one_bit_of_a_log_probability_is_a_difference() -> None:
    a = [(b"ids", b"\x00\x01"), (b"ids", b"\x00\x01"), (b"ids", b"\x00")]
    b = [(b"ids", b"\x00\x01"), (b"ids", b"\x00\x00"), (b"sdi", b"\x00")]
    assert exactness.same(a, b) == (2, 1)


@pytest.mark.slow
def test_the_server_is_measured_as_a_client_sees_it(folder: Path) -> None:
    place = make(TINY, folder)
    work = Generate(shared(4, 32, 8, TINY.vocab, 2), 6, samples=2)

    async def twice() -> tuple[Run, Run]:
        adapter = choose("ramify-server:page-size=16", folder)
        try:
            await adapter.start(place, needs([work], TINY.kv_bytes_token, dtype="bfloat16", threads=1))
            await adapter.flush()
            return await adapter.run(work), await adapter.run(work)
        finally:
            await adapter.close()

    cold, warm = asyncio.run(twice())
    assert len(cold.sequences) == 8 and all(len(one.times) == 6 for one in cold.sequences)
    assert cold.cached is not None and warm.cached is not None and (cold.cached, warm.cached) == (3 * 32, 4 * 39)
    assert (cold.computed, warm.computed) == (40 + 3 * 8, 4)


@pytest.mark.slow
def test_forty_prompts_say_the_same_however_the_engine_came_by_them(folder: Path) -> None:
    assert exactness.main(["--quick", "--prompts", "40", "--output", "12", "--folder", str(folder)]) == 0
