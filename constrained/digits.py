"""Numbers between bounds, as digit strings. Pure; the bounds are decimals, compared digit by digit."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

from .grammar import EMPTY, NOTHING, Literal, Node, alt, chars, optional, repeat, seq
from .json_text import DIGIT, INTEGER_DIGITS, NONZERO

_SIGNIFICANT = 15
"""Decimals of at most 15 significant digits are told apart by a double, so a bound holds after parsing, too."""

_PLACES = 6
"""Decimals of a bounded number, unless its bounds have more."""


def integers(low: int | None, high: int | None) -> Node:
    """Integers in [low, high]; an open end reaches to 18 digits, or to the width of the other bound if that is more."""
    width = max(INTEGER_DIGITS, *(len(str(abs(b))) for b in (low, high) if b is not None), 0)
    first = -(10**width) + 1 if low is None else low
    last = 10**width - 1 if high is None else high
    if first > last:
        return NOTHING
    found = []
    if first < 0:
        found.append(seq(Literal("-"), _naturals(max(1, -last), -first)))
    if last >= 0:
        found.append(_naturals(max(0, first), last))
    return alt(*found)


def _naturals(low: int, high: int) -> Node:
    """Integers in [low, high], both at least 0, without leading zeros: for each length the digit strings in between."""
    if low > high:
        return NOTHING
    found: list[Node] = []
    full: list[int] = []  # widths of which every number is in the range: they make one loop together
    for width in range(len(str(low)), len(str(high)) + 1):
        smallest, largest = 10 ** (width - 1) if width > 1 else 0, 10**width - 1
        if width > 1 and low <= smallest and largest <= high:
            full.append(width)
        else:
            found.append(_same_width(str(max(low, smallest)), str(min(high, largest))))
    if full:
        found.append(seq(NONZERO, repeat(DIGIT, full[0] - 1, full[-1] - 1)))
    return alt(*found)


def _same_width(low: str, high: str) -> Node:
    """Digit strings of one width in [low, high]."""
    if not low:
        return EMPTY
    free = repeat(DIGIT, len(low), len(low))
    if low == "0" * len(low) and high == "9" * len(high):
        return free
    if low[0] == high[0]:
        return seq(Literal(low[0]), _same_width(low[1:], high[1:]))
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    found = []
    if low[1:] != "0" * rest:
        found.append(seq(Literal(low[0]), _same_width(low[1:], "9" * rest)))
        first += 1
    tail = None
    if high[1:] != "9" * rest:
        tail = seq(Literal(high[0]), _same_width("0" * rest, high[1:]))
        last -= 1
    if first <= last:
        found.append(seq(_digits(first, last), repeat(DIGIT, rest, rest)))
    return alt(*found, *([tail] if tail is not None else []))


def _digits(first: int, last: int) -> Node:
    if first == last:
        return Literal(str(first))
    return chars([(0x30 + first, 0x30 + last)]) if first < last else NOTHING


def multiples(of: int, low: int | None, high: int | None, *, at_most: int) -> Node | None:
    """Multiples of `of` (at least 1) in [low, high], written out; None when there are more than `at_most` of them."""
    if low is None or high is None:
        return None
    first, last = -(-low // of), high // of
    if last - first >= at_most:
        return None
    return alt(*(Literal(str(k * of)) for k in range(first, last + 1)))


def ends_of_multiples(of: int) -> tuple[int, list[str]] | None:
    """For `of` dividing a power of ten: (k, the k-digit endings of its multiples); None for others and beyond k = 3."""
    for k in range(1, 4):
        if 10**k % of == 0:
            return k, [f"{n:0{k}d}" for n in range(0, 10**k, of)]
    return None


def free_multiples(of: int, *, negative: bool, zero: bool) -> Node | None:
    """All multiples of `of` up to 18 digits (with a sign if `negative`), or None when its endings are not regular."""
    ends = ends_of_multiples(of)
    if ends is None:
        return None
    k, texts = ends
    short = [str(n) for n in range(of, 10**k, of)]
    long = seq(NONZERO, repeat(DIGIT, 0, INTEGER_DIGITS - k - 1), alt(*map(Literal, texts)))
    positive = seq(optional(Literal("-")) if negative else EMPTY, alt(*map(Literal, short), long))
    return alt(Literal("0"), positive) if zero else positive


class Bound:
    """A bound of a number: `value`, and whether the number must be strictly beyond it."""

    __slots__ = ("strict", "value")

    def __init__(self, value: Decimal, strict: bool):
        self.value = value
        self.strict = strict

    def negated(self) -> Bound:
        return Bound(-self.value, self.strict)


def decimals(low: Bound | None, high: Bound | None) -> Node | None:
    """Numbers between the bounds (None: open), in plain notation. None when a bound has more than 15 significant digits."""
    finite = [b.value for b in (low, high) if b is not None]
    if any(len(value.normalize().as_tuple().digits) > _SIGNIFICANT or abs(value) >= 10**_SIGNIFICANT for value in finite):
        return None
    whole = max((len(str(int(abs(value)))) for value in finite), default=1)
    places = min(_PLACES, _SIGNIFICANT - whole)
    needed = max((-int(value.normalize().as_tuple().exponent) for value in finite), default=0)
    if needed > places:
        if whole + needed > _SIGNIFICANT:
            return None
        places = needed
    found = []
    if low is None or low.value < 0:
        below = high.negated() if high is not None and high.value <= 0 else Bound(Decimal(0), True)
        found.append(seq(Literal("-"), _positive(below, low.negated() if low is not None else None, places)))
    if high is None or high.value >= 0:
        floor = low if low is not None and low.value >= 0 else Bound(Decimal(0), False)
        found.append(_positive(floor, high, places))
    return alt(*found) if found else NOTHING


def _positive(low: Bound, high: Bound | None, places: int) -> Node:
    """Numbers of at least 0 between `low` and `high`, with up to `places` decimals, without a sign."""
    first, low_digits = _split(low.value, places)
    any_fraction = optional(seq(Literal("."), repeat(DIGIT, 1, places))) if places else EMPTY
    if high is None:
        above = seq(_naturals(first + 1, 10**_SIGNIFICANT - 1), any_fraction)
        return alt(seq(Literal(str(first)), _fraction(low_digits, low.strict, None, False, places)), above)
    last, high_digits = _split(high.value, places)
    if first > last:
        return NOTHING
    if first == last:
        return seq(Literal(str(first)), _fraction(low_digits, low.strict, high_digits, high.strict, places))
    return alt(
        seq(Literal(str(first)), _fraction(low_digits, low.strict, None, False, places)),
        seq(_naturals(first + 1, last - 1), any_fraction),
        seq(Literal(str(last)), _fraction("", False, high_digits, high.strict, places)),
    )


def _split(value: Decimal, places: int) -> tuple[int, str]:
    """Integer part and decimals (without trailing zeros) of a number of at least 0."""
    whole = int(value.to_integral_value(ROUND_FLOOR))
    digits = f"{value - whole:.{places}f}".partition(".")[2] if places else ""
    return whole, digits.rstrip("0")


def _fraction(low: str, low_strict: bool, high: str | None, high_strict: bool, places: int) -> Node:
    """Nothing, or a point and 1 to `places` decimals, whose value is between 0.low and 0.high (None: below 1)."""
    found = []
    if low == "" and not low_strict and not (high == "" and high_strict):
        found.append(EMPTY)  # the integer itself
    if places:
        found.append(seq(Literal("."), _decimals(low, low_strict, high, high_strict, places)))
    return alt(*found)


def _decimals(low: str, low_strict: bool, high: str | None, high_strict: bool, places: int) -> Node:
    """1 to `places` digits d with 0.low <= 0.d <= 0.high, strictly where asked; low and high end with a digit that is not 0."""
    if places == 0:
        return NOTHING
    if low == "" and not low_strict and high is None:
        return repeat(DIGIT, 1, places)
    low_digit, high_digit = int(low[:1] or "0"), 9 if high is None else int(high[:1] or "0")
    found = []
    for digit in sorted({low_digit, high_digit}):
        at_low, at_high = digit == low_digit, high is not None and digit == high_digit
        rest_low, rest_low_strict = (low[1:], low_strict) if at_low else ("", False)
        rest_high, rest_high_strict = (high[1:], high_strict) if at_high and high is not None else (None, False)
        ends_here = not (rest_low or rest_low_strict) and not (rest_high == "" and rest_high_strict)
        more = _decimals(rest_low, rest_low_strict, rest_high, rest_high_strict, places - 1)
        if low_digit <= digit <= high_digit:
            found.append(seq(Literal(str(digit)), alt(EMPTY, more) if ends_here else more))
    found.append(seq(_digits(low_digit + 1, high_digit - 1), repeat(DIGIT, 0, places - 1)))
    return alt(*found)
