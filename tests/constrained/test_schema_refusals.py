"""Schemas that are malformed, cannot be satisfied, cost too much, or point outside: the code, and nothing else happens."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from grammar_bench import constraint_of
from pydantic import BaseModel

from ramify.constrained import limits
from ramify.constrained.schema import schema_text
from ramify.constrained.spec import Choice, Ebnf, JsonSchema, Regex
from ramify.runtime.errors import ConstraintError


def code_of(bench, constraint) -> str:
    with pytest.raises(ConstraintError) as error:
        bench.compile(constraint)
    assert len(error.value.message) > 20
    return error.value.code


def test_a_model_a_dict_and_a_text_give_one_canonical_text():
    class Point(BaseModel):
        y: int
        x: int

    text = schema_text(Point)
    assert text == schema_text(Point.model_json_schema()) == schema_text(json.dumps(Point.model_json_schema(), indent=2))
    assert text.index('"y"') < text.index('"x"')


@pytest.mark.parametrize("source", [3, ["type"], None, {"a": {1, 2}}, {"minimum": float("nan")}, "{", "[]", '{"a": NaN}', "3"])
def test_what_is_no_schema_is_invalid(source):
    with pytest.raises(ConstraintError) as error:
        schema_text(source)
    assert error.value.code == "invalid_json_schema"


INVALID: list[tuple[Any, str]] = [
    ({"type": "strng"}, "/type"),
    ({"items": "x"}, "/items"),
    ({"items": [{"type": "null"}]}, "/items"),
    ({"properties": {"a": {"minLength": -1}}}, "/properties/a/minLength"),
    ({"minimum": "1"}, "/minimum"),
    ({"type": "string", "pattern": "("}, "/pattern"),
    ({"required": "a"}, "/required"),
    ({"$ref": "#/$defs/nope"}, "/$ref"),
    ({"properties": {"a": {"$ref": "#/properties/b"}}}, "/properties/a/$ref"),
    ({"$defs": {"a": 3}, "$ref": "#/$defs/a"}, "/$defs/a"),
    ({"$schema": "http://127.0.0.1:9/schema"}, "/$schema"),
    ({"$defs": {"a": {"$schema": "http://127.0.0.1:9/schema"}}}, "/$defs/a/$schema"),
]


@pytest.mark.parametrize(("schema", "pointer"), INVALID, ids=[str(s)[:50] for s, _ in INVALID])
def test_an_invalid_schema_is_told_with_its_place(bench, schema, pointer):
    with pytest.raises(ConstraintError) as error:
        bench.compile(constraint_of(schema))
    assert (error.value.code, error.value.param) == ("invalid_json_schema", pointer)


@pytest.mark.parametrize("where", ["$ref", "nested", "$schema", "nested $schema", "pattern of names"])
def test_a_reference_to_outside_opens_no_connection_and_no_file(bench, where, tmp_path):
    (tmp_path / "secret.json").write_text('{"type": "null"}')
    with socket.create_server(("127.0.0.1", 0)) as server:
        for target in (f"http://127.0.0.1:{server.getsockname()[1]}/s.json", (tmp_path / "secret.json").as_uri()):
            schema = {
                "$ref": {"$ref": target},
                "nested": {"properties": {"a": {"allOf": [{"$ref": target}]}}},
                "$schema": {"$schema": target},
                "nested $schema": {"properties": {"a": {"$schema": target, "type": "null"}}},
                "pattern of names": {"type": "object", "propertyNames": {"$ref": target}},
            }[where]
            assert code_of(bench, constraint_of(schema)) == "invalid_json_schema"
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


UNSATISFIABLE: list[Any] = [
    False,
    {"$ref": "#"},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    {"allOf": [{"$ref": "#"}]},
    {"allOf": [{"type": "string"}, {"type": "integer"}]},
    {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {"type": "object", "properties": {"a": False}, "required": ["a"]},
    {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    {"type": "object", "required": ["a"], "additionalProperties": False},
    {"type": "object", "properties": {"a": True}, "minProperties": 2, "additionalProperties": False},
    {"type": "integer", "minimum": 5, "maximum": 4},
    {"type": "integer", "minimum": 0.2, "maximum": 0.8},
    {"type": "number", "minimum": 1, "exclusiveMaximum": 1},
    {"type": "string", "minLength": 3, "maxLength": 2},
    {"type": "string", "enum": [1, 2]},
    {"const": 1, "enum": [2]},
    {"type": "array", "minItems": 3, "maxItems": 2},
    {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True, "minItems": 3},
    {"anyOf": [False, {"type": "array", "prefixItems": [False], "minItems": 1}]},
    {"type": "string", "pattern": "^a{5}$", "maxLength": 3},
]


@pytest.mark.parametrize("schema", UNSATISFIABLE, ids=[json.dumps(s)[:60] for s in UNSATISFIABLE])
def test_a_schema_without_a_finite_instance_is_unsatisfiable(bench, schema):
    assert code_of(bench, constraint_of(schema)) == "unsatisfiable_grammar"


def test_a_dead_branch_is_left_out_not_entered(bench):
    schema = {"anyOf": [{"type": "object", "properties": {"a": {"$ref": "#/anyOf/0"}}, "required": ["a"]}, {"type": "null"}]}
    grammar = bench.compile(constraint_of(schema))
    assert bench.accepts(grammar, "null")
    assert not bench.store.matcher(grammar).accept(ord("{"))


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


TOO_COMPLEX = {
    "depth": JsonSchema(json.dumps(deep(limits.SCHEMA_DEPTH))),
    "depth of properties": JsonSchema('{"properties":{"properties":' * limits.SCHEMA_DEPTH + "{}" + "}}" * limits.SCHEMA_DEPTH),
    "depth of a constant": JsonSchema('{"const":' + "[" * limits.SCHEMA_DEPTH + "]" * limits.SCHEMA_DEPTH + "}"),
    "depth of thousands": JsonSchema('{"items":' * 5000 + "{}" + "}" * 5000),
    "size": JsonSchema(json.dumps({"description": "x" * limits.SCHEMA_BYTES})),
    "properties": JsonSchema(json.dumps({"properties": {f"p{i}": True for i in range(limits.SCHEMA_PROPERTIES + 1)}})),
    "enum": JsonSchema("{" + '"enum":[' + ",".join(["1"] * (limits.ENUM_VALUES + 1)) + "]}"),
    "minItems": JsonSchema('{"type":"array","minItems":100000}'),
    "minLength": JsonSchema('{"type":"string","minLength":100000}'),
    "pattern": JsonSchema(json.dumps({"type": "string", "pattern": "a" * 3000})),
    "branches": JsonSchema(json.dumps({"allOf": [{"anyOf": [{"minimum": i}, {"maximum": i}]} for i in range(12)]})),
    "regex of words": Regex("(" + "|".join(f"word{i}" for i in range(700)) + ")+"),
    "ebnf": Ebnf('root ::= "' + "a" * limits.EBNF_BYTES + '"'),
    "choices": Choice(tuple(str(i) for i in range(limits.ENUM_VALUES + 1))),
}


@pytest.mark.parametrize("name", TOO_COMPLEX)
def test_what_is_over_a_cap_is_too_complex(bench, name):
    assert code_of(bench, TOO_COMPLEX[name]) == "grammar_too_complex"


def test_a_schema_at_the_caps_is_taken(bench):
    within = limits.SCHEMA_DEPTH - 1
    bench.compile(constraint_of(deep(within)))
    bench.compile(JsonSchema('{"type":"object","properties":{"properties":' * within + '{"type":"null"}' + "}}" * within))
    bench.compile(JsonSchema(json.dumps({"enum": [f"{i:x}" for i in range(5000)]})))
