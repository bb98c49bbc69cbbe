"""JSON Schema: from what users write to canonical text, and from text to a grammar, or a refusal.

**A schema is enforced or refused.** `keywords.py` is the table of what is enforced; anything else is refused with the keyword and
its JSON pointer. What a generation produces is always valid under the schema. The converse does not hold, and is not meant to:

- an object with `properties` gets those and no others, in the schema's order, whatever `additionalProperties` allows;
- an object without `properties` gets names freely, with values of `additionalProperties`;
- a schema without `type` whose keywords speak of some types is read as a schema of those types;
- a property that discriminates the options of a `oneOf` is always present;
- numbers, formats and character classes have the forms of `json_text.py`, `digits.py`, `formats.py` and `regex.py`.

The way: decode, check sizes, check against the meta-schema, then a rule of the grammar per schema
(`schema_rules.py`). Nothing is ever fetched: a reference that leaves the schema is an error.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, NamedTuple

import msgspec

from ..runtime.errors import ConstraintError
from . import limits
from .grammar import Grammar
from .json_text import LAYOUTS, Layout
from .keywords import ENFORCED, escaped
from .references import localised

MAX_DROPPED = 32
"""Keywords that a schema which is not strict may lose."""

DRAFTS = {
    f"{scheme}://json-schema.org/{draft}": True
    for scheme in ("http", "https")
    for draft in ("draft-04/schema", "draft-06/schema", "draft-07/schema", "draft/2019-09/schema", "draft/2020-12/schema")
}


def schema_text(source: Any) -> str:
    """The canonical text of a schema: what `spec.JsonSchema` holds.

    source: a pydantic model (anything with `model_json_schema`), a dict, a bool, or the text of a schema. Order of keys is kept,
    because it is the order of generation. Raises ConstraintError `invalid_json_schema` for anything else.
    """
    if hasattr(source, "model_json_schema"):
        source = source.model_json_schema()
    if isinstance(source, (str, bytes)):
        source = _decoded(source)
    if not isinstance(source, (dict, bool)):
        raise _invalid(f"A JSON schema is an object, not {type(source).__name__}.")
    try:
        return json.dumps(source, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid(f"The schema cannot be written as JSON: {error}.") from error


class Dropped(NamedTuple):
    """A keyword that is not enforced: its JSON pointer, and why."""

    keyword: str
    pointer: str
    why: str


class Lowered(NamedTuple):
    """A grammar, and what of the constraint it does not enforce (nothing, unless that was allowed)."""

    grammar: Grammar
    not_enforced: tuple[Dropped, ...] = ()


def lower(text: str, *, strict: bool = True, whitespace: str = "compact") -> Lowered:
    """The grammar of the JSON texts that are generated for a schema; not pruned yet. Pure.

    strict: what cannot be enforced is refused; otherwise it is left out of the schema, and listed. whitespace: `spec.Whitespace`.
    Raises ConstraintError: invalid_json_schema, unsupported_schema, grammar_too_complex, with a JSON pointer as `param`.
    """
    schema = _decoded(text)
    if not isinstance(schema, (dict, bool)):
        raise _invalid(f"A JSON schema is an object, not {type(schema).__name__}.")
    _check_caps(schema)
    _check_meta(schema)
    dropped: list[Dropped] = []
    while True:
        try:
            return Lowered(_grammar(localised(schema), LAYOUTS[whitespace]), tuple(dropped))
        except ConstraintError as error:
            if strict or error.code != "unsupported_schema" or len(dropped) >= MAX_DROPPED:
                raise
            schema, pointer, keyword = without(schema, error.param or "")
            dropped.append(Dropped(keyword, pointer, error.message))


def _grammar(schema: Any, layout: Layout) -> Grammar:
    from .schema_rules import Lowering

    lowering = Lowering(schema, layout)
    root = lowering.node(schema, "")
    return Grammar({"root": root, **lowering.rules, **layout.rules()})


def without(schema: Any, pointer: str) -> tuple[Any, str, str]:
    """`schema` without the keyword at `pointer`, or without the nearest one around it; that one's pointer and name. A `oneOf`
    becomes an `anyOf`. Pure; `schema` itself does not change."""
    if not isinstance(schema, dict):
        return True, "", ""
    copy = json.loads(json.dumps(schema))
    steps = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    trail = _existing(copy, steps)
    if len(trail) < len(steps):
        here = trail[-1][0][trail[-1][1]] if trail else copy
        trail += _nearest(here, steps[-1])  # a combination was merged: its keyword stands in one of its parts
    while trail and not (isinstance(trail[-1][0], dict) and trail[-1][1] in (*ENFORCED, steps[-1])):
        trail.pop()  # a step into a list or a map of schemas is no keyword
    if not trail:
        return True, "", "the whole schema"
    holder, keyword = trail[-1]
    place = "".join(f"/{escaped(str(step))}" for _, step in trail)
    value = holder.pop(keyword)
    if keyword == "oneOf":
        holder.setdefault("allOf", []).append({"anyOf": value})
    return copy, place, str(keyword)


def _existing(root: Any, steps: list[str]) -> list[tuple[Any, Any]]:
    """The way along `steps` as far as it exists: (holder, key) each."""
    trail: list[tuple[Any, Any]] = []
    here = root
    for step in steps:
        key: Any = int(step) if isinstance(here, list) and step.isdecimal() else step
        if not (key in here if isinstance(here, dict) else isinstance(here, list) and isinstance(key, int) and key < len(here)):
            break
        trail.append((here, key))
        here = here[key]
    return trail


def _nearest(here: Any, keyword: str) -> list[tuple[Any, Any]]:
    """The way to the first `keyword` inside `here`, none if there is no such."""
    open_ways: list[tuple[Any, list[tuple[Any, Any]]]] = [(here, [])]
    for item, way in open_ways:
        if isinstance(item, dict) and keyword in item:
            return [*way, (item, keyword)]
        inner = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        open_ways.extend((part, [*way, (item, key)]) for key, part in inner)
    return []


def _decoded(text: str | bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise _invalid(f"The schema is not JSON: {_why(text, error)}.") from error
    except RecursionError:
        raise limits.too_complex(f"The schema nests deeper than {limits.SCHEMA_DEPTH}.") from None


def _why(text: str | bytes, error: Exception) -> str:
    """The decoder's reason; it calls half of an escaped surrogate pair a truncated text."""
    escapes = "\\ud" in (text if isinstance(text, str) else text.decode(errors="replace")).lower()
    if escapes and "truncated" in str(error):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(text)
            return "a string contains half of a surrogate pair (such as \\ud83d alone), which is not a character"
    return str(error).removesuffix(".")


