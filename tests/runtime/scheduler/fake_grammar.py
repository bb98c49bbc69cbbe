"""A grammar that a few lines can check: tokens must alternate between two classes, and any may be the last."""

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
    """Even tokens first, then odd, then even ...; the end token is allowed from the second token on, and ends it."""

    def __init__(self, vocab: int, end: int):
        self.vocab, self.end = vocab, end
        self.path: list[int] = []
        self.filler = FILLER

    def allowed(self) -> list[int]:
        parity = len(self.path) % 2
        tokens = [t for t in range(self.vocab) if t % 2 == parity and t != self.end]
        return tokens + ([self.end] if len(self.path) >= 1 else [])

    def accept(self, token: int) -> bool:
        if self.is_terminated or token not in self.allowed():
            return False
        self.path.append(token)
        return True

    def rollback(self, count: int) -> None:
        del self.path[len(self.path) - count :]

    def fork(self) -> AlternatingMatcher:
        other = AlternatingMatcher(self.vocab, self.end)
        other.path = list(self.path)
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
