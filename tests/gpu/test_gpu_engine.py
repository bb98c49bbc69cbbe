"""On a GPU, too, a cache changes speed, never results: the same greedy fp32 tokens however the engine came by them.

The oracle is the plainest run on the CPU: one request at a time, cold, the prompt in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from stepped_engine import NUM_NEW, Stepped, free, prompts

from ramify.runtime.config import EngineOptions

PLAIN = {"cuda_graphs": False, "depth": 1}
KNOWN = EngineOptions.__struct_fields__
Make = Callable[..., Stepped]


def known(options: dict) -> dict:
    """Those that this engine has."""
    return {name: value for name, value in options.items() if name in KNOWN}


@pytest.fixture(scope="module")
def engine(device: str) -> Iterator[Make]:
    """Makes an engine on the device, once for the same options."""
    made: dict[str, Stepped] = {}

    def make(**options: Any) -> Stepped:
        if str(options) not in made:
            made[str(options)] = Stepped(device, **options)
        return made[str(options)]

    yield make
    made.clear()
    free()


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    outputs = Stepped("cpu").run(prompts(), alone=True, cold=True)
    assert len({tuple(output) for output in outputs}) > len(outputs) // 3, "outputs are all alike: the test would see nothing"
    return outputs


def test_fp32_says_what_it_says_on_the_cpu(engine: Make, expected: list[list[int]]) -> None:
    assert engine(max_running=16).run(prompts(), alone=True, cold=True) == expected


def test_a_warm_cache_gives_the_same_tokens_as_a_cold_one(engine: Make, expected: list[list[int]]) -> None:
    one = engine(max_running=16)
    assert one.run(prompts(), alone=True) == expected
    before = sum(usage.cached for usage in one.usage.values())
    assert one.run(prompts(), alone=True) == expected
    assert sum(usage.cached for usage in one.usage.values()) > before + 1000


@pytest.mark.parametrize("chunk", [16, 64])
def test_chunked_prefill_gives_the_same_tokens_as_whole(engine: Make, expected: list[list[int]], chunk: int) -> None:
    assert engine(chunk_tokens=chunk, max_running=16).run(prompts()[::2], alone=True, cold=True) == expected[::2]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"depth": 1},
        {"depth": 2},
        {"page_size": 1},
        {"page_size": 64},
        {"tree_attention": False},
        {"chunk_tokens": 512},
        {"deterministic": True},
        PLAIN,
    ],
    ids=lambda options: ", ".join(f"{name}={value}" for name, value in options.items()) or "as it is",
)
def test_a_batch_gives_the_same_tokens_as_each_alone(engine: Make, expected: list[list[int]], options: dict) -> None:
    if options and not known(options):
        pytest.skip(f"there is no {', '.join(options)}")
    one = engine(max_running=16, **known(options))
    assert one.run(prompts(), cold=True) == expected
    assert one.run(prompts()) == expected, "warm"


def test_preempted_sequences_say_the_same(engine: Make, expected: list[list[int]]) -> None:
    one = engine(max_running=6, kv_tokens=2800, chunk_tokens=256, preempt_every=3)
    assert one.run(prompts()) == expected
    assert one.engine.scheduler.preemptions > 5


def test_samples_of_one_prompt_say_the_same(engine: Make, expected: list[list[int]]) -> None:
    few = prompts()[:6]
    assert engine(max_running=16).run(few, cold=True, n=3) == [output for output in expected[:6] for _ in range(3)]


def test_an_aborted_request_harms_no_other(engine: Make, expected: list[list[int]]) -> None:
    one = engine(max_running=16)
    keys = [next(one.keys) for _ in expected]
    one.submit(keys, prompts())
    told: dict[tuple[int, int], list[int]] = {}
    for _ in range(4):
        for message in one.engine.step():
            one.take(message, told)
    for key in keys[::3]:
        one.abort(key)
    for entry, tokens in one.finish().items():
        told.setdefault(entry, []).extend(tokens)
    for number, key in enumerate(keys):
        output = told.get((key, 0), [])
        if number % 3:
            assert output == expected[number]
        else:
            assert output == expected[number][: len(output)] and len(output) < NUM_NEW
    one.engine.scheduler.check()


def test_the_same_seed_draws_the_same_tokens_in_any_company(engine: Make) -> None:
    one, few = engine(max_running=16), prompts()[2:14]
    drawing = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "seed": 7}
    together = one.run(few, cold=True, **drawing)
    assert one.run(few, alone=True, cold=True, **drawing) == together
    assert len({tuple(output) for output in together}) > 6


def test_graphs_change_no_token(engine: Make, expected: list[list[int]]) -> None:
    if "cuda_graphs" not in KNOWN:
        pytest.skip("there is no cuda_graphs")
    for on in (True, False):
        assert engine(max_running=16, cuda_graphs=on, page_size=16).run(prompts(), cold=True) == expected


def bits(one: Stepped, asked: list[list[np.ndarray]], **how: bool) -> list[list[tuple[int, float | None]]]:
    """Tokens and the exact log-probability of each, of lists of prompts that run one after the other."""
    found = []
    for part in asked:
        one.run(part, top=3, **how)
        found += [one.logprobs[entry] for entry in sorted(one.logprobs)]
    return [[(drawn.token, drawn.logprob) for drawn in output] for output in found]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_deterministic_results_have_the_same_bits_in_any_company(device: str, engine: Make, dtype: str) -> None:
    if device == "cuda" and "deterministic" not in KNOWN:
        pytest.skip("there is no deterministic")
    said = {"max_running": 16, "dtype": dtype, **known({"deterministic": True})}
    few = prompts()[::2]
    alone = bits(engine(**said), [[prompt] for prompt in few], cold=True)
    assert bits(engine(**said), [few]) == alone, "warm and together"
    assert bits(engine(chunk_tokens=48, **said), [few], cold=True) == alone, "cold, together and in chunks"


def test_log_probabilities_are_those_of_the_cpu(engine: Make) -> None:
    few, found = prompts()[:8], []
    for one in (Stepped("cpu"), engine(max_running=16)):
        one.run(few, top=4)
        found.append([one.logprobs[entry] for entry in sorted(one.logprobs)])
    for reference, ours in zip(*found, strict=True):
        assert [drawn.token for drawn in ours] == [drawn.token for drawn in reference]
        assert np.allclose([drawn.logprob for drawn in ours], [drawn.logprob for drawn in reference], atol=1e-3)
        for drawn, other in zip(ours, reference, strict=True):
            assert len(drawn.top) == 4 and np.allclose([v for _, v in drawn.top], [v for _, v in other.top], atol=1e-3)
