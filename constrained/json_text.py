"""JSON as grammar: strings, values, literals, in the one form that is generated.

Whitespace (`Layout`): `", "` between elements, `": "` after a key, none elsewhere; or any between tokens. Strings: any character
raw except `"`, `\\` and controls; the escapes of RFC 8259, where a `\\u` that is half of a surrogate pair comes with its other
half; a string whose characters are counted has raw ones only. Numbers: at most 18 digits for integers, 16 + 15 digits and an
exponent of two digits otherwise, so that every decoder reads them without loss of range.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .grammar import (
    EMPTY,
    Alt,
    Chars,
    Grammar,
    Literal,
    Node,
    Ref,
    Repeat,
    Seq,
    alt,
    any_of,
    chars,
    intersect,
    optional,
    repeat,
    seq,
    token,
)

DIGIT = chars([(0x30, 0x39)])
NONZERO = chars([(0x31, 0x39)])
HEX = any_of("0123456789abcdefABCDEF")
RAW = chars([(0x20, 0x21), (0x23, 0x5B), (0x5D, 0x10FFFF)])
"""Characters that stand for themselves inside a JSON string."""

INTEGER_DIGITS = 18
INTEGER = alt(Literal("0"), seq(optional(Literal("-")), NONZERO, repeat(DIGIT, 0, INTEGER_DIGITS - 1)))
NUMBER = seq(
    optional(Literal("-")),
    alt(Literal("0"), seq(NONZERO, repeat(DIGIT, 0, 15))),
    optional(seq(Literal("."), repeat(DIGIT, 1, 15))),
    optional(seq(any_of("eE"), optional(any_of("+-")), repeat(DIGIT, 1, 2))),
)


def _escape() -> Node:
    lone = alt(seq(any_of("0123456789abcefABCEF"), HEX, HEX, HEX), seq(any_of("dD"), any_of("01234567"), HEX, HEX))
    high, low = seq(any_of("dD"), any_of("89abAB"), HEX, HEX), seq(any_of("dD"), any_of("cdefCDEF"), HEX, HEX)
    return seq(Literal("\\"), alt(any_of('"\\/bfnrt'), seq(Literal("u"), alt(lone, seq(high, Literal("\\u"), low)))))


def _runs(raw: Node, escape: Node) -> Node:
    """Any number of raw characters and escapes. As runs of raw characters between escapes, because an automaton's loop over
    one class is what an engine's mask of a state covers; `(raw | escape)*` costs a thousand times as much at each step."""
    return seq(repeat(raw, 0, None), repeat(seq(escape, repeat(raw, 0, None)), 0, None))


_SPACE = repeat(any_of(" \t\n\r"), 1, None)


@dataclass(frozen=True)
class Layout:
    """Whitespace between tokens: after a comma and a colon as those say, at the inner side of brackets `pad`."""

    comma: Node
    colon: Node
    pad: Node

    def object(self, members: Node) -> Node:
        """An object of `members`, which may be nothing."""
        return seq(Literal("{"), self.pad, members, self.pad, Literal("}"))

    def array(self, elements: Node) -> Node:
        """An array of `elements`, which may be nothing."""
        return seq(Literal("["), self.pad, elements, self.pad, Literal("]"))

    def some(self, item: Node, *, more: int | None = None) -> Node:
        """`item` once and up to `more` times (None: any number) after commas."""
        return seq(item, repeat(seq(self.comma, item), 0, more))

    def literal(self, value: Any) -> Node:
        """A JSON value, tokens written in their one form."""
        match value:
            case dict():
                return self.object(self._joined(seq(scalar(key), self.colon, self.literal(v)) for key, v in value.items()))
            case list():
                return self.array(self._joined(map(self.literal, value)))
        return scalar(value)

    def _joined(self, items: Iterable[Node]) -> Node:
        return seq(*(seq(self.comma if index else EMPTY, item) for index, item in enumerate(items)))

    def rules(self) -> dict[str, Node]:
        """Rules that every JSON grammar may refer to."""
        pair = seq(Ref("json_string"), self.colon, Ref("json_value"))
        words = [scalar(value) for value in (True, False, None)]
        return {
            "json_escape": _escape(),
            "json_space": optional(token(_SPACE)),
            "json_string": quoted(_runs(RAW, Ref("json_escape"))),
            "json_integer": token(INTEGER),
            "json_number": token(NUMBER),
            "json_object": self.object(optional(self.some(pair))),
            "json_array": self.array(optional(self.some(Ref("json_value")))),
            "json_value": alt(*map(Ref, ("json_object", "json_array", "json_string", "json_number")), *words),
        }


