"""SGLang's engine API over the scripted backend: the same arguments, the same dicts."""

from __future__ import annotations

import asyncio

import pytest

import ramify as sgl
from ramify.constrained.spec import Ebnf, JsonSchema, Regex
from ramify.lang import background
from ramify.lang.backends.scripted import Scripted, ids_of
from ramify.lang.generate import asked, collect, growing
from ramify.lang.nodes import Logprobs
from ramify.lang.sampling import engine_params
from ramify.runtime.protocol import Text, Tokens

pytestmark = pytest.mark.timeout(20)


def generate(backend, prompt=None, sampling_params=None, input_ids=None, logprobs=None):
    call = asked(prompt, sampling_params, input_ids, logprobs or Logprobs())
    return background.run(collect(backend, call), "never")


def test_one_prompt_gives_one_result():
    result = generate(Scripted(["a b"]), "p", {"max_new_tokens": 5, "temperature": 0})
    assert (result["text"], result["output_ids"]) == ("a b", [97, 32, 98])
    meta = result["meta_info"]
    assert meta["finish_reason"] == {"type": "stop", "matched": None}
    assert (meta["prompt_tokens"], meta["completion_tokens"], meta["cached_tokens"]) == (1, 3, 0)


def test_many_prompts_give_many_results_in_order():
    backend = Scripted(lambda prompt: prompt.upper())
    assert [r["text"] for r in generate(backend, ["a", "b"], [{"seed": 1}, {"seed": 2}])] == ["A", "B"]
    assert [request.sampling.seed for request in backend.requests] == [1, 2]


def test_n_results_of_a_prompt_stand_together():
    backend = Scripted(lambda prompt: [prompt + "1", prompt + "2"])
    assert [r["text"] for r in generate(backend, "a", {"n": 2})] == ["a1", "a2"]
    assert [r["text"] for r in generate(backend, ["a", "b"], {"n": 2})] == ["a1", "a2", "b1", "b2"]


def test_token_ids_are_prompts_as_they_are():
    backend = Scripted(["x", "y", "z"])
    assert generate(backend, input_ids=[65, 66])["text"] == "x"
    assert [r["text"] for r in generate(backend, input_ids=[[65], [66]])] == ["y", "z"]
    assert backend.requests[0].prompt == (Tokens(ids_of("AB")),)
    generate(backend := Scripted(["x"]), "AB")
    assert backend.requests[0].prompt == (Text("AB"),)


def test_logprobs_come_in_sglangs_form():
    result = generate(Scripted(["a"]), "p", logprobs=Logprobs(True, -1, 1, True))
    assert result["meta_info"]["output_token_logprobs"] == [(-0.5, 97, "a")]
    assert result["meta_info"]["output_top_logprobs"] == [[(-0.5, 97, "a")]]


def test_a_stream_gives_the_text_so_far_and_ends_with_the_whole_result():
    results = list(background.iterate(growing(Scripted(["one two"]), asked("p", None, None, Logprobs()))))
    assert [r["text"] for r in results] == ["one", "one two", "one two"]
    assert [r["meta_info"]["finish_reason"] for r in results[:2]] == [None, None]
    assert results[-1]["meta_info"]["finish_reason"]["type"] == "stop"


async def test_streams_of_many_prompts_carry_an_index():
    backend = Scripted(lambda prompt: [prompt + "1", prompt + "2"])
    items = background.aiterate(growing(backend, asked(["a", "b"], {"n": 2}, None, Logprobs())))
    last = {r["index"]: r["text"] async for r in items}
    assert last == {0: "a1", 1: "a2", 2: "b1", 3: "b2"}


def test_a_stream_that_is_left_stops_its_calls():
    stopped = asyncio.Event()

    async def script(prompt: str) -> str:
        if prompt == "fast":
            return "x"
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.set()
        return ""

    items = background.iterate(growing(Scripted(script), asked(["fast", "slow"], None, None, Logprobs())))
    assert next(items)["text"] == "x"
    items.close()
    background.submit(asyncio.wait_for(stopped.wait(), 10)).result()


def test_an_error_is_raised_in_either_form():
    def script(prompt: str) -> str:
        raise sgl.Overloaded("full")

    with pytest.raises(sgl.Overloaded, match="full"):
        generate(Scripted(script), ["a", "b"])
    with pytest.raises(sgl.Overloaded, match="full"):
        list(background.iterate(growing(Scripted(script), asked("a", None, None, Logprobs()))))


WRONG = [
    ({}, "either prompt"),
    ({"prompt": "a", "input_ids": [1]}, "either prompt"),
    ({"prompt": ["a", 1]}, "list of strings"),
    ({"prompt": ["a"], "sampling_params": [{}, {}]}, "2 sampling_params were given for 1 prompts"),
    ({"prompt": "a", "sampling_params": {"temprature": 1}}, "Did you mean 'temperature'"),
    ({"prompt": "a", "sampling_params": {"regex": "a", "ebnf": "b"}}, "regex and ebnf"),
    ({"prompt": "a", "sampling_params": {"custom_params": {"a": 1}}}, "custom_params"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(sgl.InvalidRequest, match=message):
        generate(Scripted(["x"]), **arguments)


def test_sampling_params_take_sglangs_names_and_constraints():
    said = {"max_new_tokens": 0, "sampling_seed": 7, "stop": "a", "logit_bias": {"1": 2}, "custom_params": None}
    assert engine_params(said)[0] == sgl.SamplingParams(max_new_tokens=0, seed=7, stop=("a",), logit_bias={1: 2.0})
    assert engine_params({"json_schema": "{}"})[1] == JsonSchema("{}")
    assert engine_params({"regex": "a"})[1] == Regex("a")
    assert engine_params({"ebnf": "root ::= x"})[1] == Ebnf("root ::= x")
    mine = sgl.SamplingParams(temperature=0.0)
    assert engine_params(mine) == (mine, None) and engine_params(None) == (sgl.SamplingParams(), None)


def test_an_engine_with_an_unknown_option_names_the_nearest_one():
    with pytest.raises(sgl.InvalidRequest, match="Did you mean 'kv_tokens'"):
        sgl.Engine(kv_token=5, lazy=True)
    with pytest.raises(sgl.InvalidRequest, match="two names of one argument"):
        sgl.Engine("a", model_path="b", lazy=True)
