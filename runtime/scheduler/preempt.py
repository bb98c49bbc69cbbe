"""Whose pages are taken when memory is short: the least important, then the youngest. Pure."""

from __future__ import annotations

from collections.abc import Sequence as Items

from .sequence import Sequence

MOST_PREEMPTIONS = 8
"""After so many a sequence counts as old: others of its priority give way to it."""


def by_importance(running: Items[Sequence]) -> list[Sequence]:
    """Most important first: priority, then those preempted too often already, then the oldest."""
    return sorted(running, key=lambda s: (-s.priority, s.preemptions < MOST_PREEMPTIONS, s.arrival, s.index))
