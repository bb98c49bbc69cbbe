"""Programs on the bundled model: what a call computes, what it continues, and that constraints hold. No test of its wits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

import ramify as sgl

pytestmark = pytest.mark.timeout(300)
FEW = {"max_new_tokens": 6, "temperature": 0.0}
PREFACE = "A list of towns and what they are known for. " * 12


@pytest.fixture(scope="module")
def engine() -> Iterator[sgl.Engine]:
    with sgl.Engine(in_process=True, threads=1, kv_tokens=8192, dtype="float32", queue=4) as started:
        yield started


def tokens_in(engine: sgl.Engine, text: str) -> int:
    """How many tokens a text has, control tokens included."""
    return engine.generate(text, {"max_new_tokens": 0})["meta_info"]["prompt_tokens"]


def test_each_of_five_turns_computes_its_new_text_and_at_most_one_token_more(engine):
    @sgl.function
    def chat(s):
        s += sgl.system("You are a helpful assistant.")
        for turn in range(5):
            s += sgl.user(f"Town number {turn} is Harbour {turn}.")
            s += sgl.assistant(sgl.gen(f"answer{turn}"))

    state = chat.run(backend=engine, **FEW)
    calls = [state.explain(f"answer{turn}") for turn in range(5)]
    for turn, call in enumerate(calls):
        assert call.cached + call.computed + call.forced == call.prompt
        if turn:
            new = f"<|im_end|>\n<|im_start|>user\nTown number {turn} is Harbour {turn}.<|im_end|>\n<|im_start|>assistant\n"
            assert call.continuation == "continued"
            assert call.computed <= tokens_in(engine, new) + 1


def test_a_second_run_of_a_program_finds_the_first_one_in_the_cache(engine):
    @sgl.function
    def program(s):
        s += PREFACE + "Item one:" + sgl.gen("x") + "\nItem two:" + sgl.gen("y")

    engine.flush_cache()
    cold, warm = (program.run(backend=engine, **FEW) for _ in range(2))
    assert cold.text() == warm.text()
    assert cold.explain("x").cached == 0 and cold.explain("x").reason == "never seen"
    assert warm.explain("x").computed == 1 and warm.explain("y").cached > cold.explain("x").prompt


def test_the_branches_of_a_fork_compute_their_common_prefix_once(engine):
    @sgl.function
    def program(s):
        s += PREFACE
        forks = s.fork(4)
        forks += lambda i: f"Town {i}:" + sgl.gen("x")
        return [f.explain("x") for f in forks]

    engine.flush_cache()
    calls = program.run(backend=engine, **FEW).ret_value
    prefix, own = tokens_in(engine, PREFACE), tokens_in(engine, "Town 0:") + 1
    assert sum(call.computed for call in calls) <= prefix + 4 * own
    assert sum(call.prompt for call in calls) >= 4 * prefix


def test_a_branch_says_what_the_same_text_says_without_a_fork(engine):
    @sgl.function
    def forked(s):
        s += PREFACE
        forks = s.fork(3)
        forks += lambda i: f"Town {i}:" + sgl.gen("x")
        forks.join()

    @sgl.function
    def written_out(s, i):
        s += PREFACE + f"Town {i}:" + sgl.gen("x")

    texts = forked.run(backend=engine, **FEW)["x"]
    for i, text in enumerate(texts):
        engine.flush_cache()
        assert written_out.run(i, backend=engine, **FEW)["x"] == text


@pytest.mark.parametrize(
    "method", [sgl.token_length_normalized, sgl.greedy_token_selection, sgl.unconditional_likelihood_normalized]
)
def test_what_follows_a_choice_continues_from_its_tokens(engine, method):
    towns = ["Hull", "Leeds", "Hull on the Sea"]

    @sgl.function
    def program(s):
        s += sgl.user(PREFACE + "Which town has a harbour?")
        s += sgl.assistant(sgl.select("town", towns, choices_method=method) + "." + sgl.gen("x"))

    engine.flush_cache()
    state = program.run(backend=engine, **FEW)
    assert state["town"] in towns
    after = state.explain("x")
    assert after.continuation == "continued" and after.computed <= tokens_in(engine, ".") + 1
    assert engine.get_server_info()["cache"]["tokens"] <= after.prompt + after.output, "a losing choice is still cached"


def test_more_calls_than_the_queue_holds_wait_for_their_turn(engine):
    @sgl.function
    def program(s, i):
        s += f"Town {i}:" + sgl.gen("x", n=3) + sgl.select("y", ["a", "b"])

    states = program.run_batch([{"i": i} for i in range(12)], backend=engine, temperature=1.0, max_new_tokens=3)
    assert [len(state["x"]) for state in states] == [3] * 12 and {state["y"] for state in states} <= {"a", "b"}


@dataclass(frozen=True)
class Town:
    harbour: bool
    side: Literal["east", "west", 'the "other" side\n']
    rank: Literal[1, 2, 3]


def test_typed_output_is_a_value_of_the_type(engine):
    @sgl.function
    def program(s):
        s += sgl.user("Describe Hull.") + sgl.assistant("Here it is: " + sgl.gen("town", type=Town, max_tokens=64))
        s += sgl.user("And Leeds?") + sgl.assistant(sgl.gen("towns", type=Town, max_tokens=64, n=2, temperature=1.0))

    state = program.run(backend=engine)
    assert isinstance(state["town"], Town) and state["town"].rank in (1, 2, 3)
    assert all(isinstance(town, Town) for town in state["towns"]) and len(state["towns"]) == 2


def test_the_engines_own_api_and_a_program_agree(engine):
    @sgl.function
    def program(s):
        s += PREFACE + sgl.gen("x")

    sampling = {"max_new_tokens": 6, "temperature": 0}
    state = program.run(backend=engine, **FEW)
    whole = engine.generate(PREFACE, sampling)
    assert whole["text"] == state["x"]
    *_, last = engine.generate(PREFACE, sampling, stream=True)
    assert (last["text"], last["output_ids"]) == (whole["text"], whole["output_ids"])
    several = engine.generate([PREFACE, "Hull"], sampling)
    assert several[0]["text"] == whole["text"] and len(several) == 2


async def test_the_engines_api_for_coroutines(engine):
    sampling = {"max_new_tokens": 4, "temperature": 0}
    whole = await engine.async_generate("Hull is", sampling, return_logprob=True, top_logprobs_num=2)
    assert len(whole["meta_info"]["output_token_logprobs"]) == len(whole["output_ids"])
    pieces = [piece async for piece in await engine.async_generate("Hull is", sampling, stream=True)]
    assert pieces[-1]["text"] == whole["text"]


def test_ids_that_are_asked_for_have_the_log_probabilities_that_they_have_among_the_likeliest(engine):
    sampling = {"max_new_tokens": 3, "temperature": 0}
    likely = engine.generate("Hull is", sampling, return_logprob=True, top_logprobs_num=2)["meta_info"]["output_top_logprobs"]
    ids = [token for _, token, _ in likely[0]]
    asked = engine.generate("Hull is", sampling, return_logprob=True, token_ids_logprob=ids)["meta_info"]
    assert dict(zip(ids, (lp for lp, _, _ in asked["output_token_ids_logprobs"][0]), strict=True)) == pytest.approx(
        {token: lp for lp, token, _ in likely[0]}
    )


def test_a_prompt_that_is_too_long_is_an_error_with_the_programs_line(engine):
    @sgl.function
    def program(s):
        s += "town " * 20_000 + sgl.gen("x")

    with pytest.raises(sgl.ContextLengthExceeded, match=r"test_programs\.py:\d+, in program: s \+="):
        program.run(backend=engine, **FEW)


def test_cache_makes_the_constant_beginning_warm(engine):
    @sgl.function
    def program(s, town):
        s += sgl.system(PREFACE) + sgl.user(town) + sgl.assistant(sgl.gen("x"))

    engine.flush_cache()
    cached = program.cache(engine)
    assert cached > 50
    assert program.run("Hull", backend=engine, **FEW).explain("x").cached >= cached - 1


def test_a_wrong_model_is_refused_before_anything_starts():
    with pytest.raises(sgl.RamifyError, match="no-such-folder"):
        sgl.Engine("./no-such-folder", in_process=True)
