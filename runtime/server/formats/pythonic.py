"""Llama 3.2 and 4 in their pythonic form: an answer that calls is a list of Python calls with keyword arguments.

[weather(city="Bern", days=3), clock()]
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ....constrained.spec import Constraint, StructuralTags, Tag, TagRow
from ...protocol import AnswerParams
from .base import Tool, call_id
from .reader import CallReader, Grammar
from .steps import NAME, SPACE
from .values import KeywordsValue

_NEXT = (SPACE, ",", SPACE, NAME, "(")
_GRAMMAR = Grammar("", KeywordsValue, ((SPACE, "[", SPACE, NAME, "("),), (_NEXT, (SPACE, "]")), frozenset((0,)))


class Pythonic:
    """controls: texts of the model's control tokens."""

    name = "pythonic"
    marks: tuple[str, ...] = ()

    def __init__(self, controls: Collection[str]):
        pass

    def constraint(self, tools: Sequence[Tool], said: AnswerParams, otherwise: Any) -> Constraint:
        tags = tuple(Tag(f"{tool.name}(", tool.content, ")", form="keywords", strict=tool.strict) for tool in tools)
        row = TagRow(tags, "[", ", " if said.parallel else None, "]")
        if said.tools == "required":
            return row
        triggers = tuple(f"[{tool.name}(" for tool in tools)
        return StructuralTags(triggers, (row,), at_start=True, otherwise=otherwise, marked=True)

    def reader(self) -> CallReader:
        return CallReader(_GRAMMAR, call_id, control=False)
