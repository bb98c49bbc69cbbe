"""Regexes: the same texts as Python's `re`, and a refusal for what cannot be exact."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from ramify.constrained import regex
from ramify.constrained.ebnf import to_ebnf
from ramify.constrained.grammar import Grammar
from ramify.constrained.spec import Regex
from ramify.runtime.errors import ConstraintError

ALPHABET = 'ab1_ -.\n"]é'

PATTERNS = [
    "ab",
    "a|b1|",
    "a?b*1+",
    "a{2}b{1,2}1{0,}",
    "(a|b)(?:1|_)(?P<x>-)(?<y>a)?",
    "a+?b*?1??",
    "(a+)+b",
    "(a*)*",
    ".",
    "a.b",
    "[ab1]",
    "[^ab1]",
    "[a-b-]",
    "[-a]",
    r"[\]\-_]",
    r"[\w-]",
    r"[\w-.]",
    r"\d\w\s",
    r"\D|\W|\S",
    r"[^\d\s]",
    r"[\D1]",
    r"[^\W_]",
    r"\.\-\]\"",
    r"\x61\u0062\n",
    r"[\b]",
    r"\0",
    "^ab$",
    "^a|b$",
    "(^a|b)1",
    "(?:a|b$)",
    "^^a$$",
    "^$",
    "",
    "{a}",
    "a{x",
    "a{,b}",
    "é|😀",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_matches_matches_in_python_and_short_texts_agree(bench, pattern):
    grammar = bench.compile(Regex(pattern))
    python = pattern.replace("(?<y>", "(?P<y>").replace(r"[\w-.]", r"[\w\-.]")
    texts = ["".join(t) for n in range(4) for t in itertools.product(ALPHABET, repeat=n)]
    for text in random.Random(pattern).sample(texts, 500) + texts[:12]:
        accepted = bench.accepts(grammar, text)
        assert accepted <= bool(re.fullmatch(python, text)), text
        # ASCII texts without line ends are read alike everywhere, so there nothing may be missing.
        if text.isascii() and "\n" not in text and not re.search(r"\\[WDS]", pattern):
            assert accepted == bool(re.fullmatch(python, text)), text


@pytest.mark.parametrize("pattern", [p for p in PATTERNS if p not in ("", "^$")])
def test_random_walks_match_the_pattern(bench, pattern):
    grammar = bench.compile(Regex(pattern))
    python = pattern.replace("(?<y>", "(?P<y>").replace(r"[\w-.]", r"[\w\-.]")
    for seed in range(3):
        text = bench.walk(grammar, random.Random(seed), patience=10)
        assert text is not None and re.fullmatch(python, text)


def test_classes_hold_only_characters_that_belong_to_them_everywhere(bench):
    arabic_digit, ideographic_space = "\u0663", "\u3000"
    assert not bench.accepts(bench.compile(Regex(r"\d")), arabic_digit)
    assert not bench.accepts(bench.compile(Regex(r"\D")), arabic_digit)
    assert not bench.accepts(bench.compile(Regex(r"[^\d]")), arabic_digit)
    assert not bench.accepts(bench.compile(Regex(r"\s")), ideographic_space)
    assert not bench.accepts(bench.compile(Regex(r"\S")), ideographic_space)
    assert not bench.accepts(bench.compile(Regex(r"\w")), "é")
    assert not bench.accepts(bench.compile(Regex(r"\W")), "é")
    assert bench.accepts(bench.compile(Regex(r"\D")), "é")
    assert bench.accepts(bench.compile(Regex(r"\S")), "漢")


@pytest.mark.parametrize(
    "pattern",
    [
        *("(?=a)b", "(?!a)b", "(?<=a)b", "(?<!a)b", r"(a)\1", r"\k<x>", r"\bword\b", r"\Bx", "(?i)a", "(?i:a)", "(?>a)", "(?#x)"),
        *(
            "a++",
            "a*+",
            "a{,3}",
            r"\p{L}",
            r"\A",
            r"\Z",
            r"\cA",
            r"\u{61}",
            r"\x1",
            "[]a]",
            "[^]",
            "[[:alpha:]]",
            "[a&&b]",
            "[--a]",
        ),
        *("a^b", "a$b", "(a^)*", "^*", r"\01", r"\ud83d", r"\é"),
    ],
)
def test_what_cannot_be_exact_is_refused(bench, pattern):
    with pytest.raises(ConstraintError) as error:
        bench.compile(Regex(pattern))
    assert error.value.code == "unsupported_regex"


@pytest.mark.parametrize(
    "pattern", ["(", "(a", "a)", "[a", "a**", "a{2}{3}", "*a", "+", "?", "a|*", "a{3,2}", "[b-a]", "\\", "(?P<1>a)", "{2}"]
)
def test_a_syntax_error_is_told_with_its_place(bench, pattern):
    with pytest.raises(ConstraintError, match="character") as error:
        bench.compile(Regex(pattern))
    assert error.value.code == "invalid_grammar"


@pytest.mark.parametrize(
    "pattern", ["(" * 900 + "a" + ")" * 900, "a" * 3000, "(a{1000}){1000}", "((a{100}){100}){100}", "|".join(["^a$"] * 400)]
)
def test_a_regex_over_the_caps_is_too_complex(bench, pattern):
    with pytest.raises(ConstraintError) as error:
        bench.compile(Regex(pattern))
    assert error.value.code == "grammar_too_complex"


def test_a_regex_that_nothing_matches_is_unsatisfiable(bench):
    with pytest.raises(ConstraintError) as error:
        bench.compile(Regex(r"a[^\s\S]"))
    assert error.value.code == "unsatisfiable_grammar"


def test_a_search_is_free_before_and_after_what_it_finds():
    texts = {p: to_ebnf(Grammar({"root": regex.searched(p)})).count("*") for p in ("a", "^a", "a$", "^a$")}
    assert texts == {"a": 2, "^a": 1, "a$": 1, "^a$": 0}
