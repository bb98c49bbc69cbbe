"""Where the lists of a step lie in the one array of int32 that goes to the device. NumPy alone.

    header | token, position [tokens] | small, large [items, 8] | merge_token, merge_ptr [merges, + 1] | merge_part [parts]

Each part begins at a multiple of eight numbers. Sizes are those of a `Capacity`, so that a launch that was recorded for it finds
everything at its place in every later step; how much of it is there stands in the header.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]

ITEM = Q_BEGIN, Q_COUNT, ROW, KV_BEGIN, KV_END, OPEN_BEGIN, OPEN_END, PART = range(8)
"""An item's numbers: queries [q_begin, q_begin + q_count) of the step's order against keys [kv_begin, kv_end) of this row of the
page table. All of its queries see the keys in [open_begin, open_end); the others need a mask. Query i's result is partial result
number part + i; or, where part is -1, the only one, and goes to the output."""

HEADER = SMALL, LARGE, MERGES = range(3)
"""How many there are of each."""
ALIGNMENT = 8


class Variant(NamedTuple):
    """Which launches a plan needs."""

    small: bool
    large: bool
    merge: bool


@dataclass(frozen=True)
class Capacity:
    """Room for so many tokens, items of both kinds, tokens whose results are merged, and partial results of a token."""

    tokens: int
    small: int
    large: int
    merges: int
    parts: int

    def holds(self, other: Capacity) -> bool:
        """Whether all of another capacity fits."""
        return (
            other.tokens <= self.tokens
            and other.small <= self.small
            and other.large <= self.large
            and other.merges <= self.merges
            and other.parts <= self.parts
        )

    @cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """(begin, end) of each part, in order."""
        sizes = (
            len(HEADER),
            self.tokens,
            self.tokens,
            self.small * len(ITEM),
            self.large * len(ITEM),
            self.merges,
            self.merges + 1,
            self.parts,
        )
        places, at = [], 0
        for size in sizes:
            places.append((at, at + size))
            at += -(-size // ALIGNMENT) * ALIGNMENT
        return tuple(places)

    @property
    def size(self) -> int:
        """Of the array."""
        return -(-self.places[-1][1] // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Lists:
    """What a step's kernels read. token, position: int32 [tokens], of the queries in the step's order. small, large: int32
    [items, 8]. merge_token: int32 [merges], tokens with several results, which are merge_part[merge_ptr[i] : merge_ptr[i + 1]]
    for the i-th, in order of position; `parts` is how many results there are."""

    token: Int32
    position: Int32
    small: Int32
    large: Int32
    merge_token: Int32
    merge_ptr: Int32
    merge_part: Int32
    parts: int

    @property
    def capacity(self) -> Capacity:
        """That just holds them."""
        return Capacity(len(self.token), len(self.small), len(self.large), len(self.merge_token), self.parts)

    @property
    def variant(self) -> Variant:
        """The launches that they need."""
        return Variant(len(self.small) > 0, len(self.large) > 0, len(self.merge_token) > 0)

    def flat(self, capacity: Capacity) -> Int32:
        """All of it as one array in a capacity that holds it."""
        flat = np.zeros(capacity.size, np.int32)
        header = (len(self.small), len(self.large), len(self.merge_token))
        arrays = (
            header,
            self.token,
            self.position,
            self.small.reshape(-1),
            self.large.reshape(-1),
            self.merge_token,
            self.merge_ptr,
            self.merge_part,
        )
        for (begin, _), array in zip(capacity.places, arrays, strict=True):
            flat[begin : begin + len(array)] = array
        return flat


_EMPTY, _NO_ITEMS = np.empty(0, np.int32), np.empty((0, len(ITEM)), np.int32)
NOTHING = Lists(_EMPTY, _EMPTY, _NO_ITEMS, _NO_ITEMS, _EMPTY, np.zeros(1, np.int32), _EMPTY, 0)
"""The lists of a step without any work."""
