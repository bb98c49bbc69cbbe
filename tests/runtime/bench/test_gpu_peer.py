"""The peer of the offline benchmark runs on a CPU, and what its attention makes is what transformers makes by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ramify.runtime.bench.checkpoints import SHAPES
from ramify.runtime.bench.gpu import peer
from ramify.runtime.bench.gpu.offline import Requests, mixed

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.skipif(not hasattr(transformers, "ContinuousBatchingConfig"), reason="no continuous batching")
TINY = SHAPES["tiny"]


class Stand:
    """What `peer.build` asks of a setting."""

    device = "cpu"

    def __init__(self, folder: Path):
        self.folder = folder

    def model(self) -> Path:
        (self.folder / "config.json").write_text(json.dumps(TINY.config()))
        return self.folder


def test_tokens_with_the_registered_attention_are_those_of_generate(tmp_path: Path, monkeypatch) -> None:
    greedy = transformers.GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    model = peer.build(Stand(tmp_path), transformers).float()  # pyright: ignore[reportArgumentType]
    drawn = mixed(6, 100, 300, TINY.vocab, 3)  # more tokens than a step computes: prompts are cut, beside rows that decode
    asked = Requests(drawn.prompts, (6, 5, 4, 6, 5, 4))
    monkeypatch.setattr(transformers, "GenerationConfig", lambda **_: greedy)
    manager = peer.manager_of(model, transformers, peer.FLASH, asked)
    found = {}
    try:
        for number, prompt in enumerate(asked.prompts):
            manager.add_request(list(prompt), request_id=str(number), max_new_tokens=asked.outputs[number])
        while len(found) < len(asked.prompts):
            one = manager.get_result(timeout=1)
            assert one is not None or manager.is_running()
            if one is not None:
                assert not one.error
                found[int(one.request_id)] = one.generated_tokens
    finally:
        manager.stop(block=True, hard_stop=True)
    model.config._attn_implementation = "sdpa"
    for number, prompt in enumerate(asked.prompts):
        ids = torch.tensor([prompt])
        sizes = {"max_new_tokens": asked.outputs[number], "min_new_tokens": asked.outputs[number]}
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **sizes)[0].tolist()
        assert found[number] == whole[len(prompt) :]


def test_after_the_limit_what_was_made_counts(tmp_path: Path) -> None:
    model = peer.build(Stand(tmp_path), transformers)  # pyright: ignore[reportArgumentType]
    asked = Requests(mixed(4, 10, 20, TINY.vocab, 3).prompts, (2, 1500, 1500, 1500))
    manager = peer.manager_of(model, transformers, peer.FLASH, asked)
    seconds, made, ended = peer.at_once(manager, asked, 0.5)
    assert 0.4 < seconds < 5 and 2 < made < 4502 and ended == 1 and not manager.is_running()


def test_the_scenario_has_the_lines_of_the_offline_benchmark(tmp_path: Path, capsys) -> None:
    assert peer.main(["--quick", "--device", "cpu", "--folder", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "g1-peer.json").read_text())
    assert capsys.readouterr().out.splitlines()[-1] == json.dumps(result)
    assert [line["attention"] for line in result["lines"]] == ["flash", "sdpa"]
    asked = mixed(6, 4, 16, TINY.vocab)
    assert all(line["ended"] == "all" and line["output"] == sum(asked.outputs) for line in result["lines"])
