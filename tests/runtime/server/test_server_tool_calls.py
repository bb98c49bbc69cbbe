"""Tool calling through the `openai` client against a real server, in all modes, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest
from serving import RunningServer

import ramify as sgl

MODEL = "ramify-bundled"
NUMBER = {"type": "integer", "minimum": 0, "maximum": 9999}
PARAMETERS = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"], "additionalProperties": False}


def tool(name: str, strict: bool = True, **more: Any) -> dict[str, Any]:
    function = {"name": name, "description": f"Does {name}.", "parameters": PARAMETERS, "strict": strict, **more}
    return {"type": "function", "function": function}


ADD, SUBTRACT = tool("add", description="Adds two numbers."), tool("subtract")
SUM = [{"role": "user", "content": "What is 27 plus 58?"}]
HELLO = [{"role": "user", "content": "My name is Bruno."}]


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=240, max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, messages: Any = SUM, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    """{content, calls: [(name, arguments)], ids, finish, usage}; of a stream, put together as clients do."""
    said = {"model": MODEL, "messages": messages, "tools": [ADD, SUBTRACT], "max_tokens": 128, "temperature": 0, **more}
    said = {key: value for key, value in said.items() if value is not None}
    if not stream:
        answer = client.chat.completions.create(**said)
        message = answer.choices[0].message
        calls = [(c.function.name, c.function.arguments) for c in message.tool_calls or ()]
        ids = [c.id for c in message.tool_calls or ()]
        return {
            "content": message.content,
            "calls": calls,
            "ids": ids,
            "finish": answer.choices[0].finish_reason,
            "usage": answer.usage,
        }
    content, calls, ids, finish, usage, roles = "", [], [], [], None, []
    for chunk in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **said):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            assert not finish, "nothing comes after the finish reason"
            roles += [choice.delta.role] if choice.delta.role else []
            content += choice.delta.content or ""
            finish += [choice.finish_reason] if choice.finish_reason else []
            for piece in choice.delta.tool_calls or ():
                if piece.index == len(calls):
                    assert piece.id and piece.type == "function" and piece.function.name
                    ids.append(piece.id)
                    calls.append([piece.function.name, ""])
                else:
                    assert piece.index == len(calls) - 1 and not piece.id and not piece.function.name
                calls[piece.index][1] += piece.function.arguments
    assert roles == ["assistant"] and len(finish) == 1
    return {"content": content or None, "calls": [tuple(c) for c in calls], "ids": ids, "finish": finish[0], "usage": usage}


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def check(answer: dict[str, Any]) -> None:
    """Calls are well-formed, obey their schema and have ids of their own."""
    for name, arguments in answer["calls"]:
        assert name in ("add", "subtract")
        jsonschema.validate(json.loads(arguments), PARAMETERS)
    assert len(set(answer["ids"])) == len(answer["ids"]) == len(answer["calls"])
    assert all(call_id.startswith("call_") for call_id in answer["ids"])


@both
def test_the_model_calls_where_it_wants_to(client, stream):
    answer = ask(client, tools=[ADD], stream=stream)
    check(answer)
    assert [(name, json.loads(arguments)) for name, arguments in answer["calls"]] == [("add", {"a": 27, "b": 58})]
    assert answer["finish"] == "tool_calls" and answer["content"] is None


@both
def test_the_model_answers_in_words_where_it_wants_to(client, stream):
    answer = ask(client, HELLO, stream=stream)
    assert answer["calls"] == [] and answer["content"] and answer["finish"] == "stop"


@both
def test_none_asks_for_words_only(client, stream):
    answer = ask(client, HELLO, tool_choice="none", stream=stream)
    assert answer["calls"] == [] and answer["content"] and answer["finish"] == "stop"


@both
def test_required_forces_a_call_whatever_was_said(client, stream):
    answer = ask(client, HELLO, tool_choice="required", parallel_tool_calls=False, stream=stream)
    check(answer)
    assert len(answer["calls"]) == 1 and answer["content"] is None and answer["finish"] == "tool_calls"


@both
def test_a_named_function_is_the_one_that_is_called(client, stream):
    choice = {"type": "function", "function": {"name": "subtract"}}
    answer = ask(client, tool_choice=choice, stream=stream)
    check(answer)
    assert [name for name, _ in answer["calls"]] == ["subtract"] and answer["finish"] == "tool_calls"


@both
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_are_the_only_ones(client, stream, mode):
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "subtract"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    answer = ask(client, tool_choice=choice, parallel_tool_calls=False, stream=stream)
    check(answer)
    assert {name for name, _ in answer["calls"]} <= {"subtract"} and (mode == "auto" or answer["calls"])


def test_strict_arguments_validate_at_any_temperature(client):
    """Drawn at temperature 1.5 with seeds, one call at most and several."""
    seen = 0
    for seed in range(12):
        parallel = seed % 2 == 0
        answer = ask(client, tool_choice="required", temperature=1.5, seed=seed, parallel_tool_calls=parallel, max_tokens=200)
        if answer["finish"] == "tool_calls":
            check(answer)
            assert len(answer["calls"]) == 1 or parallel
            seen += len(answer["calls"])
    assert seen >= 6


def test_a_call_that_is_cut_off_stays_cut_off(client):
    answer = ask(client, tools=[ADD], max_tokens=16)
    streamed = ask(client, tools=[ADD], max_tokens=16, stream=True)
    assert answer["finish"] == streamed["finish"] == "length" and answer["calls"] == streamed["calls"]
    [(_, arguments)] = answer["calls"]
    with pytest.raises(ValueError):
        json.loads(arguments)


def test_results_are_answered_and_the_first_prompt_and_the_call_are_found_cached(client):
    first = client.chat.completions.create(model=MODEL, messages=SUM, tools=[ADD], max_tokens=64, temperature=0)
    call = first.choices[0].message
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "85"}
    turns = [*SUM, call.model_dump(exclude_none=True), result]
    second = client.chat.completions.create(model=MODEL, messages=turns, tools=[ADD], max_tokens=64, temperature=0)
    assert "85" in second.choices[0].message.content and second.choices[0].finish_reason == "stop"
    generated = first.usage.completion_tokens - 1  # its end token was drawn, not read
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens + generated


def test_the_clients_own_stream_helper_reads_calls(client):
    with client.chat.completions.stream(model=MODEL, messages=SUM, tools=[ADD], max_tokens=64, temperature=0) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds and "tool_calls.function.arguments.done" in kinds
    [call] = answer.choices[0].message.tool_calls
    assert call.function.parsed_arguments == {"a": 27, "b": 58}


def test_a_schema_for_the_words_and_tools_at_once(client):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "ok", "schema": schema, "strict": True}}
    for messages in (SUM, HELLO):
        answer = ask(client, messages, response_format=form)
        assert answer["calls"] or set(json.loads(answer["content"])) == {"ok"}
        check(answer)


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        (None, "required"),
        ([ADD], {"type": "function", "function": {"name": "other"}}),
        ([ADD], {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": "other"}]}}),
        ([ADD], {"type": "allowed_tools", "allowed_tools": {"mode": "maybe", "tools": []}}),
        ([ADD], {"type": "custom"}),
    ],
)
def test_a_choice_that_cannot_be_met_is_refused(client, tools, choice):
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, tools=tools, tool_choice=choice)
    assert error.value.code == "invalid_tools"


def test_a_strict_schema_that_cannot_be_enforced_is_refused_and_another_is_not(client):
    free_set = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    hard = {"type": "object", "properties": {"a": free_set}, "required": ["a"]}
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, tools=[tool("hard", parameters=hard)], stream=True)
    assert error.value.code == "unsupported_schema"
    answer = ask(client, tools=[tool("hard", strict=False, parameters=hard)], tool_choice="required", parallel_tool_calls=False)
    assert answer["finish"] == "length" or isinstance(json.loads(answer["calls"][0][1]), dict)


def test_tools_that_cost_too_much_are_not_enforced_unless_that_was_asked(client):
    wide = {"type": "object", "properties": {"a": {"enum": [f"value number {i}" for i in range(9000)]}}, "required": ["a"]}
    loose, strict = (tool("wide", strict=strict, parameters=wide) for strict in (False, True))
    assert ask(client, HELLO, tools=[loose])["content"]
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, HELLO, tools=[strict])
    assert error.value.code == "grammar_too_complex"


# ---------------------------------------------------------------------------------------------------- structural tags

TAGS = [
    {
        "type": "structural_tag",
        "structures": [{"begin": "<fn=add>", "schema": PARAMETERS, "end": "</fn>"}],
        "triggers": ["<fn="],
    },
    {
        "type": "structural_tag",
        "format": {
            "type": "triggered_tags",
            "triggers": ["<fn="],
            "tags": [{"begin": "<fn=add>", "content": {"type": "json_schema", "json_schema": PARAMETERS}, "end": "</fn>"}],
        },
    },
]


@pytest.mark.parametrize("form", TAGS, ids=["structures", "format"])
def test_structural_tags_bind_what_follows_a_trigger(client, form):
    turns = [{"role": "user", "content": "Add 1 and 2."}, {"role": "assistant", "content": "I add: <fn="}]
    more = {"continue_final_message": True, "add_generation_prompt": False}
    words = ask(client, HELLO, tools=None, response_format=form)
    assert words["content"] and words["finish"] == "stop"
    # The trigger itself, in the prompt, is none; one that is forced by a bias is.
    ids = client.post("/tokenize", body={"prompt": "<", "add_special_tokens": False}, cast_to=object)["tokens"]
    forced = ask(client, turns, tools=None, response_format=form, logit_bias={str(ids[0]): 100}, max_tokens=12, extra_body=more)
    assert set(forced["content"]) == {"<"}


@pytest.mark.parametrize(
    "form",
    [
        {"type": "structural_tag"},
        {"type": "structural_tag", "structures": [], "triggers": []},
        {"type": "structural_tag", "structures": [{"begin": "<a>", "schema": {}, "end": ""}], "triggers": ["<b"]},
        {"type": "structural_tag", "format": {"type": "sequence", "elements": []}},
        {"type": "structural_tag", "format": {"type": "triggered_tags", "triggers": ["<"], "tags": [], "excludes": ["x"]}},
    ],
)
def test_structural_tags_that_say_nothing_are_refused(client, form):
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, HELLO, tools=None, response_format=form)
    assert error.value.code in ("invalid_response_format", "invalid_grammar")


def test_the_native_route_takes_structural_tags(client):
    tags = json.dumps({key: value for key, value in TAGS[0].items() if key != "type"})
    body = {"text": "The sea", "sampling_params": {"max_new_tokens": 8, "temperature": 0, "structural_tag": tags}}
    said = client.post("../generate", body=body, cast_to=object)
    assert said["text"]


# ------------------------------------------------------------------------------------------------------------ programs


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@sgl.function
def sums(s, **said):
    s += sgl.user(SUM[0]["content"])
    return sgl.run_tools(s, [add], max_tokens=64, temperature=0, **said)


def program(**said: Any) -> sgl.Program:
    @sgl.function
    def asked(s):
        return sums(s, **said)

    return asked


@pytest.mark.parametrize("said", [{}, {"tool_choice": "required"}, {"tool_choice": "add", "parallel_tool_calls": False}])
def test_a_program_that_calls_functions_is_the_same_in_both_protocols(server, said):
    seen = []
    for backend in (sgl.RuntimeEndpoint(server.url), sgl.OpenAI(base_url=server.url + "/v1", api_key="")):
        state = program(**said).run(backend=backend)
        turns = state.messages()
        calls = [(c["function"]["name"], c["function"]["arguments"]) for c in turns[1]["tool_calls"]]
        seen.append((calls, [(turn["role"], turn["content"]) for turn in turns], state.ret_value.text))
    assert seen[0] == seen[1]
    assert [json.loads(arguments) for _, arguments in seen[0][0]] == [{"a": 27, "b": 58}] and "85" in seen[0][2]


# ------------------------------------------------------------------------------------------------------- other formats


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama3_json", "pythonic", "mistral", "mistral_args", "none"])
def test_calls_are_forced_in_the_form_that_the_server_is_told(server_with, name):
    running = server_with("--tool-call-parser", name)
    with openai.OpenAI(base_url=running.url + "/v1", api_key="none", timeout=240, max_retries=0) as client:
        if name == "none":
            with pytest.raises(openai.BadRequestError, match="tool-call-parser"):
                ask(client, tool_choice="required")
            assert "<tool_call>" in ask(client, tools=[ADD])["content"]
            return
        for seed in range(4):
            for stream in (False, True):
                more = {"temperature": 1, "seed": seed, "parallel_tool_calls": seed % 2 == 0, "max_tokens": 300}
                answer = ask(client, tool_choice="required", stream=stream, **more)
                if answer["finish"] == "length":
                    continue
                for called, arguments in answer["calls"]:
                    assert called in ("add", "subtract")
                    jsonschema.validate(json.loads(arguments), PARAMETERS)
                assert answer["calls"] and answer["content"] is None and (seed % 2 == 0 or len(answer["calls"]) == 1)
        assert ask(client, HELLO)["content"]
