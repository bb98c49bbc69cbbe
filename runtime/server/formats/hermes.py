"""Hermes 2 Pro, Qwen 2.5 and 3, and the bundled model: each call is a JSON object between `<tool_call>` and `</tool_call>`.

Let me look.
<tool_call>
{"name": "weather", "arguments": {"city": "Bern"}}
</tool_call>
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ....constrained.spec import Constraint, Tag, TagRow
from ...protocol import AnswerParams
from .base import Tool, call_id, choose
from .reader import CallReader, Grammar
from .steps import NAME, SPACE
from .values import JsonObjectValue

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_HEAD = (SPACE, "{", SPACE, '"name"', SPACE, ":", SPACE, '"', NAME, '"', SPACE, ",", SPACE, '"arguments"', SPACE, ":")
_GRAMMAR = Grammar(OPEN, JsonObjectValue, (_HEAD,), ((SPACE, "}", SPACE, CLOSE),))


class Hermes:
    """controls: texts of the model's control tokens."""

    name = "hermes"
    marks: tuple[str, ...] = (OPEN, CLOSE)

    def __init__(self, controls: Collection[str]):
        self._control = OPEN in controls

    def constraint(self, tools: Sequence[Tool], said: AnswerParams, otherwise: Any) -> Constraint:
        tags = tuple(
            Tag(f'{OPEN}\n{{"name": "{tool.name}", "arguments": ', tool.content, f"}}\n{CLOSE}", strict=tool.strict)
            for tool in tools
        )
        return choose(OPEN, tags, TagRow(tags, separator="\n" if said.parallel else None), said, otherwise)

    def reader(self) -> CallReader:
        return CallReader(_GRAMMAR, call_id, control=self._control)
