"""The suite for GPUs runs with a tiny model anywhere, keeps what was found when something breaks, and is carried whole."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ramify.runtime.bench.bounds import Bounds, Limits
from ramify.runtime.bench.checkpoints import SHAPES, without_weights
from ramify.runtime.bench.gpu import carry, offline, online, suite
from ramify.runtime.bench.gpu.setting import scenario
from ramify.runtime.bench.gpu.stepping import Stepper, covered
from ramify.runtime.bench.work import apart, tree
from ramify.runtime.config import EngineOptions

ROOT = Path(__file__).resolve().parents[3]
TINY = SHAPES["tiny"]


def runner():
    """runtime/bench/gpu/run.py, which is a script."""
    spec = importlib.util.spec_from_file_location("gpu_run_script", ROOT / "runtime" / "bench" / "gpu" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of checkpoints; the tokenizer is trained once."""
    return tmp_path_factory.mktemp("checkpoints")


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("g4", "g5")]  # they start processes for grammars


@pytest.mark.parametrize("name", ["g1", "g2", "g3", *SLOW])
def test_a_scenario_runs_on_a_cpu_with_a_tiny_model(name: str, folder: Path, tmp_path: Path, capsys) -> None:
    module = importlib.import_module(f"ramify.runtime.bench.gpu.{suite.SCENARIOS[name].module}")
    words = ["--quick", "--device", "cpu", "--engine", "threads=1", "--folder", str(folder), "--out", str(tmp_path)]
    assert module.main(words) == 0
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert capsys.readouterr().out.splitlines()[-1] == json.dumps(result)
    assert result["failed"] is None and result["lines"] and result["bf16_TFLOPs"] > 0
    shares = [line["of bound"] for line in result["lines"] if "of bound" in line]
    assert all(share > 0 for share in shares)


def test_declared_contexts_cost_a_step_what_computed_ones_cost_and_nothing_stays(folder: Path) -> None:
    options = EngineOptions(
        model=str(without_weights(TINY, folder)), load_format="dummy", device="cpu", threads=1, page_size=16, kv_tokens=2048
    )
    stepper = Stepper(options)
    cache = stepper.engine.scheduler.cache
    for prompts in (apart(3, 100, TINY.vocab, 1), tree(((1, 64), (2, 32), (2, 16)), TINY.vocab, 2)):
        found = stepper.decode(prompts, steps=3, warm=1)
        assert 0 < found.device_s <= found.wall_s <= found.most_s
        assert cache.stats().free == cache.num_pages
    # The whole pages of three prompts, then of four: all of them were found by the requests, and some by those who declared.
    assert cache.stats().hit_tokens >= 3 * 96 + 4 * 96


def test_more_contexts_than_the_pool_holds_are_refused(folder: Path) -> None:
    options = EngineOptions(model=str(without_weights(TINY, folder)), load_format="dummy", device="cpu", threads=1, kv_tokens=64)
    with pytest.raises(RuntimeError, match="tokens do not fit into 64"):
        Stepper(options).decode(apart(2, 40, TINY.vocab, 1), steps=1, warm=1)


def test_time_in_which_something_runs_is_counted_once() -> None:
    assert covered([(0, 4), (1, 2), (3, 6), (8, 9)]) == 7
    assert covered([]) == 0


def test_lines_before_a_failure_are_kept(folder: Path, tmp_path: Path, capsys) -> None:
    def run(setting):
        yield {"case": 1}
        raise RuntimeError("the device is gone")

    words = ["--quick", "--device", "cpu", "--folder", str(folder), "--out", str(tmp_path)]
    assert scenario("broken", words, "Question: what is left?", run) == 1
    result = json.loads((tmp_path / "broken.json").read_text())
    assert result["lines"] == [{"case": 1}] and "the device is gone" in result["failed"]
    assert "FAILED: RuntimeError" in capsys.readouterr().out


def test_a_scenario_that_breaks_or_hangs_keeps_no_other_from_running(monkeypatch, capfd, tmp_path: Path) -> None:
    codes = {"broken": "raise SystemExit(3)", "hanging": "import time; time.sleep(60)", "well": "print('it ran')"}
    (tmp_path / "standing_in").mkdir()
    for name, code in codes.items():
        (tmp_path / "standing_in" / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(suite, "__package__", "standing_in")
    monkeypatch.setattr(suite, "SCENARIOS", {name: suite.Scenario(name, 20) for name in codes})
    began = time.monotonic()
    assert suite.main(["broken", "hanging", "well", "--limit", "1.5"]) == 1
    assert time.monotonic() - began < 15
    said = capfd.readouterr().out
    assert "broken: ended with status 3" in said and "hanging: took more than 2 s" in said and "it ran" in said


def test_an_unknown_scenario_is_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        suite.main(["g99"])
    assert "there is no scenario 'g99'" in capsys.readouterr().err


def test_the_bound_of_mixed_lengths_is_that_of_their_steps() -> None:
    bounds = Bounds(TINY, Limits(1e9, 1e12))
    asked = offline.Requests(((1, 2, 3), (4, 5)), (3, 2))
    by_hand = bounds.decode_s(2, 4 + 3, 4 + 3) + bounds.decode_s(1, 5, 5)
    prompts = bounds.prefill_s(3) + bounds.prefill_s(2)
    assert offline.bound_s(bounds, asked) == pytest.approx(prompts + by_hand)


def test_lengths_are_the_same_for_the_same_seed_and_within_their_limits() -> None:
    one, again, other = (offline.mixed(64, 100, 1024, 2000, seed) for seed in (0, 0, 1))
    assert one == again != other
    lengths = [*map(len, one.prompts), *one.outputs]
    assert min(lengths) >= 100 and max(lengths) <= 1024 and max(lengths) - min(lengths) > 700


def test_arrivals_come_at_their_rate() -> None:
    times = online.arrivals(100, 20, 0)
    assert len(times) == pytest.approx(2000, rel=0.1) and times == sorted(times) and times[-1] < 20
    assert np.std(np.diff(times)) == pytest.approx(0.01, rel=0.1), "gaps of a Poisson process spread as wide as they are long"
    assert online.arrivals(0.001, 0.1, 0) == [0.0]


def test_what_is_carried_has_the_versions_of_the_constraints() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    wanted = carry.requirements(constraints, carry.RUNNING + carry.TESTING)
    assert len(wanted) == len(carry.RUNNING) + len(carry.TESTING) and "msgspec==" in " ".join(wanted)
    assert all(line in constraints.splitlines() for line in wanted)
    with pytest.raises(LookupError, match="does not pin no-such-thing"):
        carry.requirements(constraints, ["msgspec", "no-such-thing"])


def test_the_scripts_phases_are_the_suites_scenarios() -> None:
    script = runner()
    assert set(script.LIMITS) == {"tests", *suite.SCENARIOS} and set(script.DEFAULT) <= set(script.LIMITS)
    assert all(script.LIMITS[name] == one.limit_s for name, one in suite.SCENARIOS.items())


@pytest.mark.slow
def test_the_script_runs_tests_and_scenarios_and_leaves_two_files(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "runtime" / "bench" / "gpu" / "run.py"), "tests", "g2", "--quick", "--no-wheels"]
    command += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--carry", str(tmp_path / "none")]
    command += ["--tests", "tests/runtime/bench/test_bench_stats.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [one["failed"] for one in found["phases"].values()] == ["", ""] and found["results"]["g2"]["lines"]
    assert " passed" in (tmp_path / "out" / "log.txt").read_text() and "step_ms" in done.stdout
    assert len(done.stdout) < 11_000
