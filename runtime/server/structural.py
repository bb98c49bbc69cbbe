"""Structural tags as other servers take them -> our constraint. Pure.

    {"type": "structural_tag", "structures": [{"begin", "schema", "end"}], "triggers": [...]}             SGLang's, vLLM's first
    {"type": "structural_tag", "format": {"type": "triggered_tags", "triggers": [...],
        "tags": [{"begin", "content": {"type": "json_schema", "json_schema": {...}}, "end"}],
        "at_least_one", "stop_after_first"}}                                                              the later one of both

Of the later form `triggered_tags`, `tag` and `tags_with_separator` are taken, with contents of type json_schema, regex and
grammar; a field that is not known is refused, because it would change what is enforced.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...constrained.spec import Ebnf, JsonObject, JsonSchema, Regex, StructuralTags, Tag, TagRow
from ..errors import InvalidRequest
from .fields import ResponseFormat, is_said
from .parse import convert, decode_part


class _Content(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    json_schema: dict[str, Any] | bool | None = None
    pattern: str | None = None
    grammar: str | None = None


class _Tag(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    begin: str
    content: _Content
    end: str
    type: str = "tag"


class _Triggered(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    triggers: list[str]
    tags: list[_Tag]
    at_least_one: bool = False
    stop_after_first: bool = False


class _Separated(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    tags: list[_Tag]
    separator: str
    at_least_one: bool = False
    stop_after_first: bool = False


class _First(msgspec.Struct, kw_only=True):
    """The first form. Structures have their schema as a value or as its text."""

    structures: list[dict[str, Any]]
    triggers: list[str]


def structural_tags(said: str | dict[str, Any]) -> StructuralTags | TagRow:
    """Either form, as an object or as its JSON text. Raises InvalidRequest (invalid_response_format)."""
    value = decode_part(msgspec.Raw(said.encode()), "structural_tag") if isinstance(said, str) else said
    if not isinstance(value, dict):
        raise _wrong("structural_tag is not an object.")
    if value.get("format") is not None:
        return _format(value["format"])
    first = _converted(value, _First, "structural_tag")
    tags = []
    for number, structure in enumerate(first.structures):
        at = f"structures[{number}]"
        begin, end, schema = (structure.get(key) for key in ("begin", "end", "schema"))
        if not isinstance(begin, str) or not isinstance(end, str):
            raise _wrong(f"{at} needs begin and end, two texts.")
        tags.append(Tag(begin, _schema(schema), end))
    return StructuralTags(tuple(first.triggers), tuple(tags))


def tags_of_format(said: ResponseFormat) -> StructuralTags | TagRow:
    """The tags of a response_format of type structural_tag. Raises InvalidRequest (invalid_response_format)."""
    if is_said(said.format):
        return _format(decode_part(said.format, "response_format.format"))
    if said.structures is None or said.triggers is None:
        raise _wrong("response_format of type structural_tag needs structures and triggers, or format.")
    plain = [
        {"begin": s.begin, "end": s.end, "schema": decode_part(s.schema, "schema") if is_said(s.schema) else None}
        for s in said.structures
    ]
    return structural_tags({"structures": plain, "triggers": said.triggers})


def _format(said: Any) -> StructuralTags | TagRow:
    kind = said.get("type") if isinstance(said, dict) else None
    if kind == "triggered_tags":
        triggered = _converted(said, _Triggered, "format")
        tags = tuple(_tag(tag) for tag in triggered.tags)
        once = triggered.stop_after_first
        return StructuralTags(tuple(triggered.triggers), tags, triggered.at_least_one, once)
    if kind == "tags_with_separator":
        separated = _converted(said, _Separated, "format")
        if not separated.at_least_one:
            raise _wrong("format of type tags_with_separator is taken with at_least_one: true.")
        separator = None if separated.stop_after_first else separated.separator
        return TagRow(tuple(_tag(tag) for tag in separated.tags), separator=separator)
    if kind == "tag":
        return TagRow((_tag(_converted(said, _Tag, "format")),))
    raise _wrong(f"format.type is {str(kind)[:64]!r}; triggered_tags, tags_with_separator and tag are taken.")


def _tag(said: _Tag) -> Tag:
    content = said.content
    if content.type == "json_schema" and content.json_schema is not None:
        return Tag(said.begin, _schema(content.json_schema), said.end)
    if content.type == "regex" and content.pattern is not None:
        return Tag(said.begin, Regex(content.pattern), said.end)
    if content.type == "grammar" and content.grammar is not None:
        return Tag(said.begin, Ebnf(content.grammar), said.end)
    kind = content.type[:64]
    raise _wrong(f"A tag's content is of type {kind!r}; it must be json_schema, regex or grammar, with the field of its kind.")


def _schema(said: Any) -> JsonSchema | JsonObject:
    """A schema as a value or as its text; none is any object."""
    if said is None:
        return JsonObject()
    return JsonSchema(said if isinstance(said, str) else msgspec.json.encode(said).decode())


def _converted(value: Any, kind: type[Any], at: str) -> Any:
    try:
        return convert(value, kind, at)
    except InvalidRequest as error:
        raise _wrong(error.message) from None


def _wrong(text: str) -> InvalidRequest:
    return InvalidRequest(text, code="invalid_response_format", param="response_format")
