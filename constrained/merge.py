"""Schemas without `$ref`, `allOf`, `anyOf`, `oneOf`: what a value of one branch has to satisfy, as one flat set of keywords.

A flat schema is a dict of keywords with these differences from JSON Schema: `type` is a frozenset, in which a number is an
`integer` or a `fraction`; `const` is an `enum`; `patterns`, `formats`, `propertyNames` are lists; `contains` is a list of
(schema, minContains, maxContains or None); `notPatterns` and `excluded` (values) list what must not hold. Nested schemas stay as
they were written; where two meet they become `{"allOf": [a, b]}`, to be flattened in their turn.
"""

from __future__ import annotations

import json
import math
from typing import Any

Flat = dict[str, Any]

TYPES = frozenset(("null", "boolean", "integer", "fraction", "string", "array", "object"))


def kinds(types: str | list[str]) -> frozenset[str]:
    """The value of the keyword `type` as a set of TYPES."""
    listed = [types] if isinstance(types, str) else types
    return frozenset(kind for name in listed for kind in (("integer", "fraction") if name == "number" else (name,)))


def type_of(value: Any) -> str:
    """Which of TYPES a decoded value is."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "fraction"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def identity(value: Any) -> str:
    """A text that is equal for equal JSON values: 1 and 1.0 are equal, 1 and true are not, order of keys does not matter."""

    def plain(item: Any) -> Any:
        if isinstance(item, float) and item.is_integer():
            return int(item)
        if isinstance(item, list):
            return [plain(part) for part in item]
        return {key: plain(part) for key, part in item.items()} if isinstance(item, dict) else item

    return json.dumps(plain(value), sort_keys=True)


def both(a: Any, b: Any) -> Any:
    """The schema that holds where both hold."""
    if a is True or a == {} or a == b:
        return b
    if b is True or b == {}:
        return a
    if a is False or b is False:
        return False
    return {"allOf": [a, b]}


def merge(a: Flat, b: Flat) -> Flat | None:
    """The conjunction of two flat schemas, None where nothing can satisfy both. Properties keep a's order, then b's.

    Raises ValueError with the keyword where the conjunction cannot be written down.
    """
    merged: Flat = {**a, **b}
    for keyword in a.keys() & b.keys():
        merged[keyword] = _combined(keyword, a[keyword], b[keyword])
    if "type" in merged and not merged["type"]:
        return None
    if "enum" in merged and not merged["enum"]:
        return None
    _merge_objects(a, b, merged)
    _merge_arrays(a, b, merged)
    return merged


_GREATEST = frozenset(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"))
_LEAST = frozenset(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"))


def _combined(keyword: str, a: Any, b: Any) -> Any:
    if keyword in _GREATEST:
        return max(a, b)
    if keyword in _LEAST:
        return min(a, b)
    match keyword:
        case "type":
            return a & b
        case "enum":
            known = {identity(value) for value in b}
            return [value for value in a if identity(value) in known]
        case "required" | "patterns" | "formats" | "propertyNames" | "notPatterns" | "excluded" | "contains":
            return [*a, *(item for item in b if item not in a)]
        case "uniqueItems":
            return a or b
        case "multipleOf":
            if isinstance(a, int) and isinstance(b, int):
                return math.lcm(a, b)
            if a != b:
                raise ValueError(keyword)
    return b


_OBJECT = ("properties", "additionalProperties", "patternProperties")
_ARRAY = ("prefixItems", "items")


def _merge_objects(a: Flat, b: Flat, merged: Flat) -> None:
    """Each name gets what both sides say about it: its property, else the other side's additionalProperties."""
    if not (any(k in a for k in _OBJECT) and any(k in b for k in _OBJECT)):
        return
    if "patternProperties" in a or "patternProperties" in b:
        raise ValueError("patternProperties")
    names = [*a.get("properties", {}), *(name for name in b.get("properties", {}) if name not in a.get("properties", {}))]
    if "properties" in a or "properties" in b:
        merged["properties"] = {name: both(_of_name(a, name), _of_name(b, name)) for name in names}
    if "additionalProperties" in a or "additionalProperties" in b:
        merged["additionalProperties"] = both(a.get("additionalProperties", True), b.get("additionalProperties", True))


def _of_name(flat: Flat, name: str) -> Any:
    return flat.get("properties", {}).get(name, flat.get("additionalProperties", True))


def _merge_arrays(a: Flat, b: Flat, merged: Flat) -> None:
    if not (any(k in a for k in _ARRAY) and any(k in b for k in _ARRAY)):
        return
    prefix_a, prefix_b = a.get("prefixItems", []), b.get("prefixItems", [])
    rest_a, rest_b = a.get("items", True), b.get("items", True)
    merged["prefixItems"] = [
        both(prefix_a[i] if i < len(prefix_a) else rest_a, prefix_b[i] if i < len(prefix_b) else rest_b)
        for i in range(max(len(prefix_a), len(prefix_b)))
    ]
    merged["items"] = both(rest_a, rest_b)
