"""Masks inside of JSON strings whose characters are counted.

Nine tenths of a vocabulary are plain text: characters that stand for themselves in a JSON string. Where a grammar only counts
them they are all alike, and a mask has of them those that are short enough: n characters, if n more may come. How many may come
is asked of the grammar engine, with a ladder of made-up tokens, and so is everything about the other tokens; it goes through a
tenth of the vocabulary then, and a mask takes less than 0.1 ms where 128,000 tokens took 0.6 to 1.7 (each state of a count is
another one, so what an engine remembers of one is of no use in the next).

    mask = what the engine allows of the other tokens  |  plain tokens of at most r characters
                                             r = rungs that it allows: DEL, DEL DEL, DEL DEL DEL ...

DEL stands for itself in a string and is nobody's text. So if a grammar takes it, it is inside of a string that counts (`survey`
makes sure of that), and takes any other plain character. Texts that are listed (`"kind"` as a key, an enum) may come besides,
and have characters of their own: where one of them may still come, and be longer than r, the whole mask is asked for.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .automaton import automaton
from .grammar import EMPTY, Alt, Chars, Grammar, Literal, Node, Ref, Repeat, Seq, Token, Within
from .json_text import ESCAPED, RAW, inside
from .vocabulary import Vocabulary

DEL = "\x7f"
LEAST_PLAIN = 8_000
"""Plain tokens from which the short cut is shorter."""
RUNGS = 64
"""Characters of the longest plain token that is told apart from longer ones; those are asked of the engine."""


@dataclass(frozen=True)
class Strings:
    """What `survey` found in a grammar. listed: the texts between the quotes of the strings that are written out, or excluded.
    others: whether some strings have a form of their own (a pattern)."""

    listed: tuple[str, ...]
    others: bool

    def to_line(self) -> str:
        """One line of text; `from_line` is the way back."""
        return json.dumps([self.listed, self.others])

    @classmethod
    def from_line(cls, line: str) -> Strings:
        """What `to_line` wrote."""
        listed, others = json.loads(line)
        return cls(tuple(listed), others)


def survey(grammar: Grammar) -> Strings | None:
    """The strings of a grammar that counts the characters of some, and takes DEL nowhere else; None for any other. Pure."""
    found = _Survey(grammar.rules)
    for node in grammar.rules.values():
        if not found.enter(node):
            return None
    return Strings(tuple(sorted(found.listed)), found.others) if found.counts else None


class _Survey:
    def __init__(self, rules: dict[str, Node]):
        self._rules = rules
        self.listed: set[str] = set()
        self.others = self.counts = False

    def enter(self, node: Node) -> bool:
        """Looks at the lexemes of a rule. False if there is anything that may take DEL and does not only count."""
        match node:
            case Token(item):
                return all(map(self._lexeme, item.items if isinstance(item, Alt) else (item,)))
            case Seq(items) | Alt(items):
                return all(map(self.enter, items))
            case Repeat(item, _, _):
                return self.enter(item)
            case Ref() | Literal():
                return True
        # Characters outside of lexemes: of rules that lexemes are made of, or of a grammar that has none.
        return not _may_take(node, DEL, self._rules)

    def _lexeme(self, node: Node) -> bool:
        match node:
            case Literal(text):
                if text[:1] == '"':
                    self.listed.add(text[1:-1])
                return DEL not in text
            case Seq((Literal('"'), *inner, Literal('"'))) if all(map(self._counts, inner)):
                self.counts = self.counts or any(map(_has_end, inner))
                return True
        self.others = self.others or _may_take(node, '"', self._rules)
        return not _may_take(node, DEL, self._rules)

    def _counts(self, node: Node) -> bool:
        """Whether all plain characters are alike to `node`, a part of what stands between the quotes."""
        match node:
            case Chars(ranges):
                return ranges == RAW.ranges
            case Literal(text):
                return node == EMPTY or text in ESCAPED.values()
            case Ref(name):
                return name == "json_escape"
            case Seq(items) | Alt(items):
                return all(map(self._counts, items))
            case Repeat(item, _, _):
                return self._counts(item)
            case Within(item, also, never, in_string=True) if all(isinstance(one, Literal) for one in never):
                self.listed.update(part.text for part in map(inside, never) if isinstance(part, Literal))
                return all(map(_counts_values, (item, *also)))
        return False


def _counts_values(node: Node) -> bool:
    """As `_Survey._counts`, of a node that speaks of a string's value."""
    match node:
        case Chars(ranges):
            return all(any(low <= first and last <= high for low, high in ranges) for first, last in RAW.ranges)
        case Repeat(item, _, _):
            return _counts_values(item)
        case Seq(items) | Alt(items):
            return all(map(_counts_values, items))
    return node == EMPTY


