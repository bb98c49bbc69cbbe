"""From flat schemas to strings and numbers, and whether a given value satisfies one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..runtime.errors import ConstraintError
from . import digits, limits, regex
from .automaton import MAX_STATES, within
from .formats import ANNOTATING_FORMATS, NUMBER_FORMATS, STRING_FORMATS
from .grammar import EMPTY, NOTHING, Alt, Divisible, Literal, Node, Ref, Repeat, Seq, alt, lengths, repeat, seq, token
from .json_text import INTEGER, inside, quoted, scalar, text_between
from .keywords import unsupported
from .merge import Flat, identity

MAX_COUNT = 10_000
MAX_TOGETHER = 512
"""Length of a string of which a pattern and a maxLength are counted together, in an automaton."""
MAX_DIVISOR = 1024
MAX_FORMAT = 128
"""Length of a string with a format and a maxLength: nobody means 2,083 counted characters of a URL."""
MAX_MULTIPLES = 2048


def beside_enum(flat: Flat) -> Flat:
    """What a flat schema says besides listing values and types."""
    return {key: value for key, value in flat.items() if key not in ("enum", "type")}


def counts(flat: Flat, low: str, high: str, pointer: str) -> tuple[int, int | None]:
    """Bounds of a count: a lower one beyond MAX_COUNT is too complex, an upper one beyond it is lowered to it."""
    least, most = flat.get(low, 0), flat.get(high)
    if least > MAX_COUNT:
        raise limits.too_complex(f"`{low}` is {least}; at most {MAX_COUNT} is taken.", f"{pointer}/{low}")
    return least, most if most is None else min(most, MAX_COUNT)


def string(flat: Flat, pointer: str) -> Node:
    """JSON strings that satisfy `flat`. Raises ConstraintError."""
    if "enum" in flat:
        texts = [v for v in flat["enum"] if isinstance(v, str) and accepts_text(beside_enum(flat), v, pointer)]
        return alt(*map(scalar, texts))
    least, most = counts(flat, "minLength", "maxLength", pointer)
    contents = [(language(p, f"{pointer}/pattern"), "pattern") for p in flat.get("patterns", ())]
    for name in flat.get("formats", ()):
        if name in STRING_FORMATS:
            contents.append((regex.whole(STRING_FORMATS[name]), "format"))
        elif name not in ANNOTATING_FORMATS:
            advice = "Use a pattern, or one of: " + ", ".join(sorted(STRING_FORMATS)) + "."
            raise unsupported(f"The string format {name!r}", advice, f"{pointer}/format")
    never = [language(p, f"{pointer}/not/pattern", wide=True) for p in flat.get("notPatterns", ())]
    never += [Literal(value) for value in flat.get("excluded", ()) if isinstance(value, str)]
    if not contents and not never:
        return quoted(text_between(least, most)) if (least, most) != (0, None) else Ref("json_string")
    if contents and contents[0][1] == "format" and most is not None:
        most = min(most, MAX_FORMAT)
    if len(contents) == 1 and not never:
        fitted = _fitted(contents[0][0], least, most)
        if fitted is not None:
            return quoted(inside(fitted))
    keyword = contents[0][1] if contents else "not"
    return quoted(_together([node for node, _ in contents], never, least, most, f"{pointer}/{keyword}"))


def _together(contents: list[Node], never: list[Node], least: int, most: int | None, pointer: str) -> Node:
    """The inside of strings that are in all of `contents`, in none of `never`, and of `least` to `most` characters."""
    parts = list(contents)
    if not parts or least > 0 or most is not None:
        clamped = most if most is None or most < least else max(least, min(most, MAX_TOGETHER))
        parts.append(repeat(regex.ANY, least, clamped))
    try:
        return within(parts[0], parts[1:], never, in_string=True)
    except ConstraintError as error:
        raise unsupported("This pattern with its length and the other patterns", error.message, pointer) from None


def language(pattern: str, pointer: str, *, wide: bool = False) -> Node:
    """`pattern` as JSON Schema means it (wide: see `regex.searched`). A pattern that is no regex makes the schema invalid."""
    try:
        return regex.searched(pattern, wide=wide)
    except ConstraintError as error:
        code = {"invalid_grammar": "invalid_json_schema", "unsupported_regex": "unsupported_schema"}.get(error.code, error.code)
        raise ConstraintError(f"{error.message} (at {pointer})", code=code, param=pointer) from None


def _fitted(node: Node, least: int, most: int | None) -> Node | None:
    """Texts of `node` with `least` to `most` characters: all of them where one repetition takes up the difference, fewer
    where other parts vary, too (they are given their greatest length). None where several parts have no end."""
    low, high = lengths(node)
    if low >= least and (most is None or (high is not None and high <= most)):
        return node
    if isinstance(node, Alt):
        parts = [_fitted(item, least, most) for item in node.items]
        return None if any(part is None for part in parts) else alt(*(part for part in parts if part is not None))
    if (most is not None and low > most) or (high is not None and high < least):
        return NOTHING
    if isinstance(node, Seq):
        return _fitted_part(list(node.items), least, most)
    return _fitted_repeat(node, least, most) if isinstance(node, Repeat) else None


def _fitted_part(items: list[Node], least: int, most: int | None) -> Node | None:
    """A sequence whose one endless part, or else its one part of varying length, takes up the difference."""
    spans = [lengths(item) for item in items]
    loose = [i for i, (_, high) in enumerate(spans) if high is None] or [i for i, (low, high) in enumerate(spans) if low != high]
    if len(loose) != 1:
        return None
    others_low = sum(low for i, (low, _) in enumerate(spans) if i != loose[0])
    others_high = sum(high or 0 for i, (_, high) in enumerate(spans) if i != loose[0])
    room = None if most is None else most - others_high
    part = None if room is not None and room < 0 else _fitted(items[loose[0]], max(0, least - others_low), room)
    if part is None:
        return None
    items[loose[0]] = part
    return seq(*items)


def _fitted_repeat(node: Repeat, least: int, most: int | None) -> Node | None:
    low, width = lengths(node.item)
    if low == width and width:
        times_high = node.most if most is None else most // width if node.most is None else min(node.most, most // width)
        return repeat(node.item, max(node.least, -(-least // width)), times_high)
    if node.most == 1:
        inner = _fitted(node.item, least, most)
        empty_fits = node.least == 0 and least == 0
        return None if inner is None else alt(EMPTY, inner) if empty_fits else inner
    return None


def _bounds(flat: Flat, pointer: str) -> tuple[digits.Bound | None, digits.Bound | None]:
    """The tighter of the inclusive, the exclusive and the format's bound on each side."""
    lows = [digits.Bound(Decimal(str(flat[k])), k != "minimum") for k in ("minimum", "exclusiveMinimum") if k in flat]
    highs = [digits.Bound(Decimal(str(flat[k])), k != "maximum") for k in ("maximum", "exclusiveMaximum") if k in flat]
    for name in flat.get("formats", ()):
        if name not in NUMBER_FORMATS and name not in STRING_FORMATS:
            raise unsupported(f"The number format {name!r}", "Use minimum and maximum.", f"{pointer}/format")
        if span := NUMBER_FORMATS.get(name):
            lows.append(digits.Bound(Decimal(span[0]), False))
            highs.append(digits.Bound(Decimal(span[1]), False))
    low = max(lows, key=lambda b: (b.value, b.strict), default=None)
    high = min(highs, key=lambda b: (b.value, not b.strict), default=None)
    return low, high