_HOLDERS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"))
_LISTS = frozenset(("allOf", "anyOf", "oneOf", "prefixItems", "items"))


def _check_caps(schema: Any) -> None:
    """Depth, properties and enum values, counted over the whole text. What holds schemas, by name or in a list, is no level."""
    properties = 0
    open_items = [(schema, 1, False)]
    while open_items:
        item, depth, holds_schemas = open_items.pop()
        if depth > limits.SCHEMA_DEPTH:
            raise limits.too_complex(f"The schema nests deeper than {limits.SCHEMA_DEPTH}.")
        if isinstance(item, list):
            open_items.extend((part, depth + 1, False) for part in item if isinstance(part, (dict, list)))
            continue
        if not isinstance(item, dict):
            continue
        if not holds_schemas:
            named, values = item.get("properties"), item.get("enum")
            properties += len(named) if isinstance(named, dict) else 0
            if isinstance(values, list) and len(values) > limits.ENUM_VALUES:
                raise limits.too_complex(f"An enum has {len(values)} values; at most {limits.ENUM_VALUES} are taken.")
        for key, part in item.items():
            if isinstance(part, (dict, list)):
                is_holder = not holds_schemas and key in (_LISTS if isinstance(part, list) else _HOLDERS)
                open_items.append((part, depth if is_holder else depth + 1, is_holder))
    if properties > limits.SCHEMA_PROPERTIES:
        raise limits.too_complex(f"The schema has {properties} properties; at most {limits.SCHEMA_PROPERTIES} are taken.")


def _check_meta(schema: Any) -> None:
    """Checks against the meta-schema of its draft (2020-12 unless `$schema` says otherwise). Opens no connection: only the
    known drafts are let through, and references are not followed here."""
    import jsonschema_rs

    for place, draft in _declared_drafts(schema):
        if not isinstance(draft, str) or draft.rstrip("#") not in DRAFTS:
            raise _invalid(f"`$schema` names {draft!r}, which is no draft of JSON Schema from 4 to 2020-12.", place)
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        pointer = "".join(f"/{part}" for part in error.instance_path)
        hint = _hint(schema, pointer)
        raise _invalid(f"The schema is not valid JSON Schema at {pointer or '#'}: {error.message}.{hint}", pointer) from None
    except jsonschema_rs.ReferencingError as error:
        raise _invalid(f"The schema's `$schema` cannot be resolved: {error}.") from None


def _declared_drafts(schema: Any) -> list[tuple[str, Any]]:
    found, open_items = [], [("", schema)]
    while open_items:
        pointer, item = open_items.pop()
        if isinstance(item, dict):
            if "$schema" in item and not pointer.endswith("/properties"):
                found.append((f"{pointer}/$schema", item["$schema"]))
            open_items.extend((f"{pointer}/{key}", part) for key, part in item.items() if key not in ("enum", "const", "default"))
        elif isinstance(item, list):
            open_items.extend((f"{pointer}/{i}", part) for i, part in enumerate(item))
    return found


def _hint(schema: Any, pointer: str) -> str:
    if pointer.endswith("/items") and not (isinstance(schema, dict) and "$schema" in schema):
        return " A list of schemas is called `prefixItems` now; or declare an older draft in `$schema`."
    return ""


def _invalid(message: str, pointer: str | None = None) -> ConstraintError:
    return ConstraintError(message, code="invalid_json_schema", param=pointer)
