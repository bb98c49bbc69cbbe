"""The table of bad inputs, constraints: schemas, regexes and grammars that are wrong, have no text, or would cost too much."""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

import pytest
from http_calls import CHAT, COMPLETIONS, GENERATE, assert_error, assert_still_good, call, chat, completion, native

SLACK_S = 2.5
"""A refusal takes 2.5 s at most; on a machine that does other things as well, twice that is waited for."""


class Row(NamedTuple):
    name: str
    fields: dict[str, Any]
    code: str
    param: str | None = None


def schema(name: str, value: Any, code: str, param: str | None = None) -> Row:
    return Row(name, {"json_schema": json.dumps(value)}, code, param)


def regex(name: str, value: str, code: str) -> Row:
    return Row(name, {"regex": value}, code)


def ebnf(name: str, value: str, code: str) -> Row:
    return Row(name, {"ebnf": value}, code)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        value = {"type": "array", "items": value}
    return value


def nested_text(depth: int) -> str:
    return '{"items":' * depth + "{}" + "}" * depth


WORDS = "|".join("a" * i for i in range(1, 701))
ROWS = [
    schema("a list", [], "invalid_json_schema"),
    schema("a number", 5, "invalid_json_schema"),
    Row("no JSON", {"json_schema": "{"}, "invalid_json_schema"),
    schema("unknown type", {"type": "strin"}, "invalid_json_schema", "/type"),
    schema("items a text", {"type": "array", "items": "x"}, "invalid_json_schema", "/items"),
    schema("broken pattern", {"type": "string", "pattern": "("}, "invalid_json_schema", "/pattern"),
    schema("properties a list", {"type": "object", "properties": []}, "invalid_json_schema", "/properties"),
    schema("keyword of no engine", {"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "unsupported_schema"),
    schema("not", {"type": "string", "not": {"format": "date"}}, "unsupported_schema", "/not/format"),
    schema("lookahead in a pattern", {"type": "string", "pattern": "a(?=b)"}, "unsupported_schema", "/pattern"),
    schema("absent reference", {"$ref": "#/$defs/x"}, "invalid_json_schema", "/$ref"),
    schema("http reference", {"$ref": "http://127.0.0.1:9/x"}, "invalid_json_schema", "/$ref"),
    schema("itself", {"$ref": "#"}, "unsatisfiable_grammar"),
    schema("cycle", {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
           "unsatisfiable_grammar"),
    schema("string and integer", {"allOf": [{"type": "string"}, {"type": "integer"}]}, "unsatisfiable_grammar"),
    schema("false", False, "unsatisfiable_grammar"),
    schema("requires itself", {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "unsatisfiable_grammar"),
    ebnf("root is root", "root ::= root", "unsatisfiable_grammar"),
    ebnf("left recursion", 'root ::= root "a"', "unsatisfiable_grammar"),
    ebnf("no root", 'start ::= "a"', "invalid_grammar"),
    ebnf("broken grammar", 'root ::= "a', "invalid_grammar"),
    ebnf("unknown rule", "root ::= nothing", "invalid_grammar"),
    ebnf("empty grammar", "", "invalid_grammar"),
    Row("depth 5,000", {"json_schema": nested_text(5000)}, "grammar_too_complex"),
    schema("depth 70", nested(70), "grammar_too_complex"),
    schema("minItems 10^5", {"type": "array", "items": {"type": "string"}, "minItems": 10**5}, "grammar_too_complex"),
    schema("5,000 properties", {"type": "object", "properties": {f"p{i}": {} for i in range(5000)}}, "grammar_too_complex"),
    schema("200 KB", {"title": "x" * 200_000}, "grammar_too_complex"),
    regex("30,000 brackets", "(" * 30_000, "grammar_too_complex"),
    regex("1,000 brackets", "(" * 1000 + "a" + ")" * 1000, "grammar_too_complex"),
    regex("700 words", f"({WORDS})+", "grammar_too_complex"),
    regex("lookahead", "a(?=b)", "unsupported_regex"),
    regex("backreference", r"(a)\1", "unsupported_regex"),
    regex("broken", "(", "invalid_grammar"),
]


@pytest.fixture(scope="module", autouse=True)
def compiling(server) -> None:
    """The first constraint of a young server waits for the process that compiles; here none is measured by that."""
    assert call(server.port, COMPLETIONS, completion(regex="a")).status == 200


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_constraint_that_cannot_be_is_refused_in_time_on_every_route(server, row: Row) -> None:
    for path, body in ((CHAT, chat(**row.fields)), (COMPLETIONS, completion(**row.fields, stream=True)),
                       (GENERATE, native(sampling=row.fields, stream=True))):
        started = time.monotonic()
        answer = call(server.port, path, body)
        took = time.monotonic() - started
        assert_error(answer, 400, row.code, param=row.param)
        assert took < 2.5 + SLACK_S
    assert_still_good(server.port)


def test_every_way_to_give_a_schema_is_judged_alike(server) -> None:
    bad = {"type": "strin"}
    for fields in (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": bad}}},
        {"json_schema": bad}, {"json_schema": json.dumps(bad)}, {"guided_json": bad}, {"structured_outputs": {"json": bad}},
        {"structured_outputs": {"json": json.dumps(bad)}},
    ):
        for path, body in ((CHAT, chat), (COMPLETIONS, completion)):
            assert_error(call(server.port, path, body(**fields)), 400, "invalid_json_schema", param="/type")


LARGE = {
    "2,000 properties": {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(2000)}},
    "enum of 20,000": {"enum": list(range(20_000))},
}


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE)
def test_a_large_schema_is_served_or_refused_in_time(server, value: dict[str, Any]) -> None:
    started = time.monotonic()
    answer = call(server.port, CHAT, chat(json_schema=value))
    assert time.monotonic() - started < 2.5 + SLACK_S
    if answer.status != 200:
        assert_error(answer, 400, "grammar_too_complex")
    assert_still_good(server.port)


def test_a_regex_that_is_only_slow_elsewhere_is_served(server) -> None:
    answer = call(server.port, COMPLETIONS, completion(regex="(a+)+b", max_tokens=3))
    assert answer.status == 200 and set(answer.json["choices"][0]["text"]) <= {"a", "b"}


def test_requests_without_a_constraint_do_not_wait_for_a_slow_grammar(server) -> None:
    """A grammar is compiled beside the server: its neighbours get their token at once."""
    import threading

    slow = threading.Thread(target=call, args=(server.port, CHAT, chat(regex=f"(b|{WORDS[:1500]})+c")))
    slow.start()
    started = time.monotonic()
    assert_still_good(server.port)
    assert time.monotonic() - started < 1.5
    slow.join()


def test_best_effort_lists_what_was_not_enforced(server) -> None:
    loose = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 3, "uniqueItems": True}
    strict, best = (
        {"type": "json_schema", "json_schema": {"name": "x", "schema": loose, "strict": said}} for said in (True, False)
    )
    assert_error(call(server.port, CHAT, chat(response_format=strict)), 400, "unsupported_schema", param="/uniqueItems")
    answer = call(server.port, CHAT, chat(response_format=best, max_tokens=40)).json
    [choice] = answer["choices"]
    assert [(one["keyword"], one["pointer"]) for one in choice["not_enforced"]] == [("uniqueItems", "/uniqueItems")]
    assert isinstance(json.loads(choice["message"]["content"]), list)
    plain = call(server.port, CHAT, chat(response_format={"type": "json_object"}, max_tokens=2)).json
    assert "not_enforced" not in plain["choices"][0]


def test_whitespace_of_json_is_a_choice(server) -> None:
    fields = {"json_schema": json.dumps({"const": [1, 2]}), "temperature": 0, "max_tokens": 40}
    compact = call(server.port, CHAT, chat(**fields, json_whitespace="compact")).json["choices"][0]["message"]["content"]
    loose = call(server.port, CHAT, chat(**fields, json_whitespace="any")).json["choices"][0]["message"]["content"]
    assert compact == "[1, 2]" and "[1,2]".startswith("".join(loose.split())) and loose != compact
    refused = call(server.port, CHAT, chat(**fields, json_whitespace="wide"))
    assert_error(refused, 400, "invalid_response_format", param="json_whitespace")
