"""What a stranger may send as a constraint, to the compile processes with their real limits: an answer in time, and its code."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import pytest_asyncio

from ramify.constrained import limits
from ramify.constrained.compiler import GrammarCompiler
from ramify.constrained.spec import Choice, Constraint, Ebnf, JsonSchema, Regex
from ramify.runtime.errors import ConstraintError

ANSWER_S = 2.5

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def compiler(bench):
    made = GrammarCompiler(bench.vocabulary.to_bytes(), workers=1)
    yield made
    await made.close()


def schema(value: Any) -> JsonSchema:
    return JsonSchema(json.dumps(value))


def record(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(count)}}


def needing(name: str, target: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"$ref": target}}, "required": [name]}


TAKEN = "taken"
EXPECTED: dict[str, tuple[Constraint, str]] = {
    "a schema that is a number": (JsonSchema("3"), "invalid_json_schema"),
    "a schema that is a list": (JsonSchema("[]"), "invalid_json_schema"),
    "no text": (JsonSchema(""), "invalid_json_schema"),
    "an unknown type": (schema({"type": "strng"}), "invalid_json_schema"),
    "items that are a text": (schema({"items": "x"}), "invalid_json_schema"),
    "a pattern that is no regex": (schema({"type": "string", "pattern": "("}), "invalid_json_schema"),
    "a number beyond doubles": (JsonSchema('{"minimum":1e999}'), "invalid_json_schema"),
    "NaN": (JsonSchema('{"minimum":NaN}'), "invalid_json_schema"),
    "an integer of 5,000 digits": (JsonSchema('{"minimum":' + "9" * 5000 + "}"), "invalid_json_schema"),
    "an escaped lone surrogate": (JsonSchema('{"const":"\\ud800"}'), "invalid_json_schema"),
    "a lone surrogate in a schema": (JsonSchema('{"const":"\ud800"}'), "invalid_json_schema"),
    "a lone surrogate in a regex": (Regex("\ud800"), "invalid_grammar"),
    "a lone surrogate in a grammar": (Ebnf('root ::= "\ud800"'), "invalid_grammar"),
    "a lone surrogate in a choice": (Choice(("a", "\udfff")), "invalid_grammar"),
    "a reference over http": (schema({"$ref": "http://127.0.0.1:9/s.json"}), "invalid_json_schema"),
    "a reference to a file": (schema({"$ref": "file:///etc/passwd"}), "invalid_json_schema"),
    "a reference beside the schema": (schema({"$id": "http://127.0.0.1:9/", "$ref": "s.json"}), "invalid_json_schema"),
    "a reference to nothing": (schema({"$ref": "#/$defs/none"}), "invalid_json_schema"),
    "a keyword that is not enforced": (schema({"type": "array", "contains": {"type": "null"}}), "unsupported_schema"),
    "a reference to itself": (schema({"$ref": "#"}), "unsatisfiable_grammar"),
    "a circle of references": (
        schema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        "unsatisfiable_grammar",
    ),
    "requirements that exclude each other": (
        schema({"allOf": [{"type": "string"}, {"type": "integer"}]}),
        "unsatisfiable_grammar",
    ),
    "false": (JsonSchema("false"), "unsatisfiable_grammar"),
    "an object that requires itself": (schema(needing("a", "#")), "unsatisfiable_grammar"),
    "objects that require each other": (
        schema({"$ref": "#/$defs/a", "$defs": {"a": needing("b", "#/$defs/b"), "b": needing("a", "#/$defs/a")}}),
        "unsatisfiable_grammar",
    ),
    "an array that needs itself": (schema({"type": "array", "items": {"$ref": "#"}, "minItems": 1}), "unsatisfiable_grammar"),
    "a rule that is itself": (Ebnf("root ::= root"), "unsatisfiable_grammar"),
    "left recursion without a base": (Ebnf('root ::= root "a"'), "unsatisfiable_grammar"),
    "two rules of left recursion": (Ebnf('root ::= a "x"\na ::= b "y"\nb ::= a "z"'), "unsatisfiable_grammar"),
    "a depth of 5,000": (JsonSchema('{"items":' * 5000 + "{}" + "}" * 5000), "grammar_too_complex"),
    "100,000 brackets": (JsonSchema("[" * 100_000), "grammar_too_complex"),
    "more than 128 KiB": (schema({"description": "x" * limits.SCHEMA_BYTES}), "grammar_too_complex"),
    "30,000 parentheses": (Regex("(" * 30_000), "grammar_too_complex"),
    "1,000 parentheses": (Regex("(" * 1000 + "a" + ")" * 1000), "grammar_too_complex"),
    "a regex of 700 words": (Regex("(" + "|".join(f"word{i}" for i in range(700)) + ")+"), "grammar_too_complex"),
    "a million times": (Regex("a{1000000}"), "grammar_too_complex"),
    "a million times, by nesting": (Regex("((a{100}){100}){100}"), "grammar_too_complex"),
    "an array of at least 100,000": (schema({"type": "array", "minItems": 100_000}), "grammar_too_complex"),
    "4,096 combinations": (
        schema({"allOf": [{"anyOf": [{"minimum": i}, {"maximum": i}]} for i in range(12)]}),
        "grammar_too_complex",
    ),
    "parentheses in a grammar": (Ebnf("root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000), "invalid_grammar"),
    "lookahead": (Regex("(?=a)b"), "unsupported_regex"),
    "lookbehind": (Regex("(?<!a)b"), "unsupported_regex"),
    "a backreference": (Regex(r"(a)\1"), "unsupported_regex"),
    "a named backreference": (Regex(r"(?<x>a)\k<x>"), "unsupported_regex"),
    "a regex that makes others exponential": (Regex("(a+)+b"), TAKEN),
    "alternatives that are prefixes of each other": (Regex("(" + "|".join("a" * i for i in range(1, 60)) + ")+"), TAKEN),
    "recursion with a base": (schema({"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "null"}]}), TAKEN),
}

EITHER: dict[str, Constraint] = {
    "2,000 optional properties": schema(record(2000)),
    "2,000 required properties": schema({**record(2000), "required": list(record(2000)["properties"])}),
    "an enum of 20,000": JsonSchema('{"enum":[' + ",".join(map(str, range(20_000))) + "]}"),
    "20,000 choices": Choice(tuple(f"value {i}" for i in range(20_000))),
}
"""Within the caps, and perhaps too much work for this machine."""


async def answer(compiler: GrammarCompiler, constraint: Constraint) -> str:
    """The refusal's code or `TAKEN`, if it comes in time. A worker that the last constraint ended is replaced before."""
    await compiler.warm()
    began = time.perf_counter()
    try:
        await compiler.compile(constraint)
        code = TAKEN
    except ConstraintError as error:
        assert "\n" not in error.message and 20 < len(error.message) < 400
        code = error.code
    assert time.perf_counter() - began < ANSWER_S
    return code


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_hostile_constraint_gets_its_code_in_time(compiler, name):
    constraint, code = EXPECTED[name]
    assert await answer(compiler, constraint) == code


@pytest.mark.slow
@pytest.mark.parametrize("name", EITHER)
async def test_a_constraint_that_may_cost_too_much_is_taken_or_refused_in_time(compiler, name):
    assert await answer(compiler, EITHER[name]) in (TAKEN, "grammar_too_complex")
