"""What a caller may ask of the output: the one place on the road that every part may import.

A constraint is a frozen value, equal by content, so that it can be a cache key. It says *what* is wanted; whether it can be
enforced exactly is decided in `schema.py`, how in `compiler.py` and `matcher.py`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Whitespace = Literal["compact", "any"]
"""Between the tokens of JSON: `", "` and `": "` alone, or any."""


class JsonSchema(msgspec.Struct, frozen=True, tag="json_schema"):
    """Output is one JSON text valid under `schema`, itself a JSON text. Property order is the schema's own.

    strict: a schema that cannot be enforced whole is refused. Otherwise what can be is, and the compiled grammar lists the rest.
    """

    schema: str
    strict: bool = True
    whitespace: Whitespace = "compact"


class JsonObject(msgspec.Struct, frozen=True, tag="json_object"):
    """Output is any JSON object."""

    whitespace: Whitespace = "compact"


class Regex(msgspec.Struct, frozen=True, tag="regex"):
    """Output matches `pattern` from its first to its last character."""

    pattern: str


class Ebnf(msgspec.Struct, frozen=True, tag="ebnf"):
    """Output is derived from rule `root` of a GBNF-style grammar."""

    grammar: str


class Choice(msgspec.Struct, frozen=True, tag="choice"):
    """Output is exactly one of `options`."""

    options: tuple[str, ...]


Constraint = JsonSchema | JsonObject | Regex | Ebnf | Choice