LAYOUTS = {
    "compact": Layout(Literal(", "), Literal(": "), EMPTY),
    "any": Layout(
        seq(Ref("json_space"), Literal(","), Ref("json_space")),
        seq(Ref("json_space"), Literal(":"), Ref("json_space")),
        Ref("json_space"),
    ),
}
"""By the name that `spec.Whitespace` gives them."""


def any_object(whitespace: str = "compact") -> Grammar:
    """Any JSON object."""
    return Grammar({"root": Ref("json_object"), **LAYOUTS[whitespace].rules()})


def scalar(value: Any) -> Node:
    """A JSON string, number or word as the one text that is generated for it; a number without a fraction has no point."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return token(Literal(json.dumps(value, ensure_ascii=False, allow_nan=False)))


def text_between(least: int, most: int | None) -> Node:
    """The inside of a JSON string of `least` to `most` characters. Where characters are counted they are raw ones: a count
    over alternatives would cost the engine a hundred times more."""
    if least > 1 or most is not None:
        return repeat(RAW, least, most)
    first = alt(RAW, Ref("json_escape")) if least else EMPTY
    return seq(first, _runs(RAW, Ref("json_escape")))


def quoted(inside: Node) -> Node:
    """A JSON string whose text between the quotes is a text of `inside`."""
    return token(seq(Literal('"'), inside, Literal('"')))


_SHORT = {0x22: '\\"', 0x5C: "\\\\", 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}
ESCAPED = {code: _SHORT.get(code, f"\\u{code:04x}") for code in [*range(0x20), 0x22, 0x5C]}
"""The characters that do not stand for themselves in a string, and what is written for them."""


def inside(node: Node, *, exact: bool = False) -> Node:
    """The inside of JSON strings whose *value* is a text of `node`: raw where JSON allows it, else the shortest escape.

    exact: every text of `node` has its inside. Otherwise a counted class gives its raw characters only, for the sake of the
    engine (see `text_between`)."""
    match node:
        case Literal(text):
            return Literal("".join(ESCAPED.get(ord(c), c) for c in text))
        case Chars():
            raw, escapes = _raw_and_escaped(node)
            return alt(*([raw] if raw.ranges else []), *escapes)
        case Repeat(Chars() as one, least, most) if not exact and (split := _raw_and_escaped(one))[0].ranges:
            raw, escapes = split
            if not escapes or most is not None or least > 1:
                return repeat(raw, least, most)
            first = alt(raw, *escapes) if least else EMPTY
            return seq(first, _runs(raw, alt(*escapes)))
        case Seq(items):
            return seq(*(inside(item, exact=exact) for item in items))
        case Alt(items):
            return alt(*(inside(item, exact=exact) for item in items))
        case Repeat(item, least, most):
            return repeat(inside(item, exact=exact), least, most)
        case _:
            return node


def _raw_and_escaped(node: Chars) -> tuple[Chars, list[Literal]]:
    """The characters of a class that stand for themselves, and the escapes of the others."""
    escapes = [text for code, text in ESCAPED.items() if any(low <= code <= high for low, high in node.ranges)]
    return intersect(node, RAW), [Literal(text) for text in escapes]
