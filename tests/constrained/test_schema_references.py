"""References: identifiers, anchors and nested bases lead to places inside the schema, and to nothing else."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from grammar_bench import constraint_of

from ramify.constrained.references import localised
from ramify.runtime.errors import ConstraintError

BASE = "https://x.test/a/root.json"


def first_reference(schema: Any) -> str:
    """The rewritten `$ref` of property v."""
    return localised(schema)["properties"]["v"]["$ref"]


@pytest.mark.parametrize(
    ("reference", "place"),
    [
        ("#", "#"),
        ("#/$defs/n", "#/$defs/n"),
        (BASE, "#"),
        ("root.json", "#"),
        (f"{BASE}#/$defs/n", "#/$defs/n"),
        ("#here", "#/$defs/anchored"),
        ("root.json#here", "#/$defs/anchored"),
        ("inner.json", "#/$defs/inner"),
        ("/a/inner.json#/$defs/deep", "#/$defs/inner/$defs/deep"),
        ("inner.json#there", "#/$defs/inner/$defs/deep"),
    ],
)
def test_a_reference_becomes_a_pointer_from_the_root(reference, place):
    schema = {
        "$id": BASE,
        "properties": {"v": {"$ref": reference}},
        "$defs": {
            "n": {"type": "null"},
            "anchored": {"$anchor": "here"},
            "inner": {"$id": "inner.json", "$defs": {"deep": {"$anchor": "there", "type": "integer"}}},
        },
    }
    assert first_reference(schema) == place


def test_what_a_schema_embeds_refers_from_its_own_base():
    schema = {"$defs": {"in": {"$id": "https://y.test/in", "items": {"$ref": "#/$defs/x"}, "$defs": {"x": True}}}}
    assert localised(schema)["$defs"]["in"]["items"]["$ref"] == "#/$defs/in/$defs/x"


def test_values_and_names_are_not_taken_for_references():
    schema = {
        "properties": {"$ref": {"type": "null"}, "$id": {"type": "string"}},
        "const": {"$ref": "#x", "$anchor": "x"},
        "default": {"$id": "http://z.test/"},
    }
    assert localised(schema) == schema


def test_names_with_signs_of_their_own_are_found(bench):
    odd = {"a/b~c%25 d": {"$anchor": "odd", "type": "null"}}
    schema = {"properties": {"v": {"$ref": "#odd"}}, "type": "object", "$defs": odd}
    grammar = bench.compile(constraint_of(schema))
    assert bench.accepts(grammar, '{"v": null}') and not bench.accepts(grammar, '{"v": 1}')


def test_up_to_draft_7_what_stands_beside_a_reference_means_nothing():
    old = {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"v": {"$ref": "#", "minimum": 3}}}
    assert localised(old)["properties"]["v"] == {"$ref": "#"}
    new = {"properties": {"v": {"$ref": "#", "minimum": 3}}}
    assert localised(new)["properties"]["v"] == {"$ref": "#", "minimum": 3}


def test_a_dynamic_reference_with_one_possible_place_is_a_reference():
    one = {"$dynamicAnchor": "n", "properties": {"v": {"$dynamicRef": "#n"}}}
    assert first_reference(one) == "#"
    two = {**one, "$defs": {"other": {"$dynamicAnchor": "n"}}}
    assert "$ref" not in localised(two)["properties"]["v"]


OUTSIDE = ["http://127.0.0.1:{port}/s.json", "//127.0.0.1:{port}/s", "file:///etc/passwd", "other.json", "urn:x:y", "#nowhere"]


@pytest.mark.parametrize("reference", OUTSIDE)
@pytest.mark.parametrize("place", ["items", "not", "if", "contains", "nested"])
def test_a_reference_to_outside_is_refused_and_nothing_is_opened(bench, reference, place):
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = {"$ref": reference.format(port=server.getsockname()[1])}
        schema = {"type": "array", place: target}
        if place == "if":
            schema["then"] = {"minItems": 1}
        if place == "nested":
            schema = {"$id": "http://127.0.0.1/", "properties": {"a": {"$id": "sub/", "properties": {"b": target}}}}
        with pytest.raises(ConstraintError) as error:
            bench.compile(constraint_of(schema))
        assert error.value.code == "invalid_json_schema"
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.accept()
