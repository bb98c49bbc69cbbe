"""Ratios claim a difference only where runs in turn show one."""

from __future__ import annotations

import pytest

from ramify.runtime.bench.stats import ratio, spread


def test_a_spread_is_median_least_and_most() -> None:
    found = spread([3.0, 1.0, 2.0, 10.0])
    assert (found.median, found.least, found.most, found.runs) == (2.5, 1.0, 10.0, 4)
    with pytest.raises(ValueError):
        spread([])


def test_a_ratio_above_one_means_that_the_first_is_better() -> None:
    assert ratio([20.0, 22.0], [10.0, 11.0], more_is_better=True).value == 2.0
    assert ratio([20.0, 22.0], [10.0, 11.0], more_is_better=False).value == 0.5


def test_pairs_are_runs_of_the_same_turn() -> None:
    """The machine got twice as slow in the second turn: the ratio does not see it."""
    found = ratio([10.0, 5.0, 10.0], [5.0, 2.5, 5.0], more_is_better=True)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)


def test_a_small_ratio_of_few_pairs_is_no_difference() -> None:
    assert str(ratio([1.04] * 14, [1.0] * 14, more_is_better=True)) == "no difference seen"
    assert str(ratio([1.04] * 15, [1.0] * 15, more_is_better=True)) == "1.04"


def test_a_small_ratio_whose_interval_holds_one_is_no_difference() -> None:
    noisy = [0.8, 1.3] * 10 + [1.02]
    assert not ratio(noisy, [1.0] * 21, more_is_better=True).seen


def test_a_large_ratio_is_told_at_once() -> None:
    assert str(ratio([1.5], [1.0], more_is_better=True)) == "1.50"
    assert str(ratio([1.0], [1.5], more_is_better=True)) == "0.67"