def _has_end(node: Node) -> bool:
    """Whether a count in `node` ends."""
    match node:
        case Repeat(item, least, most):
            return most is not None or least > 1 or _has_end(item)
        case Seq(items) | Alt(items):
            return any(map(_has_end, items))
        case Within():
            return True
    return False


def _may_take(node: Node, char: str, rules: dict[str, Node]) -> bool:
    """Whether `char` stands in some text of `node`; sometimes True where it does not."""
    match node:
        case Literal(text):
            return char in text
        case Chars(ranges):
            return any(low <= ord(char) <= high for low, high in ranges)
        case Seq(items) | Alt(items):
            return any(_may_take(item, char, rules) for item in items)
        case Repeat(item, _, _) | Token(item):
            return _may_take(item, char, rules)
        case Within():
            return any(low <= ord(char) <= high for steps in automaton(node).steps for ranges, _ in steps for low, high in ranges)
        case Ref(name):
            return name != "json_escape" and _may_take(rules[name], char, rules)
    return True


# ---- the engine process ---------------------------------------------------------------------------------------------


class PlainTokens:
    """A vocabulary's plain tokens, and the vocabulary of the others and the ladder.

    tokens: each id's bytes, empty for a plain one; from `first_rung` on the rungs, 1 to RUNGS characters. bytes_of: for each byte
    the token that is it alone. words: int32 of a mask of all these. masks: uint32 [RUNGS + 1, words of the vocabulary's own
    masks], row n has the plain tokens of at most n characters. usable: False for a vocabulary without a token for each
    byte, and for one with so few plain tokens that to go through them costs less.
    """

    def __init__(self, vocabulary: Vocabulary):
        lengths = np.zeros(vocabulary.size, np.int64)
        self.tokens = vocabulary.tokens + [b""] * (vocabulary.size - len(vocabulary.tokens))
        single = {token[0]: at for at, token in reversed(list(enumerate(self.tokens))) if len(token) == 1}
        for at, token in enumerate(self.tokens):
            if len(token) > 1 and (length := num_plain(token)):
                lengths[at], self.tokens[at] = length, b""
        self.usable = len(single) == 256 and np.count_nonzero(lengths) >= LEAST_PLAIN
        self.bytes_of = [single.get(byte, -1) for byte in range(256)]
        self.own_words = (vocabulary.size + 31) // 32
        self.first_rung = self.own_words * 32
        self.words = self.own_words + RUNGS // 32
        self.tokens += [b""] * (self.first_rung - vocabulary.size) + [DEL.encode() * n for n in range(1, RUNGS + 1)]
        bits = np.zeros((RUNGS + 1, self.first_rung), np.bool_)
        for n in range(1, RUNGS + 1):
            bits[n, : vocabulary.size] = (lengths > 0) & (lengths <= n)
        self.masks = np.packbits(bits, axis=1, bitorder="little").view("<i4")


