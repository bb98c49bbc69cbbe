"""Masks within strings that are counted: with the short cut for plain text they are the masks of the whole vocabulary."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grammar_bench import STOP, Bench, constraint_of, make_bench

from ramify.constrained import llguidance_backend, plain_text
from ramify.constrained.lowering import lower
from ramify.constrained.masks import allowed_tokens
from ramify.constrained.plain_text import RUNGS, Listed, PlainTokens, Strings, num_plain, survey
from ramify.constrained.spec import Constraint, JsonObject, JsonSchema, Regex
from ramify.constrained.store import Envelope, GrammarStore
from ramify.constrained.vocabulary import Vocabulary
from ramify.runtime.errors import ConstraintError

CORPUS = sorted((Path(__file__).parent / "schemas").glob("*.json"))


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def counted(least: int, most: int) -> dict[str, Any]:
    return {"type": "string", "minLength": least, "maxLength": most}


NO = {"const": "abcabc"}
LABELS = ["abcdefghijklmnop", "abc", "", "wxyz wxyz wxyz wxyz", 'say "abc"', "ééé"]
SCHEMAS: dict[str, Any] = {
    "counted strings": closed(a=counted(2, 5), b=counted(0, 3), abcab=counted(0, 300)),
    "a count or a list": {"type": "array", "items": {"anyOf": [counted(1, 6), {"enum": LABELS}]}, "maxItems": 6},
    "two counts in one place": {"type": "array", "items": {"anyOf": [counted(7, 9), counted(0, 3)]}, "maxItems": 6},
    "counts and any strings": closed(a=counted(0, 7), b={"type": "string"}, c={"type": ["string", "null"], "minLength": 3}),
    "counts and numbers": {"type": "array", "items": {"anyOf": [counted(3, 8), {"type": "integer"}]}, "maxItems": 8},
    "a pattern besides": closed(a=counted(0, 9), b={"type": "string", "pattern": "^[a-f]{2,9}$"}),
    "a format besides": closed(a=counted(0, 9), b={"type": "string", "format": "date"}),
    "texts that are excluded": closed(a={**counted(1, 6), "not": NO}, b={**counted(2, 4), "not": {"const": "ab"}}),
    "other keys": {"type": "object", "properties": {"abc": counted(0, 4)}, "additionalProperties": counted(1, 3)},
    "any whitespace": closed(a=counted(1, 5), b={"type": "array", "items": counted(0, 4), "maxItems": 3}),
}


def store_of(bench: Bench, constraint: Constraint, monkeypatch: pytest.MonkeyPatch | None) -> bytes:
    """A grammar for llguidance; with a monkeypatch, without the short cut."""
    if monkeypatch is None:
        return bench.compiler.only("llguidance").compile(constraint)
    with monkeypatch.context() as patch:
        patch.setattr(llguidance_backend, "survey", lambda grammar: None)
        return bench.compiler.only("llguidance").compile(constraint)


def has_short_cut(grammar: bytes) -> bool:
    return Envelope.from_bytes(grammar).payload[:1] == b"s"


@pytest.fixture(scope="module")
def wordy() -> Bench:
    """A vocabulary with every byte and with plain text of many lengths, beside tokens that begin, end and cross strings."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abc éw漢", k=rng.randint(2, 12))) for _ in range(150)]
    words += ["abcdefgh", "ijklmnop", "wxyz", " wxyz wxyz", "ab" * 20, "\x7f\x7f", "ééé"]
    words += ["c" * RUNGS, "c" * (RUNGS + 1), "b" * 100]
    words += ['a"', 'ab", "', '"ab', '", "b": "', '": "', '"]', 'c"}', '""', '"a"', '\\"', '\\"ab', "\\u00"]
    words += ["ab\\n", "2024-", "a\nb"]
    broken = ["é".encode()[:1], "é".encode()[1:] + b"ab", b"ab" + "漢".encode()[:2], "漢".encode()[2:] + b'"']
    tokens = [bytes([b]) for b in range(256)] + [b"", b""] + [w.encode() for w in dict.fromkeys(words)] + broken
    bench = make_bench(Vocabulary.from_tokens(tokens, stop_ids=[STOP], size=500))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_text, "LEAST_PLAIN", 100)
        bench.store.warm()
    return bench


def compare(bench: Bench, stores: list[GrammarStore], grammars: list[bytes], rng: random.Random, limit: int) -> int:
    """One walk of two matchers, with forks and ways back. Masks are equal at each step; returns how many were free text."""
    matchers = [store.matcher(grammar) for store, grammar in zip(stores, grammars, strict=True)]
    free = accepted = 0
    output = b""
    for _ in range(limit):
        (short,), (whole,) = (bench.masks.fill([matcher]) for matcher in matchers)
        allowed = allowed_tokens(whole, bench.vocabulary.size)
        assert np.array_equal(allowed_tokens(short, bench.vocabulary.size), allowed), output
        texts = [token for token in allowed.tolist() if token != STOP]
        free += len(texts) > 100
        if not texts:
            break
        closing = [token for token in texts if bench.vocabulary.tokens[token][:1] in b'"}]']
        token = rng.choice(closing if closing and rng.random() < 0.15 else texts)
        assert all(matcher.accept(token) for matcher in matchers)
        output += bench.vocabulary.tokens[token]
        accepted += 1
        if rng.random() < 0.1:
            matchers = [matcher.fork() for matcher in matchers]
        if rng.random() < 0.1:
            count = rng.randint(0, min(accepted, 4))
            for matcher in matchers:
                matcher.rollback(count)
            accepted -= count
            output += b"<%d" % count
    return free


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_short_cut_gives_the_masks_of_the_whole_vocabulary(wordy, monkeypatch, name):
    whitespace = "any" if name == "any whitespace" else "compact"
    constraint = JsonSchema(json.dumps(SCHEMAS[name]), whitespace=whitespace)
    grammars = [store_of(wordy, constraint, None), store_of(wordy, constraint, monkeypatch)]
    assert [has_short_cut(grammar) for grammar in grammars] == [True, False]
    stores = [wordy.store, GrammarStore(wordy.vocabulary.to_bytes(), threads=2)]
    rng = random.Random(name)
    assert sum(compare(wordy, stores, grammars, rng, 60) for _ in range(25)) > 20


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.stem)
def test_the_short_cut_gives_the_same_masks_over_realistic_schemas(wordy, monkeypatch, file):
    rng = random.Random(file.stem)
    taken = 0
    for schema in json.loads(file.read_text()).values():
        try:
            grammar = store_of(wordy, constraint_of(schema), None)
        except ConstraintError:
            continue
        if has_short_cut(grammar):
            taken += 1
            whole = store_of(wordy, constraint_of(schema), monkeypatch)
            compare(wordy, [wordy.store, wordy.store], [grammar, whole], rng, 80)
    assert taken


