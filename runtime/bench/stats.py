"""Medians, spreads and ratios of runs that took turns. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

SMALL = 1.05
"""Ratios nearer to 1 than this are told apart only by PAIRS pairs and a confidence interval."""
PAIRS = 15


@dataclass(frozen=True)
class Spread:
    """Of one engine in one case, in the case's unit."""

    median: float
    least: float
    most: float
    runs: int


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError where there are none."""
    if not values:
        raise ValueError("no runs")
    return Spread(median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Ratio:
    """How many times better the first of two is: the median over pairs and a 95 % interval of it."""

    value: float
    low: float
    high: float
    pairs: int

    @property
    def seen(self) -> bool:
        """Whether a difference may be claimed."""
        if not 1 / SMALL < self.value < SMALL:
            return True
        return self.pairs >= PAIRS and not self.low <= 1.0 <= self.high

    def __str__(self) -> str:
        return f"{self.value:.2f}" if self.seen else "no difference seen"


def ratio(ours: Sequence[float], theirs: Sequence[float], *, more_is_better: bool, draws: int = 1000) -> Ratio:
    """Of runs that alternated: the i-th of each are a pair. The interval is a bootstrap over pairs (the same draws each time);
    of fewer than 3 pairs it is their range."""
    pairs = [a / b if more_is_better else b / a for a, b in zip(ours, theirs, strict=False)]
    middle = median(pairs)
    if len(pairs) < 3:
        return Ratio(middle, min(pairs), max(pairs), len(pairs))
    drawn = random.Random(0)
    medians = sorted(median(drawn.choices(pairs, k=len(pairs))) for _ in range(draws))
    return Ratio(middle, medians[int(0.025 * draws)], medians[int(0.975 * draws) - 1], len(pairs))
