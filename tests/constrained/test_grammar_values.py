"""Grammars as values: classes, productivity, printing."""

from __future__ import annotations

import pytest

from ramify.constrained.ebnf import to_ebnf
from ramify.constrained.grammar import (
    Alt,
    Chars,
    Grammar,
    Literal,
    Ref,
    Repeat,
    Seq,
    alt,
    chars,
    complement,
    intersect,
    lengths,
    prune,
    repeat,
    seq,
)
from ramify.runtime.errors import ConstraintError


def test_a_class_is_sorted_merged_and_without_surrogates():
    assert chars([(0x62, 0x64), (0x61, 0x61), (0x63, 0x70)]) == Chars(((0x61, 0x70),))
    assert chars([(0xD000, 0xF000)]) == Chars(((0xD000, 0xD7FF), (0xE000, 0xF000)))


def test_a_class_and_its_complement_share_nothing_and_cover_everything():
    some = chars([(0, 5), (0x61, 0x7A), (0xE000, 0x10FFFF)])
    assert intersect(some, complement(some)) == Chars(())
    assert chars([*some.ranges, *complement(some).ranges]) == chars([(0, 0x10FFFF)])


def test_neighbouring_literals_are_joined_and_empty_words_vanish():
    assert seq(Literal("a"), Literal(""), Seq((Literal("b"), Ref("x")))) == Seq((Literal("ab"), Ref("x")))
    assert seq() == Literal("")


@pytest.mark.parametrize(
    "rules",
    [
        {"root": Ref("root")},
        {"root": Seq((Ref("root"), Literal("a")))},
        {"root": Ref("a"), "a": Ref("b"), "b": Ref("a")},
        {"root": Seq((Literal("{"), Repeat(Ref("root"), 1, None)))},
        {"root": Alt(())},
        {"root": Seq((Literal("a"), Chars(())))},
        {"root": repeat(Literal("a"), 3, 2)},
    ],
)
def test_a_grammar_without_a_finite_text_is_unsatisfiable(rules):
    with pytest.raises(ConstraintError) as error:
        prune(Grammar(rules))
    assert error.value.code == "unsatisfiable_grammar"


def test_pruning_removes_dead_alternatives_optional_parts_and_unused_rules():
    grammar = Grammar(
        {
            "root": alt(Seq((Literal("a"), Ref("dead"))), Seq((Literal("b"), Repeat(Ref("dead"), 0, 1), Ref("live")))),
            "dead": Seq((Ref("dead"), Literal("x"))),
            "live": Literal("c"),
            "unused": Literal("d"),
        }
    )
    assert prune(grammar) == Grammar({"root": Seq((Literal("b"), Ref("live"))), "live": Literal("c")})


def test_left_recursion_with_a_base_case_is_kept():
    rules = {"root": alt(Seq((Ref("root"), Literal("a"))), Literal("b"))}
    assert prune(Grammar(rules)) == Grammar(rules)


def test_a_long_chain_of_rules_is_decided_in_linear_work():
    rules = {"root": Ref("r0"), **{f"r{i}": Ref(f"r{i + 1}") for i in range(20_000)}, "r20000": Literal("a")}
    assert len(prune(Grammar(rules)).rules) == 20_002


def test_lengths_are_counted_in_characters():
    assert lengths(seq(Literal("é😀"), Repeat(chars([(97, 99)]), 1, 3), alt(Literal("x"), Literal("yyy")))) == (4, 8)
    assert lengths(Repeat(Literal("ab"), 2, None)) == (4, None)


def test_printed_grammars_escape_everything_that_is_not_plain(bench):
    from ramify.constrained.spec import Ebnf

    text = 'q"\\\n\x00\x1fa]^-[é漢😀'
    grammar = Grammar({"root": seq(Literal(text), chars((ord(c), ord(c)) for c in text))})
    assert to_ebnf(grammar).isascii()
    compiled = bench.compile(Ebnf(to_ebnf(grammar)))
    assert all(bench.accepts(compiled, text + last) for last in text)
    assert not bench.accepts(compiled, text + "b")
