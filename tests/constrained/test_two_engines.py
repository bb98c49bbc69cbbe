"""xgrammar and llguidance enforce one grammar alike: the same tokens at every step of random walks, the same texts."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from grammar_bench import STOP, WORDS, Bench, constraint_of, make_bench
from test_schema_admission import INSTANCES, random_schema

from ramify.constrained.engines import ENGINES, ConstraintCompiler, engine_order
from ramify.constrained.grammar import Grammar, Ref, chars, repeat
from ramify.constrained.lark import NotWritable, to_lark
from ramify.constrained.llguidance_backend import LLGuidanceEngine
from ramify.constrained.lowering import lower
from ramify.constrained.masks import allowed_tokens
from ramify.constrained.matcher import Matcher
from ramify.constrained.spec import Choice, Constraint, JsonObject, JsonSchema, Regex
from ramify.constrained.store import Envelope
from ramify.constrained.vocabulary import Vocabulary
from ramify.runtime.errors import ConstraintError


@pytest.fixture(scope="module")
def twins() -> Bench:
    """A vocabulary with everything that engines may treat differently: two end tokens, equal tokens, broken characters."""
    tokens = [bytes([b]) for b in range(256)] + [b"", b"", b""] + [w.encode() for w in WORDS]
    tokens += [b"ab", b"a", "é".encode()[:1] + b"x", "é".encode()[1:] + b'"', b"\xf0\x9f"]
    tokens += [b'": "', b'", "b": ', b"  ", b"\n ", b"[]"]
    return make_bench(Vocabulary.from_tokens(tokens, stop_ids=[STOP, 258], size=330))


def both_engines(twins: Bench, constraint: Constraint) -> list[bytes]:
    compiled = [twins.compiler.only(name).compile(constraint) for name in ENGINES]
    assert [Envelope.from_bytes(grammar).engine for grammar in compiled] == list(ENGINES)
    return compiled


def walk_together(twins: Bench, compiled: list[bytes], rng: random.Random, limit: int) -> None:
    """One walk of two matchers: masks equal at each step, with rollbacks and forks on the way."""
    matchers: list[Matcher] = [twins.store.matcher(grammar) for grammar in compiled]
    output = b""
    for step in range(limit):
        masks = twins.masks.fill(matchers)
        allowed = [allowed_tokens(row, twins.vocabulary.size) for row in masks]
        assert np.array_equal(*allowed), (output, np.setxor1d(*allowed))
        assert matchers[0].may_end == matchers[1].may_end == (STOP in allowed[0])
        texts = [token for token in allowed[0].tolist() if token not in (STOP, 258)]
        if not texts or (STOP in allowed[0] and rng.random() < 0.2):
            stop = rng.choice((STOP, 258))
            assert all(matcher.accept(stop) and matcher.is_terminated for matcher in matchers)
            return
        closing = [token for token in (0x22, 0x7D, 0x5D) if token in texts]
        token = rng.choice(closing) if closing and step > 15 else rng.choice(texts)
        refused = rng.randrange(twins.vocabulary.size)
        if refused not in allowed[0]:
            assert not any(matcher.accept(refused) for matcher in matchers)
        if rng.random() < 0.2:
            matchers = [matcher.fork() for matcher in matchers]
        assert all(matcher.accept(token) for matcher in matchers)
        if rng.random() < 0.15:
            back = rng.randint(1, matchers[0].accepted)
            for matcher in matchers:
                matcher.rollback(back)
            output = b"..."
        output += twins.vocabulary.tokens[token]


STRING = {"type": "string"}
KINDS: dict[str, Constraint] = {
    "any object": JsonObject(),
    "any object, any whitespace": JsonObject("any"),
    "a schema, any whitespace": JsonSchema('{"properties":{"a":{"type":"array"},"b":{"const":[1,{"k":"v"}]}}}', whitespace="any"),
    "a regex that may be empty": Regex("(a|bc)*"),
    "a regex with characters of four bytes": Regex("[^a-z\n]{2,5}"),
    "choices that begin each other": Choice(("a", "ab", "abc", "b\n", 'q"', "é😀")),
    "many choices": Choice(tuple(f"v{i}" for i in range(60))),
    "a pattern with a length": constraint_of({"type": "string", "pattern": "^(a|bc)+d*$", "maxLength": 9, "minLength": 4}),
    "a string of many counted characters": constraint_of({"type": "string", "maxLength": 200}),
    "an array of many counted items": constraint_of({"items": {"type": "string", "minLength": 140}, "maxItems": 300}),
    "what a pattern must not be": constraint_of({"type": "string", "not": {"pattern": "a.b"}}),
    "a string that is not listed": constraint_of({"type": "string", "not": {"enum": ["", "a", 'q"', "\n"]}}),
    "a map beside a record": constraint_of(
        {"anyOf": [{"type": "object", "additionalProperties": {"type": "integer"}}, {"properties": {"a": STRING}}]}
    ),
    "integers beside numbers": constraint_of({"items": {"anyOf": [{"type": "integer"}, {"enum": [1, 12, 1.5]}]}}),
    "fractions": constraint_of({"type": "number", "not": {"type": "integer"}, "minimum": -2, "maximum": 3.5}),
    "halves": constraint_of({"type": "number", "multipleOf": 0.5}),
    "contains": constraint_of({"type": "array", "contains": {"const": "a"}, "items": STRING, "maxContains": 2}),
    "a tree": constraint_of({"properties": {"v": {"type": "number"}, "c": {"type": "array", "items": {"$ref": "#"}}}}),
}


@pytest.mark.parametrize("name", KINDS)
def test_both_engines_allow_the_same_tokens(twins, name):
    compiled = both_engines(twins, KINDS[name])
    for seed in range(12):
        walk_together(twins, compiled, random.Random(seed), 60)


def test_both_engines_allow_the_same_tokens_for_random_schemas(twins):
    compared = 0
    for seed in range(1000, 1090):
        rng = random.Random(seed)
        schema = {**random_schema(rng, 0), "$defs": {"d": random_schema(rng, 1), "e": random_schema(rng, 1)}}
        try:
            compiled = both_engines(twins, constraint_of(schema))
        except ConstraintError:
            continue
        compared += 1
        for walk in range(3):
            walk_together(twins, compiled, random.Random(10 * seed + walk), 40)
        for instance in INSTANCES:
            answers = {twins.accepts(grammar, json.dumps(instance)) for grammar in compiled}
            assert len(answers) == 1, (schema, instance)
    assert compared > 50


def record(count: int, **said: Any) -> JsonSchema:
    return constraint_of({"type": "object", "properties": {f"p{i}": {"type": "string", **said} for i in range(count)}})


def test_what_leaves_little_open_goes_to_xgrammar_and_free_text_to_llguidance(twins):
    def first(constraint: Constraint, size: int = 32_000) -> str:
        return engine_order(lower(constraint, None, NotImplemented).grammar, size)[0]

    for closed in ({"enum": ["a", "b", "c"]}, {"type": "array", "items": {"type": "boolean"}}):
        assert first(constraint_of(closed), 4_000) == first(constraint_of(closed), 152_000) == "xgrammar"
    listed = constraint_of({"enum": [f"value {i}" for i in range(40)]})
    assert (first(listed), first(listed, 152_000)) == ("xgrammar", "llguidance")
    assert first(record(1)) == first(record(300)) == first(record(40, maxLength=500)) == "llguidance"
    assert first(Choice(tuple(f"value {i}" for i in range(2000)))) == "llguidance"


def test_what_llguidance_cannot_write_goes_to_xgrammar(twins):
    sevens = constraint_of({"type": "integer", "multipleOf": 7})
    assert Envelope.from_bytes(twins.compile(sevens)).engine == "xgrammar"
    with pytest.raises(ConstraintError):
        twins.compiler.only("llguidance").compile(sevens)
    with pytest.raises(NotWritable):
        to_lark(Grammar({"root": repeat(chars([(97, 99)]), 1, None)}))  # characters outside of a token, as an EBNF has them
    assert "start" in to_lark(Grammar({"root": Ref("a"), "a": lower(Regex("x"), None, NotImplemented).grammar.rules["root"]}))


def test_a_compiler_of_one_engine_shares_what_is_loaded(twins):
    confined = twins.compiler.only("llguidance")
    assert confined.engines == ("llguidance",) and twins.compiler.engines == ENGINES
    assert isinstance(confined, ConstraintCompiler)


def test_a_matcher_that_meets_its_limit_accepts_nothing_more_and_disturbs_no_other(twins):
    engine = LLGuidanceEngine(twins.vocabulary, step_items=40)
    records = constraint_of({"type": "array", "items": json.loads(record(50, format="email").schema)})
    many = twins.compiler.only("llguidance").compile(records)
    few = twins.compiler.only("llguidance").compile(Regex("a+"))
    broken, fine = (engine.matcher(engine.load(Envelope.from_bytes(grammar).payload)) for grammar in (many, few))
    assert broken.accept(ord("["))
    mask = twins.masks.fill([broken, fine])
    assert allowed_tokens(mask[0], 330).tolist() == [STOP] and allowed_tokens(mask[1], 330).tolist()[0] == ord("a")
    assert not any(broken.fork().accept(token) for token in (STOP, 258, ord("{"), ord("]")))
    assert not broken.may_end and fine.accept(ord("a")) and fine.may_end
