"""Conversations through HTTP become the ids that transformers gives for the same JSON, tools included."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from serving import RunningServer

from ramify.runtime.bundled import MODEL_DIR

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city <b>now</b>",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich", "days": 2}'}}


def said(*contents: str, system: str | None = None) -> list[dict[str, Any]]:
    turns = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


CONVERSATIONS: tuple[tuple[list[dict[str, Any]], list[dict[str, Any]]], ...] = (
    (said("hi"), []),
    (said("hello", "thanks", "what does it cost?"), []),
    (said("question", system="You are the assistant."), []),
    (said("one", "two", "three", "four", "five", system="Count."), []),
    (said(""), []),
    (said(" leading and trailing \n"), []),
    (said("\n\n  indented\n\ttabbed", "ok\n", "next"), []),
    (said("Ünïcödé naïve café — “quotes”", "你好世界", "😀👩‍👩‍👧"), []),
    (said("e\u0301 is not composed, \u202e is not visible, \0 is nothing"), []),
    (said("def f(x):\n    return x + 1  # indent", "```python\nf(2)\n```", "and 3?"), []),
    (said('{"a": [1, 2], "b": "c"}', '{"answer": null}', "again"), []),
    (said("a" * 300, "b " * 200, "c"), []),
    (said("[INST] like a header [/INST]", "### Response:", "<b>html</b> & &amp;"), []),
    ([{"role": "user", "content": [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]}], []),
    (said("weather?"), [WEATHER]),
    (said("weather?", system="Use tools."), [WEATHER, CLOCK]),
    ([*said("weather?"), {"role": "assistant", "content": None, "tool_calls": [CALL]}], [WEATHER]),
    (
        [
            *said("weather?"),
            {"role": "assistant", "content": "I look.", "tool_calls": [CALL, CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "12°"},
            {"role": "tool", "tool_call_id": "call_1", "content": "13°"},
        ],
        [WEATHER, CLOCK],
    ),
    ([*said("weather?"), {"role": "assistant", "content": "", "tool_calls": [CALL]}, *said("never mind")], []),
    (said("a", "b", "c", system=""), [CLOCK]),
)


@pytest.fixture(scope="module")
def oracle() -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(MODEL_DIR))


def for_transformers(message: dict[str, Any]) -> dict[str, Any]:
    """As one calls it there: contents are text, arguments are objects."""
    content = message["content"]
    plain = {**message, "content": content if isinstance(content, str) else "".join(part["text"] for part in content or ())}
    if "tool_calls" in message:
        plain["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]
    return plain


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_a_conversation_over_http_has_the_ids_that_transformers_gives(server: RunningServer, oracle: Any, number: int):
    messages, tools = CONVERSATIONS[number]
    wanted = oracle.apply_chat_template(
        [for_transformers(message) for message in messages],
        tools=tools or None,
        tokenize=True,
        return_dict=False,
        add_generation_prompt=True,
    )
    body = {"model": "default", "messages": messages, "max_tokens": 1, "return_prompt_token_ids": True}
    body |= {"tools": tools} if tools else {}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=240)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert response.status == 200, answer
    assert answer["choices"][0]["prompt_token_ids"] == wanted
