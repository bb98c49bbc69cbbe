"""What a vocabulary can spell: a grammar is confined to it, so that no text begins which no token can continue."""

from __future__ import annotations

from .automaton import within
from .grammar import (
    MAX_CHAR,
    NOTHING,
    Alt,
    Chars,
    Grammar,
    Literal,
    Node,
    Repeat,
    Seq,
    Token,
    Within,
    alt,
    chars,
    intersect,
    repeat,
    seq,
    token,
)
from .json_text import ESCAPED, RAW
from .vocabulary import Vocabulary


def confine(grammar: Grammar, alphabet: Chars | None) -> Grammar:
    """`grammar` with the characters of `alphabet` only (`spellable`; None: all of them, and nothing changes)."""
    if alphabet is None:
        return grammar
    return Grammar({name: _confined(node, alphabet) for name, node in grammar.rules.items()}, grammar.root)


def spellable(vocabulary: Vocabulary) -> Chars | None:
    """The characters that a vocabulary can write in any context, or None for all of them.

    All of them where each byte of UTF-8 is a token (every byte-level and byte-fallback vocabulary). Otherwise a character
    counts when each of its bytes, or the whole of it, is a token of its own; what only longer tokens could write is given up,
    so a grammar may become smaller than necessary but never leads to a state without a token.
    """
    short = {spelt for spelt in vocabulary.tokens if 0 < len(spelt) <= 4}
    single = {spelt[0] for spelt in short if len(spelt) == 1}
    ranges = [(byte, byte) for byte in range(0x80) if byte in single]
    wide = single.issuperset(range(0x80, 0xC0)) and single.issuperset(range(0xC2, 0xF5))
    if wide:
        ranges.append((0x80, MAX_CHAR))
    if wide and len(ranges) == 0x81:
        return None
    for spelt in short:
        try:
            text = spelt.decode()
        except UnicodeDecodeError:
            continue
        if len(text) == 1:
            ranges.append((ord(text), ord(text)))
    return chars(ranges)


def in_strings(alphabet: Chars) -> Chars:
    """The characters that a vocabulary with `alphabet` can write in a JSON string, where some are written as escapes."""
    escapes = chars((code, code) for code, text in ESCAPED.items() if _confined(Literal(text), alphabet) != NOTHING)
    return chars([*intersect(RAW, alphabet).ranges, *escapes.ranges])


def _confined(node: Node, alphabet: Chars) -> Node:
    match node:
        case Literal(text):
            return node if all(intersect(chars([(ord(c), ord(c))]), alphabet).ranges for c in set(text)) else NOTHING
        case Chars():
            return intersect(node, alphabet)
        case Seq(items):
            return seq(*(_confined(item, alphabet) for item in items))
        case Alt(items):
            return alt(*(_confined(item, alphabet) for item in items))
        case Repeat(item, least, most):
            return repeat(_confined(item, alphabet), least, most)
        case Token(item):
            return token(_confined(item, alphabet))
        case Within(item, also, never, in_string):
            return within(_confined(item, in_strings(alphabet) if in_string else alphabet), also, never, in_string=in_string)
        case _:
            return node
