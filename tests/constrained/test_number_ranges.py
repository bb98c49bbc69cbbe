"""Ranges of numbers against the comparison of the numbers."""

from __future__ import annotations

import re
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from ramify.constrained import digits
from ramify.constrained.grammar import Alt, Chars, Literal, Node, Repeat, Seq


def as_regex(node: Node) -> str:
    """The node as a Python regex: an oracle that does not go through the grammar engine."""
    match node:
        case Literal(text):
            return re.escape(text)
        case Chars(ranges):
            return "[" + "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in ranges) + "]" if ranges else "(?!)"
        case Seq(items):
            return "".join(f"(?:{as_regex(item)})" for item in items)
        case Alt(items):
            return "|".join(f"(?:{as_regex(item)})" for item in items) if items else "(?!)"
        case Repeat(item, least, most):
            return f"(?:{as_regex(item)}){{{least},{'' if most is None else most}}}"
    raise AssertionError(node)


whole = st.one_of(
    st.integers(-30, 30), st.integers(-(10**6), 10**6), st.sampled_from([0, 9, 10, 99, 100, 101, -100, 10**17, -(10**17)])
)
ends = st.one_of(st.none(), whole)


@given(ends, ends, st.lists(whole, max_size=20))
def test_integers_are_those_in_the_range_in_their_one_spelling(low, high, found):
    pattern = re.compile(as_regex(digits.integers(low, high)))
    for number in {*found, *(end + step for end in (low, high) if end is not None for step in (-1, 0, 1))}:
        inside = (low is None or number >= low) and (high is None or number <= high)
        assert bool(pattern.fullmatch(str(number))) == inside
    assert not any(pattern.fullmatch(text) for text in ("-0", "00", "01", "-01", "", "+1", "1.0"))


places = st.integers(0, 3)
decimal_numbers = st.builds(lambda n, p: Decimal(n).scaleb(-p), st.integers(-5000, 5000), places)
bounds = st.one_of(st.none(), st.builds(digits.Bound, decimal_numbers, st.booleans()))


@given(bounds, bounds, st.lists(decimal_numbers, max_size=20))
def test_decimals_are_those_in_the_range(low, high, found):
    node = digits.decimals(low, high)
    assert node is not None
    pattern = re.compile(as_regex(node))
    step = Decimal("0.001")
    near = {end.value + n * step for end in (low, high) if end is not None for n in (-1, 0, 1)}
    for number in {*found, *near}:
        above = low is None or number > low.value or (number == low.value and not low.strict)
        below = high is None or number < high.value or (number == high.value and not high.strict)
        spelled = format(number, "f")
        for text in (spelled, spelled + "0" if "." in spelled else spelled + ".0"):
            matched = bool(pattern.fullmatch(text))
            assert matched <= (above and below), text
            if number != 0 and above and below:
                assert matched, text
    assert not any(pattern.fullmatch(text) for text in ("-", ".", "1.", ".5", "01", "--1", "1e3", ""))


def test_a_bound_that_a_double_cannot_tell_from_its_neighbours_is_not_written_down():
    assert digits.decimals(digits.Bound(Decimal("0.1234567890123456"), False), None) is None
    assert digits.decimals(None, digits.Bound(Decimal(10**16), False)) is None


@given(st.sampled_from([2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500, 1000]), st.integers(-(10**7), 10**7))
def test_divisors_of_powers_of_ten_have_regular_multiples(of, number):
    node = digits.free_multiples(of, negative=True, zero=True)
    assert node is not None
    pattern = re.compile(as_regex(node))
    for n in (number, number * of):
        assert bool(pattern.fullmatch(str(n))) == (n % of == 0)
    assert digits.free_multiples(7, negative=True, zero=True) is None
