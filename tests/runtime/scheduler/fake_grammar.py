"""A grammar that a few lines can check: tokens must alternate between two classes, and any may be the last; now and then a run
of tokens is forced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class AlternatingFiller:
    def fill(self, matchers: Sequence[AlternatingMatcher], mask: np.ndarray, rows: Sequence[int]) -> None:
        for matcher, row in zip(matchers, rows, strict=True):
            mask[row] = 0
            for token in matcher.allowed():
                mask[row, token >> 5] |= np.int32(1 << (token & 31))


FILLER = AlternatingFiller()


class AlternatingMatcher:
    """Even tokens first, then odd, then even ...; the end token is allowed from the second token on, and ends it. With `forces`,
    a 2 is followed by 1 0 3 0, and 2 1 0 comes first."""

    def __init__(self, vocab: int, end: int, *, forces: bool = False):
        self.vocab, self.end, self.forces = vocab, end, forces
        self.path: list[int] = []
        self.forced: tuple[int, ...] = (2, 1, 0) if forces else ()
        self.filler = FILLER

    def allowed(self) -> list[int]:
        if self.forced:
            return [self.forced[0]]
        parity = len(self.path) % 2
        tokens = [t for t in range(self.vocab) if t % 2 == parity and t != self.end]
        return tokens + ([self.end] if len(self.path) >= 1 else [])

    def accept(self, token: int) -> bool:
        if self.is_terminated or token not in self.allowed():
            return False
        self.path.append(token)
        was, self.forced = bool(self.forced), self.forced[1:]
        if self.forces and token == 2 and not was:
            self.forced = (1, 0, 3, 0)
        return True

    def rollback(self, count: int) -> None:
        path = self.path[: len(self.path) - count]
        self.path, self.forced = [], (2, 1, 0) if self.forces else ()
        for token in path:
            self.accept(token)

    def fork(self) -> AlternatingMatcher:
        other = AlternatingMatcher(self.vocab, self.end, forces=self.forces)
        other.path, other.forced = list(self.path), self.forced
        return other

    @property
    def accepted(self) -> int:
        return len(self.path)

    @property
    def may_end(self) -> bool:
        return len(self.path) >= 1

    @property
    def is_terminated(self) -> bool:
        return bool(self.path) and self.path[-1] == self.end
