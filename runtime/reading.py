"""How one answer is written and read: from what was asked and what the model's formats are to a constraint and a reader.

Between text and engine: `async_engine.py` asks here once per request, before the constraint is compiled. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..constrained.spec import Choice, Constraint, Ebnf, JsonObject, JsonSchema, Reasoned, Regex
from .errors import InvalidRequest
from .protocol import AnswerParams, Chat, GenerateRequest
from .server.formats.base import Tool, tools_of
from .server.formats.detect import Formats, detect
from .server.formats.reasoning import AnswerReader
from .text.template import ChatTemplate
from .text.tokenizer import Tokenizer

_TAIL = 16
"""Tokens at the end of a prompt in which it may open the reasoning."""


class Reading(NamedTuple):
    """constraint: what the output obeys. is_optional: without a grammar it can do without. reader: makes a reader for one
    sample, None: the answer is a text. marks: control tokens that the reader must see, id -> text."""

    constraint: Constraint | None
    is_optional: bool = False
    reader: Callable[[], AnswerReader] | None = None
    marks: Mapping[int, str] = {}


def formats_of(template: ChatTemplate, tokenizer: Tokenizer, *, calls: str, reasoning: str) -> Formats:
    """The formats of a model (`formats/detect.py`)."""
    return detect(template.source, frozenset(tokenizer.control.texts), calls=calls, reasoning=reasoning)


def reading(request: GenerateRequest, formats: Formats, tokenizer: Tokenizer, prompt_ids: np.ndarray) -> Reading:
    """How the answer to a request is read. prompt_ids: its prompt. Raises InvalidRequest (invalid_tools,
    invalid_parameter_combination)."""
    said = request.answer
    if said is None:
        return Reading(request.constraint)
    constraint, optional = request.constraint, False
    calls = formats.calls if said.tools != "none" else None
    if said.tools not in ("none", "auto", "required"):
        raise _wrong(f"answer.tools is {said.tools[:64]!r}; it must be none, auto or required.")
    if said.tools == "required" and calls is None:
        raise _wrong(
            "This model's form of function calls is not known, so no call can be forced. Start with --tool-call-parser."
        )
    if calls is not None:
        tools = tools_of(_definitions(request), said.names)
        constraint = calls.constraint(tools, said, _otherwise(request.constraint, said))
        optional = _asks_little(tools, said, request.constraint)
    tail = tokenizer.spell(prompt_ids[-_TAIL:].tolist()).decode("utf-8", "replace").rstrip()
    reasoning = formats.reasoning if said.reasoning else None
    if reasoning is not None and tail.endswith(reasoning.end):
        reasoning = None  # the prompt has ended it already
    begun = reasoning is not None and tail.endswith(reasoning.begin)
    if reasoning is not None and constraint is not None:
        assert not isinstance(constraint, Reasoned)
        constraint = Reasoned(reasoning.begin, reasoning.end, constraint, begun=begun, marked=True)
    if calls is None and reasoning is None:
        return Reading(constraint)
    texts = {*(calls.marks if calls is not None else ()), *((reasoning.begin, reasoning.end) if reasoning is not None else ())}
    marks = {i: text for i, text in zip(tokenizer.control.ids, tokenizer.control.texts, strict=True) if text in texts}

    def reader() -> AnswerReader:
        return AnswerReader(reasoning, None if calls is None else calls.reader(), begun=begun)

    return Reading(constraint, optional, reader, marks)


def _definitions(request: GenerateRequest) -> list[dict[str, Any]]:
    chat = request.prompt[0] if request.prompt else None
    if not isinstance(chat, Chat):
        raise _wrong("Tools are called in a conversation. Put the prompt into turns.")
    return [json.loads(tool) for tool in chat.tools]


def _otherwise(constraint: Constraint | None, said: AnswerParams) -> Constraint | None:
    if constraint is None or said.tools == "required":
        return None
    if not isinstance(constraint, (JsonSchema, JsonObject, Regex, Ebnf, Choice)):
        text = "Structural tags and tools write calls in the same output. Give one of them, or tool_choice none."
        raise InvalidRequest(text, code="invalid_parameter_combination", param="response_format")
    return constraint


def _asks_little(tools: list[Tool], said: AnswerParams, constraint: Constraint | None) -> bool:
    """Whether nothing was promised: the model may call, in whatever way."""
    free = constraint is None and said.tools == "auto" and said.parallel
    return free and not said.names and not any(tool.strict for tool in tools)


def _wrong(text: str) -> InvalidRequest:
    return InvalidRequest(text, code="invalid_tools", param="tool_choice")
