"""Keys of the tree: token ids as int32 buffers, compared by memory, and the namespace that they live in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]

NO_IDS: Int32 = np.empty(0, np.int32)
NO_IDS.flags.writeable = False

_FIRST_BLOCK, _LARGEST_BLOCK = 1024, 1 << 16


@dataclass(frozen=True, slots=True)
class Namespace:
    """What must be equal, field by field, before two equal prefixes share their KV.

    tenant: who asks; one tenant never sees from timing what another has cached. adapter: name and version of what is
    laid over the weights. weights: version of the weights.
    """

    tenant: str = ""
    adapter: str = ""
    weights: int = 0


def as_ids(ids: Int32 | Sequence[int]) -> Int32:
    """Token ids as a contiguous int32 array; the same object where it is one already. Answers only.

    Raises TypeError for what is not one row of integers, OverflowError for an integer that int32 does not hold.
    """
    if type(ids) is np.ndarray and ids.dtype == np.int32 and ids.ndim == 1 and ids.flags.c_contiguous:
        return ids
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise TypeError(f"Token ids must be one row of integers, not {array.dtype} with shape {array.shape}.")
    if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
        raise OverflowError(f"Token ids must fit int32, but they reach from {array.min()} to {array.max()}.")
    return np.ascontiguousarray(array, np.int32)


def memory_of(ids: Int32) -> bytes:
    """The ids as bytes: the very object that they are a view of, where they came as one, so that half a MB is not copied for each
    look at it. Answers only."""
    base = ids.base
    return base if type(base) is bytes and len(base) == ids.nbytes else ids.tobytes()


def common_prefix(a: Int32, b: Int32) -> int:
    """How many leading ids are equal. Compares growing blocks of memory: an early difference costs little. Answers only."""
    shortest = min(len(a), len(b))
    start, size = 0, _FIRST_BLOCK
    while start < shortest:
        stop = min(start + size, shortest)
        differ = a[start:stop] != b[start:stop]
        first = int(differ.argmax())
        if differ[first]:
            return start + first
        start, size = stop, min(size * 8, _LARGEST_BLOCK)
    return shortest


def common_tokens(a: bytes, b: bytes) -> int:
    """How many leading int32 ids two short buffers (up to a page) have in common. Answers only."""
    shortest = min(len(a), len(b))
    # The lowest set bit of the difference, read as one little-endian number, lies in the first token that differs.
    differ = int.from_bytes(a[:shortest], "little") ^ int.from_bytes(b[:shortest], "little")
    if not differ:
        return shortest // 4
    return ((differ & -differ).bit_length() - 1) // 32
