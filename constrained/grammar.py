"""A context-free grammar over Unicode characters, as plain values: what every constraint is lowered to.

`schema.py` and `regex.py` build these nodes, an engine prints them in its own syntax. What does not depend on an engine is
decided here: which rules have a finite text at all (`prune`).

    JsonSchema --schema.py--.                               .--ebnf.py--> xgrammar
    Regex ------regex.py----+--> Grammar --prune--> Grammar +
    Choice, JsonObject -----'                               '--lark.py--> llguidance
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..runtime.errors import ConstraintError

MAX_CHAR = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)


@dataclass(frozen=True, slots=True)
class Literal:
    """Exactly `text`; the empty text is the empty word."""

    text: str


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of sorted, disjoint, inclusive code point `ranges`, none of them a surrogate; empty: no text at all."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Seq:
    """`items` one after the other."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alt:
    """One of `items`; no items: no text at all."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`item` between `least` and `most` times (None: without limit)."""

    item: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Ref:
    """The text of the rule called `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Control:
    """One of the control tokens `ids`: added tokens, whose text (`<tool_call>`) no characters spell."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """The texts of `item`, which recurs nowhere, as one lexeme: where tokens of one grammar meet, the longest match is the only
    one (a JSON string, number or word is one; so is the whole of a regex). It changes no text; a lexer may rely on it."""

    item: Node


@dataclass(frozen=True, slots=True)
class Within:
    """The texts of `item` that are texts of each of `also` and of none of `never`. No references inside.

    in_string: the nodes speak of the value of a JSON string, and the texts are what stands between its quotes.
    Made by `automaton.within`, which knows that there is such a text."""

    item: Node
    also: tuple[Node, ...]
    never: tuple[Node, ...]
    in_string: bool = False


@dataclass(frozen=True, slots=True)
class Divisible:
    """Decimal digits, perhaps after a minus, whose number is a multiple of `of`. Inside a `Within` only, which gives the form:
    a node's rest and whether it has begun are the state of reading one."""

    of: int
    rest: int = 0
    begun: bool = False


Node = Literal | Chars | Seq | Alt | Repeat | Ref | Control | Token | Within | Divisible

EMPTY = Literal("")
NOTHING = Alt(())


@dataclass(frozen=True, slots=True)
class Grammar:
    """Rules by name; a text of the grammar is a text of rule `root`."""

    rules: dict[str, Node]
    root: str = "root"


# ---- building -------------------------------------------------------------------------------------------------------


