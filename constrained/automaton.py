"""Intersections and differences of regular languages: what a string with a pattern *and* a length is, or a multiple of seven.

What may follow a character in the texts of a node is a set of nodes, its partial derivatives (Antimirov, 1996); there are about
as many of them as the node has parts. Sets of them are the states of a node's automaton, made where they are met, and the states
of several automata side by side are those of their intersection. Counts stay counts, so `.{0,500}` costs one state a character.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from ..runtime.errors import ConstraintError
from .grammar import (
    EMPTY,
    MAX_CHAR,
    NOTHING,
    Alt,
    Chars,
    Divisible,
    Literal,
    Node,
    Repeat,
    Seq,
    Token,
    Within,
    chars,
    living,
    repeat,
    seq,
)
from .limits import too_complex

MAX_STATES = 8192

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Automaton:
    """A deterministic automaton; state 0 is the first, `steps[i]` are (characters, next state), disjoint. Every state leads to a
    state of `final`; without states there is no text."""

    steps: tuple[tuple[tuple[Ranges, int], ...], ...]
    final: frozenset[int]


def within(item: Node, also: Iterable[Node] = (), never: Iterable[Node] = (), *, in_string: bool = False) -> Node:
    """The texts of `item` that are texts of each of `also` and of none of `never` (in_string: see `Within`); NOTHING where there
    are none.

    Pure. Raises ConstraintError `grammar_too_complex` when the automaton has more than MAX_STATES states."""
    if isinstance(item, Within):
        item, also, never = item.item, (*item.also, *also), (*item.never, *never)
    excluded = tuple(part for part in map(living, never) if part != NOTHING)
    node = Within(living(item), tuple(map(living, also)), excluded, in_string)
    if NOTHING in (node.item, *node.also) or not automaton(node).steps:
        return NOTHING
    return node


@lru_cache(maxsize=128)
def automaton(node: Within) -> Automaton:
    """The automaton of `node`. Raises ConstraintError `grammar_too_complex`."""
    parts = (node.item, *node.also, *node.never)
    atoms = _atoms(parts)
    machines = [_Subsets(part, [sample for _, sample in atoms]) for part in parts]
    needed = 1 + len(node.also)
    first: tuple[int, ...] = (0,) * len(parts)
    number: dict[tuple[int, ...], int] = {first: 0}
    order: list[tuple[int, ...]] = [first]
    steps: list[list[tuple[Ranges, int]]] = []
    for state in order:
        here: list[tuple[Ranges, int]] = []
        for atom, (ranges, _) in enumerate(atoms):
            after = tuple(machine.after(at, atom) for machine, at in zip(machines, state, strict=True))
            if _DEAD in after[:needed]:
                continue
            if after not in number:
                if len(order) >= MAX_STATES:
                    raise _too_many()
                number[after] = len(order)
                order.append(after)
            here.append((ranges, number[after]))
        steps.append(here)
    final = set()
    for index, state in enumerate(order):
        ends = [machine.may_end(at) for machine, at in zip(machines, state, strict=True)]
        if all(ends[:needed]) and not any(ends[needed:]):
            final.add(index)
    return _live(steps, final)


_DEAD = -1


class _Subsets:
    """The automaton of one node, state by state: state 0 is the first, _DEAD the one that nothing leads out of."""

    def __init__(self, node: Node, samples: list[int]):
        self._samples = samples
        self._nodes: list[Node] = []
        self._place: dict[Node, int] = {}
        self._partial: dict[tuple[int, int], frozenset[int]] = {}
        self._states: list[frozenset[int]] = []
        self._number: dict[frozenset[int], int] = {frozenset(): _DEAD}
        self._steps: dict[tuple[int, int], int] = {}
        self._state(frozenset((self._named(node),)))

    def after(self, state: int, atom: int) -> int:
        """The state after a character of an atom."""
        if state == _DEAD:
            return _DEAD
        step = (state, atom)
        if step not in self._steps:
            self._steps[step] = self._state(frozenset(chain.from_iterable(self._of(n, atom) for n in self._states[state])))
        return self._steps[step]

    def may_end(self, state: int) -> bool:
        """True when the text so far is a text of the node."""
        return state != _DEAD and any(is_nullable(self._nodes[index]) for index in self._states[state])

    def _state(self, nodes: frozenset[int]) -> int:
        if nodes not in self._number:
            if len(self._states) >= MAX_STATES:
                raise _too_many()
            self._number[nodes] = len(self._states)
            self._states.append(nodes)
        return self._number[nodes]

    def _of(self, index: int, atom: int) -> frozenset[int]:
        key = (index, atom)
        if key not in self._partial:
            found = partial_derivatives(self._nodes[index], self._samples[atom])
            self._partial[key] = frozenset(map(self._named, found))
        return self._partial[key]

    def _named(self, node: Node) -> int:
        if node not in self._place:
            self._place[node] = len(self._nodes)
            self._nodes.append(node)
        return self._place[node]


def _too_many() -> ConstraintError:
    return too_complex(f"A pattern, a length or a multiple needs an automaton of more than {MAX_STATES} states.")


def _live(steps: list[list[tuple[Ranges, int]]], final: set[int]) -> Automaton:
    """Only the states that lead to a final one, in their order."""
    before: dict[int, set[int]] = {}
    for state, ways in enumerate(steps):
        for _, target in ways:
            before.setdefault(target, set()).add(state)
    live, work = set(final), list(final)
    while work:
        for state in before.get(work.pop(), ()):
            if state not in live:
                live.add(state)
                work.append(state)
    if 0 not in live:
        return Automaton((), frozenset())
    place = {state: index for index, state in enumerate(sorted(live))}
    kept = [tuple((ranges, place[t]) for ranges, t in steps[state] if t in place) for state in sorted(live)]
    return Automaton(tuple(kept), frozenset(place[state] for state in final))


# ---- derivatives ----------------------------------------------------------------------------------------------------


def is_nullable(node: Node) -> bool:
    """True when the empty text is a text of `node`."""
    match node:
        case Literal(text):
            return not text
        case Seq(items):
            return all(map(is_nullable, items))
        case Alt(items):
            return any(map(is_nullable, items))
        case Repeat(item, least, _):
            return least == 0 or is_nullable(item)
        case Token(item):
            return is_nullable(item)
        case Divisible(_, rest, begun):
            return begun and rest == 0
    return False


def partial_derivatives(node: Node, char: int) -> list[Node]:
    """What may follow `char` in a text of `node`: the union of these nodes; none when no text begins with it."""
    match node:
        case Literal(text):
            return [Literal(text[1:])] if text and ord(text[0]) == char else []
        case Chars(ranges):
            return [EMPTY] if any(low <= char <= high for low, high in ranges) else []
        case Seq(items):
            found = []
            for index, item in enumerate(items):
                found += [seq(after, *items[index + 1 :]) for after in partial_derivatives(item, char)]
                if not is_nullable(item):
                    break
            return found
        case Alt(items):
            return [after for item in items for after in partial_derivatives(item, char)]
        case Repeat(item, least, most):
            rest = repeat(item, max(0, least - 1), None if most is None else most - 1)
            return [seq(after, rest) for after in partial_derivatives(item, char)]
        case Token(item):
            return partial_derivatives(item, char)
        case Divisible(of, rest, begun):
            if char == 0x2D:
                return [] if begun else [Divisible(of, 0, True)]
            return [Divisible(of, (10 * rest + char - 0x30) % of, True)] if 0x30 <= char <= 0x39 else []
    raise AssertionError(f"{type(node).__name__} has no derivative")


# ---- characters -----------------------------------------------------------------------------------------------------


def _atoms(nodes: Iterable[Node]) -> list[tuple[Ranges, int]]:
    """Classes of characters that no node tells apart, with one character of each; characters that no node knows are left out."""
    classes = sorted({ranges for node in nodes for ranges in _classes(node)})
    starts = {0}
    for ranges in classes:
        for low, high in ranges:
            starts.update((low, high + 1))
    cuts = sorted(start for start in starts if start <= MAX_CHAR)
    members: dict[int, int] = dict.fromkeys(cuts, 0)
    position = {cut: index for index, cut in enumerate(cuts)}
    for bit, ranges in enumerate(classes):
        for low, high in ranges:
            for index in range(position[low], position.get(high + 1, len(cuts))):
                members[cuts[index]] |= 1 << bit
    grouped: dict[int, list[tuple[int, int]]] = {}
    for index, cut in enumerate(cuts):
        end = cuts[index + 1] - 1 if index + 1 < len(cuts) else MAX_CHAR
        grouped.setdefault(members[cut], []).append((cut, end))
    parts = [chars(ranges).ranges for signature, ranges in grouped.items() if signature]
    return [(ranges, ranges[0][0]) for ranges in parts if ranges]


def _classes(node: Node) -> Iterator[Ranges]:
    match node:
        case Literal(text):
            yield from (((ord(c), ord(c)),) for c in set(text))
        case Chars(ranges):
            yield ranges
        case Seq(items) | Alt(items):
            for item in items:
                yield from _classes(item)
        case Repeat(item, _, _) | Token(item):
            yield from _classes(item)
        case Divisible():
            yield from (((c, c),) for c in (0x2D, *range(0x30, 0x3A)))
