"""Scoring choices: one small tree under the prompt, each of its tokens computed once, by one of a few sequences.

           prompt ----+-- " yes"                 parts: the prompt itself, wanting the first tokens of all choices,
                      +-- " no" --+-- "t"               then one part per choice with tokens that no part before it
                                  +-- "thing"           computes; a shared run belongs to the first choice that has it
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...radix.cache import Lease
from ...radix.keys import common_prefix
from ..choosing import RULES
from ..plan import Int32
from ..protocol import CacheReport, Failure, Usage
from ..wire import Outbound, Refused, ScoreEnd
from .sequence import Clock, Sequence, timings


@dataclass(slots=True)
class Part:
    """ids: what one sequence computes. first: the least position whose logits it must give. wants: see `Sequence.wants`."""

    ids: Int32
    first: int
    wants: dict[int, tuple[int, ...]] = field(default_factory=dict)


class ScoreGroup:
    """The choices of one ScoreRequest and the sequences that compute them. Collects their results, answers once."""

    def __init__(
        self,
        key: int,
        prompt: Int32,
        choices: list[Int32],
        *,
        keep: str = "mean",
        alone: tuple[tuple[float | None, ...], ...] = (),
    ):
        """keep, alone: see `wire.SubmitScore`. leased: (part, lease) of all leases that its sequences have given back."""
        self.key = key
        self.leased: list[tuple[int, Lease]] = []
        self._prompt, self._choices, self._keep, self._alone = prompt, choices, keep, alone
        self.parts: list[Part] = []
        self.sequences: list[Sequence] = []
        self._sources: list[list[tuple[int, int, int] | None]] = []
        self._ended = 0
        self._failure: Failure | None = None
        self._plan(prompt, choices)

    def _plan(self, prompt: Int32, choices: list[Int32]) -> None:
        """Who computes what. owner: context (choice tokens so far) -> (part, position whose logits follow that context)."""
        start = len(prompt)
        owner: dict[tuple[int, ...], tuple[int, int]] = {}
        wanted: list[dict[int, dict[int, None]]] = []
        if start:
            self.parts.append(Part(prompt, start - 1))
            wanted.append({})
            owner[()] = (0, start - 1)
        for choice in choices:
            tokens = choice.tolist()
            shared = 0
            while shared < len(tokens) - 1 and tuple(tokens[: shared + 1]) in owner:
                shared += 1
            if shared < len(tokens) - 1:
                # Contexts of 1 .. len - 1 choice tokens are needed; those up to `shared` tokens are somebody else's.
                part = len(self.parts)
                self.parts.append(Part(np.concatenate([prompt, choice[:-1]]).astype(np.int32), start + shared))
                wanted.append({})
                for count in range(shared + 1, len(tokens)):
                    owner[tuple(tokens[:count])] = (part, start + count - 1)
            sources: list[tuple[int, int, int] | None] = []
            for count, token in enumerate(tokens):
                place = owner.get(tuple(tokens[:count]))
                if place is None:
                    sources.append(None)
                    continue
                wanted[place[0]].setdefault(place[1], {})[token] = None
                sources.append((*place, token))
            self._sources.append(sources)
        for part, wants in zip(self.parts, wanted, strict=True):
            part.wants = {position: tuple(ids) for position, ids in wants.items()}

    def ended(self, sequence: Sequence, failure: Failure | None, now: float) -> list[Outbound]:
        """One sequence is through. Returns the group's answer with the last one."""
        del sequence
        self._ended += 1
        self._failure = self._failure or failure
        if self._ended < len(self.sequences):
            return []
        if self._failure is not None:
            return [Refused(self.key, self._failure)]
        return [self.answer(now)]

    def losing_branches(self) -> list[tuple[Lease, int]]:
        """Leases of parts, with the tokens of each that may stay cached: the prompt, and what it shares with the winner.

        Nobody wins where scoring failed. Answers only."""
        if self._keep == "all":
            return []
        winning = self._prompt
        if self._keep in RULES and self._failure is None:
            given, alone = ([[v or 0.0 for v in row] for row in rows] for rows in (self._values(), self._alone))
            winning = np.concatenate([self._prompt, self._choices[RULES[self._keep](given, alone)]])
        stays = [common_prefix(part.ids, winning) for part in self.parts]
        return [(lease, stays[part]) for part, lease in reversed(self.leased) if stays[part] < len(self.parts[part].ids)]

    def _values(self) -> tuple[tuple[float | None, ...], ...]:
        """Log-probabilities per choice and token, in the order in which the choices were given."""
        return tuple(
            tuple(None if s is None else self.sequences[s[0]].found[s[1], s[2]] for s in sources) for sources in self._sources
        )

    def answer(self, now: float) -> ScoreEnd:
        """What all choices have come to. Answers only."""
        first = self.sequences[0] if self.sequences else None
        values = self._values()
        clock = first.clock if first else Clock(now, now)
        unique = sum(len(part.ids) - (part.first if number else 0) for number, part in enumerate(self.parts))
        computed = min(unique, sum(s.counts.computed for s in self.sequences))
        recomputed = sum(s.counts.recomputed for s in self.sequences)
        total = Usage(prompt=unique, cached=unique - computed, computed=computed, recomputed=recomputed)
        report = first.cache if first else CacheReport()
        return ScoreEnd(self.key, values, total, timings(clock, now, sum(s.preemptions for s in self.sequences)), report)
