"""From flat schemas to strings and numbers, and whether a given value satisfies one."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from ..runtime.errors import ConstraintError
from . import digits, limits, regex
from .formats import ANNOTATING_FORMATS, NUMBER_FORMATS, STRING_FORMATS
from .grammar import EMPTY, NOTHING, Alt, Literal, Node, Ref, Repeat, Seq, alt, lengths, repeat, seq
from .json_text import INTEGER, literal, quoted, text_between
from .keywords import unsupported
from .merge import Flat

MAX_COUNT = 10_000
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
        return alt(*map(literal, texts))
    least, most = counts(flat, "minLength", "maxLength", pointer)
    contents = [(language(p, f"{pointer}/pattern"), "pattern") for p in flat.get("patterns", ())]
    for name in flat.get("formats", ()):
        if name in STRING_FORMATS:
            contents.append((regex.whole(STRING_FORMATS[name]), "format"))
        elif name not in ANNOTATING_FORMATS:
            advice = "Use a pattern, or one of: " + ", ".join(sorted(STRING_FORMATS)) + "."
            raise unsupported(f"The string format {name!r}", advice, f"{pointer}/format")
    if not contents:
        return seq(Literal('"'), text_between(least, most), Literal('"')) if (least, most) != (0, None) else Ref("json_string")
    if len(contents) > 1:
        raise unsupported("A string with several patterns and formats", "Write one pattern.", f"{pointer}/pattern")
    node, keyword = contents[0]
    if keyword == "format" and most is not None:
        most = min(most, MAX_FORMAT)
    fitted = _fitted(node, least, most)
    if fitted is None:
        advice = "Put the length into the pattern, for example `^[a-z]{1,20}$`."
        raise unsupported(f"minLength or maxLength beside this {keyword}", advice, f"{pointer}/{keyword}")
    return quoted(fitted)


def language(pattern: str, pointer: str) -> Node:
    """`pattern` as JSON Schema means it. A pattern that is no regex makes the schema invalid."""
    try:
        return regex.searched(pattern)
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
    of = flat.get("multipleOf", 1)
    if of == 1:
        return INTEGER if least is None and most is None else digits.integers(least, most)
    if isinstance(of, int):
        listed = digits.multiples(of, least, most, at_most=MAX_MULTIPLES)
        if listed is not None:
            return listed
        if most is None and (least is None or least <= of):
            free = digits.free_multiples(of, negative=least is None, zero=least is None or least <= 0)
            if free is not None and (least is None or least >= 0):
                return free
    advice = f"Give it bounds with at most {MAX_MULTIPLES} multiples in between, or check it after the call."
    raise unsupported(f"`multipleOf` {of}", advice, f"{pointer}/multipleOf")


def number(flat: Flat, pointer: str) -> Node:
    """Numbers that satisfy `flat`. Raises ConstraintError."""
    if "multipleOf" in flat:
        if not isinstance(flat["multipleOf"], int):
            advice = "Fractions are rounded differently by every validator; count in the smaller unit, as an integer."
            raise unsupported(f"`multipleOf` {flat['multipleOf']}", advice, f"{pointer}/multipleOf")
        return integer(flat, pointer)
    low, high = _bounds(flat, pointer)
    if low is None and high is None:
        return Ref("json_number")
    node = digits.decimals(low, high)
    if node is None:
        raise unsupported("A bound of more than 15 significant digits", "Round it.", pointer)
    return node


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
    if of is not None and not isinstance(of, int):
        raise unsupported(f"`multipleOf` {of}", "Leave it out beside an enum.", f"{pointer}/multipleOf")
    return of is None or exact % of == 0
