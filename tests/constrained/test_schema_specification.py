"""Instances that the specification calls valid or invalid, keyword by keyword and in combination, in three drafts.

For an admitted schema nothing invalid is accepted, and nothing valid is refused that has the stated form: compact, properties in
the schema's order and no others, a set's values beyond eight in their order. An independent validator confirms each verdict.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from grammar_bench import constraint_of, validator_of

from ramify.runtime.errors import ConstraintError

DRAFTS = {
    "7": "http://json-schema.org/draft-07/schema#",
    "2019-09": "https://json-schema.org/draft/2019-09/schema",
    "2020-12": "https://json-schema.org/draft/2020-12/schema",
}
A, B, C = {"type": "integer"}, {"type": "string"}, {"type": "boolean"}
AB = {"a": A, "b": B}
OBJECT, ARRAY, STRING, INTEGER, NUMBER = ({"type": name} for name in ("object", "array", "string", "integer", "number"))

Case = tuple[dict[str, Any], list[Any], list[Any]]

EVERY_DRAFT: list[Case] = [
    # types
    ({"type": "null"}, [None], [0, False, "", [], {}, "null"]),
    ({"type": "boolean"}, [True, False], [0, 1, "true", None]),
    (INTEGER, [0, -7, 123456], [1.5, "1", True, None, [1]]),
    (NUMBER, [0, -0.5, 3, 2.75], ["1", True, None]),
    (STRING, ["", "a", "é😀", 'say "x"', "a\\b", "tab\t", "\n"], [0, None, ["a"], {}]),
    (ARRAY, [[], [1], ["a", None, {"b": 2}]], [{}, "[]", 1]),
    (OBJECT, [{}, {"x": [1, {"y": None}]}], [[], "{}", None]),
    ({"type": ["integer", "null"]}, [1, None], [1.5, "a", True]),
    ({"type": ["string", "array"]}, ["x", []], [{}, 1]),
    # listed values
    ({"enum": [1, "a", None, True, [1, 2], {"k": "v"}]}, [1, "a", None, True, [1, 2], {"k": "v"}], [2, "b", False, [2, 1], {}]),
    ({"enum": [0, False]}, [0, False], [None, "", 1]),
    ({"const": "x"}, ["x"], ["X", "xx", None]),
    ({"const": {"a": [1, None]}}, [{"a": [1, None]}], [{"a": [1]}, {"a": [None, 1]}, {}]),
    ({"const": 1.5}, [1.5], [1, 15]),
    ({"const": []}, [[]], [{}, [[]]]),
    ({"enum": ["red", "green"], "type": "string"}, ["red", "green"], ["blue", "", 1]),
    ({"enum": [1, 2, 3, 10], "minimum": 2, "maximum": 5}, [2, 3], [1, 10]),
    ({"enum": ["a", "ab", "abc"], "minLength": 2, "maxLength": 2}, ["ab"], ["a", "abc"]),
    # numbers
    ({**INTEGER, "minimum": -3, "maximum": 12}, [-3, 0, 12], [-4, 13, 120, 0.5]),
    ({**INTEGER, "exclusiveMinimum": 0, "exclusiveMaximum": 10}, [1, 9], [0, 10, -1]),
    ({**INTEGER, "minimum": 1.5}, [2, 30], [1, 0, -2]),
    ({**NUMBER, "minimum": 0.25}, [0.25, 1, 7.5], [0.2, 0, -1]),
    ({**NUMBER, "exclusiveMaximum": 1}, [0.999, 0, -5], [1, 1.5]),
    ({**NUMBER, "minimum": -1.5, "maximum": 1.5}, [-1.5, 0, 1.25], [-1.51, 1.6, 15]),
    ({**INTEGER, "minimum": 99, "maximum": 1001}, [99, 100, 999, 1001], [98, 1002, 9]),
    ({**INTEGER, "multipleOf": 3}, [0, 3, -9, 123456], [1, 2, 100, -1]),
    ({**INTEGER, "multipleOf": 7, "minimum": 10, "maximum": 1000000}, [14, 999999], [7, 15, 1000006]),
    ({**INTEGER, "multipleOf": 97}, [0, 97, 9700, -97], [98, 1, 9]),
    ({**INTEGER, "multipleOf": 250}, [0, 250, 1000, -750], [200, 125]),
    ({**NUMBER, "multipleOf": 0.5}, [0, 0.5, -1.5, 12], [0.25, 1.3]),
    ({**NUMBER, "multipleOf": 0.25, "minimum": 0, "maximum": 2}, [0, 0.25, 1.75, 2], [2.25, 0.3]),
    ({**INTEGER, "allOf": [{"multipleOf": 4}, {"multipleOf": 6}]}, [0, 12, 24], [4, 6, 8, 18]),
    # strings
    ({**STRING, "minLength": 2}, ["ab", "é😀", "abc"], ["", "a", "😀"]),
    ({**STRING, "maxLength": 2}, ["", "a", "😀é"], ["abc", "ab "]),
    ({**STRING, "minLength": 1, "maxLength": 3}, ["a", "abc"], ["", "abcd"]),
    ({**STRING, "pattern": "^[a-c]+$"}, ["a", "cab"], ["", "d", "ab1"]),
    ({**STRING, "pattern": "b"}, ["b", "abc", "\nb"], ["", "ac"]),
    ({**STRING, "pattern": "^a|z$"}, ["a", "abc", "xyz"], ["bc", "za "]),
    ({**STRING, "pattern": "^\\d{2}-\\d{2}$"}, ["12-34"], ["1-34", "12-345", "ab-cd"]),
    ({**STRING, "pattern": "^[^\"\\\\]$"}, ["a", "é", "\n"], ['"', "\\", "ab"]),
    ({**STRING, "pattern": "^a+b*$", "maxLength": 3}, ["a", "aab", "abb"], ["", "b", "aaab"]),
    ({**STRING, "pattern": "^(ab|c)*$", "minLength": 3, "maxLength": 4}, ["abc", "cab", "abab", "cccc"], ["ab", "cc", "ababc", "aba"]),
    ({**STRING, "pattern": "^[a-z]+(-[a-z]+)*$", "maxLength": 6}, ["a", "a-b-c", "abcdef"], ["a-", "abcdefg", "A"]),
    ({**STRING, "allOf": [{"pattern": "[a-z]"}, {"pattern": "[0-9]"}]}, ["a1", "1a", "x9y"], ["a", "1", ""]),
    ({**STRING, "allOf": [{"pattern": "^a"}, {"pattern": "b$"}, {"maxLength": 3}]}, ["ab", "acb"], ["a", "b", "accb", "ba"]),
    ({**STRING, "format": "date"}, ["2024-02-28", "1999-12-31"], ["2024-13-01", "2023-02-30", "24-01-01"]),
    ({**STRING, "format": "ipv4"}, ["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "1.2.3", "a.b.c.d"]),
    ({**STRING, "format": "email"}, ["a@example.com"], ["a", "example.com"]),
    ({**STRING, "pattern": "^2024-", "format": "date"}, ["2024-01-31"], ["2023-01-31", "2024-01-32"]),
    # objects
    ({**OBJECT, "properties": AB}, [{}, {"a": 1}, {"b": "x"}, {"a": 1, "b": "x"}], [{"a": "1"}, {"b": 2}, {"a": None}]),
    ({**OBJECT, "properties": AB, "required": ["b"]}, [{"b": ""}, {"a": 1, "b": "x"}], [{}, {"a": 1}, {"b": 1}]),
    ({**OBJECT, "properties": AB, "additionalProperties": False}, [{}, {"a": 2}], [{"c": 1}, {"a": 1, "c": 2}]),
    ({**OBJECT, "required": ["k"]}, [{"k": 1}, {"k": None}], [{}, []]),
    ({**OBJECT, "required": ["k"], "additionalProperties": A}, [{"k": 1}], [{"k": "x"}, {}]),
    ({**OBJECT, "additionalProperties": A}, [{}, {"x": 1, "y": 2}], [{"x": "1"}, {"x": 1, "y": None}]),
    ({**OBJECT, "additionalProperties": False}, [{}], [{"a": 1}]),
    ({**OBJECT, "patternProperties": {"^n_": A}}, [{}, {"n_x": 1}], [{"n_x": "1"}]),
    ({**OBJECT, "patternProperties": {"^a": A, "b$": {"minimum": 5}}}, [{"a": 1}, {"ab": 7}, {"b": 5}], [{"ab": 1}, {"a": "x"}, {"ab": "x"}]),
    ({**OBJECT, "patternProperties": {"^x": B}, "additionalProperties": False}, [{"x1": "v"}], [{"y": "v"}, {"x1": 1}]),
    ({**OBJECT, "properties": {"a": {}}, "patternProperties": {"^a$": A}}, [{"a": 1}, {}], [{"a": "x"}]),
    ({**OBJECT, "propertyNames": {"pattern": "^[a-z]+$"}}, [{}, {"ab": 1}], [{"A": 1}, {"a1": 2}]),
    ({**OBJECT, "propertyNames": {"maxLength": 2}, "additionalProperties": A}, [{"ab": 1}], [{"abc": 1}, {"ab": "x"}]),
    ({**OBJECT, "propertyNames": {"enum": ["a", "b"]}}, [{"a": 1}, {"a": 1, "b": 2}], [{"c": 1}]),
    ({**OBJECT, "minProperties": 1}, [{"a": 1}, {"x": None}], [{}]),
    ({**OBJECT, "properties": AB, "minProperties": 2}, [{"a": 1, "b": "x"}], [{}, {"a": 1}]),
    ({**OBJECT, "properties": {**AB, "c": C}, "maxProperties": 1}, [{}, {"a": 1}, {"c": True}], [{"a": 1, "b": "x"}]),
    ({**OBJECT, "maxProperties": 1}, [{}, {"q": 1}], [{"q": 1, "r": 2}]),
    # arrays
    ({**ARRAY, "items": A}, [[], [1], [1, -2, 3]], [["a"], [1, None], [1.5]]),
    ({**ARRAY, "items": A, "minItems": 2, "maxItems": 3}, [[1, 2], [1, 2, 3]], [[], [1], [1, 2, 3, 4]]),
    ({**ARRAY, "maxItems": 0}, [[]], [[1]]),
    ({**ARRAY, "items": False}, [[]], [[None]]),
    ({**ARRAY, "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True}, [[], ["b", "a"], ["a", "b", "c"]], [["a", "a"], ["d"]]),
    ({**ARRAY, "items": {"enum": list(range(12))}, "uniqueItems": True, "minItems": 2}, [[0, 11], [1, 2, 3]], [[1], [3, 3], [12, 13]]),
    ({**ARRAY, "items": C, "uniqueItems": True}, [[True], [False, True]], [[True, True], [1]]),
    ({**ARRAY, "uniqueItems": True, "maxItems": 1}, [[], [5]], [[5, 5]]),
    ({**ARRAY, "items": {"enum": [1, True]}, "uniqueItems": True}, [[1, True], [True]], [[1, 1]]),
    ({**ARRAY, "contains": A}, [[1], ["a", 2], [1, 2]], [[], ["a"], [None, "1"]]),
    ({**ARRAY, "items": A, "contains": {"minimum": 10}}, [[10], [1, 11, 2]], [[], [1, 9], ["a", 10]]),
    ({**ARRAY, "contains": {"const": "x"}, "maxItems": 2}, [["x"], [1, "x"], ["x", "x"]], [[], [1, 2], [1, 2, "x"]]),
    ({**ARRAY, "contains": {"type": "null"}, "minItems": 2}, [[None, 1], [1, None]], [[None], [1, 2]]),
    # combinations
    ({"anyOf": [A, B]}, [1, "a"], [None, 1.5, []]),
    ({"anyOf": [{**INTEGER, "minimum": 5}, {**INTEGER, "maximum": 1}]}, [5, 1, -3], [2, 4]),
    ({**OBJECT, "properties": AB, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{"a": 1}, {"b": "x"}, {"a": 1, "b": "x"}], [{}]),
    ({"allOf": [{**INTEGER, "minimum": 2}, {"maximum": 4}]}, [2, 4], [1, 5, "a"]),
    (
        {"allOf": [{**OBJECT, "properties": {"a": A}, "required": ["a"]}, {"properties": {"b": B}, "required": ["b"]}]},
        [{"a": 1, "b": "x"}],
        [{"a": 1}, {"b": "x"}, {"a": "1", "b": "x"}],
    ),
    ({"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, 4]}]}, [2, 3], [1, 4]),
    ({"oneOf": [A, B, {"type": "null"}]}, [1, "x", None], [1.5, [], True]),
    ({"oneOf": [{**INTEGER, "minimum": 5}, {**INTEGER, "maximum": 7}]}, [4, 8, -1, 100], [5, 6, 7]),
    ({"oneOf": [INTEGER, {**NUMBER, "minimum": 2}]}, [1, -5, 2.5], [2, 3, 1.5]),
    ({"oneOf": [{**STRING, "minLength": 3}, {**STRING, "pattern": "^a"}]}, ["a", "ab", "xyz"], ["abc", "x", ""]),
    (
        {**OBJECT, "properties": {**AB, "c": C}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}, {"b": "x"}, {"a": 1, "c": True}],
        [{}, {"a": 1, "b": "x"}, {"c": True}],
    ),
    (
        {"oneOf": [{**OBJECT, "properties": {"k": {"const": n}, n: A}, "required": ["k", n]} for n in ("x", "y")]},
        [{"k": "x", "x": 1}, {"k": "y", "y": 2}],
        [{"k": "x", "y": 1}, {"k": "z"}, {"x": 1}],
    ),
    # not
    ({"not": STRING}, [1, None, [], {}, True, 0.5], ["", "a"]),
    ({"not": {"type": ["string", "number"]}}, [None, [], True], [1, 1.5, "a"]),
    ({**NUMBER, "not": INTEGER}, [0.5, -1.25, 10.1], [0, 1, -3]),
    ({**STRING, "not": {"enum": ["a", "ab", ""]}}, ["b", "abc", "aa"], ["a", "ab", ""]),
    ({**STRING, "not": {"const": 'q"'}}, ['q', '"q"', "q\\"], ['q"']),
    ({**INTEGER, "not": {"enum": [0, 7]}}, [1, 70, -7], [0, 7]),
    ({**NUMBER, "not": {"const": 2}}, [1, 2.5, 20], [2]),
    ({"enum": [1, 2, "a", None], "not": {"enum": [2, None]}}, [1, "a"], [2, None]),
    ({**STRING, "not": {"pattern": "^a"}}, ["", "b", "ba"], ["a", "abc"]),
    ({**STRING, "not": {"maxLength": 2}}, ["abc"], ["", "ab"]),
    ({**INTEGER, "not": {"minimum": 10}}, [9, -1], [10, 11]),
    ({**INTEGER, "not": {"minimum": 3, "maximum": 5}}, [2, 6], [3, 4, 5]),
    ({**OBJECT, "properties": AB, "not": {"required": ["a", "b"]}}, [{}, {"a": 1}, {"b": "x"}], [{"a": 1, "b": "x"}]),
    ({**OBJECT, "properties": AB, "not": {"required": ["a"]}}, [{}, {"b": "x"}], [{"a": 1}]),
    ({**OBJECT, "properties": {"k": B, "v": A}, "not": {"properties": {"k": {"const": "no"}}, "required": ["k"]}}, [{}, {"k": "x", "v": 1}], [{"k": "no"}]),
    ({"not": {"not": A}}, [1, 2], ["a", None]),
    ({"not": {"anyOf": [STRING, NUMBER, OBJECT]}}, [None, True, [1]], ["a", 1, {}]),
    ({**INTEGER, "not": {"allOf": [{"minimum": 0}, {"maximum": 9}]}}, [-1, 10], [0, 9]),
    ({**ARRAY, "items": A, "not": {"contains": {"const": 0}}}, [[], [1, 2]], [[0], [1, 0]]),
    ({**ARRAY, "items": A, "not": {"maxItems": 1}}, [[1, 2]], [[], [1]]),
    ({**OBJECT, "not": {"const": {}}}, [{"a": 1}], [{}]),
    # conditions
    (
        {**OBJECT, "properties": {"k": {"enum": ["x", "y"]}, "n": A}, "required": ["k"], "if": {"properties": {"k": {"const": "x"}}}, "then": {"required": ["n"]}},
        [{"k": "x", "n": 1}, {"k": "y"}, {"k": "y", "n": 2}],
        [{"k": "x"}, {}, {"k": "z"}],
    ),
    (
        {**OBJECT, "properties": {"k": C, "n": A}, "if": {"properties": {"k": {"const": True}}, "required": ["k"]}, "then": {"required": ["n"]}, "else": {"properties": {"n": False}}},
        [{}, {"k": False}, {"k": True, "n": 3}],
        [{"n": 1}, {"k": False, "n": 1}, {"k": True}],
    ),
    ({"type": ["integer", "string"], "if": STRING, "then": {"minLength": 2}, "else": {"minimum": 5}}, ["ab", 5], ["a", 4]),
    ({**INTEGER, "if": {"minimum": 10}, "then": {"multipleOf": 10}}, [1, 9, 10, 120], [11, 15]),
    ({**INTEGER, "if": {"minimum": 10}, "else": {"maximum": 3}}, [3, 10, 11], [4, 9]),
    ({**INTEGER, "if": {"minimum": 10}}, [1, 11], ["a"]),
    ({**STRING, "then": {"minLength": 100}}, ["a"], [1]),
    ({**OBJECT, "properties": AB, "dependencies": {"a": ["b"]}}, [{}, {"b": "x"}, {"a": 1, "b": "x"}], []),
    # references
    ({"$ref": "#/definitions/n", "definitions": {"n": A}}, [1], ["a", None]),
    ({**OBJECT, "properties": {"v": {"$ref": "#/definitions/p"}}, "definitions": {"p": {**INTEGER, "minimum": 1}}}, [{"v": 1}], [{"v": 0}, {"v": "1"}]),
    ({**ARRAY, "items": {"anyOf": [{"$ref": "#"}, A]}}, [[], [1, [2, []]]], [["a"], [[None]]]),
    ({"definitions": {"a/b": B, "c%d": A}, "properties": {"x": {"$ref": "#/definitions/a~1b"}, "y": {"$ref": "#/definitions/c%25d"}}, **OBJECT}, [{"x": "s", "y": 1}], [{"x": 1}, {"y": "s"}]),
]

SINCE_2019: list[Case] = [
    ({**OBJECT, "properties": AB, "dependentRequired": {"a": ["b"]}}, [{}, {"b": "x"}, {"a": 1, "b": "x"}], [{"a": 1}]),
    ({**OBJECT, "properties": AB, "dependentSchemas": {"a": {"properties": {"b": {"minLength": 2}}}}}, [{"b": ""}, {"a": 1, "b": "xy"}], [{"a": 1, "b": "x"}]),
    ({**ARRAY, "contains": A, "minContains": 2}, [[1, 2], [1, "a", 2]], [[], [1], ["a", 1]]),
    ({**ARRAY, "contains": A, "maxContains": 1}, [[1], ["a", 1]], [[1, 2], []]),
    ({**ARRAY, "items": A, "contains": {"minimum": 5}, "minContains": 1, "maxContains": 2, "maxItems": 3}, [[5], [1, 6, 7]], [[5, 6, 7], [1], [1, 2, 3, 5]]),
    ({**ARRAY, "contains": A, "minContains": 0}, [[], ["a"]], [1]),
    ({"$ref": "#/$defs/n", "minimum": 5, "$defs": {"n": A}}, [5, 6], [4, "a"]),
    ({**OBJECT, "properties": {"v": {"$ref": "#here"}}, "$defs": {"x": {"$anchor": "here", "type": "null"}}}, [{"v": None}], [{"v": 1}]),
    ({"allOf": [{"properties": {"a": A}}], **OBJECT, "unevaluatedProperties": False}, [{}, {"a": 1}], [{"b": 1}, {"a": 1, "b": 2}]),
    (
        {"$id": "https://x.test/root", "$ref": "part", "$defs": {"p": {"$id": "part", **OBJECT, "properties": {"n": {"$ref": "#/$defs/q"}}, "$defs": {"q": A}}}},
        [{"n": 1}],
        [{"n": "x"}, []],
    ),
]  # fmt: skip

ONLY: dict[str, list[Case]] = {
    "7": [
        ({**ARRAY, "items": [A, B], "additionalItems": False}, [[], [1], [1, "a"]], [["a"], [1, 2], [1, "a", None]]),
        ({**ARRAY, "items": [A], "additionalItems": B}, [[1], [1, "a", "b"]], [["a"], [1, 2]]),
        ({**OBJECT, "properties": AB, "dependencies": {"a": ["b"]}}, [{}, {"b": "x"}, {"a": 1, "b": "x"}], [{"a": 1}]),
        ({**OBJECT, "properties": AB, "dependencies": {"a": {"required": ["b"]}}}, [{"a": 1, "b": "x"}, {}], [{"a": 1}]),
        ({"properties": {"v": {"$ref": "#/definitions/n", "minimum": 5}}, "definitions": {"n": A}, **OBJECT}, [{"v": 1}], [{"v": "a"}]),
        ({"properties": {"v": {"$ref": "#named"}}, "definitions": {"n": {"$id": "#named", "type": "null"}}, **OBJECT}, [{"v": None}], [{"v": 1}]),
    ],
    "2019-09": [
        ({**ARRAY, "items": [A, B], "unevaluatedItems": False}, [[], [1], [1, "a"]], [["a"], [1, "a", None]]),
        ({**OBJECT, "properties": {"c": {"$recursiveRef": "#"}, "v": A}}, [{"c": {"v": 1}}, {}], [{"c": 1}, {"v": "x"}]),
    ],
    "2020-12": [
        ({**ARRAY, "prefixItems": [A, B]}, [[], [1], [1, "a"], [1, "a", None]], [["a"], [1, 2]]),
        ({**ARRAY, "prefixItems": [A], "items": B}, [[1], [1, "a", "b"]], [[1, 2], ["a"]]),
        ({**ARRAY, "prefixItems": [A, B], "items": False, "minItems": 2}, [[1, "a"]], [[1], [1, "a", 1]]),
        ({**ARRAY, "prefixItems": [B], "contains": {"const": 1}}, [["a", 1], ["a", 2, 1]], [["a"], [1], []]),
        ({**ARRAY, "prefixItems": [A], "unevaluatedItems": False}, [[], [1]], [[1, 2], ["a"]]),
        ({**OBJECT, "properties": {"c": {"$dynamicRef": "#node"}}, "$dynamicAnchor": "node"}, [{}, {"c": {}}], [{"c": 1}]),
    ],
}  # fmt: skip

CASES: list[tuple[str, Case]] = [
    *((draft, case) for case in EVERY_DRAFT for draft in DRAFTS),
    *((draft, case) for case in SINCE_2019 for draft in ("2019-09", "2020-12")),
    *((draft, case) for draft, cases in ONLY.items() for case in cases),
]


def test_there_are_more_than_400_different_instances():
    cases = [*EVERY_DRAFT, *SINCE_2019, *(case for cases in ONLY.values() for case in cases)]
    assert sum(len(valid) + len(invalid) for _, valid, invalid in cases) > 400


@pytest.mark.parametrize("draft", DRAFTS)
def test_valid_instances_are_accepted_and_invalid_ones_are_not(bench, draft):
    for schema, valid, invalid in (case for named, case in CASES if named == draft):
        said = {"$schema": DRAFTS[draft], **schema}
        grammar, validator = bench.compile(constraint_of(said)), validator_of(said)
        for instance in valid:
            assert validator.is_valid(instance), ("the case is wrong", said, instance)
            assert bench.accepts(grammar, json.dumps(instance, ensure_ascii=False)), (said, instance)
        for instance in invalid:
            assert not validator.is_valid(instance), ("the case is wrong", said, instance)
            for text in {json.dumps(instance, ensure_ascii=False), json.dumps(instance)}:
                assert not bench.accepts(grammar, text), (said, text)


@pytest.mark.parametrize(
    ("draft", "schema"),
    [("7", {"prefixItems": [A]}), ("7", {**ARRAY, "contains": A, "minContains": 0}), ("7", {"unevaluatedProperties": False})],
)
def test_a_keyword_that_the_declared_draft_does_not_know_is_refused(bench, draft, schema):
    """A validator would ignore it, so enforcing it could be less or more than what was meant."""
    with pytest.raises(ConstraintError, match="draft 7 does not know") as error:
        bench.compile(constraint_of({"$schema": DRAFTS[draft], **schema}))
    assert error.value.code == "unsupported_schema"
