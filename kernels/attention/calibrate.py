"""What reading together costs on this machine, measured at start with the real kernel in some tens of milliseconds.

Made-up decodes, a few rows on a few shared keys, run together and apart, over memory that no cache of a core holds. What the
first takes longer than the second is, for all of them together (least squares):

    seconds = piece + joining * numbers of the results that are joined - bytes that are read once less / rate

The measurement counts where two halves of its rounds agree; on a machine that is too busy for that nothing is learnt.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..kv.int8 import row_size, row_width
from .costs import DEFAULT_COSTS, SharingCosts
from .interface import AttentionIndex, AttentionSpec, Sharing
from .native import NativeAttention

DECODES = ((2, 64), (2, 256), (4, 160), (8, 64), (8, 256), (16, 32), (16, 128))
"""Rows, and the keys that they share."""
TAIL = 8
ROUNDS, SECONDS = 32, 0.06
"""At most so many of each decode, and about so long in all."""
POOL_BYTES = 16 << 20
"""Of K and V together: no second-level cache holds them."""
PIECE_BYTES, JOINING_BYTES = (1 << 10, 256 << 10), (2, 128)
"""What is believed; what lies outside is brought to the border."""
RATES = (1e9, 400e9)
"""Bytes a second that are believed."""


@dataclass(frozen=True)
class Sample:
    """numbers: of the results that a piece's rows bring. saved: bytes that are read once less. seconds: together less apart."""

    numbers: int
    saved: int
    seconds: float


def calibrate(spec: AttentionSpec, dtype: torch.dtype, kv_dtype: torch.dtype) -> tuple[SharingCosts, str]:
    """The costs for decodes of this spec, and a line for people. `kernels.native.load` must have succeeded before.

    Computes on one thread, and sets torch's number of threads back to what it was.
    """
    began, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = measure(spec, dtype, kv_dtype)
    finally:
        torch.set_num_threads(threads)
    found = agreed(samples(spec, kv_dtype, times[0::2]), samples(spec, kv_dtype, times[1::2]), samples(spec, kv_dtype, times))
    costs = found or DEFAULT_COSTS
    how = f"measured in {1e3 * (time.perf_counter() - began):.0f} ms" if found else "built in: measurements did not agree"
    piece = f"{costs.piece_bytes / 1024:.3g} KiB of reading, and {costs.joining_bytes} bytes for each number that is joined"
    return costs, f"attention: to read together costs as much as {piece} ({how})"


def measure(spec: AttentionSpec, dtype: torch.dtype, kv_dtype: torch.dtype) -> np.ndarray:
    """Seconds, [rounds, decodes, 2]: together, apart."""
    slots = POOL_BYTES // (2 * spec.num_kv_heads * row_size(spec.head_dim, kv_dtype))
    shape = (slots, spec.num_kv_heads, row_width(spec.head_dim, kv_dtype))
    pools = torch.ones(shape, dtype=kv_dtype), torch.ones(shape, dtype=kv_dtype)
    together = NativeAttention(replace(spec, window=None), costs=SharingCosts(1, 1))
    steps = [(*step(rows, keys), torch.ones(rows, spec.num_heads, spec.head_dim, dtype=dtype)) for rows, keys in DECODES]
    times, at, until = [], 0, time.perf_counter() + SECONDS
    while len(times) < 4 or (len(times) < ROUNDS and time.perf_counter() < until):
        row = []
        for index, used, q in steps:
            pair = []
            for sharing in (index.sharing, None):
                at = at + used if at + 2 * used < slots else 0
                pair.append(seconds(together, replace(index, page_table=index.page_table + at, sharing=sharing), pools, q))
            row.append(pair)
        times.append(row)
    return np.array(times[1:])  # the first warms up


def step(rows: int, keys: int) -> tuple[AttentionIndex, int]:
    """A decode, a page a token from slot 0 on, and how many slots it uses."""
    column = np.arange(rows, dtype=np.int32)
    tails = keys + column[:, None] * TAIL + np.arange(TAIL, dtype=np.int32)
    table = np.concatenate((np.broadcast_to(np.arange(keys, dtype=np.int32), (rows, keys)), tails), 1)
    sharing = Sharing(column, np.where(column > 0, keys, 0).astype(np.int32))
    one, start = np.ones_like(column), np.full_like(column, keys + TAIL - 1)
    return AttentionIndex(column, one, start, column, torch.from_numpy(table), 1, sharing), keys + rows * TAIL


def seconds(attention: NativeAttention, index: AttentionIndex, pools: tuple[Tensor, Tensor], q: Tensor) -> float:
    """Of one run."""
    plan = attention.plan(index)
    started = time.perf_counter()
    attention.run(plan, *pools, q)
    return time.perf_counter() - started


def samples(spec: AttentionSpec, kv_dtype: torch.dtype, times: np.ndarray) -> list[Sample]:
    """times: [rounds, decodes, 2]. The shortest of each counts, because whatever disturbs makes longer. Pure."""
    shortest = times.min(0)
    key_bytes = 2 * spec.num_kv_heads * row_size(spec.head_dim, kv_dtype)
    return [
        Sample(rows * spec.num_heads * spec.head_dim, (rows - 1) * keys * key_bytes, float(together - apart))
        for (rows, keys), (together, apart) in zip(DECODES, shortest, strict=True)
    ]


def fit(found: Sequence[Sample]) -> SharingCosts | None:
    """Least squares; None where the rate is none that a memory has. Pure."""
    columns = np.array([(1.0, one.numbers, -one.saved) for one in found])
    size = np.abs(columns).max(0)
    piece, joining, byte_s = np.linalg.lstsq(columns / size, np.array([one.seconds for one in found]), rcond=None)[0] / size
    if not 1 / RATES[1] <= byte_s <= 1 / RATES[0]:
        return None
    return SharingCosts(round(np.clip(piece / byte_s, *PIECE_BYTES)), round(np.clip(joining / byte_s, *JOINING_BYTES)))


def agreed(first: Sequence[Sample], second: Sequence[Sample], both: Sequence[Sample]) -> SharingCosts | None:
    """What all samples say, where each half of them says at most twice as much or as little of a step of few rows. Pure."""
    fits = fit(first), fit(second), fit(both)
    if None in fits:
        return None
    numbers = min(one.numbers for one in both)
    costs = [one.piece_bytes + one.joining_bytes * numbers for one in fits if one is not None]
    return fits[2] if max(costs) <= 2 * min(costs) else None
