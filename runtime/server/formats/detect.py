"""Which formats a model has: by its chat template, which was written with them, or by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

from ...errors import InvalidRequest
from .base import Format
from .hermes import Hermes
from .llama3_json import Llama3Json
from .mistral import MistralArgs, MistralList
from .pythonic import Pythonic
from .reasoning import Reasoning

FORMATS: dict[str, Callable[[Collection[str]], Format]] = {
    "hermes": Hermes,
    "llama3_json": Llama3Json,
    "pythonic": Pythonic,
    "mistral": MistralList,
    "mistral_args": MistralArgs,
}
# The first whose pattern is in the template. What is written in another way between the same marks is none of these.
_SIGNS = (
    ("mistral_args", r"\[ARGS\]"),
    ("mistral", r"\[TOOL_CALLS\]"),
    ("", r"<tool_call>\s*(?:\\n)?\s*<function=|<\|tool▁calls▁begin\|>"),
    ("hermes", r"<tool_call>"),
    ("pythonic", r"\[\s*func(?:tion)?_?name1?\s*\("),
    ("llama3_json", r"\"parameters\"\s*:"),
)


class Formats(NamedTuple):
    """How a model writes calls and reasoning; None: in no way that is known."""

    calls: Format | None
    reasoning: Reasoning | None


def detect(template: str, controls: Collection[str], *, calls: str = "auto", reasoning: str = "auto") -> Formats:
    """The formats of a model. template: the source of its chat templates. controls: texts of its control tokens.
    calls: a name of FORMATS, "auto" or "none"; reasoning: "auto" or "none". Raises InvalidRequest for another word."""
    if calls not in FORMATS and calls not in ("auto", "none"):
        names = ", ".join((*FORMATS, "auto", "none"))
        raise InvalidRequest(f"tool_call_parser is {calls!r}; it must be one of {names}.", param="tool_call_parser")
    if reasoning not in ("auto", "none"):
        text = f"reasoning_parser is {reasoning!r}; it must be auto or none."
        raise InvalidRequest(text, param="reasoning_parser")
    name = next((name for name, sign in _SIGNS if re.search(sign, template)), "") if calls == "auto" else calls
    made = FORMATS.get(name)
    thinks = reasoning == "auto" and "</think>" in template
    return Formats(None if made is None else made(controls), Reasoning(frozenset(controls)) if thinks else None)