def test_most_masks_within_counted_strings_need_no_walk_over_plain_text(wordy, monkeypatch):
    asked: list[bool] = []
    fill = plain_text.PlainText.fill
    monkeypatch.setattr(plain_text.PlainText, "fill", lambda self, row: asked.append(fill(self, row)) or asked[-1])
    matcher = wordy.matcher(JsonSchema(json.dumps(closed(b=counted(0, 50)))))
    for text in ('{"b": "', "c", "é", "ab" * 20, "c" * 7, '"}'):
        wordy.masks.fill([matcher])
        assert all(matcher.accept(byte) for byte in text.encode())
    assert asked == [False, True, True, True, True, True], "outside; then 50, 49, 48, 8 and 1 characters may come"


def test_a_fork_and_a_way_back_do_not_disturb_each_other(wordy):
    grammar = wordy.compiler.only("llguidance").compile(JsonSchema(json.dumps(closed(a=counted(0, 5)))))
    matcher = wordy.store.matcher(grammar)
    assert all(matcher.accept(byte) for byte in b'{"a": "ww')
    fork = matcher.fork()
    assert fork.accept(ord("w")) and fork.accept(ord("w"))
    matcher.rollback(1)
    lengths = [_longest(wordy, mask) for mask in wordy.masks.fill([matcher, fork])]
    assert lengths == [4, 1]
    assert matcher.accept(ord("é".encode()[:1])), "within a character"
    assert _longest(wordy, wordy.masks.fill([matcher])[0]) == 0


def _longest(bench: Bench, mask: Any) -> int:
    return max((num_plain(bench.vocabulary.tokens[t]) for t in allowed_tokens(mask, 500).tolist()), default=0)


@pytest.mark.parametrize(
    ("constraint", "found"),
    [
        (JsonObject(), None),
        (constraint_of(closed(a={"type": "string"})), None),
        (Regex("[^b]{3,5}"), None),
        (constraint_of(closed(a=counted(0, 5), b={"type": "string", "pattern": "^[^b]{3,5}$"})), None),
        (constraint_of(closed(a=counted(0, 5))), Strings(("a",), others=False)),
        (constraint_of(closed(a=counted(0, 5), b={"enum": ["x", 1, "\x7f"]})), None),
        (constraint_of(closed(a=counted(0, 5), b={"enum": ["x", 1, None]})), Strings(("a", "b", "x"), others=False)),
        (constraint_of(closed(a=counted(0, 5), b={"type": "string", "format": "date"})), Strings(("a", "b"), others=True)),
        (constraint_of(closed(a={**counted(1, 6), "not": {"const": '"'}})), Strings(('\\"', "a"), others=False)),
    ],
)
def test_what_is_found_in_a_grammar(constraint: Constraint, found: Strings | None):
    assert survey(lower(constraint, None, NotImplemented).grammar) == found


def test_plain_tokens():
    plain = {"a": 1, "é漢": 2, "a b": 3, "\x7f": 1, "c" * RUNGS: RUNGS}
    assert {text: num_plain(text.encode()) for text in plain} == plain
    assert not any(num_plain(text.encode()) for text in ('a"', "a\\", "a\n", "", "c" * (RUNGS + 1)))
    assert num_plain("é".encode()[:1]) == 0


def test_the_short_cut_needs_a_token_for_each_byte_and_many_plain_tokens(monkeypatch):
    monkeypatch.setattr(plain_text, "LEAST_PLAIN", 3)
    words = [b"ab", "漢字".encode(), b"abc", b'ab"']

    def usable(*tokens: bytes) -> bool:
        return PlainTokens(Vocabulary.from_tokens([b"", *tokens], stop_ids=[0])).usable

    every_byte = [bytes([byte]) for byte in range(256)]
    assert usable(*every_byte, *words)
    assert not usable(*every_byte[1:], *words) and not usable(*every_byte, *words[1:])


def test_listed_texts_are_found_by_their_beginnings():
    listed = Listed(Strings(("abc", "abd", "x", "é"), others=False))
    assert listed.longest == 3 and not listed.others
    assert all(listed.begin(text.encode()) for text in ("ab", "abc", "", "é"))
    assert not any(listed.begin(text.encode()) for text in ("abcd", "y", "zzz"))
    assert Listed(Strings(('a\\"',), others=False)).others and Listed(Strings((), others=True)).others
    assert Listed(Strings((), others=False)).longest == 0
