"""What reading together costs, which attention weighs against the bytes that it saves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SharingCosts:
    """In bytes that memory gives in that time. piece_bytes: of a piece of shared work. joining_bytes: of each number of the
    results that its rows bring, because these are stored and merged later. 0: what `kernels/cpp/attention_work.h` says."""

    piece_bytes: int
    joining_bytes: int


DEFAULT_COSTS = SharingCosts(8 << 10, 16)
