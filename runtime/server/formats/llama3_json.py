"""Llama 3.1 to 3.3: an answer that calls is nothing but JSON objects, with `parameters` for the arguments.

    {"name": "weather", "parameters": {"city": "Bern"}}; {"name": "clock", "parameters": {}}

Some of these models write `<|python_tag|>` first; it is special, so the text does not show it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from msgspec.structs import replace

from ....constrained.spec import Constraint, StructuralTags, Tag, TagRow
from ...protocol import AnswerParams
from .base import Tool, call_id
from .reader import CallReader, Grammar
from .steps import NAME, SPACE
from .values import JsonObjectValue

PYTHON_TAG = "<|python_tag|>"
BEGIN = '{"name": '
_HEAD = ("{", SPACE, '"name"', SPACE, ":", SPACE, '"', NAME, '"', SPACE, ",", SPACE, '"parameters"', SPACE, ":")
_END = (SPACE, "}")
_GRAMMAR = Grammar("", JsonObjectValue, ((SPACE, *_HEAD),), ((*_END, SPACE, ";", SPACE, *_HEAD),), frozenset((0,)))


class Llama3Json:
    """controls: texts of the model's control tokens."""

    name = "llama3_json"
    marks: tuple[str, ...] = ()

    def __init__(self, controls: Collection[str]):
        self._openings = ("", PYTHON_TAG) if PYTHON_TAG in controls else ("",)

    def constraint(self, tools: Sequence[Tool], said: AnswerParams, otherwise: Any) -> Constraint:
        tags = tuple(Tag(f'{BEGIN}"{tool.name}", "parameters": ', tool.content, "}", strict=tool.strict) for tool in tools)
        row = TagRow(tags, separator="; " if said.parallel else None)
        if said.tools == "required":
            return row
        rows = tuple(replace(row, opening=opening) for opening in self._openings)
        return StructuralTags((BEGIN, *self._openings[1:]), rows, at_start=True, otherwise=otherwise, marked=True)

    def reader(self) -> CallReader:
        return CallReader(_GRAMMAR, call_id, control=False)
