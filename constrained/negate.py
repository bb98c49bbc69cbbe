"""What is valid exactly where a schema is not: the complement, itself as a schema, for `not`, `if` and `oneOf`.

A schema is a conjunction of keywords, so its complement is the union of the complements of its keywords, each of which speaks of
one type only:

    not {type: object, properties: {k: S}, required: [k]}
      = any of  not {type: object}   |   an object with k, and k is not S   |   an object without k

Three complements cannot be written in other keywords and stay as they are: `not` of a type, of listed values, of a pattern.
"""

from __future__ import annotations

from typing import Any, Protocol

from .keywords import ANNOTATIONS, escaped, unsupported


class Scope(Protocol):
    """The schema around a schema."""

    def resolve(self, reference: str, pointer: str) -> tuple[Any, str]:
        """The schema that a reference names, and its pointer."""
        ...

    def check(self, schema: dict[str, Any], pointer: str) -> None:
        """Raises ConstraintError for a keyword that means nothing here, or something unknown."""
        ...


PRIMITIVE = frozenset(("type", "enum", "pattern"))
"""What `not` may stand before, alone, in a complement."""

_BOUNDS = {
    "minimum": ("number", "exclusiveMaximum", 0),
    "maximum": ("number", "exclusiveMinimum", 0),
    "exclusiveMinimum": ("number", "maximum", 0),
    "exclusiveMaximum": ("number", "minimum", 0),
    "minLength": ("string", "maxLength", -1),
    "maxLength": ("string", "minLength", 1),
    "minItems": ("array", "maxItems", -1),
    "maxItems": ("array", "minItems", 1),
    "minProperties": ("object", "maxProperties", -1),
    "maxProperties": ("object", "minProperties", 1),
}
"""keyword -> type, the opposite keyword, and what is added to the value of a count."""


def is_primitive(negated: Any) -> bool:
    """True for the operand of a `not` that is not rewritten further."""
    return isinstance(negated, dict) and len(negated) == 1 and negated.keys() <= PRIMITIVE


def complement(schema: Any, pointer: str, scope: Scope, trail: frozenset[str] = frozenset()) -> Any:
    """The schema of what is invalid under `schema`. Pure.

    Raises ConstraintError `unsupported_schema` with the keyword whose complement is not expressible."""
    if isinstance(schema, bool):
        return not schema
    scope.check(schema, pointer)
    options: list[Any] = []
    for keyword, value in schema.items():
        if keyword in ANNOTATIONS or keyword.startswith("x-"):
            continue
        options.extend(_of_keyword(keyword, value, schema, pointer, scope, trail))
    options = [option for option in options if option is not False]
    if True in options or not options:
        return bool(options)
    return options[0] if len(options) == 1 else {"anyOf": options}


def _of_keyword(
    keyword: str, value: Any, schema: dict[str, Any], pointer: str, scope: Scope, trail: frozenset[str]
) -> list[Any]:
    """The complement of one keyword, as options."""
    place = f"{pointer}/{keyword}"

    def inner(part: Any, where: str) -> Any:
        return complement(part, where, scope, trail)

    match keyword:
        case "type" | "enum":
            return [{"not": {keyword: value}}]
        case "const":
            return [{"not": {"enum": [value]}}]
        case "pattern":
            return [{"type": "string", "not": {"pattern": value}}]
        case "required":
            return [{"type": "object", "properties": {name: False}} for name in value]
        case "properties":
            found = []
            for name, part in value.items():
                if (other := inner(part, f"{place}/{escaped(name)}")) is not False:
                    found.append({"type": "object", "required": [name], "properties": {name: other}})
            return found
        case "minItems" | "minLength" | "minProperties" if value == 0:
            return []
        case "exclusiveMinimum" | "exclusiveMaximum" if isinstance(value, bool):
            return []  # draft 4: says how its neighbour is meant
        case "minimum" | "maximum" if schema.get(f"exclusive{keyword.capitalize()}") is True:
            return [{"type": "number", "maximum" if keyword == "minimum" else "minimum": value}]
        case _ if keyword in _BOUNDS:
            kind, opposite, step = _BOUNDS[keyword]
            return [{"type": kind, opposite: int(value) + step if step else value}]
        case "contains" if "minContains" not in schema and "maxContains" not in schema:
            return [{"type": "array", "items": inner(value, place)}]
        case "items" if not isinstance(value, list) and "prefixItems" not in schema:
            return [] if value is True else [{"type": "array", "minItems": 1, "contains": inner(value, place)}]
        case "anyOf":
            return [{"allOf": [inner(part, f"{place}/{i}") for i, part in enumerate(value)]}]
        case "allOf":
            return [inner(part, f"{place}/{i}") for i, part in enumerate(value)]
        case "not":
            return [value]
        case "if" if "then" in schema or "else" in schema:
            unmet_then = {"allOf": [value, inner(schema.get("then", True), f"{pointer}/then")]}
            unmet_else = {"allOf": [inner(value, place), inner(schema.get("else", True), f"{pointer}/else")]}
            return [unmet_then, unmet_else]
        case "if" | "then" | "else":
            return []
        case "$ref":
            target, where = scope.resolve(str(value), place)
            if where in trail:
                raise unsupported("The complement of a schema that refers to itself", "Say what is allowed instead.", place)
            return [complement(target, where, scope, trail | {where})]
    advice = "Say what is allowed instead (enum, pattern, a narrower type)."
    raise unsupported(f"The complement (`not`, `if`, `oneOf`) of `{keyword}`", advice, place)
