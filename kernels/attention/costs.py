"""What reading together costs, which attention weighs against the bytes that it saves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SharingCosts:
    """In bytes that memory gives in that time. piece_bytes: of a piece of shared work. joining_bytes: of each number of the
    results that its rows bring, because these are stored and merged later. 0: what `kernels/cpp/attention_work.h` says.
    step_bytes: of a step in which anything is shared, because it needs more launches."""

    piece_bytes: int
    joining_bytes: int
    step_bytes: int = 0


DEFAULT_COSTS = SharingCosts(8 << 10, 16)
GPU_COSTS = SharingCosts(128 << 10, 16, 150 << 20)
"""On an H100. A piece: a program of a few microseconds on one of some hundred places. A step: about 50 us, which is a launch of
large items and one that merges, and that what is read apart comes from the second-level cache rather than from memory."""
