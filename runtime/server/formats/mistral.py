"""Mistral: calls follow `[TOOL_CALLS]`, first as a JSON list, in later models one by one with `[ARGS]` before the arguments.

[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Bern"}}, {"name": "clock", "arguments": {}}]
[TOOL_CALLS]weather[ARGS]{"city": "Bern"}[TOOL_CALLS]clock[ARGS]{}
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Collection, Sequence
from typing import Any

from ....constrained.spec import Constraint, Tag, TagRow
from ...protocol import AnswerParams
from .base import Tool, choose
from .reader import CallReader, Grammar
from .steps import NAME, SPACE
from .values import JsonObjectValue

CALLS, ARGS = "[TOOL_CALLS]", "[ARGS]"
_HEAD = ("{", SPACE, '"name"', SPACE, ":", SPACE, '"', NAME, '"', SPACE, ",", SPACE, '"arguments"', SPACE, ":")
_LIST = Grammar(
    CALLS,
    JsonObjectValue,
    ((SPACE, "[", SPACE, *_HEAD),),
    ((SPACE, "}", SPACE, ",", SPACE, *_HEAD), (SPACE, "}", SPACE, "]")),
    frozenset((0,)),
)
_ONE_BY_ONE = Grammar(CALLS, JsonObjectValue, ((SPACE, NAME, ARGS),))


def short_id() -> str:
    """Nine letters and digits: the templates of these models take no other id back."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


class MistralList:
    """The list, with `arguments`. controls: texts of the model's control tokens."""

    name = "mistral"
    marks: tuple[str, ...] = (CALLS,)

    def __init__(self, controls: Collection[str]):
        self._control = CALLS in controls

    def constraint(self, tools: Sequence[Tool], said: AnswerParams, otherwise: Any) -> Constraint:
        tags = tuple(Tag(f'{{"name": "{tool.name}", "arguments": ', tool.content, "}", strict=tool.strict) for tool in tools)
        row = TagRow(tags, f"{CALLS}[", ", " if said.parallel else None, "]")
        # A list is all that follows: several calls are in one.
        once = AnswerParams(said.tools, said.names, parallel=False, reasoning=said.reasoning)
        return (
            choose(CALLS, (), row, said, otherwise) if said.tools == "required" else choose(CALLS, (row,), row, once, otherwise)
        )

    def reader(self) -> CallReader:
        return CallReader(_LIST, short_id, control=self._control)


class MistralArgs:
    """One by one, with `[ARGS]`. controls: texts of the model's control tokens."""

    name = "mistral_args"
    marks: tuple[str, ...] = (CALLS, ARGS)

    def __init__(self, controls: Collection[str]):
        self._control = CALLS in controls

    def constraint(self, tools: Sequence[Tool], said: AnswerParams, otherwise: Any) -> Constraint:
        tags = tuple(Tag(f"{CALLS}{tool.name}{ARGS}", tool.content, "", strict=tool.strict) for tool in tools)
        return choose(CALLS, tags, TagRow(tags, separator="" if said.parallel else None), said, otherwise)

    def reader(self) -> CallReader:
        return CallReader(_ONE_BY_ONE, short_id, control=self._control)