def chars(ranges: Iterable[tuple[int, int]]) -> Chars:
    """A character class from any ranges: sorted, merged, without surrogates."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(_without_surrogates(ranges)):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return Chars(tuple(merged))


def _without_surrogates(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    first, last = SURROGATES
    for low, high in ranges:
        if high < first or low > last:
            yield low, high
            continue
        if low < first:
            yield low, first - 1
        if high > last:
            yield last + 1, high


def complement(node: Chars) -> Chars:
    """Every character that is not in `node`."""
    gaps, start = [], 0
    for low, high in node.ranges:
        if start < low:
            gaps.append((start, low - 1))
        start = high + 1
    if start <= MAX_CHAR:
        gaps.append((start, MAX_CHAR))
    return chars(gaps)


def intersect(a: Chars, b: Chars) -> Chars:
    """The characters that are in both."""
    both = [(max(l1, l2), min(h1, h2)) for l1, h1 in a.ranges for l2, h2 in b.ranges if max(l1, l2) <= min(h1, h2)]
    return chars(both)


def any_of(text: str) -> Chars:
    """One of the characters of `text`."""
    return chars((ord(c), ord(c)) for c in text)


def seq(*items: Node) -> Node:
    """`items` in a row; empty words vanish, nested sequences and neighbouring literals are joined."""
    flat: list[Node] = []
    for item in items:
        for part in item.items if isinstance(item, Seq) else (item,):
            if isinstance(part, Literal) and flat and isinstance(flat[-1], Literal):
                flat[-1] = Literal(flat[-1].text + part.text)
            elif part != EMPTY:
                flat.append(part)
    return flat[0] if len(flat) == 1 else Seq(tuple(flat)) if flat else EMPTY


def alt(*items: Node) -> Node:
    """One of `items`; nested alternatives are joined."""
    flat: list[Node] = []
    for item in items:
        flat.extend(item.items if isinstance(item, Alt) else (item,))
    return flat[0] if len(flat) == 1 else Alt(tuple(flat))


def repeat(item: Node, least: int, most: int | None) -> Node:
    """`item` between `least` and `most` times; a range that is empty (most < least) has no text."""
    if most is not None and most < least:
        return NOTHING
    if most == 0 or item == EMPTY:
        return EMPTY
    return item if (least, most) == (1, 1) else Repeat(item, least, most)


def token(item: Node) -> Node:
    """`item` as one lexeme; alternatives of lexemes are one."""
    if isinstance(item, Alt):
        item = alt(*(part.item if isinstance(part, Token) else part for part in item.items))
    return item if isinstance(item, Token) or item in (NOTHING, EMPTY) else Token(item)


def optional(item: Node) -> Node:
    """`item` or nothing."""
    return repeat(item, 0, 1)


# ---- productivity ---------------------------------------------------------------------------------------------------


def prune(grammar: Grammar) -> Grammar:
    """The same texts from rules that each have a finite text and are reachable, so that no prefix is a dead end.

    A rule is productive when some alternative of it is made of productive parts only: the least fixed point, reached with
    a work list. Raises ConstraintError `unsatisfiable_grammar` when the root is not productive.
    """
    users: dict[str, set[str]] = {}
    for name, node in grammar.rules.items():
        for used in references(node):
            users.setdefault(used, set()).add(name)
    productive: set[str] = set()
    work = list(grammar.rules)
    while work:
        name = work.pop()
        if name not in productive and _is_productive(grammar.rules[name], productive):
            productive.add(name)
            work.extend(users.get(name, ()))
    if grammar.root not in productive:
        raise ConstraintError(
            "No finite text satisfies this constraint. Look for a rule or $ref that only leads back to itself, "
            "for `false`, and for requirements that exclude each other.",
            code="unsatisfiable_grammar",
        )
    kept: dict[str, Node] = {}
    open_names = [grammar.root]
    while open_names:
        name = open_names.pop()
        if name not in kept:
            kept[name] = _productive_part(grammar.rules[name], productive)
            open_names.extend(references(kept[name]))
    return Grammar(kept, grammar.root)


def living(node: Node) -> Node:
    """`node`, which has no Ref, without its parts that have no text."""
    return _productive_part(node, set()) if _is_productive(node, set()) else NOTHING


def references(node: Node) -> Iterator[str]:
    """The names of the rules that `node` uses, with repetitions."""
    match node:
        case Ref(name):
            yield name
        case Repeat(item, _, _) | Token(item):
            yield from references(item)
        case Seq(items) | Alt(items):
            for item in items:
                yield from references(item)


def _is_productive(node: Node, productive: set[str]) -> bool:
    match node:
        case Literal():
            return True
        case Chars(items) | Control(items):
            return bool(items)
        case Ref(name):
            return name in productive
        case Seq(items):
            return all(_is_productive(item, productive) for item in items)
        case Alt(items):
            return any(_is_productive(item, productive) for item in items)
        case Repeat(item, least, _):
            return least == 0 or _is_productive(item, productive)
        case Token(item):
            return _is_productive(item, productive)
    return True


def _productive_part(node: Node, productive: set[str]) -> Node:
    """`node`, itself productive, without the alternatives and optional parts that are not."""
    match node:
        case Seq(items):
            return seq(*(_productive_part(item, productive) for item in items))
        case Alt(items):
            return alt(*(_productive_part(item, productive) for item in items if _is_productive(item, productive)))
        case Repeat(item, least, most):
            return repeat(_productive_part(item, productive), least, most) if _is_productive(item, productive) else EMPTY
        case Token(item):
            return Token(_productive_part(item, productive))
        case _:
            return node


def lengths(node: Node) -> tuple[int, int | None]:
    """The least and the greatest number of characters of a text of `node`, which has no Ref; None: no limit."""
    match node:
        case Literal(text):
            return len(text), len(text)
        case Seq(items):
            parts = [lengths(item) for item in items]
            return sum(p[0] for p in parts), None if any(p[1] is None for p in parts) else sum(p[1] or 0 for p in parts)
        case Alt(items) if items:
            parts = [lengths(item) for item in items]
            return min(p[0] for p in parts), None if any(p[1] is None for p in parts) else max(p[1] or 0 for p in parts)
        case Repeat(item, least, most):
            low, high = lengths(item)
            return low * least, 0 if high == 0 else None if high is None or most is None else high * most
        case Token(item):
            return lengths(item)
    return 1, 1
