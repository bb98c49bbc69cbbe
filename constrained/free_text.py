"""Free text that stops at a mark: the regular language of texts without a trigger, as the automaton that searches for them.

    state = the longest end of the text so far that begins a pattern          pattern `<fn=`
                                       other                                   '<' leads back to "<" from everywhere,
    home --'<'--> "<" --'f'--> "<f" --'n'--> "<fn" --'='--> the trigger        anything else back home

A pattern is a tuple of symbols: characters, and ids of control tokens. Each state is a rule that ends with what follows, so
nothing is approximated, and an engine finds whatever a token may go on with below the rule in which the token begins: the mask
of each state is then computed once (as expressions with stars, a `<` in the text cost 300 ms with 110,000 tokens).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from .grammar import EMPTY, NOTHING, Alt, Chars, Control, Literal, Node, Ref, alt, chars, complement, optional, repeat, seq

Symbol = str | int
Pattern = tuple[Symbol, ...]
ANY_CHAR = complement(Chars(()))


@dataclass(frozen=True)
class ControlTokens:
    """Control tokens by their text: `plain` may stand in free text (`<think>`), `special` ones only where they are named."""

    plain: Mapping[str, int] = field(default_factory=dict)
    special: Mapping[str, int] = field(default_factory=dict)

    def pattern(self, text: str) -> Pattern:
        """The symbols of a text in which control tokens are written by their text: leftmost, longest."""
        symbols: list[Symbol] = []
        for part in self._finder.split(text):
            token = self._ids.get(part)
            symbols += part if token is None else [token]
        return tuple(symbols)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {**self.plain, **self.special}

    @cached_property
    def _finder(self) -> re.Pattern[str]:
        texts = sorted(self._ids, key=lambda text: -len(text))
        return re.compile(f"({'|'.join(map(re.escape, texts))})" if texts else "(?!)")

    def node(self, text: str) -> Node:
        """A grammar for exactly this text."""
        return spelled(self.pattern(text))


def spelled(pattern: Iterable[Symbol]) -> Node:
    """The one text of a pattern."""
    return seq(*(Literal(symbol) if isinstance(symbol, str) else Control((symbol,)) for symbol in pattern))


def free_text(
    name: str,
    triggers: Sequence[Pattern],
    then: Sequence[Node],
    *,
    forbidden: Sequence[Pattern] = (),
    controls: Iterable[int] = (),
    may_end: bool,
) -> dict[str, Node]:
    """Rules, of which `name` is any text up to the first trigger and over it, and then what `then` says for that trigger.

    The text is made of characters and of the control tokens `controls`, and has no pattern of `forbidden` in it. Where several
    triggers end at one place the longest counts. may_end: or a text without a trigger, after which nothing comes.
    """
    patterns = [*triggers, *forbidden]
    states = sorted({pattern[:size] for pattern in patterns for size in range(len(pattern))}, key=len)
    names = {state: f"{name}_{number}" if state else name for number, state in enumerate(states)}
    search = _Search(triggers, forbidden, frozenset(states), frozenset(controls))
    rules: dict[str, Node] = {}
    for state in states:
        ways: list[Node] = [EMPTY] if may_end else []
        stays = Chars(())
        for target, on in search.leaving(state).items():
            if target == () == state:  # home again, from home: a run of characters is one loop
                stays, on = _parted(on)
                if on == NOTHING:
                    continue
            ways.append(seq(on, then[target] if isinstance(target, int) else Ref(names[target])))
        rules[names[state]] = seq(repeat(stays, 0, None), alt(*ways)) if stays.ranges else alt(*ways)
    return rules


def not_beginning_with(name: str, patterns: Sequence[Pattern], controls: Iterable[int]) -> dict[str, Node]:
    """Rules, of which `name` is any text of characters and of `controls` that does not begin with one of `patterns`; the empty
    text is one."""
    loose = sorted(set(controls))
    anything = Ref(f"{name}_any")
    further = seq(Control(tuple(loose)), anything) if loose else NOTHING
    rules: dict[str, Node] = {anything.name: seq(repeat(ANY_CHAR, 0, None), optional(further) if loose else EMPTY)}

    def after(rests: Sequence[Pattern]) -> Node:
        begun = {rest[0] for rest in rests}
        other = complement(chars((ord(s), ord(s)) for s in begun if isinstance(s, str)))
        free = tuple(token for token in loose if token not in begun)
        ways = [seq(other, anything), *([seq(Control(free), anything)] if free else [])]
        for symbol in sorted(begun, key=str):
            shorter = [rest[1:] for rest in rests if rest[0] == symbol]
            if all(shorter):
                ways.append(seq(spelled([symbol]), after(shorter)))
        return optional(alt(*ways))

    rules[name] = after([pattern for pattern in patterns if pattern])
    return rules


class _Search:
    """The automaton that finds the first trigger."""

    def __init__(
        self,
        triggers: Sequence[Pattern],
        forbidden: Sequence[Pattern],
        states: frozenset[Pattern],
        controls: frozenset[int],
    ):
        self._triggers, self._forbidden, self._states, self._controls = triggers, forbidden, states, controls
        self._letters = {symbol for pattern in (*triggers, *forbidden) for symbol in pattern}

    def leaving(self, state: Pattern) -> dict[Pattern | int, Node]:
        """Where the symbols lead, home (the empty state) first: a state, or the number of a trigger."""
        others = complement(chars((ord(s), ord(s)) for s in self._letters if isinstance(s, str)))
        found: dict[Pattern | int, list[Symbol]] = {(): sorted(self._controls - self._letters)}  # type: ignore[operator]
        for symbol in sorted(self._letters, key=str):
            target = self._next(state, symbol)
            is_free = isinstance(symbol, str) or symbol in self._controls
            if target is not None and (is_free or target != ()):
                found.setdefault(target, []).append(symbol)
        return {target: _one_of(symbols, others if target == () else Chars(())) for target, symbols in found.items()}

    def _next(self, state: Pattern, symbol: Symbol) -> Pattern | int | None:
        """None: a forbidden pattern would be complete."""
        text = (*state, symbol)
        complete = [i for i, trigger in enumerate(self._triggers) if text[-len(trigger) :] == trigger]
        if complete:
            return max(complete, key=lambda index: len(self._triggers[index]))
        if any(text[-len(pattern) :] == pattern for pattern in self._forbidden):
            return None
        return next((text[start:] for start in range(len(text)) if text[start:] in self._states), ())


def _one_of(symbols: Sequence[Symbol], more: Chars) -> Node:
    letters = chars([*((ord(s), ord(s)) for s in symbols if isinstance(s, str)), *more.ranges])
    tokens = tuple(s for s in symbols if isinstance(s, int))
    return alt(*([letters] if letters.ranges else []), *([Control(tokens)] if tokens else []))


def _parted(node: Node) -> tuple[Chars, Node]:
    """The characters of what `_one_of` made, and the rest of it."""
    items = node.items if isinstance(node, Alt) else (node,)
    letters = next((item for item in items if isinstance(item, Chars)), Chars(()))
    return letters, alt(*(item for item in items if not isinstance(item, Chars)))
