"""Grammars as GBNF text, which xgrammar reads: tokens dissolve, what is within several languages becomes an automaton's rules."""

from __future__ import annotations

from .automaton import automaton
from .grammar import (
    EMPTY,
    NOTHING,
    Alt,
    Chars,
    Control,
    Grammar,
    Literal,
    Node,
    Ref,
    Repeat,
    Seq,
    Token,
    Within,
    alt,
    chars,
    repeat,
    seq,
)
from .json_text import inside

_QUOTED = '"\\'
_CLASS = '"\\[]^-'


def to_ebnf(grammar: Grammar) -> str:
    """The grammar as GBNF text. Every character outside printable ASCII is written as \\uXXXX or \\UXXXXXXXX."""
    rules = _looked_at(_plain(grammar))
    lines = [f"{grammar.root} ::= {_ebnf(rules[grammar.root])}"]
    lines += [f"{name} ::= {_ebnf(node)}" for name, node in rules.items() if name != grammar.root]
    return "\n".join(lines) + "\n"


def _plain(grammar: Grammar) -> dict[str, Node]:
    """The rules without Token and Within; each state of an automaton is a rule."""
    rules: dict[str, Node] = {}
    known: dict[Within, Node] = {}
    rules_of = grammar.rules

    def plain(node: Node) -> Node:
        match node:
            case Token(item):
                return plain(item)
            case Seq(items):
                return seq(*map(plain, items))
            case Alt(items):
                return alt(*map(plain, items))
            case Repeat(item, least, most):
                inner = rules_of.get(item.name, item) if isinstance(item, Ref) else item
                return _in_parts(inner, least, most) if isinstance(inner, Chars) else repeat(plain(item), least, most)
            case Within():
                if node not in known:
                    known[node] = states(node)
                return known[node]
            case _:
                return node

    def states(node: Within) -> Node:
        found = automaton(node)
        prefix = f"a{len(known)}s"
        for state, steps in enumerate(found.steps):
            ways: dict[int, list[tuple[int, int]]] = {}
            for ranges, target in steps:
                ways.setdefault(target, []).extend(ranges)
            parts = []
            for target, ranges in ways.items():
                one = chars(ranges)
                parts.append(seq(inside(one, exact=True) if node.in_string else one, Ref(f"{prefix}{target}")))
            rules[f"{prefix}{state}"] = alt(*([EMPTY] if state in found.final else []), *parts) if parts else EMPTY
        return Ref(f"{prefix}0") if found.steps else NOTHING

    for name, node in grammar.rules.items():
        rules[name] = plain(node)
    return rules


def _looked_at(rules: dict[str, Node]) -> dict[str, Node]:
    """The rules in which no class stands bare behind a rule, but in a rule of its own. xgrammar 0.2.8 looks ahead from a rule to
    the classes behind it, and its masks then allow tokens that it does not accept: such as end in the first byte of a character,
    E0 or F0, whether the class has such characters or not, and now and then others."""
    names: dict[Node, str] = {}

    def named(node: Node) -> Node:
        if node not in names:
            name = f"class{len(names)}"
            while name in rules:
                name += "_"
            names[node] = name
        return Ref(names[node])

    def behind(node: Node) -> Node:
        return named(node) if isinstance(node, Chars) or _is_star(node) else node

    def walk(node: Node) -> Node:
        match node:
            case Seq(items):
                walked = list(map(walk, items))
                first = next((i for i, item in enumerate(items) if not _is_inline(item)), len(items))
                return Seq((*walked[: first + 1], *map(behind, walked[first + 1 :])))
            case Alt(items):
                return Alt(tuple(map(walk, items)))
            case Repeat(item, least, most):
                return Repeat(walk(item), least, most)
            case _:
                return node

    found = {name: walk(node) for name, node in rules.items()}
    return found | {name: node for node, name in names.items()}


def _is_star(node: Node) -> bool:
    return isinstance(node, Repeat) and isinstance(node.item, Chars) and (node.least, node.most) == (0, None)


def _is_inline(node: Node) -> bool:
    """Whether xgrammar makes no rule of it."""
    return isinstance(node, Literal | Chars) or _is_star(node)


_PART = 64


def _in_parts(item: Chars, least: int, most: int | None) -> Node:
    """`item` between `least` and `most` times, no count greater than _PART: beyond 128 xgrammar 0.2.8 treats a class that is
    not negated as a whole, and its masks allow tokens that leave the class, which it then does not accept."""
    if most is None:
        return seq(*[repeat(item, _PART, _PART)] * (least // _PART), repeat(item, least % _PART, None))
    whole, least_left = divmod(least, _PART)
    rest = most - least
    node: Node = EMPTY if rest % _PART == 0 else repeat(item, 0, rest % _PART)
    for _ in range(rest // _PART):
        node = alt(repeat(item, 0, _PART - 1), seq(repeat(item, _PART, _PART), node))
    return seq(*[repeat(item, _PART, _PART)] * whole, repeat(item, least_left, least_left), node)


def _ebnf(node: Node) -> str:
    match node:
        case Literal(text):
            return '"' + "".join(_escaped(ord(c), _QUOTED) for c in text) + '"'
        case Chars(ranges):
            return "[" + "".join(_range(low, high) for low, high in ranges) + "]"
        case Ref(name):
            return name
        case Control(ids):
            return f"Token({', '.join(map(str, ids))})"
        case Seq(items):
            return " ".join(map(_grouped, items))
        case Alt(items):
            return " | ".join(_ebnf(item) for item in items)
        case Repeat(item, least, most):
            return _grouped(item) + _times(least, most)
    raise AssertionError(f"{type(node).__name__} is not part of a plain rule")


def _grouped(node: Node) -> str:
    return f"({_ebnf(node)})" if isinstance(node, Seq | Alt | Repeat) else _ebnf(node)


def _times(least: int, most: int | None) -> str:
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
    return short or f"{{{least},{'' if most is None else most}}}"


def _range(low: int, high: int) -> str:
    first, last = _escaped(low, _CLASS), _escaped(high, _CLASS)
    return first if low == high else f"{first}-{last}"


def _escaped(code: int, reserved: str) -> str:
    if 0x20 <= code < 0x7F and chr(code) not in reserved:
        return chr(code)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