def integer(flat: Flat, pointer: str) -> Node:
    """Integers that satisfy `flat`. Raises ConstraintError."""
    low, high = _bounds(flat, pointer)
    least = None if low is None else math.floor(low.value) + 1 if low.strict else math.ceil(low.value)
    most = None if high is None else math.ceil(high.value) - 1 if high.strict else math.floor(high.value)
    of = _integral(flat.get("multipleOf", 1), pointer)
    never = [Literal(str(int(value))) for value in _excluded_numbers(flat) if float(value).is_integer()]
    return token(_checked(_integers(of, least, most, pointer), (), never, pointer))


def _integral(of: int | float, pointer: str) -> int:
    """What an integer that is a multiple of `of` is a multiple of."""
    exact = Fraction(of)
    if exact.denominator > _FINEST:
        raise _inexact(of, pointer)
    return exact.numerator


def _integers(of: int, least: int | None, most: int | None, pointer: str) -> Node:
    """Multiples of `of` between the bounds."""
    if of == 1:
        return INTEGER if least is None and most is None else digits.integers(least, most)
    listed = digits.multiples(of, least, most, at_most=MAX_MULTIPLES)
    if listed is not None:
        return listed
    if most is None and (least is None or 0 <= least <= of):
        free = digits.free_multiples(of, negative=least is None, zero=least is None or least <= 0)
        if free is not None:
            return free
    if of > MAX_DIVISOR:
        advice = f"Give it bounds with at most {MAX_MULTIPLES} multiples in between, or check it after the call."
        raise unsupported(f"`multipleOf` {of}", advice, f"{pointer}/multipleOf")
    # A state is (digits so far, remainder): an open end is drawn in, so that there are not too many of them.
    width = max(len(str(of)) + 1, min(15, MAX_STATES // (of + 8)))
    edge = 10**width - 1
    low = least if least is not None else min(-edge, most - edge if most is not None else -edge)
    high = most if most is not None else max(edge, low + edge)
    return _checked(digits.integers(low, high), (Divisible(of),), (), f"{pointer}/multipleOf")


def _checked(item: Node, also: Iterable[Node], never: Iterable[Node], pointer: str) -> Node:
    try:
        return within(item, also, never)
    except ConstraintError as error:
        raise unsupported("This set of numbers", error.message, pointer) from None


_FINEST = 16
"""Fractions of a whole that every validator divides by without rounding."""

_SIGN = repeat(Literal("-"), 0, 1)
_PLAIN = seq(_SIGN, digits.integers(0, 10**15 - 1), repeat(seq(Literal("."), repeat(digits.DIGIT, 1, 15)), 0, 1))
"""Numbers in plain notation."""


def number(flat: Flat, pointer: str, *, fractions_only: bool = False) -> Node:
    """Numbers that satisfy `flat`; fractions_only: of them those that are no integers. Raises ConstraintError."""
    never = [_spellings(Decimal(str(value))) for value in _excluded_numbers(flat)]
    if fractions_only:
        never.append(seq(_SIGN, repeat(digits.DIGIT, 1, None), repeat(_ZEROS, 0, 1)))
    low, high = _bounds(flat, pointer)
    of = flat.get("multipleOf")
    if of is not None and Fraction(of).denominator == 1 and not fractions_only:
        return integer(flat, pointer)
    if low is None and high is None:
        node = Ref("json_number") if of is None and not never else _PLAIN
    else:
        found = digits.decimals(low, high)
        if found is None:
            raise unsupported("A bound of more than 15 significant digits", "Round it.", pointer)
        node = found
    also = [] if of is None else [_multiples(of, pointer)]
    return token(_checked(node, also, never, pointer)) if also or never else node if isinstance(node, Ref) else token(node)


_ZEROS = seq(Literal("."), repeat(Literal("0"), 1, None))


def _spellings(value: Decimal) -> Node:
    """The texts of a number in plain notation."""
    whole, _, fraction = f"{value.normalize():f}".partition(".")
    zeros = repeat(Literal("0"), 0, None)
    end = seq(Literal(f".{fraction}"), zeros) if fraction else repeat(_ZEROS, 0, 1)
    sign = _SIGN if value == 0 else EMPTY
    return seq(sign, Literal(whole.removeprefix("-") if value == 0 else whole), end)


def _multiples(of: int | float, pointer: str) -> Node:
    """Multiples of a fraction that is a whole number of sixteenths or coarser, in plain notation with as few decimals as
    they need."""
    exact = Fraction(of)
    if exact.denominator > _FINEST:
        raise _inexact(of, pointer)
    if exact.numerator != 1:
        advice = "Use 0.5, 0.25, 0.125, 0.0625 or a whole number."
        raise unsupported(f"`multipleOf` {of}", advice, f"{pointer}/multipleOf")
    texts = [f"{float(exact * k)}".removeprefix("0") for k in range(1, exact.denominator)]
    whole = seq(_SIGN, digits.integers(0, 10**12 - 1))
    return seq(whole, repeat(alt(*map(Literal, texts)), 0, 1))


def _inexact(of: int | float, pointer: str) -> ConstraintError:
    advice = "Fractions are rounded differently by every validator; count in the smaller unit, as an integer."
    return unsupported(f"`multipleOf` {of}", advice, f"{pointer}/multipleOf")


def _excluded_numbers(flat: Flat) -> list[int | float]:
    return [value for value in flat.get("excluded", ()) if isinstance(value, (int, float)) and not isinstance(value, bool)]


# ---- checking given values ------------------------------------------------------------------------------------------


def accepts_text(flat: Flat, text: str, pointer: str) -> bool:
    """True when a given string satisfies the string keywords of `flat`."""
    if not flat.get("minLength", 0) <= len(text) <= flat.get("maxLength", len(text)):
        return False
    for name in flat.get("formats", ()):
        if name not in STRING_FORMATS and name not in ANNOTATING_FORMATS:
            raise unsupported(f"The string format {name!r}", "Leave it out beside an enum.", f"{pointer}/format")
        if name in STRING_FORMATS and not re.fullmatch(STRING_FORMATS[name], text):
            return False
    if any(language(p, pointer) and (re.search(p, text, re.ASCII) or re.search(p, text)) for p in flat.get("notPatterns", ())):
        return False
    return all(finds(pattern, text, pointer) for pattern in flat.get("patterns", ()))


def finds(pattern: str, text: str, pointer: str) -> bool:
    """True when `pattern` occurs in `text`. Only patterns that regex.py reads: for them Python's matching is the same."""
    language(pattern, pointer)
    return re.search(pattern, text, re.ASCII) is not None


def accepts_number(flat: Flat, value: int | float, pointer: str) -> bool:
    """True when a given number satisfies the number keywords of `flat`."""
    low, high = _bounds(flat, pointer)
    exact = Decimal(str(value))
    if low is not None and (exact < low.value or (low.strict and exact == low.value)):
        return False
    if high is not None and (exact > high.value or (high.strict and exact == high.value)):
        return False
    of = flat.get("multipleOf")
    if of is not None and Fraction(of).denominator > _FINEST:
        raise unsupported(f"`multipleOf` {of}", "Leave it out beside an enum.", f"{pointer}/multipleOf")
    return of is None or exact % Decimal(of) == 0


def is_excluded(flat: Flat, value: Any) -> bool:
    """True when a given value is one of those that `flat` excludes."""
    return identity(value) in {identity(other) for other in flat.get("excluded", ())}
