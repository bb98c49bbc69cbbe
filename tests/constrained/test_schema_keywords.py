"""The table of admission, keyword by keyword, against independent validators.

For each case: everything that random walks generate is valid under the schema (jsonschema, and jsonschema-rs with formats), and
of a pool of instances nothing invalid is accepted. `says_yes` are instances that must be accepted, so that no case is vacuous.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from grammar_bench import constraint_of, loads, validator_of

from ramify.constrained.formats import ANNOTATING_FORMATS, NUMBER_FORMATS, STRING_FORMATS
from ramify.constrained.keywords import ANNOTATIONS, ENFORCED, REFUSED
from ramify.constrained.schema import lower
from ramify.runtime.errors import ConstraintError

POOL: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 5, 7, 10, 99, 100, 101, 12345, -0.5, 0.1, 0.25, 1.5, 3.75, 1e3, -2.5),
    *("", "a", "b", "ab", "abc", "aaaa", "A", "1", "12", "x y", 'q"', "\n", "é", "😀", "漢字"),
    *([], [1], [1, 2], [1, 1], [1, 2, 3], ["a"], ["a", "b"], ["a", "a"], [None], [[]], [True, 1], [1, "a"], [1, "a", None]),
    *({}, {"a": 1}, {"a": "x"}, {"a": None}, {"b": 1}, {"a": 1, "b": 2}, {"a": 1, "b": "x"}, {"b": 2, "a": 1}, {"c": 1}),
    *({"a": 1, "b": 2, "c": 3}, {"a": {"a": 1}}, {"k": "x"}, {"k": "y"}, {"k": "x", "a": 1}, {"k": "y", "b": 1}, {"A": 1}),
]

A_INT = {"a": {"type": "integer"}}
CASES: list[tuple[str, Any, list[Any]]] = [
    ("type", {"type": "null"}, [None]),
    ("type", {"type": "boolean"}, [True, False]),
    ("type", {"type": "integer"}, [0, -1, 12345]),
    ("type", {"type": "number"}, [0, -0.5, 0.1, 3.75]),
    ("type", {"type": "string"}, ["", 'q"', "\n", "😀"]),
    ("type", {"type": "array"}, [[], [1, "a", None], [[]]]),
    ("type", {"type": "object"}, [{}, {"a": {"a": 1}}]),
    ("type", {"type": ["string", "null"]}, [None, "a"]),
    ("type", {"type": ["integer", "number"]}, [1, 0.1]),
    (
        "enum",
        {"enum": ["a", 'q"', "\n", 1, None, [1, 2], {"a": "x"}, True]},
        ["a", 'q"', "\n", 1, None, [1, 2], {"a": "x"}, True],
    ),
    ("enum", {"type": "string", "enum": ["a", 1, None]}, ["a"]),
    ("enum", {"enum": [0, 1, 5, 100], "minimum": 1, "maximum": 10}, [1, 5]),
    ("enum", {"enum": ["a", "abc", ""], "minLength": 1, "pattern": "b|^a$"}, ["a", "abc"]),
    ("const", {"const": {"a": [1, None]}}, [{"a": [1, None]}]),
    ("const", {"const": "a", "enum": ["a", "b"]}, ["a"]),
    ("minimum", {"type": "integer", "minimum": 2}, [2, 5, 12345]),
    ("minimum", {"type": "integer", "minimum": -1.5}, [-1, 0, 100]),
    ("minimum", {"type": "number", "minimum": 0.25}, [0.25, 1.5, 100]),
    ("minimum", {"minimum": 99}, [99, 100]),
    ("maximum", {"type": "integer", "maximum": 7}, [7, -1, 0]),
    ("maximum", {"type": "number", "maximum": 1.5}, [1.5, -2.5, 0]),
    ("maximum", {"type": "number", "minimum": -0.5, "maximum": 0.25}, [-0.5, 0.25, 0.1, 0]),
    ("exclusiveMinimum", {"type": "integer", "exclusiveMinimum": 1, "maximum": 100}, [2, 100]),
    ("exclusiveMinimum", {"type": "number", "exclusiveMinimum": 0}, [0.1, 1, 1.5]),
    ("exclusiveMinimum", {"type": "number", "exclusiveMinimum": 0.1, "maximum": 0.25}, [0.25]),
    (
        "exclusiveMinimum",
        {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True},
        [1.5, 2],
    ),
    ("exclusiveMaximum", {"type": "integer", "exclusiveMaximum": 100, "minimum": 7}, [7, 99]),
    ("exclusiveMaximum", {"type": "number", "minimum": 1, "exclusiveMaximum": 2}, [1, 1.5]),
    ("multipleOf", {"type": "integer", "multipleOf": 5}, [0, 5, 100]),
    ("multipleOf", {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 99}, [0, 7]),
    ("multipleOf", {"type": "number", "multipleOf": 10, "minimum": 1}, [10, 100]),
    ("minLength", {"type": "string", "minLength": 1}, ["a", 'q"', "😀"]),
    ("minLength", {"type": "string", "minLength": 3}, ["abc", "aaaa", "x y"]),
    ("maxLength", {"type": "string", "maxLength": 2}, ["", "ab", "漢字", "😀"]),
    ("maxLength", {"type": "string", "maxLength": 0}, [""]),
    ("maxLength", {"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "x y"]),
    ("maxLength", {"type": "string", "pattern": "^a+$", "minLength": 2, "maxLength": 3}, []),
    ("maxLength", {"type": "string", "pattern": "^a(b?a*)?$", "maxLength": 3}, ["a"]),
    ("pattern", {"type": "string", "pattern": "^[a-b]{1,2}$"}, ["a", "ab"]),
    ("pattern", {"type": "string", "pattern": "b"}, ["b", "abc"]),
    ("pattern", {"type": "string", "pattern": "^[^a-z]*$"}, ["", "A", "1"]),
    ("pattern", {"type": "string", "pattern": '"$'}, ['q"']),
    ("pattern", {"type": "string", "pattern": "^\\s$"}, ["\n"]),
    ("pattern", {"type": "string", "pattern": "^.\\S+$"}, ["ab", "漢字"]),
    ("properties", {"type": "object", "properties": {**A_INT, "b": {"type": "string"}}}, [{}, {"a": 1}, {"a": 1, "b": "x"}]),
    ("properties", {"properties": {**A_INT, "b": True}}, [{"a": 1, "b": 2}, {"b": 1}]),
    ("properties", {"type": "object", "properties": {}}, [{}]),
    ("required", {"type": "object", "properties": A_INT, "required": ["a"]}, [{"a": 1}]),
    ("required", {"type": "object", "properties": A_INT, "required": ["a", "b"]}, [{"a": 1, "b": 2}, {"a": 1, "b": "x"}]),
    ("required", {"type": "object", "required": ["b", "a"]}, [{"b": 2, "a": 1}]),
    ("additionalProperties", {"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"a": 1, "b": 2}, {"c": 1}]),
    ("additionalProperties", {"type": "object", "additionalProperties": False}, [{}]),
    ("additionalProperties", {"type": "object", "properties": A_INT, "additionalProperties": True}, [{"a": 1}]),
    ("additionalProperties", {"type": "object", "required": ["b"], "additionalProperties": {"type": "string"}}, []),
    ("additionalProperties", {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}, [{}, {"a": "x"}]),
    ("patternProperties", {"type": "object", "patternProperties": {"^[ab]$": {"type": "integer"}}}, [{}, {"a": 1, "b": 2}]),
    (
        "patternProperties",
        {"type": "object", "properties": {"a": True}, "patternProperties": {"a": {"type": "string"}}},
        [{"a": "x"}],
    ),
    ("patternProperties", {"required": ["a"], "patternProperties": {"a": {"const": 1}, "^a": {"type": "integer"}}}, [{"a": 1}]),
    (
        "propertyNames",
        {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}},
        [{"a": 1, "b": 2}],
    ),
    ("propertyNames", {"type": "object", "propertyNames": {"pattern": "^[a-z]$"}}, [{}, {"a": None}, {"b": 2, "a": 1}]),
    ("propertyNames", {"type": "object", "propertyNames": {"minLength": 1, "maxLength": 1}}, [{"A": 1}]),
    ("propertyNames", {"type": "object", "properties": {"a": True, "bb": True}, "propertyNames": {"maxLength": 1}}, [{"a": 1}]),
    ("minProperties", {"type": "object", "minProperties": 1}, [{"a": 1}, {"c": 1}]),
    (
        "minProperties",
        {"type": "object", "properties": {"a": True, "b": True, "c": True}, "minProperties": 2},
        [{"a": 1, "b": 2}],
    ),
    ("maxProperties", {"type": "object", "maxProperties": 1}, [{}, {"a": 1}]),
    ("maxProperties", {"type": "object", "maxProperties": 0}, [{}]),
    (
        "maxProperties",
        {"properties": {"a": True, "b": True, "c": True}, "minProperties": 1, "maxProperties": 2},
        [{"a": 1, "b": 2}],
    ),
    (
        "dependentRequired",
        {"type": "object", "properties": {"a": True, "b": True}, "dependentRequired": {"a": ["b"]}},
        [{"b": 1}, {"a": 1, "b": 2}],
    ),
    (
        "dependentSchemas",
        {"properties": {"a": True, "b": True}, "dependentSchemas": {"a": {"properties": {"b": {"type": "string"}}}}},
        [{"b": 1}],
    ),
    (
        "dependencies",
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "properties": {"a": True, "b": True},
            "dependencies": {"a": ["b"]},
        },
        [{"b": 1}, {"a": 1, "b": 2}],
    ),
    ("items", {"type": "array", "items": {"type": "integer"}}, [[], [1], [1, 2, 3]]),
    ("items", {"items": False}, [[]]),
    ("items", {"type": "array", "items": {"$ref": "#"}}, [[], [[]]]),
    (
        "prefixItems",
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
        [[], [1], [1, "a"], [1, "a", None]],
    ),
    ("prefixItems", {"type": "array", "prefixItems": [{"type": "integer"}], "items": False, "minItems": 1}, [[1]]),
    (
        "additionalItems",
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "items": [{"type": "integer"}],
            "additionalItems": {"type": "string"},
        },
        [[], [1], [1, "a"]],
    ),
    ("minItems", {"type": "array", "items": {"type": "integer"}, "minItems": 2}, [[1, 2], [1, 2, 3]]),
    ("maxItems", {"type": "array", "maxItems": 1}, [[], ["a"]]),
    ("maxItems", {"type": "array", "items": {"enum": [1, 2]}, "minItems": 1, "maxItems": 2}, [[1], [1, 1]]),
    ("maxItems", {"type": "array", "maxItems": 0}, [[]]),
    ("uniqueItems", {"type": "array", "items": {"enum": ["a", "b", "b"]}, "uniqueItems": True}, [[], ["a", "b"]]),
    ("uniqueItems", {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 2, "maxItems": 2}, [[1, 2]]),
    ("uniqueItems", {"type": "array", "uniqueItems": True, "maxItems": 1}, [[], [None]]),
    (
        "unevaluatedProperties",
        {"allOf": [{"properties": A_INT}], "type": "object", "unevaluatedProperties": False},
        [{}, {"a": 1}],
    ),
    ("unevaluatedProperties", {"type": "object", "unevaluatedProperties": {"type": "integer"}}, [{"a": 1, "b": 2}]),
    (
        "unevaluatedProperties",
        {"allOf": [{"properties": A_INT, "unevaluatedProperties": False}, {"properties": {"b": True}}], "type": "object"},
        [{"a": 1}],
    ),
    ("unevaluatedItems", {"type": "array", "prefixItems": [True], "unevaluatedItems": False}, [[], [1], ["a"]]),
    ("anyOf", {"anyOf": [{"type": "integer"}, {"type": "string", "minLength": 2}, {"type": "null"}]}, [1, "ab", None]),
    (
        "anyOf",
        {"type": "object", "properties": A_INT, "anyOf": [{"required": ["a"]}, {"properties": {"b": {"const": 1}}}]},
        [{"a": 1}, {}],
    ),
    ("oneOf", {"oneOf": [{"type": "integer"}, {"type": "string"}]}, [1, "a"]),
    ("oneOf", {"oneOf": [{"enum": [1, "a"]}, {"enum": [2, "b"]}]}, [1, "b"]),
    (
        "oneOf",
        {"oneOf": [{"type": "object", "properties": {"k": {"const": v}, n: True}} for v, n in (("x", "a"), ("y", "b"))]},
        [{"k": "x", "a": 1}, {"k": "y"}],
    ),
    (
        "oneOf",
        {"oneOf": [{"type": "object", "properties": {n: True}, "required": [n]} for n in ("a", "b")]},
        [{"a": 1}, {"b": 1}],
    ),
    ("allOf", {"allOf": [{"type": ["integer", "string"]}, {"type": ["number", "null"]}, {"minimum": 1}], "maximum": 7}, [1, 7]),
    (
        "allOf",
        {"allOf": [{"required": ["a"]}, {"properties": {"a": {"type": "integer"}}}, {"properties": {"a": {"maximum": 1}}}]},
        [{"a": 1}],
    ),
    (
        "allOf",
        {"properties": A_INT, "additionalProperties": False, "allOf": [{"properties": {"b": True}}], "type": "object"},
        [{"a": 1}],
    ),
    (
        "allOf",
        {"type": "array", "allOf": [{"prefixItems": [{"type": "integer"}]}, {"items": {"enum": [1, "a"]}}]},
        [[1], [1, "a"]],
    ),
    ("$ref", {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, [1]),
    ("$ref", {"$ref": "#/$defs/n", "minimum": 5, "$defs": {"n": {"type": "integer"}}}, [5, 7]),
    ("$ref", {"$id": "https://x.test/s", "$ref": "https://x.test/s#/$defs/a~1b%25", "$defs": {"a/b%": {"type": "null"}}}, [None]),
    (
        "$ref",
        {"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#"}, {"type": "integer"}]}}},
        [{"a": 1}, {"a": {"a": 1}}],
    ),
    ("$ref", {"$defs": {"a": {"$anchor": "x", "type": "null"}}, "$ref": "#x"}, [None]),
    ("multipleOf", {"type": "integer", "multipleOf": 7}, [0, 7]),
    ("multipleOf", {"type": "number", "multipleOf": 0.25}, [0, 0.25, 1.5, -0.5]),
    ("pattern", {"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, ["ab", "abc"]),
    ("maxLength", {"type": "string", "pattern": "^a+b*$", "maxLength": 3}, ["a", "ab"]),
    ("patternProperties", {"type": "object", "patternProperties": {"^a": {"type": "integer"}, "b$": True}}, [{"a": 1}]),
    ("not", {"not": {"type": ["string", "object"]}}, [None, 1, [1]]),
    ("not", {"type": "string", "not": {"enum": ["a", ""]}}, ["b", "ab"]),
    ("not", {"type": "string", "not": {"pattern": "a"}}, ["b", ""]),
    ("not", {"properties": {"a": True, "b": True}, "not": {"required": ["a", "b"]}, "type": "object"}, [{"a": 1}, {"b": 1}]),
    ("if", {"type": ["integer", "string"], "if": {"type": "string"}, "then": {"minLength": 2}}, ["ab", 1]),
    ("then", {"type": "integer", "if": {"minimum": 10}, "then": {"maximum": 100}}, [1, 99]),
    ("else", {"type": "integer", "if": {"minimum": 10}, "else": {"maximum": 1}}, [0, 10]),
    ("contains", {"type": "array", "contains": {"type": "integer"}}, [[1], [1, "a"]]),
    ("contains", {"type": "array", "items": {"type": "integer"}, "contains": {"const": 2}, "maxItems": 2}, [[1, 2]]),
    ("minContains", {"type": "array", "contains": {"type": "integer"}, "minContains": 2}, [[1, 2], [1, 1]]),
    ("maxContains", {"type": "array", "contains": {"const": 1}, "maxContains": 1}, [[1], [1, "a"]]),
    ("uniqueItems", {"type": "array", "items": {"enum": list(range(9))}, "uniqueItems": True}, [[], [1, 2], [1, 2, 3]]),
    ("oneOf", {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 2}]}, [1, 3.75]),
    ("format", {"type": ["integer", "null"], "format": "uint8", "minimum": 99}, [99, 101, None]),
    ("format", {"type": "string", "format": "password", "minLength": 2}, ["ab"]),
]


@pytest.mark.parametrize(("keyword", "schema", "says_yes"), CASES, ids=lambda part: part if isinstance(part, str) else "")
def test_what_is_generated_is_valid_and_what_is_invalid_is_not_accepted(bench, keyword, schema, says_yes):
    grammar = bench.compile(constraint_of(schema))
    validator = validator_of(schema)
    finished = [text for seed in range(6) if (text := bench.walk(grammar, random.Random(seed), patience=25)) is not None]
    assert finished
    for text in finished:
        validator.validate(loads(text))
    expected = {json.dumps(instance, ensure_ascii=False) for instance in says_yes}
    for instance in POOL:
        text = json.dumps(instance, ensure_ascii=False)
        if text in expected:
            assert bench.accepts(grammar, text), text
        elif not validator.is_valid(instance):
            assert not bench.accepts(grammar, text), text
    assert all(validator.is_valid(instance) for instance in says_yes)


def test_an_upper_count_beyond_what_is_counted_is_lowered():
    rules = lower('{"type":"array","items":{"type":"string","maxLength":1000000},"maxItems":1000000}').grammar.rules
    assert "most=10000)" in repr(rules) and "1000000" not in repr(rules)


def test_every_enforced_keyword_has_a_case():
    assert {keyword for keyword, _, _ in CASES} == set(ENFORCED)


def test_the_documentation_says_how_far_each_keyword_is_enforced():
    page = (Path(__file__).resolve().parents[2] / "docs" / "constraints.md").read_text(encoding="utf-8")
    for keyword, how in (ENFORCED | REFUSED).items():
        assert f"| `{keyword}` | {how} |" in page


def refuse(uri: str) -> Any:
    raise AssertionError(f"{uri} was about to be fetched")


@pytest.mark.parametrize("name", sorted(STRING_FORMATS))
def test_a_string_format_passes_independent_validators(bench, name):
    schema = {"type": "string", "format": name}
    grammar = bench.compile(constraint_of(schema))
    strict = jsonschema_rs.validator_for(schema, validate_formats=True, ignore_unknown_formats=True, retriever=refuse)
    for seed in range(25):
        text = bench.walk(grammar, random.Random(seed), patience=40)
        assert text is not None
        assert strict.is_valid(loads(text)), text
        validator_of(schema).validate(loads(text))


def test_formats_say_yes_to_ordinary_values(bench):
    ordinary = {
        "date": "2024-02-28",
        "time": "23:59:59Z",
        "date-time": "2024-12-31T00:00:00.25+01:00",
        "duration": "P1DT2H",
        "email": "ann.lee+x@mail.example.com",
        "hostname": "db-1.example.org",
        "ipv4": "192.168.0.1",
        "ipv6": "2001:db8::1",
        "uri": "https://example.com:8080/a/b?".rstrip("?"),
        "uuid": "123e4567-e89b-12d3-a456-426614174000",
        "byte": "aGVsbG8=",
    }
    for name, value in ordinary.items():
        assert bench.accepts(bench.compile(constraint_of({"type": "string", "format": name})), json.dumps(value)), name
    for name, value in (
        ("date", "2023-02-30"),
        ("time", "24:00:00Z"),
        ("ipv4", "256.1.1.1"),
        ("uuid", "123e4567"),
        ("email", "a@b"),
    ):
        assert not bench.accepts(bench.compile(constraint_of({"type": "string", "format": name})), json.dumps(value)), name


@pytest.mark.parametrize("name", sorted(NUMBER_FORMATS))
def test_a_number_format_bounds_the_number(bench, name):
    grammar = bench.compile(constraint_of({"type": "integer", "format": name}))
    span = NUMBER_FORMATS[name]
    assert bench.accepts(grammar, "0")
    if span is not None:
        assert [bench.accepts(grammar, str(n)) for n in (span[0] - 1, span[0], span[1], span[1] + 1)] == [
            False,
            True,
            True,
            False,
        ]


@pytest.mark.parametrize("keyword", sorted(ANNOTATIONS - {"$schema", "$id", "id", "$vocabulary"}))
def test_an_annotation_changes_nothing(bench, keyword):
    value: Any = {"$defs": {}, "definitions": {}, "examples": ["x"], "deprecated": True, "readOnly": True, "writeOnly": True}
    value |= {"contentSchema": {"type": "null"}}
    schema = {"type": "boolean", keyword: value.get(keyword, "a")}
    grammar = bench.compile(constraint_of(schema))
    assert [bench.accepts(grammar, text) for text in ("true", "false", "null")] == [True, True, False]


@pytest.mark.parametrize("name", sorted(ANNOTATING_FORMATS))
def test_a_format_without_rules_is_an_annotation(bench, name):
    assert bench.accepts(bench.compile(constraint_of({"type": "string", "format": name})), '"a b"')


@pytest.mark.parametrize("keyword", sorted(REFUSED))
def test_a_refused_keyword_is_named_with_its_place(bench, keyword):
    """They are references that may lead to several places."""
    draft = {"$schema": "https://json-schema.org/draft/2019-09/schema"} if "recursive" in keyword else {}
    anchor: Any = {"$recursiveAnchor": True} if draft else {"$dynamicAnchor": "x"}
    schema = {"type": "object", "properties": {"a/b": {keyword: "#" if draft else "#x"}}, "$defs": {"p": anchor, "q": anchor}, **draft}
    with pytest.raises(ConstraintError) as error:
        bench.compile(constraint_of(schema))
    assert (error.value.code, error.value.param) == ("unsupported_schema", f"/properties/a~1b/{keyword}")
    assert f"`{keyword}`" in error.value.message


COMBINATIONS = [
    ({"maxLenght": 3}, "Is it `maxLength`?"),
    ({"frobnicate": 1}, "unknown keyword"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "uniqueItems"),
    ({"type": "array", "prefixItems": [{"enum": [1]}], "items": {"enum": [1]}, "uniqueItems": True}, "uniqueItems"),
    ({"type": "array", "contains": {"type": "null"}, "minContains": 17}, "contains"),
    ({"type": "array", "allOf": [{"contains": {"const": 1}}, {"contains": {"const": 2}}]}, "contains"),
    ({"type": "number", "multipleOf": 0.01}, "multipleOf"),
    ({"type": "integer", "multipleOf": 4099}, "multipleOf"),
    ({"type": "number", "multipleOf": 1.5}, "multipleOf"),
    ({"type": "string", "format": "isbn"}, "isbn"),
    ({"type": "string", "pattern": "^(?=a)"}, "lookaround"),
    ({"type": "object", "minProperties": 2}, "minProperties"),
    ({"type": "object", "properties": {"a": True}, "minProperties": 2}, "minProperties"),
    ({"type": "object", "patternProperties": {f"^{c}": {"const": c} for c in "abcde"}}, "patternProperties"),
    ({"oneOf": [{"type": "integer", "multipleOf": 2}, {"type": "integer", "multipleOf": 3}]}, "oneOf"),
    ({"oneOf": [{"type": "string", "format": "date"}, {"type": "string", "maxLength": 5}]}, "oneOf"),
    ({"type": "string", "not": {"format": "date"}}, "complement"),
    ({"type": "object", "not": {"additionalProperties": False}}, "complement"),
    ({"type": "integer", "not": {"multipleOf": 3}}, "complement"),
    ({"type": "object", "not": {"const": {"a": 1}}}, "listed object"),
    ({"type": "array", "not": {"$ref": "#"}}, "refers to itself"),
    ({"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}, "unevaluatedProperties": False}, "unevaluated"),
    ({"enum": [[1], [2]], "minItems": 1}, "enum"),
    ({"type": "number", "minimum": 0.12345678901234567}, "digits"),
]


@pytest.mark.parametrize(("schema", "named"), COMBINATIONS, ids=[str(c[0])[:60] for c in COMBINATIONS])
def test_a_combination_that_is_not_exact_is_refused_by_name(bench, schema, named):
    with pytest.raises(ConstraintError, match=named.replace("$", r"\$").replace("?", r"\?")) as error:
        bench.compile(constraint_of(schema))
    assert error.value.code == "unsupported_schema"
    assert error.value.param is not None
