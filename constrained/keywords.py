"""The keywords of JSON Schema: which are enforced, which mean nothing to a validator, which are refused and why.

This is the table of admission. A keyword that stands in none of the three is refused as unknown: ignoring a misspelt
`maxLenght` would weaken the schema without a word. Names that begin with `x-` are annotations.
"""

from __future__ import annotations

import difflib
from typing import Any

from ..runtime.errors import ConstraintError

ENFORCED: dict[str, str] = {
    "type": "one or several of the seven types",
    "enum": "the values that also satisfy their neighbours",
    "const": "as an enum of one",
    "minimum": "integers and numbers of up to 15 significant digits",
    "maximum": "as minimum",
    "exclusiveMinimum": "as minimum; draft 4's boolean form too",
    "exclusiveMaximum": "as minimum; draft 4's boolean form too",
    "multipleOf": "whole numbers up to 1,024 (or with few multiples between bounds); halves, quarters, eighths, sixteenths",
    "minLength": "in characters",
    "maxLength": "as minLength; above 10,000 it is 10,000",
    "pattern": "what regex.py reads; any number of them together",
    "format": "those of formats.py; with patterns and lengths, too",
    "properties": "in the schema's order; an object with properties gets no others",
    "required": "names without a property of their own take additionalProperties' schema",
    "additionalProperties": "false, or the values of an object without properties",
    "patternProperties": "up to 4 patterns on objects without properties; on declared ones all that match",
    "propertyNames": "an enum, or patterns and lengths",
    "minProperties": "exact for declared properties; up to 1 for an object of free names",
    "maxProperties": "exact",
    "dependentRequired": "exact",
    "dependencies": "exact; as dependentRequired and dependentSchemas",
    "dependentSchemas": "exact",
    "items": "one schema for the rest; the array form of older drafts too",
    "prefixItems": "exact",
    "additionalItems": "beside the array form of items",
    "minItems": "up to 10,000",
    "maxItems": "above 10,000 it is 10,000",
    "uniqueItems": "for arrays of at most one item, and where items lists its values; above 8 values in their order",
    "contains": "with minContains and maxContains up to 16",
    "minContains": "beside contains",
    "maxContains": "beside contains",
    "unevaluatedProperties": "false or a schema",
    "unevaluatedItems": "false or a schema",
    "anyOf": "exact",
    "oneOf": "options that exclude each other, by what they say or by the negation of the others",
    "allOf": "merged",
    "not": "of types, listed values, required and forbidden names, bounds, lengths, patterns, and combinations of these",
    "if": "where `not` of it can be enforced",
    "then": "beside if",
    "else": "beside if",
    "$ref": "inside the schema: by JSON pointer, anchor or $id",
}
"""keyword -> how far it is enforced. What comes out is always valid; what could come out may be less than what is valid."""

ANNOTATIONS = frozenset(
    "title description default example examples deprecated readOnly writeOnly $schema $id id $comment $anchor $vocabulary "
    "$dynamicAnchor $recursiveAnchor $defs definitions contentEncoding contentMediaType contentSchema nullable discriminator "
    "xml externalDocs strict components enumNames enumDescriptions markdownDescription propertyOrdering errorMessage".split()
)
"""Keywords that no validator checks, OpenAPI's and editors' usual ones among them."""

REFUSED: dict[str, str] = {
    "$dynamicRef": "Use $ref, or give its anchor to one place only.",
    "$recursiveRef": "Use $ref.",
}
"""keyword -> what to do instead."""

SINCE: dict[str, int] = {
    **dict.fromkeys(("const", "contains", "propertyNames"), 6),
    **dict.fromkeys(("if", "then", "else"), 7),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "minContains", "maxContains"), 2019),
    **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), 2019),
    "prefixItems": 2020,
}
"""keyword -> the draft that brought it. A validator of an older draft, if the schema declares one, would ignore it."""

KEYWORDS_OF_TYPE: dict[str, tuple[str, ...]] = {
    "object": (
        *("properties", "required", "additionalProperties", "patternProperties", "propertyNames"),
        *("minProperties", "maxProperties", "unevaluatedProperties"),
    ),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "unevaluatedItems", "contains"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
"""Keywords that speak of one type only. A schema without `type` that has some of them is read as a schema of those types."""


def unsupported(what: str, advice: str, pointer: str) -> ConstraintError:
    """The refusal of what cannot be enforced exactly. pointer: JSON pointer of the place in the schema."""
    return ConstraintError(
        f"{what} cannot be enforced exactly (at {pointer or '#'}). {advice}", code="unsupported_schema", param=pointer
    )


def check_keywords(schema: dict[str, Any], pointer: str, draft: int) -> None:
    """Raises ConstraintError `unsupported_schema` for the first keyword of this level that is not in the table, or newer than
    `draft`, the one that the schema declares."""
    for keyword in schema:
        place = f"{pointer}/{escaped(keyword)}"
        if SINCE.get(keyword, 0) > draft:
            advice = "Declare a newer draft in `$schema`, or none."
            raise unsupported(f"`{keyword}`, which draft {draft} does not know,", advice, place)
        if keyword in ENFORCED or keyword in ANNOTATIONS or keyword.startswith("x-"):
            continue
        if keyword in REFUSED:
            raise unsupported(f"`{keyword}`", REFUSED[keyword], place)
        near = difflib.get_close_matches(keyword, [*ENFORCED, *REFUSED], n=1, cutoff=0.75)
        hint = f"Is it `{near[0]}`? " if near else ""
        raise unsupported(f"The unknown keyword `{keyword}`", f"{hint}Remove it, or name it `x-{keyword}`.", place)


def escaped(name: str) -> str:
    """A name as a token of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
