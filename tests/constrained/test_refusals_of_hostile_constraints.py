"""What a stranger may send as a constraint, to the compile processes with their real limits: an answer in time, and its code."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
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


def record(count: int, **said: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "string", **said} for i in range(count)}}


def nested(keyword: str, depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "null"}
    for level in range(depth):
        inner = {keyword: [inner, {"const": level}]}
    return inner


def negated(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        inner = {"not": inner}
    return inner


def conditions(count: int) -> list[dict[str, Any]]:
    return [{"if": {"required": [f"a{i}"]}, "then": {"required": [f"b{i}"]}} for i in range(count)]


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
    "a keyword that is not enforced": (schema({"type": "array", "uniqueItems": True}), "unsupported_schema"),
    "a complement that is not expressible": (schema({"not": {"type": "array", "uniqueItems": True}}), "unsupported_schema"),
    "a complement of itself": (schema({"type": "object", "not": {"$ref": "#"}}), "unsupported_schema"),
    "a reference out of a complement": (schema({"not": {"$ref": "http://127.0.0.1:9/s.json"}}), "invalid_json_schema"),
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
    "nested quantifiers": (Regex("((a*)*)*b"), TAKEN),
    "nested quantifiers in a pattern": (schema({"type": "string", "pattern": "^((a+)+)+$", "maxLength": 50}), TAKEN),
    "maxItems of 10^18": (schema({"type": "array", "items": {"type": "null"}, "maxItems": 10**18}), TAKEN),
    "maxLength of 10^18": (schema({"type": "string", "maxLength": 10**18}), TAKEN),
    "minItems of 10^18": (schema({"type": "array", "minItems": 10**18}), "grammar_too_complex"),
    "oneOf nested 12 deep": (schema(nested("oneOf", 12)), TAKEN),
    "anyOf nested 12 deep": (schema(nested("anyOf", 12)), TAKEN),
    "not nested 60 deep": (schema(negated(60)), TAKEN),
    "a dozen conditions": (schema({"type": "object", "allOf": conditions(12)}), "grammar_too_complex"),
    "an automaton that doubles with each character": (
        schema({"type": "string", "not": {"pattern": "(a|b)*a(a|b){18}$"}}),
        "unsupported_schema",
    ),
    "thirty patterns at once": (
        schema({"allOf": [{"pattern": f"{chr(97 + i % 26)}.{{{i}}}x"} for i in range(30)]}),
        "unsupported_schema",
    ),
    "a multiple of a large prime": (schema({"type": "integer", "multipleOf": 999_983}), "unsupported_schema"),
    "a fraction of a cent": (schema({"type": "number", "multipleOf": 1e-300}), "unsupported_schema"),
    "a set of 30 values": (schema({"type": "array", "items": {"enum": list(range(30))}, "uniqueItems": True}), TAKEN),
    "a count of items that match": (
        schema({"type": "array", "contains": {"const": 1}, "minContains": 10**9}),
        "unsupported_schema",
    ),
    "anchors that name each other": (
        schema({"$ref": "#a", "$defs": {"x": {"$anchor": "a", "$ref": "#b"}, "y": {"$anchor": "b", "$ref": "#a"}}}),
        "unsatisfiable_grammar",
    ),
    "a base over http": (schema({"$id": "http://127.0.0.1:9/", "items": {"$id": "sub/", "type": "null"}}), TAKEN),
    "recursion with a base": (schema({"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "null"}]}), TAKEN),
}

EITHER: dict[str, Constraint] = {
    "700 properties with lengths": schema(record(700, maxLength=200)),
    "an EBNF of many counted rules": Ebnf(
        "root ::= " + " ".join(f"r{i}?" for i in range(300)) + "".join(f"\nr{i} ::= [a-z]{{1,{100 + i}}}" for i in range(300))
    ),
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


@pytest.mark.slow
async def test_memory_is_flat_after_two_hundred_of_them(compiler):
    """The parent's and the compile process's: what a hostile constraint needed is given back or belongs to one that was ended."""

    def resident_bytes() -> int:
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in (os.getpid(), *compiler.pids)]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("the system does not say how much memory a process has")
    salt = itertools.count()
    settled = 0
    for turn in range(5):
        for constraint, code in list(EXPECTED.values())[::2][:40]:
            if isinstance(constraint, JsonSchema) and constraint.schema.startswith("{"):
                constraint = JsonSchema(f'{{"x-salt":{next(salt)},{constraint.schema[1:]}')  # so that no cache answers
            assert await answer(compiler, constraint) in (code, "invalid_json_schema")
        if turn == 1:
            settled = resident_bytes()
    assert resident_bytes() - settled < 64 * 1024 * 1024
