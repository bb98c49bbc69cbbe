"""A decode step after another one: every row has a token more, and what it shares with others is the same. Then the lists of the
one before hold, but for where the keys of each row end. NumPy alone.

Cuts and order are those of the first such step. They are a matter of time only, and some tokens more change it little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .interface import AttentionIndex, HostPlan
from .work_layout import ITEM, KV_END, OPEN_END, Q_BEGIN, Capacity, Int32, Lists

MOST_STEPS = 64
"""So many tokens on, a step is cut anew."""


@dataclass(frozen=True)
class DecodePlan:
    """The plan of a step of one token a span, without a window. columns: int32 [3, spans]: query_start, row, start. sharing:
    int32 [2, spans]: order, shared; [2, 0] without. asked: the capacity that the step was planned for. growing: int64, the places
    in the array that go up by one with every token."""

    columns: Int32
    sharing: Int32
    asked: Capacity | None
    host: HostPlan
    growing: np.ndarray

    def grown(self, index: AttentionIndex, capacity: Capacity | None) -> HostPlan | None:
        """The plan of this step if it is one of those that follow. Pure."""
        query_start, row, start = self.columns
        if len(index.start) != len(start) or capacity != self.asked:
            return None
        tokens = int(index.start[0]) - int(start[0])
        if not 0 <= tokens < MOST_STEPS or index.query_length.max() > 1:
            return None
        same = (
            np.array_equal(index.start, start + tokens)
            and np.array_equal(index.row, row)
            and np.array_equal(index.query_start, query_start)
            and np.array_equal(_sharing(index), self.sharing)
        )
        if not same:
            return None
        flat = self.host.flat.copy()
        flat[self.growing] += tokens
        return HostPlan(flat, self.host.capacity, self.host.variant)


def decode_plan(index: AttentionIndex, asked: Capacity | None, lists: Lists, host: HostPlan) -> DecodePlan | None:
    """What the steps after this one may be made of; None where it is no decode step. The lists: of an attention without a window
    and without tiles, which is what makes the end of a row all that changes. Pure: keeps copies."""
    if not len(index.start) or index.query_length.max() > 1:
        return None
    _, _, (positions, _), (small, _), *_ = host.capacity.places
    ends = lists.position[lists.small[:, Q_BEGIN]] + 1  # no shared range ends there: it is before all of its queries
    item = small + len(ITEM) * np.arange(len(lists.small))
    growing = np.concatenate(
        (
            np.arange(positions, positions + len(lists.position)),
            item[lists.small[:, KV_END] == ends] + KV_END,
            item[lists.small[:, OPEN_END] == ends] + OPEN_END,
        )
    )
    columns = np.array((index.query_start, index.row, index.start), np.int32)
    return DecodePlan(columns, _sharing(index), asked, host, growing)


def _sharing(index: AttentionIndex) -> Int32:
    if index.sharing is None:
        return np.empty((2, 0), np.int32)
    return np.array((index.sharing.order, index.sharing.shared), np.int32)
