"""JSON as grammar: strings, values, literals, in the one form that is generated.

Whitespace: `", "` between elements, `": "` after a key, none elsewhere. Strings: any character raw except `"`, `\\` and controls;
the escapes of RFC 8259, where a `\\u` that is half of a surrogate pair comes with its other half; a string whose characters are
counted has raw ones only. Numbers: at most 18 digits for integers, 16 + 15 digits and an exponent of two digits otherwise, so
that every decoder reads them without loss of range.
"""

from __future__ import annotations

import json
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
)

COMMA, COLON = Literal(", "), Literal(": ")
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


def _any_number_of(item: Node) -> Node:
    return optional(seq(item, repeat(seq(COMMA, item), 0, None)))


RULES: dict[str, Node] = {
    "json_escape": _escape(),
    "json_string": seq(Literal('"'), _runs(RAW, Ref("json_escape")), Literal('"')),
    "json_integer": INTEGER,
    "json_number": NUMBER,
    "json_pair": seq(Ref("json_string"), COLON, Ref("json_value")),
    "json_object": seq(Literal("{"), _any_number_of(Ref("json_pair")), Literal("}")),
    "json_array": seq(Literal("["), _any_number_of(Ref("json_value")), Literal("]")),
    "json_value": alt(
        *map(Ref, ("json_object", "json_array", "json_string", "json_number")), *map(Literal, ("true", "false", "null"))
    ),
}
"""Rules that every JSON grammar may refer to."""


def any_object() -> Grammar:
    """Any JSON object."""
    return Grammar({"root": Ref("json_object"), **RULES})


def literal(value: Any) -> Literal:
    """A JSON value as the one text that is generated for it."""
    return Literal(json.dumps(value, ensure_ascii=False, allow_nan=False))


def text_between(least: int, most: int | None) -> Node:
    """The inside of a JSON string of `least` to `most` characters. Where characters are counted they are raw ones: a count
    over alternatives would cost the engine a hundred times more."""
    if least > 1 or most is not None:
        return repeat(RAW, least, most)
    first = alt(RAW, Ref("json_escape")) if least else EMPTY
    return seq(first, _runs(RAW, Ref("json_escape")))


def quoted(content: Node) -> Node:
    """A JSON string whose *value* is a text of `content`: raw where JSON allows it, else its shortest escape."""
    return seq(Literal('"'), _inside(content), Literal('"'))


_SHORT = {0x22: '\\"', 0x5C: "\\\\", 8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}
_ESCAPED = {code: _SHORT.get(code, f"\\u{code:04x}") for code in [*range(0x20), 0x22, 0x5C]}


def _inside(node: Node) -> Node:
    match node:
        case Literal(text):
            return Literal("".join(_ESCAPED.get(ord(c), c) for c in text))
        case Chars():
            raw, escapes = _raw_and_escaped(node)
            return alt(*([raw] if raw.ranges else []), *escapes)
        case Repeat(Chars() as one, least, most) if (split := _raw_and_escaped(one))[0].ranges:
            raw, escapes = split
            if not escapes or most is not None or least > 1:
                return repeat(raw, least, most)
            first = alt(raw, *escapes) if least else EMPTY
            return seq(first, _runs(raw, alt(*escapes)))
        case Seq(items):
            return seq(*map(_inside, items))
        case Alt(items):
            return alt(*map(_inside, items))
        case Repeat(item, least, most):
            return repeat(_inside(item), least, most)
        case _:
            return node


def _raw_and_escaped(node: Chars) -> tuple[Chars, list[Literal]]:
    """The characters of a class that stand for themselves, and the escapes of the others."""
    escapes = [text for code, text in _ESCAPED.items() if any(low <= code <= high for low, high in node.ranges)]
    return intersect(node, RAW), [Literal(text) for text in escapes]
