"""Forced runs: what a grammar leaves no choice about, written with the tokens that the tokenizer would write it with.

    {"name": "Ada"   next by the grammar: , "age":      and nothing else
                     forced run:          [,] ["] [age] [":]     less [":], because a longer token may begin there

Where a run is forced, the mask allows its first token alone, although the grammar would take the same text in other pieces. So
what is generated does not depend on whether a run is drawn token by token or computed in one span: neither draws a random number
that counts, and the engine may do whichever is the faster.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .matcher import MaskFiller, NativeMatcher
from .vocabulary import Vocabulary

_MOST_RUNS = 4096
"""Texts whose runs are remembered: all requests of a schema meet the same ones."""


class Canonical:
    """The tokens of forced texts, for one tokenizer."""

    def __init__(self, vocabulary: Vocabulary, encode: Callable[[str], Sequence[int]]):
        """encode: the tokenizer, for text that follows other text and in which nothing is a control token."""
        self._tokens = vocabulary.tokens
        self._encode = encode
        self._sorted = sorted(filter(None, set(vocabulary.tokens)))
        self._longest = max(map(len, self._sorted), default=0)
        self._runs: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def run(self, text: str) -> tuple[int, ...]:
        """The tokens of `text`, whatever follows it: those from where a longer token could reach beyond its end are left out.
        Empty where the tokenizer writes anything but this text. Remembers its answers; none depends on that."""
        run = self._runs.get(text)
        if run is None:
            run = self._runs[text] = self._cut(text.encode(), self._encode(text))
            if len(self._runs) > _MOST_RUNS:
                self._runs.popitem(last=False)
        else:
            self._runs.move_to_end(text)
        return run

    def _cut(self, data: bytes, ids: Sequence[int]) -> tuple[int, ...]:
        run: list[int] = []
        at = 0
        for token in map(int, ids):
            spelled = self._tokens[token] if 0 <= token < len(self._tokens) else b""
            if not spelled or not data.startswith(spelled, at):
                return ()
            if self._spanned(data[at:]):
                break
            run.append(token)
            at += len(spelled)
        return tuple(run)

    def _spanned(self, rest: bytes) -> bool:
        """Whether some token begins with all of `rest` and goes on."""
        if len(rest) >= self._longest:
            return False
        place = bisect_left(self._sorted, rest + b"\0")
        return place < len(self._sorted) and self._sorted[place].startswith(rest)


class ForcedFiller:
    """Mask rows for `ForcedMatcher`s of one grammar engine."""

    def __init__(self, engine: MaskFiller):
        self._engine = engine

    def fill(self, matchers: Sequence[Any], mask: NDArray[np.int32], rows: Sequence[int]) -> None:
        """See `MaskFiller`. Where a run is forced its first token is allowed, and no other."""
        free, free_rows = [], []
        bits = mask.view(np.uint32)
        for matcher, row in zip(matchers, rows, strict=True):
            if matcher.forced:
                token = matcher.forced[0]
                bits[row] = 0
                bits[row, token >> 5] = 1 << (token & 31)
            else:
                free.append(matcher.native)
                free_rows.append(row)
        if free:
            self._engine.fill(free, mask, free_rows)


class ForcedMatcher:
    """A `Matcher` over a grammar engine's, which goes along forced runs only."""

    __slots__ = ("_begun", "_canonical", "filler", "forced", "native")

    def __init__(self, native: NativeMatcher, canonical: Canonical, filler: ForcedFiller):
        self.native, self.filler = native, filler
        self._canonical = canonical
        self._begun: list[tuple[int, tuple[int, ...]]] = []
        """Where runs have begun, in tokens accepted, and the runs: for the way back."""
        self.forced: tuple[int, ...] = ()
        self._look()

    def accept(self, token: int) -> bool:
        """See `Matcher.accept`."""
        if self.forced and token != self.forced[0]:
            return False
        if not self.native.accept(token):
            return False
        self.forced = self.forced[1:]
        if not self.forced:
            self._look()
        return True

    def _look(self) -> None:
        """Is there a run that begins here?"""
        if self.native.is_terminated:
            return
        text = self.native.forced_text()
        self.forced = self._canonical.run(text) if text else ()
        if self.forced:
            self._begun.append((self.native.accepted, self.forced))

    def rollback(self, count: int) -> None:
        """See `Matcher.rollback`."""
        self.native.rollback(count)
        at = self.native.accepted
        while self._begun and self._begun[-1][0] > at:
            self._begun.pop()
        start, run = self._begun[-1] if self._begun else (0, ())
        self.forced = run[at - start :]

    def fork(self) -> ForcedMatcher:
        """See `Matcher.fork`."""
        other = object.__new__(ForcedMatcher)
        other.native, other.filler = self.native.fork(), self.filler
        other._canonical, other._begun, other.forced = self._canonical, list(self._begun), self.forced
        return other

    @property
    def accepted(self) -> int:
        """See `Matcher.accepted`."""
        return self.native.accepted

    @property
    def may_end(self) -> bool:
        """See `Matcher.may_end`."""
        return self.native.may_end

    @property
    def is_terminated(self) -> bool:
        """See `Matcher.is_terminated`."""
        return self.native.is_terminated
