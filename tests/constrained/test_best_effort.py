"""`strict=False` enforces what can be enforced and lists the rest; `whitespace="any"` frees what stands between tokens."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from grammar_bench import loads, validator_of
from test_schema_admission import REFUSED, SCHEMAS

from ramify.constrained.schema import schema_text, without
from ramify.constrained.spec import JsonObject, JsonSchema
from ramify.constrained.store import Envelope
from ramify.runtime.errors import ConstraintError


def lenient(schema: Any) -> JsonSchema:
    return JsonSchema(schema_text(schema), strict=False)


def listed(grammar: bytes) -> list[tuple[str, str]]:
    return [(keyword, pointer) for keyword, pointer, _ in Envelope.from_bytes(grammar).not_enforced]


def test_what_can_be_enforced_is_and_what_cannot_is_listed(bench):
    schema = {
        "type": "object",
        "properties": {
            "isbn": {"type": "string", "format": "isbn", "minLength": 2},
            "price": {"type": "number", "multipleOf": 0.01, "minimum": 0},
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "maxItems": 2},
        },
        "required": ["isbn"],
    }
    grammar = bench.compile(lenient(schema))
    assert listed(grammar) == [
        ("format", "/properties/isbn/format"),
        ("multipleOf", "/properties/price/multipleOf"),
        ("uniqueItems", "/properties/tags/uniqueItems"),
    ]
    assert all("cannot be enforced" in why for *_, why in Envelope.from_bytes(grammar).not_enforced)
    assert bench.accepts(grammar, '{"isbn": "xx", "price": 0.015, "tags": ["a", "a"]}')
    for text in ('{"isbn": "x"}', '{"isbn": "xx", "price": -1}', '{"isbn": "xx", "tags": ["a", "b", "c"]}', "{}"):
        assert not bench.accepts(grammar, text)


def test_a_schema_that_is_enforced_whole_lists_nothing(bench):
    assert listed(bench.compile(lenient({"type": "object", "properties": {"a": {"const": 1}}}))) == []


def test_a_one_of_that_is_not_exclusive_becomes_an_any_of(bench):
    grammar = bench.compile(lenient({"oneOf": [{"type": "string", "format": "date"}, {"type": "string", "maxLength": 3}]}))
    assert listed(grammar) == [("oneOf", "/oneOf")]
    assert bench.accepts(grammar, '"2024-01-31"') and bench.accepts(grammar, '"abc"') and not bench.accepts(grammar, '"abcd"')


def test_a_keyword_inside_a_combination_is_found(bench):
    grammar = bench.compile(lenient({"allOf": [{"type": "number"}, {"anyOf": [{"multipleOf": 0.1}, {"minimum": 5}]}]}))
    assert listed(grammar) == [("multipleOf", "/allOf/1/anyOf/0/multipleOf")]
    assert bench.accepts(grammar, "1.25") and not bench.accepts(grammar, '"a"')


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_schemas_are_generated_from_as_far_as_they_can_be(bench, name):
    if REFUSED[name].startswith("a reference"):
        with pytest.raises(ConstraintError):
            bench.compile(lenient(SCHEMAS[name]))  # an invalid schema is no matter of strictness
        return
    grammar = bench.compile(lenient(SCHEMAS[name]))
    dropped = listed(grammar)
    assert dropped
    rest = SCHEMAS[name]
    for _, pointer in dropped:
        rest, place, _ = without(rest, pointer)
        assert place == pointer
    for seed in range(3):
        text = bench.walk(grammar, random.Random(seed), patience=30, limit=1500)
        if text is not None:
            validator_of(rest).validate(loads(text))


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"type": "strng"}, False, {"allOf": [{"type": "null"}, {"type": "object"}]}])
def test_an_invalid_or_impossible_schema_is_refused_all_the_same(bench, schema):
    with pytest.raises(ConstraintError) as error:
        bench.compile(lenient(schema))
    assert error.value.code in ("invalid_json_schema", "unsatisfiable_grammar")


# ---- whitespace -----------------------------------------------------------------------------------------------------


VALUE = {"a": [1, {"b": "x y", "c": []}], "d": {}, "e": None}
SPACED = [
    json.dumps(VALUE),
    json.dumps(VALUE, separators=(",", ":")),
    json.dumps(VALUE, indent=2),
    json.dumps(VALUE, indent="\t"),
    json.dumps(VALUE, indent=1, separators=(" ,\r\n", " : ")),
]


@pytest.mark.parametrize("text", SPACED)
def test_any_whitespace_between_tokens_is_allowed_where_asked_for(bench, text):
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "contains": {"type": "integer"}},
            "d": {"type": "object"},
            "e": {"enum": [None, VALUE]},
        },
    }
    texts = [schema_text(schema), schema_text({"const": VALUE})]
    for constraint in (JsonObject("any"), *(JsonSchema(one, whitespace="any") for one in texts)):
        assert bench.accepts(bench.compile(constraint), text), constraint
    compact = [JsonObject(), *map(JsonSchema, texts)]
    assert [bench.accepts(bench.compile(constraint), text) for constraint in compact] == [text == SPACED[0]] * 3


def test_whitespace_is_not_allowed_inside_of_tokens_or_around_the_text(bench):
    grammar = bench.compile(JsonSchema('{"type":"array","items":{"type":["integer","boolean"]}}', whitespace="any"))
    assert bench.accepts(grammar, "[ 12 ,true ]")
    for text in ("[1 2]", "[tr ue]", " [1]", "[1] ", "[1,\x0b2]", "[1,\u00a02]"):
        assert not bench.accepts(grammar, text), text
