"""Arrays whose items are counted or told apart: `contains` and `uniqueItems`, a rule for each state on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .grammar import EMPTY, NOTHING, Node, Ref, alt, seq
from .keywords import unsupported
from .merge import Flat, both

if TYPE_CHECKING:
    from .schema_rules import Lowering

MAX_UNORDERED = 8
MAX_CONTAINS = 16
MAX_STATES = 2048


def unique(lowering: Lowering, values: list[Node], least: int, most: int | None) -> Node:
    """The elements of arrays of `values`, none of them twice: in any order up to MAX_UNORDERED values (a rule for each set of
    values that are still to come), beyond that in the order of the list."""
    comma = lowering.layout.comma
    most = len(values) if most is None else min(most, len(values))
    if least > most:
        return NOTHING
    if len(values) > MAX_UNORDERED:
        return _in_order(lowering, values, least, most)
    rules: dict[frozenset[int], Node] = {}

    def after(left: frozenset[int]) -> Node:
        if left not in rules:
            used = len(values) - len(left)
            steps = [seq(comma if used else EMPTY, values[i], after(left - {i})) for i in sorted(left)] if used < most else []
            rules[left] = Ref(lowering.new_rule(alt(*([EMPTY] if used >= least else []), *steps)))
        return rules[left]

    return after(frozenset(range(len(values))))


def _in_order(lowering: Lowering, values: list[Node], least: int, most: int) -> Node:
    """A state is (next value, elements so far, counted up to what still matters)."""
    comma = lowering.layout.comma
    top = max(1, least, most if most < len(values) else 0)
    after: list[Node] = [EMPTY if count >= least else NOTHING for count in range(top + 1)]
    for value in reversed(values):
        here = []
        for count in range(top + 1):
            taken = seq(comma if count else EMPTY, value, after[min(count + 1, top)])
            here.append(alt(taken, after[count]) if most >= len(values) or count < most else after[count])
        after = [Ref(lowering.new_rule(node)) for node in here]
    return after[0]


def containing(lowering: Lowering, flat: Flat, least: int, most: int | None, pointer: str) -> Node:
    """The elements of arrays of which a number of items satisfies `contains`. A state is (items so far, those that satisfied
    it so far), both counted up to what still matters. Raises ConstraintError."""
    place = f"{pointer}/contains"
    counted: list[tuple[Any, int, int | None]] = [part for part in flat["contains"] if part[1:] != (0, None)]
    wanted, fewest, greatest = counted[0] if counted else (True, 0, None)
    prefix, items = flat.get("prefixItems", []), flat.get("items", True)
    last = max(1, len(prefix), least) if most is None else most
    top = fewest if greatest is None else greatest
    if len(counted) > 1 or top > MAX_CONTAINS or (last + 1) * (top + 1) > MAX_STATES:
        advice = f"One `contains` is enforced, up to {MAX_CONTAINS} of its items. Use items, or prefixItems for the first ones."
        raise unsupported("`contains` with these counts", advice, place)

    def schema_at(position: int) -> Any:
        return prefix[position] if position < len(prefix) else items

    def step(position: int, schema: Any, then: str) -> Node:
        return seq(lowering.layout.comma if position else EMPTY, lowering.node(schema, place), Ref(then))

    names = [[lowering.new_rule(NOTHING) for _ in range(top + 1)] for _ in range(last + 1)]
    for position in range(last + 1):
        item = schema_at(position)
        following = names[min(position + 1, last)]
        for found in range(top + 1):
            ways: list[Node] = [EMPTY] if position >= least and found >= fewest else []
            if most is None or position < most:
                other = item if greatest is None else both(item, {"not": wanted})
                ways.append(step(position, other, following[found]))
                if found < top:
                    ways.append(step(position, both(item, wanted), following[found + 1]))
            lowering.rules[names[position][found]] = alt(*ways)
    return Ref(names[0][0])