def num_plain(token: bytes) -> int:
    """Characters of a token that is plain text, at most RUNGS; 0 for any other."""
    try:
        text = token.decode()
    except UnicodeDecodeError:
        return 0
    is_plain = len(text) <= RUNGS and all(char >= " " and char not in '"\\' for char in text)
    return len(text) if is_plain else 0


class Listed:
    """What strings of a grammar may be besides counted, to be looked up by their beginnings. longest: bytes of a listed text.
    others: whether some cannot be looked up so, because they have a form of their own or an escape within."""

    def __init__(self, strings: Strings):
        self._texts = sorted(text.encode() for text in strings.listed)
        self.longest = max(map(len, self._texts), default=0)
        self.others = strings.others or any(b"\\" in text for text in self._texts)

    def begin(self, beginning: bytes) -> bool:
        """Whether one of the texts begins so."""
        at = bisect_left(self._texts, beginning)
        return at < len(self._texts) and self._texts[at].startswith(beginning)


class PlainText:
    """Goes along with a matcher, over the vocabulary of `PlainTokens`. What it knows of the text so far is a guess where that is
    enough: whether it is `inside` of a string only says when to look."""

    __slots__ = ("_lengths", "_listed", "_native", "_pending", "_tail", "_tokens", "inside")

    def __init__(self, tokens: PlainTokens, listed: Listed, native: Any):
        """native: an llguidance matcher over `tokens.tokens`, its own from now on."""
        self._tokens, self._listed = tokens, listed
        self._native: Any = native
        self._pending = bytearray()
        self._lengths: list[int] = []
        self._tail: bytes | None = b""
        self.inside = False

    def took(self, spelled: bytes) -> None:
        """The matcher took a token, which is spelled so."""
        self._pending += spelled
        self._lengths.append(len(spelled))
        quote = spelled.rfind(b'"')
        if quote >= 0:
            self._tail = spelled[quote + 1 :]
            self.inside ^= (spelled.count(b'"') - spelled.count(b'\\"')) % 2 == 1
        elif self._tail is not None:
            self._tail += spelled

    def back(self, count: int) -> None:
        """The matcher went back by so many tokens."""
        if not count:
            return
        num_bytes = sum(self._lengths[-count:])
        del self._lengths[-count:]
        waiting = min(num_bytes, len(self._pending))
        del self._pending[len(self._pending) - waiting :]
        if self._native is not None and num_bytes > waiting:
            self._native.rollback(num_bytes - waiting)
        self._tail, self.inside = None, True

    def fork(self) -> PlainText:
        """For a fork of the matcher."""
        other = PlainText(self._tokens, self._listed, None if self._native is None else self._native.deep_copy())
        other._pending, other._lengths = bytearray(self._pending), list(self._lengths)
        other._tail, other.inside = self._tail, self.inside
        return other

    def fill(self, row: NDArray[np.int32]) -> bool:
        """The mask of the next token, [own_words]. False, with nothing written, where the whole vocabulary has to be asked for:
        outside of strings, in those that are likely to be listed ones, and where what is not counted could be longer."""
        tail, listed = self._tail, self._listed
        if not self.inside or tail is None or (tail and listed.begin(tail)) or not self._follow():
            return False
        mask = np.empty(self._tokens.words, np.int32)
        self._native.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        own = self._tokens.own_words
        rungs = int.from_bytes(mask[own:].tobytes(), "little").bit_count()
        if not rungs or (rungs < RUNGS and (listed.others or (not tail and listed.longest >= rungs))):
            return False
        np.bitwise_or(mask[:own], self._tokens.masks[rungs], out=row)
        return True

    def _follow(self) -> bool:
        """Takes what is pending. False once the engine's limits do not allow that."""
        if self._native is not None and self._pending:
            ids = [self._tokens.bytes_of[byte] for byte in self._pending]
            if self._native.try_consume_tokens(ids) != len(ids) or self._native.is_error():
                self._native = None
            self._pending.clear()
        return self._native is not None
