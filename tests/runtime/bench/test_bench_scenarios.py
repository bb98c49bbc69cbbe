"""Scenarios ask every engine for the same ids, in turns, and say what each made of them."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module
from pathlib import Path

import pytest

from ramify.runtime.bench.adapters.base import Continuation, Generate, Run, Score, Unusable, needs
from ramify.runtime.bench.adapters.choose import choose, settings
from ramify.runtime.bench.adapters.http import spread
from ramify.runtime.bench.adapters.ramify import with_settings
from ramify.runtime.bench.bounds import Bounds, Limits, unique_tokens
from ramify.runtime.bench.checkpoints import SHAPES, make
from ramify.runtime.bench.runner import parse, share_of_bound, turns, weight_bytes, words
from ramify.runtime.bench.scenario import Setting
from ramify.runtime.bench.work import apart, drawn, shared, tree
from ramify.runtime.bench.workers.shared_tokens import merged
from ramify.runtime.config import EngineOptions

NAMES = ["single", "batch", "tree", "scoring", "chat"]


class Recorded:
    """An engine that answers at once, with ids that follow from the prompt, and keeps what it was asked."""

    def __init__(self, name: str, log: list[str], *, speed: float = 1.0, broken: bool = False):
        self.name, self.about, self.keeps_prefixes = name, name, True
        self.asked: list[Generate | Score] = []
        self._log, self._speed, self._broken = log, speed, broken

    async def start(self, model, needs) -> None:
        pass

    async def flush(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def run(self, work) -> Run:
        if self._broken:
            raise Unusable("it broke")
        self.asked.append(work)
        self._log.append(self.name)
        if isinstance(work, Score):
            scores = tuple(tuple((-1.0,) * len(choice) for choice in work.choices) for _ in work.prompts)
            return Run(1 / self._speed, scores=scores, computed=unique_tokens(work.prompts))
        times = tuple((step + 1) / self._speed for step in range(work.output))
        paths = [prompt for prompt in work.prompts for _ in range(work.samples)]
        made = tuple(Continuation(tuple(3 + sum(path) % 7 for _ in times), times) for path in paths)
        return Run(times[-1], made, computed=unique_tokens(work.prompts))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(SHAPES["tiny"], tmp_path_factory.mktemp("checkpoints"))


def cases_of(name: str, checkpoint: Path, *, quick: bool = True):
    scenario = import_module(f"ramify.runtime.bench.{name}").SCENARIO
    shape = SHAPES["tiny" if quick else scenario.shape]
    return scenario.cases(Setting(shape, checkpoint, quick)), shape


def turn(case, engines, *options: str):
    scenario = import_module("ramify.runtime.bench.single").SCENARIO
    said = parse(scenario, ["--ours", engines[0].name, *options], "Question: none?")
    return asyncio.run(turns(case, engines, said))


@pytest.mark.parametrize("name", NAMES)
def test_every_engine_is_asked_the_same_ids(name: str, checkpoint: Path) -> None:
    cases, _ = cases_of(name, checkpoint)
    for case in cases:
        engines = [Recorded("a", []), Recorded("b", [])]
        turn(case, engines, "--repeats", "2")
        assert engines[0].asked and engines[0].asked == engines[1].asked


@pytest.mark.parametrize("name", [*NAMES, "neighbour"])
@pytest.mark.parametrize("quick", [True, False])
def test_cases_have_a_bound_and_differ_in_their_names(name: str, quick: bool, checkpoint: Path) -> None:
    cases, shape = cases_of(name, checkpoint, quick=quick)
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert case.bound is not None and 0 < case.bound(Bounds(shape, Limits(5e10, 1e12))) < 1e9
        assert all(max(prompt) < shape.vocab and min(prompt) >= 3 for work in case.works for prompt in work.prompts)


def test_engines_take_turns(checkpoint: Path) -> None:
    [case, *_], _ = cases_of("batch", checkpoint)
    log: list[str] = []
    turn(case, [Recorded("a", log), Recorded("b", log)], "--repeats", "2")
    assert log == ["a", "b"] * 3  # the first turn warms up


def test_a_line_tells_ratio_spread_and_what_was_computed(checkpoint: Path) -> None:
    [case, *_], _ = cases_of("scoring", checkpoint)
    line = turn(case, [Recorded("ours", [], speed=2.0), Recorded("theirs", [])], "--repeats", "3")
    assert line["engines"]["theirs"]["ratio"]["value"] == 2.0 and line["engines"]["theirs"]["ratio"]["says"] == "2.00"
    assert line["engines"]["ours"]["median"] == 0.5 and line["engines"]["ours"]["runs"] == 3
    assert line["engines"]["ours"]["facts"]["computed/unique"] == 1.0
    json.dumps(line)


def test_an_engine_that_fails_leaves_the_case_with_its_reason(checkpoint: Path) -> None:
    [case, *_], _ = cases_of("single", checkpoint)
    line = turn(case, [Recorded("a", []), Recorded("b", [], broken=True)])
    assert list(line["engines"]) == ["a"] and line["failed"] == {"b": "it broke"}


def test_a_slow_engine_does_few_prompts_and_its_seconds_are_scaled_up(checkpoint: Path) -> None:
    [case, *_], _ = cases_of("scoring", checkpoint, quick=False)
    slow = Recorded("transformers", [])
    line = turn(case, [Recorded("ours", []), slow], "--repeats", "1")
    assert {len(work.prompts) for work in slow.asked} == {4}
    assert line["engines"]["transformers"]["median"] == 256 / 4
    assert line["engines"]["transformers"]["facts"] == {"prompts_run": 4, "prompts": 256}


def test_chat_goes_on_from_what_the_engine_said_and_counts_only_what_is_new(checkpoint: Path) -> None:
    [case], _ = cases_of("chat", checkpoint)
    engine = Recorded("a", [])
    line = turn(case, [engine], "--repeats", "1")
    first, second = engine.asked[0], engine.asked[1]
    assert isinstance(first, Generate) and isinstance(second, Generate)
    for before, after in zip(first.prompts, second.prompts, strict=True):
        said = tuple(3 + sum(before) % 7 for _ in range(first.output))
        assert after[: len(before) + first.output] == before + said
    assert line["engines"]["a"]["facts"]["computed/new"] > 1.5  # this engine computes everything again


def test_work_depends_on_its_seed_alone() -> None:
    assert drawn(5, 1000, 1, 2) == drawn(5, 1000, 1, 2) != drawn(5, 1000, 1, 3)
    assert unique_tokens(apart(4, 50, 2048, 1)) == 200
    assert unique_tokens(shared(4, 50, 10, 2048, 1)) == 90
    leaves = tree(((1, 10), (2, 5), (3, 4)), 2048, 1)
    assert len(leaves) == 6 and {len(leaf) for leaf in leaves} == {19}
    assert unique_tokens(leaves) == 10 + 2 * 5 + 6 * 4


def test_engines_are_made_for_the_largest_work() -> None:
    works = [Generate(shared(4, 100, 10, 2048, 1), 8), Generate(apart(1, 300, 2048, 1), 2, samples=3)]
    wanted = needs(works, 1024, dtype="bfloat16", threads=1)
    assert wanted.rows == 4 and wanted.context >= 302 and wanted.tokens >= 306 and wanted.kv_bytes == wanted.tokens * 1024


def test_decode_rate_leaves_the_prompts_out() -> None:
    early = Continuation((1, 2, 3, 4), (1.0, 4.0, 5.0, 6.0))
    late = Continuation((1, 2, 3, 4), (3.0, 4.0, 5.0, 6.0))
    assert Run(6.0, (early, late)).decode_rate == 2.0  # from 3.0 to 6.0, three tokens each
    assert Run(6.0, (early, late)).first_s == 1.0


def test_engines_are_named_by_words() -> None:
    assert words("vllm,ramify:page_size=16,depth=1,http://a:1/v1,none") == [
        "vllm",
        "ramify:page_size=16,depth=1",
        "http://a:1/v1",
    ]
    assert settings("page-size=16,depth=1") == {"page_size": "16", "depth": "1"}
    assert with_settings(EngineOptions(), {"page_size": "16"}).page_size == 16
    with pytest.raises(Unusable, match="no engine option 'pagesize'"):
        with_settings(EngineOptions(), {"pagesize": "16"})
    with pytest.raises(Unusable, match="Expected `int"):
        with_settings(EngineOptions(), {"page_size": "many"})


def test_the_bound_knows_what_an_engines_weights_take() -> None:
    names = ("ramify", "ramify:quantization=int8", "llama.cpp:Q4_0", "vllm")
    assert [weight_bytes(name, "bfloat16") for name in names] == [2.0, 1.0, 0.5625, 2.0]
    assert weight_bytes("ramify", "float32") == 4.0
    assert share_of_bound("s", {"bound": 1.0, "median": 4.0}) == 0.25
    assert share_of_bound("tokens/s", {"bound": 4.0, "median": 1.0}) == 0.25
    assert share_of_bound("s", {"bound": None, "median": 4.0}) is None


def test_a_peer_without_an_environment_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="make peers"):
        choose("vllm", tmp_path)
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / ".failed").write_text("no such package\n")
    with pytest.raises(Unusable, match="no such package"):
        choose("vllm", tmp_path)
    with pytest.raises(Unusable, match=r"no engine 'vlm'(?s:.*)llama\.cpp"):
        choose("vlm", tmp_path)


def test_chunks_of_a_stream_are_tokens_only_where_their_number_fits() -> None:
    assert spread([(1.0, 1), (2.0, 1)], 2) == (1.0, 2.0)
    assert spread([(1.0, 1), (3.0, 1)], 5) == (1.0, 1.5, 2.0, 2.5, 3.0)
    assert spread([], 3) == ()


@pytest.mark.parametrize("share", [True, False])
def test_shared_tokens_are_decoded_once_for_all_their_sequences(share: bool) -> None:
    prompts = [list(prompt) for prompt in tree(((1, 3), (2, 2), (2, 1)), 2048, 1)]
    entries, paths = merged(prompts, [0] * 4, share=share)
    assert len(entries) == (unique_tokens(prompts) if share else sum(map(len, prompts)))
    for number, (prompt, path) in enumerate(zip(prompts, paths, strict=True)):
        assert [entries[at].token for at in path] == prompt and path == sorted(path)
        assert [entries[at].position for at in path] == list(range(len(prompt)))
        assert all(number in entries[at].sequences for at in path)
