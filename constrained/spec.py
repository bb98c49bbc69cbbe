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


class Tag(msgspec.Struct, frozen=True, tag="tag"):
    """`begin`, then a text of `content`, then `end`. A control token's text in begin or end is that token, if the model has it.

    form: "json", or "keywords": the object of a JSON content as Python's keyword arguments, `a=1, b="x"`. strict: a content
    that cannot be enforced is refused; else any JSON object stands in its place.
    """

    begin: str
    content: JsonSchema | JsonObject | Regex | Ebnf | Choice
    end: str
    form: str = "json"
    strict: bool = True


class TagRow(msgspec.Struct, frozen=True, tag="tag_row"):
    """`opening`, one of `tags`, more of them with `separator` in between (None: exactly one tag), `closing`. Nothing else."""

    tags: tuple[Tag, ...]
    opening: str = ""
    separator: str | None = None
    closing: str = ""


class StructuralTags(msgspec.Struct, frozen=True, tag="structural_tags"):
    """Free text until a trigger, then what a tag that begins with it says, then free again, until the end token.

    at_least_one: a tag must come. stop_after_first: the output ends with the first one.
    at_start: a tag comes at the very beginning and is all there is; other output is a text that does not begin with a trigger,
    or, where it is given, one of `otherwise`.
    marked: whoever reads the output tells control tokens from characters, so a trigger that is one may be spelled in free text.
    """

    triggers: tuple[str, ...]
    tags: tuple[Tag | TagRow, ...]
    at_least_one: bool = False
    stop_after_first: bool = False
    at_start: bool = False
    otherwise: JsonSchema | JsonObject | Regex | Ebnf | Choice | None = None
    marked: bool = False


class Reasoned(msgspec.Struct, frozen=True, tag="reasoned"):
    """Free text up to `end`, then white space, then a text of `then`. begun: the prompt has opened the reasoning already; else
    the output may do so with `begin`, or be a text of `then` alone. marked: as for `StructuralTags`."""

    begin: str
    end: str
    then: JsonSchema | JsonObject | Regex | Ebnf | Choice | TagRow | StructuralTags
    begun: bool = False
    marked: bool = False


Constraint = JsonSchema | JsonObject | Regex | Ebnf | Choice | TagRow | StructuralTags | Reasoned
