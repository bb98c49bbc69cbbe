"""What a format of function calls is: how calls are written, as a constraint, and how they are read, as a reader.

A format is chosen once for a model (`detect.py`), knowing which of its marks are control tokens of the model.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

from ....constrained.spec import Constraint, JsonObject, JsonSchema, StructuralTags, Tag, TagRow
from ...errors import InvalidRequest
from ...protocol import AnswerParams
from .reader import CallReader

NOTHING = JsonSchema('{"type":"object","properties":{},"additionalProperties":false}')
"""What a tool without parameters takes."""

CHEAP_BYTES = 8 * 1024
"""A schema that nobody asked to have enforced is enforced up to this size."""


class Tool(NamedTuple):
    """A function that may be called. content: its arguments. strict: they are enforced, or the request is refused."""

    name: str
    content: JsonSchema | JsonObject
    strict: bool


class Format(Protocol):
    """One way of writing calls. marks: texts that are control tokens in the models that have them, and belong to a call."""

    name: str
    marks: tuple[str, ...]

    def constraint(self, tools: Sequence[Tool], said: AnswerParams, otherwise: Any) -> Constraint:
        """What an answer may be: said.tools is "auto" or "required". otherwise: a constraint for answers without a call."""
        ...

    def reader(self) -> CallReader:
        """A reader of one answer."""
        ...


def tools_of(definitions: Sequence[dict[str, Any]], names: Collection[str]) -> list[Tool]:
    """The tools of a conversation, of which the caller allows `names` (empty: all). Raises InvalidRequest (invalid_tools)."""
    functions = [definition.get("function", definition) for definition in definitions]
    known = {str(function.get("name", "")): function for function in functions}
    for name in names:
        if name not in known:
            text = f"tool_choice names {name[:64]!r}, which is not among the tools."
            raise InvalidRequest(text, code="invalid_tools", param="tool_choice")
    if not known:
        raise InvalidRequest("tool_choice asks for a call, and there are no tools.", code="invalid_tools", param="tool_choice")
    chosen = [function for name, function in known.items() if not names or name in names]
    return [Tool(str(f["name"]), _content(f.get("parameters"), bool(f.get("strict"))), bool(f.get("strict"))) for f in chosen]


def _content(parameters: Any, strict: bool) -> JsonSchema | JsonObject:
    if parameters is None:
        return NOTHING
    if not isinstance(parameters, dict) or not parameters or parameters.get("type", "object") != "object":
        return JsonObject()
    schema = json.dumps({"type": "object", **parameters}, ensure_ascii=False, separators=(",", ":"))
    return JsonSchema(schema) if strict or len(schema) <= CHEAP_BYTES else JsonObject()


def choose(trigger: str, tags: Sequence[Tag | TagRow], row: TagRow, said: AnswerParams, otherwise: Any) -> Constraint:
    """The constraint of a format whose calls come after `trigger`, one by one as `tags`, or in a `row` with nothing else."""
    if said.tools == "required":
        return row
    if otherwise is not None:
        return StructuralTags((trigger,), (row,), at_start=True, otherwise=otherwise, marked=True)
    return StructuralTags((trigger,), tuple(tags), stop_after_first=not said.parallel, marked=True)


def call_id() -> str:
    """A new id in OpenAI's form."""
    return f"call_{uuid.uuid4().hex[:24]}"
