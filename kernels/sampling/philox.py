"""Philox4x32-10, a counter-based generator: the same key and counter give the same number anywhere, at any time.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). Computed on the host for all
rows of a step at once: a step wants one number a row, and key and counter are known before the device has anything to do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UInt64 = NDArray[np.uint64]

ROUNDS = 10
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_KEY_STEPS = np.array([0x9E3779B9, 0xBB67AE85], np.uint64)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def round_keys(seed: int) -> UInt64:
    """The keys of all rounds for a seed (64 bits are used, a negative one by its two's complement). uint64 [ROUNDS, 2]."""
    key = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint64)
    return (key + np.arange(ROUNDS, dtype=np.uint64)[:, None] * _KEY_STEPS) & _LOW


def philox(counter: UInt64, keys: UInt64) -> UInt64:
    """counter: [4, n] words of 32 bits; keys: [n, ROUNDS, 2] from `round_keys`. Returns [4, n] words of 32 bits."""
    even, odd = counter[0::2], counter[1::2]
    schedule = keys.transpose(1, 2, 0)
    for key in schedule:
        product = even * _MULTIPLIERS
        even = (product >> _HALF)[::-1] ^ odd ^ key
        odd = (product & _LOW)[::-1]
    return np.stack([even[0], odd[0], even[1], odd[1]])


def uniform(keys: UInt64, positions: NDArray, sample_index: NDArray) -> NDArray[np.float32]:
    """One number in [0, 1) for each row: a multiple of 2^-24, float32 [n].

    keys: [n, ROUNDS, 2]; positions, sample_index: [n], the two words of the counter that differ.
    """
    counter = np.zeros((4, len(positions)), np.uint64)
    counter[0], counter[1] = positions, sample_index
    return (philox(counter, keys)[0] >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
