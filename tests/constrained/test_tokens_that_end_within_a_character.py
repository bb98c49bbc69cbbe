"""Tokens need not end where characters do: a mask allows one only where some character of the grammar goes on from there."""

from __future__ import annotations

import itertools
import random

import pytest
from grammar_bench import STOP, Bench, make_bench

from ramify.constrained.masks import allowed_tokens
from ramify.constrained.spec import Regex
from ramify.constrained.vocabulary import Vocabulary

LEADS = [b"\xc2", b"\xc3", b"\xe0", b"\xe1", b"\xe2", b"\xed", b"\xef", b"\xf0", b"\xf1", b"\xf4", b"\xe0\xa4", b"\xf0\x9f"]
BEFORE = [b"-", b"a", b"--", b"-a", b"ab"]
SPLIT = [before + lead for before, lead in itertools.product(BEFORE, LEADS)]


@pytest.fixture(scope="module")
def split() -> Bench:
    """All bytes, an end token, and tokens that end within a character."""
    tokens = [bytes([b]) for b in range(256)] + [b""] + SPLIT + [b"-a", b"ab", b"--"]
    return make_bench(Vocabulary.from_tokens(tokens, stop_ids=[STOP], size=len(tokens)))


def check(bench: Bench, pattern: str, rng: random.Random) -> None:
    """Along a text of `pattern`, each engine's mask allows what it accepts, and both allow the same."""
    matchers = []
    for engine in ("xgrammar", "llguidance"):
        grammar = bench.compiler.only(engine).compile(Regex(pattern))
        matchers.append(bench.store.matcher(grammar))
    for _ in range(6):
        masks = bench.masks.fill(matchers)
        assert masks is not None
        allowed = [set(allowed_tokens(row, bench.vocabulary.size).tolist()) for row in masks]
        for matcher, some in zip(matchers, allowed, strict=True):
            accepted = {token for token in range(STOP + 1, bench.vocabulary.size) if matcher.fork().accept(token)}
            wrong = {token for token in some if token > STOP} ^ accepted
            assert not wrong, (pattern, [bench.vocabulary.tokens[token] for token in wrong])
        assert allowed[0] == allowed[1], pattern
        going = sorted(allowed[0] - {STOP})
        if not going:
            return
        token = rng.choice([token for token in going if token < 128] or going)
        assert all(matcher.accept(token) for matcher in matchers)


@pytest.mark.parametrize(
    "pattern",
    [
        "a-?[a-z]",
        "a(-?[a-z]){0,15}@",
        "a(-|b)*[a-z]",
        "a(-|b|-a)[0-9a-z]k",
        "a(-|b)[ऀ-က]",
        "(-|a|-a)([a-z]k|[0-9])",
        "a(-|ab)[a-z](-|ab)[a-z]",
        "[^a](b|[a-z])([0-9])*b",
        "([a-é]|(([à-ï])+|([-a]|[à-ï])))[^a]-[a-z]",
    ],
)
def test_a_class_behind_a_choice_is_not_begun_by_a_byte_of_another_character(split: Bench, pattern: str):
    check(split, pattern, random.Random(0))


def test_masks_and_acceptance_agree_for_random_patterns(split: Bench):
    rng = random.Random(1)

    def part(depth: int) -> str:
        what = rng.random()
        if depth == 0 or what < 0.45:
            return rng.choice(["-", "a", "b", "[a-c]", "[a-z]", "[-a]", "é", "[à-ï]", "[ऀ-က]", "[^a]", "[0-9]", "[a-é]"])
        if what < 0.7:
            return f"({part(depth - 1)}){rng.choice(['?', '*', '+', '{1,3}', '{2}', '{0,2}'])}"
        if what < 0.85:
            return f"({part(depth - 1)}|{part(depth - 1)})"
        return part(depth - 1) + part(depth - 1)

    for _ in range(120):
        check(split, "".join(part(2) for _ in range(rng.randrange(1, 5))), rng)
