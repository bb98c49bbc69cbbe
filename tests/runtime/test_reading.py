"""How an answer is read: the constraint and the reader of a request, and what comes of them token by token."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ramify.constrained.spec import Choice, JsonSchema, Reasoned, Regex, StructuralTags, TagRow
from ramify.runtime.bundled import MODEL_DIR
from ramify.runtime.errors import InvalidRequest
from ramify.runtime.protocol import (
    AnswerDelta,
    AnswerParams,
    CacheReport,
    Chat,
    Delta,
    Finish,
    Finished,
    GenerateRequest,
    LogprobParams,
    Message,
    Text,
    Timings,
    Usage,
    pack_ids,
)
from ramify.runtime.reading import formats_of, reading
from ramify.runtime.server.openai_chat import ChatReply
from ramify.runtime.streams import Asked, Stream, joined
from ramify.runtime.text.segments import encode_prompt
from ramify.runtime.text.template import ChatTemplate
from ramify.runtime.text.tokenizer import Tokenizer
from ramify.runtime.wire import SequenceEnd

TOOL = json.dumps({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}})
THINKING = (
    "{%- for m in messages %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}\n{% endfor %}"
    "{{ 'assistant: ' + (start or '') }}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(MODEL_DIR)


@pytest.fixture(scope="module")
def bundled(tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate.load(MODEL_DIR, tokenizer.named)


def read(
    tokenizer, template, said: AnswerParams | None, *, constraint: Any = None, start: str = "", tools=(TOOL,), prompt=None
):
    chat = Chat((Message("user", "Hi."),), tools=tools, template_kwargs={"start": start})
    request = GenerateRequest(prompt or (chat,), constraint=constraint, answer=said)
    ids = encode_prompt(request.prompt, tokenizer, template).ids
    return reading(request, formats_of(template, tokenizer, calls="auto", reasoning="auto"), tokenizer, ids)


def test_a_text_stays_a_text(tokenizer, bundled):
    for said in (None, AnswerParams(), AnswerParams(reasoning=True)):
        found = read(tokenizer, bundled, said, constraint=Regex("a"))
        assert (found.constraint, found.reader) == (Regex("a"), None)


def test_tools_become_a_constraint_and_a_reader(tokenizer, bundled):
    auto = read(tokenizer, bundled, AnswerParams("auto"))
    assert isinstance(auto.constraint, StructuralTags) and auto.is_optional and auto.reader is not None
    assert auto.marks == {tokenizer.control.ids[tokenizer.control.texts.index(t)]: t for t in ("<tool_call>", "</tool_call>")}
    assert not read(tokenizer, bundled, AnswerParams("auto", parallel=False)).is_optional
    assert isinstance(read(tokenizer, bundled, AnswerParams("required")).constraint, TagRow)
    words = read(tokenizer, bundled, AnswerParams("auto"), constraint=Choice(("a", "b"))).constraint
    assert isinstance(words, StructuralTags) and words.at_start and words.otherwise == Choice(("a", "b"))


def test_what_cannot_be_done_is_refused(tokenizer, bundled):
    thinking = ChatTemplate({"default": THINKING}, tokenizer.named)
    for template, said, more in (
        (bundled, AnswerParams("maybe"), {}),
        (bundled, AnswerParams("required"), {"tools": ()}),
        (bundled, AnswerParams("required", ("other",)), {}),
        (bundled, AnswerParams("auto"), {"prompt": (Text("x"),)}),
        (thinking, AnswerParams("required"), {}),
    ):
        with pytest.raises(InvalidRequest) as error:
            read(tokenizer, template, said, **more)
        assert error.value.code == "invalid_tools"
    with pytest.raises(InvalidRequest) as error:
        read(tokenizer, bundled, AnswerParams("auto"), constraint=StructuralTags(("<",), ()))
    assert error.value.code == "invalid_parameter_combination"
    assert read(tokenizer, thinking, AnswerParams("auto")).constraint is None  # no call can come of it


def test_a_constraint_is_for_what_follows_the_reasoning(tokenizer):
    template, schema = ChatTemplate({"default": THINKING}, tokenizer.named), JsonSchema("{}")
    said = AnswerParams(reasoning=True)
    for start, expected in (
        ("", Reasoned("<think>", "</think>", schema, marked=True)),
        ("<think>\n", Reasoned("<think>", "</think>", schema, begun=True, marked=True)),
        ("<think>\n\n</think>\n\n", schema),
    ):
        assert read(tokenizer, template, said, constraint=schema, start=start).constraint == expected
    assert read(tokenizer, template, AnswerParams(), constraint=schema).constraint == schema


# ------------------------------------------------------------------------------------------------- from token to answer


def run(tokenizer, found, text: str) -> tuple[list[Delta], Finished]:
    """What a stream makes of the tokens of a text."""
    stream = Stream(0, tokenizer, Asked(), found.reader(), found.marks)
    ids = tokenizer.encode(text).tolist()
    deltas = [delta for token in ids if (delta := stream.push(token, None)) is not None]
    rest = stream.close(len(ids))
    end = SequenceEnd(1, 0, len(ids), Finish("stop"), Usage(prompt=1), Timings(), CacheReport())
    return deltas + ([rest] if rest is not None else []), stream.finished(end, pack_ids([1]), 0, Asked())


def reply(tokenizer) -> ChatReply:
    request = GenerateRequest((Text("x"),), logprobs=LogprobParams())
    return ChatReply(request, rid="1", model="m", created=0, tokenizer=tokenizer, include_usage=True)


def chunks(frames: list[bytes | None]) -> list[dict[str, Any]]:
    lines = b"".join(frame for frame in frames if frame).decode().split("\n\n")
    return [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines if line]


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "ü": "</tool"}}\n</tool_call>'


def test_tokens_become_words_and_calls(tokenizer, bundled):
    deltas, finished = run(tokenizer, read(tokenizer, bundled, AnswerParams("auto")), f"I add. {CALL}\n{CALL}")
    assert "".join(delta.text for delta in deltas) == finished.text == f"I add. {CALL}\n{CALL}"
    assert finished.answer is not None and finished.answer.content == "I add."
    assert [(c.name, json.loads(c.arguments)) for c in finished.answer.calls] == [("add", {"a": 1, "ü": "</tool"})] * 2
    whole = deltas[0]
    for delta in deltas[1:]:
        whole = joined(whole, delta)
    assert whole.answer is not None and whole.answer.content == "I add."
    assert "".join(c.arguments for c in whole.answer.calls if c.index == 1) == finished.answer.calls[1].arguments
    message = reply(tokenizer).whole([[finished]])["choices"][0]
    assert message["finish_reason"] == "tool_calls" and message["message"]["content"] == "I add."
    assert [call["id"] for call in message["message"]["tool_calls"]] == [call.id for call in finished.answer.calls]
    streamed = reply(tokenizer)
    said = chunks([streamed.begin(0, 0), *(streamed.delta(0, delta) for delta in deltas), streamed.end(0, finished)])
    assert "".join(choice["delta"].get("content") or "" for choice in said) == "I add."
    pieces = [piece for choice in said for piece in choice["delta"].get("tool_calls", ())]
    assert [piece["id"] for piece in pieces if "id" in piece] == [call.id for call in finished.answer.calls]
    assert said[-1]["finish_reason"] == "tool_calls" and [c["finish_reason"] for c in said[:-1]] == [None] * (len(said) - 1)


def test_reasoning_is_a_channel_of_its_own(tokenizer):
    template = ChatTemplate({"default": THINKING}, tokenizer.named)
    found = read(tokenizer, template, AnswerParams(reasoning=True), start="<think>\n")
    deltas, finished = run(tokenizer, found, "Well, well.\n</think>\n\nYes, ü.")
    assert finished.answer is not None
    assert (finished.answer.content, finished.answer.reasoning) == ("Yes, ü.", "Well, well.")
    assert 0 < finished.answer.reasoning_tokens < len(finished.output_ids) // 4
    whole = reply(tokenizer).whole([[finished]])
    assert whole["choices"][0]["message"]["reasoning_content"] == "Well, well."
    assert whole["choices"][0]["message"]["content"] == "Yes, ü." and whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] == finished.answer.reasoning_tokens
    streamed = reply(tokenizer)
    said = chunks([streamed.begin(0, 0), *(streamed.delta(0, delta) for delta in deltas), streamed.end(0, finished)])
    kinds = [kind for choice in said for kind in ("reasoning_content", "content") if choice["delta"].get(kind)]
    assert kinds == sorted(kinds, reverse=True) and set(kinds) == {"reasoning_content", "content"}
    assert "".join(choice["delta"].get("reasoning_content", "") for choice in said) == "Well, well."


def test_a_special_token_that_frames_calls_is_seen_though_special_tokens_are_not_shown(tokenizer):
    from ramify.runtime.reading import Reading

    end = tokenizer.control.ids[tokenizer.control.texts.index("<|im_start|>")]
    assert end in tokenizer.special_ids
    stream = Stream(0, tokenizer, Asked(), Reading(None).reader, {end: "<|im_start|>"})
    deltas = [stream.push(token, None) for token in (end, *tokenizer.encode("x").tolist())]
    assert [delta.text for delta in deltas if delta is not None] == ["<|im_start|>", "x"]
    plain = Stream(0, tokenizer, Asked())
    delta = plain.push(end, None)
    assert delta is not None and delta.text == "" and delta.answer is None
    assert joined(delta, Delta(0, "x", b"", answer=AnswerDelta("x"))).answer == AnswerDelta("x")
