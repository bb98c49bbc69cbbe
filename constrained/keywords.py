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
    "multipleOf": "whole numbers: up to 2,048 multiples between bounds, or a divisor of 1,000",
    "minLength": "in characters; with a pattern where one part of the pattern takes up the difference",
    "maxLength": "as minLength; above 10,000 it is 10,000",
    "pattern": "what regex.py reads; one for each string",
    "format": "those of formats.py; one for each string",
    "properties": "in the schema's order; an object with properties gets no others",
    "required": "names without a property of their own take additionalProperties' schema",
    "additionalProperties": "false, or the values of an object without properties",
    "patternProperties": "one pattern, on objects without properties; on declared ones all that match",
    "propertyNames": "an enum, or one pattern or length",
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
    "uniqueItems": "for arrays of at most one item, and where items is an enum of up to 8 values",
    "unevaluatedProperties": "false or a schema",
    "unevaluatedItems": "false or a schema",
    "anyOf": "exact",
    "oneOf": "options that exclude each other: by type, by values, by a discriminating or a missing property",
    "allOf": "merged",
    "$ref": "inside the schema, by JSON pointer",
}
"""keyword -> how far it is enforced. What comes out is always valid; what could come out may be less than what is valid."""

ANNOTATIONS = frozenset(
    "title description default example examples deprecated readOnly writeOnly $schema $id id $comment $anchor $vocabulary "
    "$defs definitions contentEncoding contentMediaType contentSchema nullable discriminator xml externalDocs strict "
    "enumNames enumDescriptions markdownDescription propertyOrdering errorMessage".split()
)
"""Keywords that no validator checks, OpenAPI's and editors' usual ones among them."""

REFUSED: dict[str, str] = {
    "not": "Say what is allowed instead (enum, pattern, a narrower type).",
    "if": "Write the cases as anyOf or oneOf with a discriminating const.",
    "then": "Write the cases as anyOf or oneOf with a discriminating const.",
    "else": "Write the cases as anyOf or oneOf with a discriminating const.",
    "contains": "Use items for all elements, or prefixItems for the first ones.",
    "minContains": "Use items for all elements, or prefixItems for the first ones.",
    "maxContains": "Use items for all elements, or prefixItems for the first ones.",
    "$dynamicRef": "Use $ref.",
    "$dynamicAnchor": "Use $ref.",
    "$recursiveRef": "Use $ref.",
    "$recursiveAnchor": "Use $ref.",
}
"""keyword -> what to do instead."""

KEYWORDS_OF_TYPE: dict[str, tuple[str, ...]] = {
    "object": (
        *("properties", "required", "additionalProperties", "patternProperties", "propertyNames"),
        *("minProperties", "maxProperties", "unevaluatedProperties"),
    ),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "unevaluatedItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
"""Keywords that speak of one type only. A schema without `type` that has some of them is read as a schema of those types."""


def unsupported(what: str, advice: str, pointer: str) -> ConstraintError:
    """The refusal of what cannot be enforced exactly. pointer: JSON pointer of the place in the schema."""
    return ConstraintError(
        f"{what} cannot be enforced exactly (at {pointer or '#'}). {advice}", code="unsupported_schema", param=pointer
    )


def check_keywords(schema: dict[str, Any], pointer: str, *, is_root: bool) -> None:
    """Raises ConstraintError `unsupported_schema` for the first keyword of this level that is not in the table."""
    for keyword in schema:
        if keyword in ENFORCED or keyword in ANNOTATIONS or keyword.startswith("x-"):
            continue
        place = f"{pointer}/{escaped(keyword)}"
        if keyword in REFUSED:
            raise unsupported(f"`{keyword}`", REFUSED[keyword], place)
        near = difflib.get_close_matches(keyword, [*ENFORCED, *REFUSED], n=1, cutoff=0.75)
        hint = f"Is it `{near[0]}`? " if near else ""
        raise unsupported(f"The unknown keyword `{keyword}`", f"{hint}Remove it, or name it `x-{keyword}`.", place)
    for keyword in ("$id", "id"):
        if not is_root and isinstance(schema.get(keyword), str) and ("$ref" in schema or not schema[keyword].startswith("#")):
            advice = "Remove it and refer to `#/$defs/...`."
            raise unsupported(f"A nested `{keyword}`, which moves the base of references,", advice, f"{pointer}/{keyword}")


def escaped(name: str) -> str:
    """A name as a token of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
