"""Which of the scored choices wins: pure rules over the log-probabilities of their tokens.

`lang/choices.py` makes SGLang's methods of them; the scheduler applies the same ones, so that only the winner's branch stays
cached. A choice's row has one number per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Rows = Sequence[Sequence[float]]


def mean(values: Sequence[float]) -> float:
    """The mean; of nothing it is 0, the log-probability of an empty continuation."""
    return sum(values) / len(values) if values else 0.0


def first_best(scores: Sequence[float]) -> int:
    """Index of the largest score, the first of equals. Raises ValueError when empty."""
    return max(range(len(scores)), key=scores.__getitem__)


def greedy_rows(rows: Rows) -> list[list[float]]:
    """Each choice's log-probabilities, made equally long by repeating a shorter choice's own mean."""
    width = max(map(len, rows), default=0)
    return [list(row) + [mean(row)] * (width - len(row)) for row in rows]


def greedy_pick(rows: Rows) -> int:
    """Position by position keep only the rows with the largest value; the first of what is left."""
    left = list(range(len(rows)))
    for column in range(len(rows[0]) if rows else 0):
        best = max(rows[i][column] for i in left)
        left = [i for i in left if rows[i][column] == best]
        if len(left) == 1:
            break
    return left[0]


def gains(given: Rows, alone: Rows) -> list[float]:
    """Mean over a choice's tokens of log p(token | prompt) - log p(token). Raises ValueError on unequal lengths."""
    return [mean([a - b for a, b in zip(x, y, strict=True)]) for x, y in zip(given, alone, strict=True)]


RULES: dict[str, Callable[[Rows, Rows], int]] = {
    "mean": lambda given, alone: first_best([mean(row) for row in given]),
    "greedy": lambda given, alone: greedy_pick(greedy_rows(given)),
    "gain": lambda given, alone: first_best(gains(given, alone)),
}
"""By name: (log-probabilities after the prompt, those without it) -> index of the winner. Only `gain` reads the second."""

KEEP = (*RULES, "all", "none")
"""Whose branches stay cached when the choices are scored: the winner's by a rule; everybody's; nobody's."""
