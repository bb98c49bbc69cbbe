"""Free text around triggers: the rules that come out mean what a search for the triggers means, for every short text."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

import pytest

from ramify.constrained.free_text import ControlTokens, Pattern, free_text, not_beginning_with, spelled
from ramify.constrained.grammar import NOTHING, Alt, Chars, Control, Literal, Node, Ref, Repeat, Seq

CONTROL = 0xE000
"""Control token number i is shown as this character and i."""


def ends(rules: dict[str, Node], node: Node, text: str, at: int) -> set[int]:
    """Where a text of `node` that begins at `at` may end: the definition of a grammar, read aloud."""
    match node:
        case Literal(literal):
            return {at + len(literal)} if text.startswith(literal, at) else set()
        case Chars(ranges):
            code = ord(text[at]) if at < len(text) else -1
            return (
                {at + 1} if not CONTROL <= code < CONTROL + 100 and any(low <= code <= high for low, high in ranges) else set()
            )
        case Control(ids):
            return {at + 1} if at < len(text) and ord(text[at]) - CONTROL in ids else set()
        case Ref(name):
            return ends(rules, rules[name], text, at)
        case Alt(items):
            return {end for item in items for end in ends(rules, item, text, at)}
        case Seq(items):
            found = {at}
            for item in items:
                found = {end for start in found for end in ends(rules, item, text, start)}
            return found
        case Repeat(item, least, most):
            found, last, count = ({at} if least == 0 else set()), {at}, 0
            while last and (most is None or count < most):
                last, count = {end for start in last for end in ends(rules, item, text, start)} - found, count + 1
                found |= last if count >= least else set()
            return found
    raise AssertionError(node)


def matches(rules: dict[str, Node], text: str) -> bool:
    return len(text) in ends(rules, Ref("x"), text, 0)


def shown(pattern: Pattern) -> str:
    return "".join(symbol if isinstance(symbol, str) else chr(CONTROL + symbol) for symbol in pattern)


def first_trigger(text: str, triggers: list[str]) -> tuple[int, int] | None:
    """(where the first trigger ends, its number): the first place where one ends, the longest of those that end there."""
    for end in range(1, len(text) + 1):
        ending = [(len(t), -i) for i, t in enumerate(triggers) if text[:end].endswith(t)]
        if ending:
            return end, -max(ending)[1]
    return None


CASES: list[tuple[list[Pattern], list[Pattern], list[int]]] = [
    ([("a", "b")], [], []),
    ([("a", "a", "b")], [], []),
    ([("a", "b", "a", "c")], [], []),
    ([("a", "b"), ("b", "c", "b")], [], []),
    ([("a", "b", "c"), ("b",)], [], []),
    ([("a",)], [], []),
    ([(1,)], [("a", "b")], [1, 2]),
    ([(3, "a")], [], [2]),
    ([("a", 1, "b"), (1, 1)], [("c", "c")], [1]),
]


@pytest.mark.parametrize(("triggers", "forbidden", "controls"), CASES)
def test_every_short_text_is_free_exactly_if_no_trigger_is_in_it(triggers, forbidden, controls):
    loose: dict[str, Any] = {"forbidden": forbidden, "controls": controls}
    marks = [Literal(str(number)) for number in range(len(triggers))]
    rest = free_text("x", triggers, [NOTHING] * len(triggers), may_end=True, **loose)
    over = free_text("x", triggers, marks, may_end=False, **loose)
    known, never = [shown(t) for t in triggers], [shown(f) for f in forbidden]
    special = {s for t in triggers for s in t if isinstance(s, int)} - set(controls)
    letters = ["a", "b", "c", *(chr(CONTROL + i) for i in sorted({*controls, *special}))]
    inside = re.compile("|".join(re.escape(t) for t in known) or "(?!)")
    for size in range(6 if len(letters) < 5 else 5):
        for symbols in itertools.product(letters, repeat=size):
            text = "".join(symbols)
            found = first_trigger(text, known)
            alone = inside.sub("", text)  # a special token stands only within a trigger, or where one is begun
            spoiled = any(f in text for f in never) or any(chr(CONTROL + i) in alone for i in special)
            if not special or not spoiled:
                assert matches(rest, text) == (found is None and not spoiled), text
            for number in range(len(triggers)):
                expected = found == (len(text), number) and not any(f in text for f in never)
                if not special:
                    assert matches(over, f"{text}{number}") == expected, (text, number)


def test_long_triggers_of_real_formats_are_found_in_random_texts():
    triggers = ["<tool_call>", "<function=", "<|python_tag|>"]
    rest, rng = free_text("x", [tuple(t) for t in triggers], [NOTHING] * 3, may_end=True), random.Random(1)
    pieces = ["<tool_call", ">", "<", "<function", "=", "<|python", "_tag|>", "x", "<tool_call>", "é\n"]
    seen = set()
    for _ in range(300):
        text = "".join(rng.choice(pieces) for _ in range(rng.randint(0, 6)))
        seen.add(first_trigger(text, triggers) is None)
        assert matches(rest, text) == (first_trigger(text, triggers) is None), text
    assert seen == {True, False}


@pytest.mark.parametrize("patterns", [[("a", "b")], [("a", "b"), ("a", "c", "a")], [("a",)], [(1, "a"), ("b",)]])
def test_a_text_is_told_from_one_that_begins_with_a_pattern(patterns):
    other = not_beginning_with("x", patterns, [1])
    for size in range(5):
        for symbols in itertools.product(["a", "b", "c", chr(CONTROL + 1)], repeat=size):
            text = "".join(symbols)
            assert matches(other, text) == (not text.startswith(tuple(map(shown, patterns)))), text


def test_control_tokens_in_a_text_are_found_leftmost_and_longest():
    controls = ControlTokens({"<t>": 1, "<t>x": 2}, {"[T]": 3})
    assert controls.pattern("a<t>xy[T]<t>") == ("a", 2, "y", 3, 1)
    assert controls.node("a<t>b") == Seq((Literal("a"), Control((1,)), Literal("b")))
    assert spelled(()) == Literal("")
