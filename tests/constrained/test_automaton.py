"""Automata of intersections and differences, against the texts that Python's own regexes and arithmetic find."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from ramify.constrained import digits, regex
from ramify.constrained.automaton import MAX_STATES, Automaton, automaton, within
from ramify.constrained.grammar import NOTHING, Alt, Divisible, Literal, Node, Repeat, Within, alt, any_of, repeat, seq
from ramify.runtime.errors import ConstraintError

TEXTS = ["".join(letters) for size in range(6) for letters in itertools.product("ab", repeat=size)]


def random_regex(rng: random.Random, depth: int = 0) -> str:
    match rng.choice(("letter", "letter", "class", "seq", "seq", "alt", "repeat") if depth < 4 else ("letter", "class")):
        case "letter":
            return rng.choice("ab")
        case "class":
            return rng.choice(("[ab]", "."))
        case "seq":
            return random_regex(rng, depth + 1) + random_regex(rng, depth + 1)
        case "alt":
            return f"(?:{random_regex(rng, depth + 1)}|{random_regex(rng, depth + 1)})"
    return f"(?:{random_regex(rng, depth + 1)})" + rng.choice(("*", "+", "?", "{2}", "{1,3}", "{2,}", "{0,2}"))


def accepts(found: Automaton, text: str) -> bool:
    state = 0
    for char in text:
        ways = [target for ranges, target in found.steps[state] if any(low <= ord(char) <= high for low, high in ranges)]
        assert len(ways) <= 1  # deterministic
        if not ways:
            return False
        state = ways[0]
    return state in found.final


def accepted(node: Node, texts: list[str]) -> set[str]:
    if node == NOTHING:
        return set()
    assert isinstance(node, Within)
    return {text for text in texts if accepts(automaton(node), text)}


def test_an_automaton_has_the_texts_of_all_and_of_none_of_the_others():
    rng = random.Random(0)
    for _ in range(300):
        patterns = [random_regex(rng) for _ in range(3)]
        item, also, never = (regex.whole(pattern) for pattern in patterns)
        expected = {t for t in TEXTS if [bool(re.fullmatch(p, t)) for p in patterns] == [True, True, False]}
        assert accepted(within(item, [also], [never]), TEXTS) == expected, patterns


def test_every_state_leads_to_an_end():
    rng = random.Random(1)
    for _ in range(100):
        node = within(regex.whole(random_regex(rng)), [regex.whole(random_regex(rng))])
        if isinstance(node, Within):
            found = automaton(node)
            reached = set(found.final)
            for _ in found.steps:
                reached |= {i for i, steps in enumerate(found.steps) if any(target in reached for _, target in steps)}
            assert reached == set(range(len(found.steps)))


@pytest.mark.parametrize("of", [2, 3, 7, 12, 97, 250])
def test_multiples_are_told_by_their_remainder(of):
    node = within(digits.integers(-(10**4), 10**4), [Divisible(of)])
    numbers = range(-(10**4), 10**4 + 1)
    assert accepted(node, [str(n) for n in numbers]) == {str(n) for n in numbers if n % of == 0}


def test_a_length_is_counted_in_characters():
    node = within(repeat(any_of("aé😀"), 0, None), [repeat(regex.ANY, 2, 3)])
    assert accepted(node, ["", "a", "é😀", "aaa", "😀😀😀😀", "bb"]) == {"é😀", "aaa"}


def test_what_excludes_everything_is_nothing():
    some = alt(Literal("a"), Literal("b"))
    assert within(some, [], [some]) == NOTHING
    assert within(some, [Literal("c")]) == NOTHING
    assert within(seq(some, NOTHING), []) == NOTHING
    assert isinstance(within(some, [], [Alt(())]), Within)


def test_an_automaton_that_would_be_too_large_is_too_complex():
    doubling = seq(repeat(any_of("ab"), 0, None), Literal("a"), repeat(any_of("ab"), 20, 20))
    with pytest.raises(ConstraintError, match=str(MAX_STATES)) as error:
        within(repeat(any_of("ab"), 0, None), [], [doubling])
    assert error.value.code == "grammar_too_complex"
    assert isinstance(within(Repeat(any_of("ab"), 0, MAX_STATES - 1), [Repeat(regex.ANY, 1, None)]), Within)
