"""The table of bad inputs, values: what each wrong field of a body is answered with, on every route, streamed and not."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from http_calls import CHAT, COMPLETIONS, GENERATE, assert_error, assert_still_good, call, chat, completion, native

VOCABULARY = 4096
CONTEXT = 8192


class Bad(NamedTuple):
    """A row of the table: what is sent to which route, and the code and the parameter of the error."""

    name: str
    path: str
    body: dict[str, Any]
    code: str
    param: str | None = None
    text: str = ""
    status: int = 400


def both(name: str, fields: dict[str, Any], code: str, param: str | None = None, text: str = "") -> list[Bad]:
    """The same fields on both of OpenAI's routes."""
    return [
        Bad(f"chat {name}", CHAT, chat(**fields), code, param, text),
        Bad(f"completions {name}", COMPLETIONS, completion(**fields), code, param, text),
    ]


def everywhere(name: str, fields: dict[str, Any], code: str, param: str | None = None) -> list[Bad]:
    """The same fields on all three routes; on /generate they are sampling parameters."""
    return [*both(name, fields, code, param), Bad(f"generate {name}", GENERATE, native(sampling=fields), code, param)]


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


def tool(name: str = "look_up", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}, **more}}


MODELS = [
    Bad("unknown model in chat", CHAT, chat(model="nobody"), "model_not_found", "model", status=404),
    Bad("unknown model in completions", COMPLETIONS, completion(model="nobody"), "model_not_found", "model", status=404),
    Bad("unknown model in generate", GENERATE, native(model="nobody"), "model_not_found", "model", status=404),
    Bad("unknown adapter as model", CHAT, chat(model="ramify-bundled:poet"), "model_not_found", "model", status=404),
    Bad("adapter outside as model", CHAT, chat(model="ramify-bundled:../../x"), "model_not_found", "model", status=404),
    Bad("unknown adapter in chat", CHAT, chat(lora_path="poet"), "model_not_found", "lora_path", status=404),
    Bad("unknown adapter", COMPLETIONS, completion(lora_path="poet"), "model_not_found", "lora_path", status=404),
    Bad("adapter outside", GENERATE, native(lora_path="../../x"), "model_not_found", "lora_path", status=404),
]
MISSING = [
    Bad("no model in chat", CHAT, without(chat(), "model"), "missing_required_parameter", "model"),
    Bad("no model in completions", COMPLETIONS, without(completion(), "model"), "missing_required_parameter", "model"),
    Bad("no messages", CHAT, without(chat(), "messages"), "missing_required_parameter", "messages"),
    Bad("no prompt", COMPLETIONS, without(completion(), "prompt"), "missing_required_parameter", "prompt"),
    Bad("no text", GENERATE, {"sampling_params": {}}, "missing_required_parameter", "text"),
]
UNKNOWN = [
    *both("tempature", {"tempature": 1}, "unknown_parameter", "tempature", "'temperature'"),
    Bad("generate tempature", GENERATE, native(sampling={"tempature": 1}), "unknown_parameter", "tempature", "'temperature'"),
    Bad("generate top level", GENERATE, native(return_logprobs=True), "unknown_parameter", None, "'return_logprob'"),
    Bad("far from everything", CHAT, chat(zzzzzzzzzz=1), "unknown_parameter", "zzzzzzzzzz"),
    Bad("long name", CHAT, chat(**{"x" * 5000: 1}), "unknown_parameter"),
]
MESSAGES = [
    Bad(f"messages {name}", CHAT, chat(messages=messages), code, param)
    for name, messages, code, param in [
        ("empty", [], "invalid_messages", "messages"),
        ("null", None, "invalid_messages", "messages"),
        ("a text", "hello", "invalid_messages", "messages"),
        ("a number in it", [1], "invalid_messages", "messages[0]"),
        ("role root", [{"role": "root", "content": "x"}], "invalid_messages", "messages[0].role"),
        ("no role", [{"content": "x"}], "invalid_messages", "messages[0].role"),
        ("user without content", [{"role": "user"}], "invalid_messages", "messages[0].content"),
        ("user with null", [{"role": "user", "content": None}], "invalid_messages", "messages[0].content"),
        ("content a number", [{"role": "user", "content": 5}], "invalid_messages", "messages[0].content"),
        ("part without text", [{"role": "user", "content": [{"type": "text"}]}], "invalid_messages", None),
        ("tool without id", [{"role": "tool", "content": "x"}], "invalid_messages", "messages[0].tool_call_id"),
        ("5,000", [{"role": "user", "content": "x"}] * 5000, "invalid_messages", "messages"),
        ("image", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://[::1]/"}}]}],
         "unsupported_modality", "messages[0].content[0]"),
    ]
]
PROMPTS = [
    Bad(f"prompt {name}", COMPLETIONS, completion(prompt), code, "prompt")
    for name, prompt, code in [
        ("empty text", "", "empty_prompt"),
        ("empty list", [], "empty_prompt"),
        ("empty list in a list", [[]], "empty_prompt"),
        ("empty text in a list", ["x", ""], "empty_prompt"),
        ("null", None, "invalid_prompt"),
        ("a number", 5, "invalid_prompt"),
        ("an object", {"a": 1}, "invalid_prompt"),
        ("too many", ["x"] * 257, "out_of_range"),
    ]
] + [
    Bad("generate empty text", GENERATE, native(""), "empty_prompt", "text"),
    Bad("generate no ids", GENERATE, {"input_ids": []}, "empty_prompt", "input_ids"),
    Bad("generate two prompts", GENERATE, {"input_ids": [1], "text": "x"}, "invalid_prompt"),
    Bad("generate segments", GENERATE, {"prompt": []}, "empty_prompt", "prompt"),
]
LENGTHS = [
    Bad("ids over the context", COMPLETIONS, completion([5] * (CONTEXT + 1)), "context_length_exceeded", None, str(CONTEXT + 1)),
    Bad("ids just over it", COMPLETIONS, completion([5] * CONTEXT), "context_length_exceeded", None, str(CONTEXT)),
    Bad("both over it", COMPLETIONS, completion([5] * 8000, max_tokens=193), "context_length_exceeded", None, "193"),
    Bad("text over it", CHAT, chat("word " * 9000), "context_length_exceeded", None, str(CONTEXT)),
    Bad("max_tokens over it", CHAT, chat(max_tokens=CONTEXT + 1), "context_length_exceeded", None, str(CONTEXT)),
    Bad("generate over it", GENERATE, {"input_ids": [5] * (CONTEXT + 1)}, "context_length_exceeded", None, str(CONTEXT + 1)),
]
TOKENS = [
    bad
    for name, token in [("-1", -1), ("vocab", VOCABULARY), ("2^32", 2**32), ("2^70", 2**70), ("true", True), ("1.5", 1.5),
                        ("a text", "5"), ("null", None), ("1.0", 1.0)]
    for bad in (
        Bad(f"token {name}", COMPLETIONS, completion([5, token]), "invalid_token_id"),
        Bad(f"token {name} in a list", COMPLETIONS, completion([[5], [token]]), "invalid_token_id"),
        Bad(f"input_ids {name}", GENERATE, {"input_ids": [5, token]}, "invalid_token_id"),
        Bad(f"stop_token_ids {name}", CHAT, chat(stop_token_ids=[token]), "invalid_token_id"),
    )
]
RANGES = [
    *both("max_tokens -1", {"max_tokens": -1}, "out_of_range", "max_tokens"),
    *both("max_tokens 0", {"max_tokens": 0}, "out_of_range", "max_tokens"),
    *both("max_tokens 2^31", {"max_tokens": 2**31}, "out_of_range", "max_tokens"),
    *both("max_tokens a text", {"max_tokens": "5"}, "out_of_range", "max_tokens"),
    *both("max_tokens 1.5", {"max_tokens": 1.5}, "out_of_range", "max_tokens"),
    *both("max_tokens true", {"max_tokens": True}, "out_of_range", "max_tokens"),
    Bad("max_completion_tokens 0", CHAT, chat(max_completion_tokens=0), "out_of_range", "max_completion_tokens"),
    Bad("echo max_tokens -1", COMPLETIONS, completion(echo=True, max_tokens=-1), "out_of_range", "max_tokens"),
    Bad("max_new_tokens -1", GENERATE, native(sampling={"max_new_tokens": -1}), "out_of_range", "max_new_tokens"),
    Bad("max_new_tokens 2^31", GENERATE, native(sampling={"max_new_tokens": 2**31}), "out_of_range", "max_new_tokens"),
    *[
        bad
        for name, n in (("0", 0), ("-1", -1), ("10^9", 10**9), ("10^400", 10**400))
        for bad in everywhere(f"n {name}", {"n": n}, "out_of_range", "n")
    ],
    Bad("prompts x n", COMPLETIONS, completion(["x"] * 100, n=3), "out_of_range", "n"),
    Bad("best_of < n", COMPLETIONS, completion(n=3, best_of=2), "out_of_range", "best_of"),
    *both("temperature -1", {"temperature": -1}, "out_of_range", "temperature"),
    *both("temperature 2.1", {"temperature": 2.1}, "out_of_range", "temperature"),
    Bad("generate temperature -1", GENERATE, native(sampling={"temperature": -1}), "out_of_range", "temperature"),
    *everywhere("top_p 0", {"top_p": 0}, "out_of_range", "top_p"),
    *everywhere("top_p 1.1", {"top_p": 1.1}, "out_of_range", "top_p"),
    *everywhere("top_k -2", {"top_k": -2}, "out_of_range", "top_k"),
    *everywhere("min_p 2", {"min_p": 2}, "out_of_range", "min_p"),
    *everywhere("frequency_penalty", {"frequency_penalty": 2.1}, "out_of_range", "frequency_penalty"),
    *everywhere("presence_penalty", {"presence_penalty": -2.1}, "out_of_range", "presence_penalty"),
    *everywhere("repetition_penalty", {"repetition_penalty": 0}, "out_of_range", "repetition_penalty"),
    *everywhere("seed 2^63", {"seed": 2**63}, "out_of_range", "seed"),
    *everywhere("seed -2^63-1", {"seed": -(2**63) - 1}, "out_of_range", "seed"),
    *everywhere("seed 2^70", {"seed": 2**70}, "out_of_range", "seed"),
    *both("timeout_s 0", {"timeout_s": 0}, "out_of_range", "timeout_s"),
    *both("priority 2^70", {"priority": 2**70}, "out_of_range", "priority"),
    Bad("generate priority 2^70", GENERATE, native(priority=2**70), "out_of_range", "priority"),
]
BIAS = [
    bad
    for name, bias in [
        ("1,025 entries", {str(i): 1 for i in range(1025)}),
        ("id -1", {"-1": 1}),
        ("id over the vocabulary", {str(VOCABULARY): 1}),
        ("id a word", {"word": 1}),
        ("id of 400 digits", {"1" * 400: 1}),
        ("id in other digits", {"\u0663": 1}),
        ("101", {"5": 101}),
        ("-101", {"5": -101}),
        ("a text", {"5": "1"}),
        ("a list", [1]),
    ]
    for bad in everywhere(f"logit_bias {name}", {"logit_bias": bias}, "invalid_logit_bias")
]
LOGPROBS = [
    Bad("top_logprobs 21", CHAT, chat(logprobs=True, top_logprobs=21), "invalid_logprobs", "top_logprobs"),
    Bad("top_logprobs -1", CHAT, chat(logprobs=True, top_logprobs=-1), "invalid_logprobs", "top_logprobs"),
    Bad("top_logprobs alone", CHAT, chat(top_logprobs=2), "invalid_logprobs", "top_logprobs"),
    Bad("logprobs a number", CHAT, chat(logprobs=5), "invalid_logprobs", "logprobs"),
    Bad("completions logprobs 21", COMPLETIONS, completion(logprobs=21), "invalid_logprobs", "logprobs"),
    Bad("completions logprobs true", COMPLETIONS, completion(logprobs=True), "invalid_logprobs", "logprobs"),
    Bad("generate 21", GENERATE, native(return_logprob=True, top_logprobs_num=21), "invalid_logprobs", "top_logprobs_num"),
    Bad("generate ids", GENERATE, native(return_logprob=True, token_ids_logprob=[VOCABULARY]), "invalid_token_id"),
    Bad("generate id 2^70", GENERATE, native(return_logprob=True, token_ids_logprob=[2**70]), "invalid_token_id"),
    Bad("generate 1,025 ids", GENERATE, native(return_logprob=True, token_ids_logprob=[1] * 1025), "invalid_logprobs"),
    Bad("generate id -1", GENERATE, native(return_logprob=True, token_ids_logprob=[-1]), "invalid_token_id"),
]
STOPS = [
    bad
    for name, stop in [("empty", ""), ("empty in a list", ["a", ""]), ("17", list("abcdefghijklmnopq")), ("1 MB", "x" * 10**6),
                       ("257 bytes", "x" * 257), ("a number", 5), ("a number in a list", [5])]
    for bad in everywhere(f"stop {name}", {"stop": stop}, "invalid_stop")
] + everywhere("stop_regex", {"stop_regex": "("}, "unsupported_regex", "stop_regex")
COMBINATIONS = [
    Bad("best_of streamed", COMPLETIONS, completion(best_of=2, stream=True), "invalid_parameter_combination", "best_of"),
    *both("two constraints", {"response_format": {"type": "json_object"}, "regex": "a"}, "invalid_response_format"),
    *everywhere("schema and regex", {"json_schema": "{}", "regex": "a"}, "invalid_response_format"),
    *both("unknown format", {"response_format": {"type": "yaml"}}, "invalid_response_format"),
    *both("a format that is a text", {"response_format": "json"}, "invalid_response_format"),
    *both("format without schema", {"response_format": {"type": "json_schema"}}, "invalid_response_format"),
    *both("format without a name", {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
          "invalid_response_format"),
]
TOOLS = [
    Bad("tool name with newline", CHAT, chat(tools=[tool("look\nup")]), "invalid_tools"),
    Bad("tool name at its end", CHAT, chat(tools=[tool("look_up\n")]), "invalid_tools"),
    Bad("tool name of 300", CHAT, chat(tools=[tool("x" * 300)]), "invalid_tools"),
    Bad("tool without function", CHAT, chat(tools=[{"type": "function"}]), "invalid_tools"),
    Bad("tools a text", CHAT, chat(tools="look_up"), "invalid_tools"),
    Bad("1,025 tools", CHAT, chat(tools=[tool(f"t{i}") for i in range(1025)]), "invalid_tools", "tools"),
    Bad("absent tool", CHAT, chat(tools=[tool()], tool_choice={"type": "function", "function": {"name": "other"}}),
        "invalid_tools", "tool_choice", "'other'"),
    Bad("tool_choice maybe", CHAT, chat(tools=[tool()], tool_choice="maybe"), "invalid_tools", "tool_choice"),
    Bad("tool_choice a number", CHAT, chat(tools=[tool()], tool_choice=5), "invalid_tools", "tool_choice"),
    Bad("tool_choice {}", CHAT, chat(tools=[tool()], tool_choice={}), "invalid_tools", "tool_choice"),
]
TEMPLATES = [
    Bad("template in the body", CHAT, chat(chat_template="{{ 7 * 7 }}"), "not_allowed", "chat_template"),
    *[
        Bad(f"template argument {name}", CHAT, chat(chat_template_kwargs={name: value}), "not_allowed", "chat_template_kwargs")
        for name, value in [("tokenize", True), ("chat_template", "x"), ("add_generation_prompt", [1]), ("messages", []),
                            ("tools", []), ("continue_final_message", True), ("self", 1)]
    ],
]
REQUEST = [
    *both("empty cache_salt", {"cache_salt": ""}, "invalid_cache_salt", "cache_salt"),
    *both("cache_salt of 10 KB", {"cache_salt": "x" * 10240}, "invalid_cache_salt", "cache_salt"),
    Bad("generate empty cache_salt", GENERATE, native(cache_salt=""), "invalid_cache_salt", "cache_salt"),
    *both("rid of 10 KB", {"rid": "x" * 10240}, "invalid_request_id", "rid"),
    *both("rid with a line end", {"request_id": "a\r\nX-Evil: 1"}, "invalid_request_id", "request_id"),
    Bad("generate rid of 10 KB", GENERATE, native(rid="x" * 10240), "invalid_request_id", "rid"),
    Bad("generate rid with a line end", GENERATE, native(rid="a\nb"), "invalid_request_id", "rid"),
    Bad("prompt_embeds", COMPLETIONS, completion(prompt_embeds=[[1.0]]), "unsupported_modality", "prompt_embeds"),
    Bad("image_data", GENERATE, native(image_data="x"), "unsupported_modality", "image_data"),
    Bad("audio", CHAT, chat(modalities=["text", "audio"]), "unsupported_modality", "modalities"),
]
ROWS = [*MODELS, *MISSING, *UNKNOWN, *MESSAGES, *PROMPTS, *LENGTHS, *TOKENS, *RANGES, *BIAS, *LOGPROBS, *STOPS, *COMBINATIONS,
        *TOOLS, *TEMPLATES, *REQUEST]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_wrong_value_is_refused_by_its_name_and_the_next_request_is_served(server, row: Bad) -> None:
    """Streamed or not: nothing of a stream begins before the request is known to be good."""
    for stream in (False, True):
        answer = call(server.port, row.path, {"stream": stream, **row.body})
        assert_error(answer, row.status, row.code, param=row.param, text=row.text)
    assert_still_good(server.port)


def test_a_prompt_over_the_context_is_refused_with_both_numbers(server) -> None:
    alone = call(server.port, COMPLETIONS, completion([5] * (CONTEXT + 1))).json["error"]["message"]
    assert str(CONTEXT + 1) in alone and str(CONTEXT) in alone.replace(str(CONTEXT + 1), "")
    together = call(server.port, COMPLETIONS, completion([5] * 8000, max_tokens=193)).json["error"]["message"]
    assert "8000" in together and "193" in together and "8192" in together


def test_stream_options_without_stream_are_refused(server) -> None:
    for path, body in ((CHAT, chat), (COMPLETIONS, completion)):
        answer = call(server.port, path, body(stream_options={"include_usage": True}))
        assert_error(answer, 400, "invalid_parameter_combination", param="stream_options")


GOOD: list[tuple[str, str, dict[str, Any]]] = [
    ("unknown fields further down are ignored", CHAT, {
        "model": "ramify-bundled", "max_tokens": 1, "metadata": {"a": {"b": 1}}, "stream_options": None,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}], "weight": 1}],
        "tools": [{**tool(strictly=True), "x": 1}],
    }),
    ("null is the default everywhere", CHAT, chat(
        temperature=None, top_p=None, n=None, stop=None, seed=None, logit_bias=None, tools=None, tool_choice=None,
        response_format=None, stream_options=None, user=None, metadata=None, max_completion_tokens=None)),
    ("an assistant may have no content", CHAT, {
        "model": "ramify-bundled", "max_tokens": 1, "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "[" * 2_000}}]},
            {"role": "tool", "tool_call_id": "1", "content": "y"}]}),
    ("temperatures of /generate have no upper bound", GENERATE, native(sampling={"temperature": 50.0})),
    ("no tokens at all on /generate", GENERATE, native(sampling={"max_new_tokens": 0})),
    ("no tokens at all with echo", COMPLETIONS, completion(max_tokens=0, echo=True)),
    ("max_completion_tokens wins", CHAT, chat(max_tokens=-5, max_completion_tokens=1)),
    ("stop may be empty as a list", CHAT, chat(stop=[])),
]


@pytest.mark.parametrize(("name", "path", "body"), GOOD, ids=[name for name, _, _ in GOOD])
def test_what_clients_send_and_is_harmless_is_taken(server, name: str, path: str, body: dict[str, Any]) -> None:
    answer = call(server.port, path, body)
    assert answer.status == 200, answer.body
