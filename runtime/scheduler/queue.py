"""The waiting sequences, kept in the order of a policy.

Entering and leaving cost a bisection. A sequence that comes back (preempted, or after a failed step) goes before all
others: it holds a client's unfinished stream.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from .order import KEYS, overdue
from .sequence import Sequence

PATIENCE = 128
"""How many others may overtake a waiting sequence before it goes first."""


class WaitingQueue:
    """Sequences without a row. Owner of their order; `candidates` answers, the rest changes."""

    def __init__(self, policy: str, patience: int = PATIENCE):
        self._key = KEYS[policy]
        self._sweeps = policy == "prefix"
        self._patience = patience
        self._ordered: list[tuple[tuple, int, Sequence]] = []
        self._returning: dict[int, Sequence] = {}
        self._arrivals: dict[int, tuple[Sequence, int, int]] = {}
        self._keys: dict[int, tuple] = {}
        self._cursor: tuple = ()
        self._serial = 0
        self._admissions = 0

    def __len__(self) -> int:
        return len(self._ordered) + len(self._returning)

    def __iter__(self) -> Iterator[Sequence]:
        yield from list(self._returning.values())
        yield from [s for _, _, s in self._ordered]

    def add(self, sequence: Sequence) -> None:
        """A sequence that has never run joins the queue."""
        self._serial += 1
        key = (self._key(sequence), self._serial)
        self._keys[id(sequence)] = key
        self._arrivals[id(sequence)] = (sequence, self._admissions, len(self._ordered))
        insort(self._ordered, (*key, sequence))

    def give_back(self, sequence: Sequence) -> None:
        """A sequence that has run comes back, before all that have not."""
        self._returning[id(sequence)] = sequence

    def remove(self, sequence: Sequence) -> bool:
        """Take a sequence out, wherever it stands. False when it is not here."""
        if self._returning.pop(id(sequence), None) is not None:
            return True
        key = self._keys.pop(id(sequence), None)
        if key is None:
            return False
        del self._arrivals[id(sequence)]
        del self._ordered[bisect_left(self._ordered, key)]
        return True

    def admitted(self, sequence: Sequence) -> None:
        """Take out a sequence that was admitted: the sweep goes on behind it, and all others age."""
        key = self._keys.get(id(sequence))
        if key is not None:
            self._cursor = key
            self._admissions += 1
        self.remove(sequence)

    def candidates(self, most: int) -> list[Sequence]:
        """The next `most` sequences in order of admission: those that came back, the overdue, then the policy's order."""
        chosen = sorted(self._returning.values(), key=lambda s: (-s.priority, s.arrival))[:most]
        seen = set()
        for sequence, admissions, ahead in self._arrivals.values():
            if len(chosen) >= most or not overdue(self._admissions - admissions, ahead, self._patience):
                break
            chosen.append(sequence)
            seen.add(id(sequence))
        start = bisect_left(self._ordered, self._cursor) if self._sweeps and self._cursor else 0
        count = len(self._ordered)
        for step in range(min(count, most + len(seen))):
            if len(chosen) >= most:
                break
            sequence = self._ordered[(start + step) % count][2]
            if id(sequence) not in seen:
                chosen.append(sequence)
        return chosen
