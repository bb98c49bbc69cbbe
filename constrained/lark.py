"""Grammars as Lark text, which llguidance reads: a lexeme for each token, rules over them.

llguidance's lexer takes the longest match among the lexemes that may come next, and takes all lexemes of that one text. So the
texts are the same as the grammar's where no lexeme begins another's text in the same place. JSON's tokens have this property:
strings, numbers, words and punctuation tell their own ends (a number's, by what may follow one); a regex is one lexeme.
A grammar with characters outside of tokens (an EBNF) has not, and is not written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count

from .automaton import is_nullable
from .grammar import EMPTY, NOTHING, Alt, Chars, Grammar, Literal, Node, Ref, Repeat, Seq, Token, Within
from .json_text import inside

_PUNCTUATION = re.compile(r", |: |[,:{}\[\]]")
_OPTIONS = '%llguidance {"no_forcing": true}'
"""Without it a mask allows the first token of a forced text only, as it would be tokenized: less than the grammar."""
_LISTED = 24
"""So many alternatives stand in one regex; more become terminals of their own, which the reader parses faster."""


class NotWritable(ValueError):
    """A grammar that llguidance's lexemes cannot express exactly."""


def to_lark(grammar: Grammar) -> str:
    """The grammar as Lark text with the same set of texts. Pure. Raises NotWritable."""
    return _Writer(grammar).text()


class _Writer:
    def __init__(self, grammar: Grammar):
        self._grammar = grammar
        self._rules: list[str] = []
        self._terminals: dict[str, str] = {}
        self._names = {name: f"r{index}" for index, name in enumerate(grammar.rules)}
        self._fresh = count()
        self._outside = _outside_tokens(grammar)

    def text(self) -> str:
        start = self._names[self._grammar.root]
        for name, node in self._grammar.rules.items():
            if name in self._outside:
                self._rules.append(f"{self._names[name]}: {self._body(node)}")
        terminals = [f"{name}: {body}" for body, name in self._terminals.items()]
        return "\n".join([_OPTIONS, f"start: {start}", *self._rules, *terminals]) + "\n"

    # ---- rules ----

    def _body(self, node: Node) -> str:
        match node:
            case Literal(text):
                return self._punctuation(text)
            case Token(item):
                return self._terminal(item)
            case Ref(name):
                return self._names[name]
            case Seq(items):
                return " ".join(map(self._grouped, items))
            case Alt(items):
                return " | ".join(map(self._body, items))
            case Repeat(item, least, most):
                return self._grouped(item) + _times(least, most)
        raise NotWritable(f"{type(node).__name__} outside of a token")

    def _grouped(self, node: Node) -> str:
        body = self._body(node)
        return f"({body})" if " " in body or not body else body

    def _punctuation(self, text: str) -> str:
        pieces = _PUNCTUATION.findall(text)
        if "".join(pieces) != text:
            raise NotWritable("text outside of a token")
        return " ".join(self._named(_string(piece)) for piece in pieces)

    def _terminal(self, item: Node) -> str:
        """The terminal of a token. A lexeme is never empty: an empty text is a way around it."""
        if not is_nullable(item):
            return self._named(self._expression(item))
        return f"{self._named(f'{self._operand(item)} & /(?s:.)+/')}?"

    def _named(self, body: str) -> str:
        """The terminal that stands for `body`; equal ones share a name, so that they are one lexeme."""
        if body not in self._terminals:
            self._terminals[body] = f"T{next(self._fresh)}"
        return self._terminals[body]

    # ---- terminals ----

    def _expression(self, node: Node) -> str:
        """The body of a terminal: one regex, unless languages are intersected in it or many alternatives listed."""
        match node:
            case Within(item, also, never, in_string):
                named = [self._operand(inside(part, exact=True) if in_string else part) for part in (item, *also, *never)]
                return " & ".join("~" * (index > len(also)) + name for index, name in enumerate(named))
            case Seq(items) if any(_has_operator(item) for item in items):
                return " ".join(map(self._operand, items))
            case Alt(items) if len(items) > _LISTED and all(isinstance(item, Literal) for item in items):
                return " | ".join(_string(item.text) for item in items if isinstance(item, Literal))
            case Alt(items) if any(_has_operator(item) for item in items):
                return " | ".join(map(self._operand, items))
            case Literal(text):
                return _string(text)
            case _ if _has_operator(node):
                raise NotWritable("an intersection that is repeated")
        return f"/{_regex(node, self._grammar.rules)}/" if node != EMPTY else '""'

    def _operand(self, node: Node) -> str:
        return self._named(self._expression(node))


def _outside_tokens(grammar: Grammar) -> set[str]:
    """The rules that are met outside of tokens; the others are written where they are used."""
    found: set[str] = set()
    open_names = [grammar.root]
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            open_names.extend(_outer_references(grammar.rules[name]))
    return found


def _outer_references(node: Node) -> Iterator[str]:
    match node:
        case Ref(name):
            yield name
        case Repeat(item, _, _):
            yield from _outer_references(item)
        case Seq(items) | Alt(items):
            for item in items:
                yield from _outer_references(item)


def _has_operator(node: Node) -> bool:
    match node:
        case Within():
            return True
        case Seq(items) | Alt(items):
            return any(map(_has_operator, items))
        case Repeat(item, _, _):
            return _has_operator(item)
    return False


def _regex(node: Node, rules: dict[str, Node]) -> str:
    match node:
        case Literal(text):
            return "".join(map(_escaped, text))
        case Chars(ranges):
            return "[" + "".join(_range(low, high) for low, high in ranges) + "]"
        case Ref(name):
            return _atom(rules[name], rules)
        case Token(item):
            return _regex(item, rules)
        case Seq(items):
            return "".join(_atom(item, rules) if isinstance(item, Alt) else _regex(item, rules) for item in items)
        case Alt(items) if node != NOTHING:
            return "|".join(_regex(item, rules) for item in items)
        case Repeat(item, least, most):
            return _atom(item, rules) + _times(least, most)
    raise NotWritable(f"{type(node).__name__} inside of a token")


def _atom(node: Node, rules: dict[str, Node]) -> str:
    if isinstance(node, Chars) or (isinstance(node, Literal) and len(node.text) == 1):
        return _regex(node, rules)
    return f"(?:{_regex(node, rules)})"


def _times(least: int, most: int | None) -> str:
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
    return short or f"{{{least},{'' if most is None else most}}}"


def _range(low: int, high: int) -> str:
    return _escaped(chr(low)) if low == high else f"{_escaped(chr(low))}-{_escaped(chr(high))}"


def _escaped(char: str) -> str:
    return char if char.isascii() and char.isalnum() else f"\\x{{{ord(char):x}}}"


def _string(text: str) -> str:
    """A Lark string, which is a JSON string without controls."""
    return json.dumps(text).replace("\x7f", "\\u007f")
