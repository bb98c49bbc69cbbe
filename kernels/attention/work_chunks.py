"""How long the pieces are into which keys are cut, so that the whole device has work until the end. NumPy alone, and pure.

A device works on some items at once, its slots. Items of one length come in waves, and a last wave that is nearly empty is time
in which most of the device waits; more items fill it better, but each one costs something by itself:

    slots   20 rows of 1000 keys, not cut          cut into three each
      1     [======== row 1 =========]             [= 1 =][= 34 =]
     ...    [======== row 20 ========]              ...    ...    [60]
     33     .                                      [= 33 =]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Lengths = Sequence[int]

MOST_WAVES = 4
"""With more than so many waves of blocks a last one that is not full does not matter."""
MORE_WAVES = 2
"""At most so many more than the blocks have anyway."""


def chunk_length(length: NDArray[np.int32], slots: int, *, least: int, keys: int, overhead: int) -> int:
    """Blocks of so many keys each are cut into chunks of at most this many. slots 0: not at all.

    A multiple of `keys`, at least `least`, or more than any block has. overhead: an item costs as much as so many keys. It is the
    one that ends first of these: no cuts; as many chunks as whole waves hold; the share of a slot, with which only blocks much
    longer than others are cut.
    """
    longest, lowest = up(int(length.max()), keys), up(least, keys)
    if not slots or longest <= lowest:
        return longest
    waves = -(-len(length) // slots)
    tried = {max(lowest, up(-(-int(length.sum()) // slots), keys))}
    if waves > MOST_WAVES and longest <= min(tried):
        return longest
    blocks = length.tolist()
    tried.update(shortest(blocks, limit * slots, lowest, keys) for limit in range(waves, min(waves + MORE_WAVES, MOST_WAVES) + 1))
    shorter = sorted((one for one in tried if one < longest), reverse=True)
    return min((longest, *shorter), key=lambda one: time(blocks, one, slots, overhead)) if shorter else longest


def shortest(length: Lengths, limit: int, lowest: int, keys: int) -> int:
    """The smallest multiple of `keys` from `lowest` on with which there are at most `limit` chunks, and `limit` is no less than
    there are blocks."""
    low = max(lowest, up(-(-int(sum(length)) // limit), keys)) // keys
    high = max(low, up(int(max(length)), keys) // keys)
    while low < high:
        middle = (low + high) // 2
        if count(length, middle * keys) <= limit:
            high = middle
        else:
            low = middle + 1
    return low * keys


def time(length: Lengths, chunk: int, slots: int, overhead: int) -> float:
    """About how long all takes, in keys of one slot: what there is to do, and a last wave in which some slots do nothing."""
    items = count(length, chunk)
    last = overhead + max(-(-one // -(-one // chunk)) for one in length)
    if items <= slots:
        return last
    waves = items / slots
    return max(last, (sum(length) + overhead * items) / slots + (-(-items // slots) - waves) * last)


def count(length: Lengths, chunk: int) -> int:
    """Of all chunks."""
    return sum(-(-one // chunk) for one in length)


def up(number: Any, multiple: int) -> Any:
    """A number or an array of them, rounded up to a multiple."""
    return -(-number // multiple) * multiple
