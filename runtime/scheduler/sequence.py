"""A sequence: one stream of token ids with its lease, its counts and its life. The scheduler is its only owner.

    waiting --admit--> prefilling --last known token planned--> decoding --stop, length, abort, error--> done
       ^                   |                                        |
       '------ preempt, failed step: comes back with its tokens ----'

While a sequence runs, its ids and hot counts live in the columns of `rows.Rows`; while it waits, here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from ...constrained.matcher import Matcher
from ...radix.cache import Lease
from ...radix.keys import Namespace
from ..plan import Int32
from ..protocol import CacheReport, LogprobParams, Timings
from ..wire import Drawing, DrawnLogprob


class State(Enum):
    """Where in its life a sequence is."""

    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    DONE = "done"


@dataclass(slots=True)
class Counts:
    """Tokens by how they came to be, from settled spans. See `protocol.Usage`. forced: of the output, not drawn."""

    cached: int = 0
    computed: int = 0
    recomputed: int = 0
    forced: int = 0
    frontier: int = 0
    """Positions below this have been counted already, as cached or computed."""


@dataclass(slots=True)
class Clock:
    """Moments, in seconds of the engine's clock; 0.0 means not yet. masks: seconds of filling this sequence's masks."""

    submitted: float
    deadline: float
    admitted: float = 0.0
    first_token: float = 0.0
    masks: float = 0.0


@dataclass(slots=True, eq=False)
class Sequence:
    """One stream of tokens.

    ids: prompt and output known so far, int32 (stale while `row` >= 0: then `rows.Rows.history` has them).
    num_prompt: tokens of the original prompt. limit: total tokens at which it ends (num_prompt for a score).
    wants: position -> ids whose log-probability is wanted as successors of that position; want_from: the least such
        position, so no prefix beyond it may be taken from the cache. found: (position, id) -> log-probability.
    unsaid: output that was forced before anything was drawn; it is told with the first drawn token.
    planned: KV positions that launched steps cover. suspect: it was part of a failed step and has not succeeded since.
    """

    key: int
    index: int
    arrival: int
    ids: Int32
    num_prompt: int
    limit: int
    drawing: Drawing
    namespace: Namespace
    clock: Clock
    priority: int = 0
    logprobs: LogprobParams = LogprobParams()
    matcher: Matcher | None = None
    grammar: bytes | None = None
    group: object | None = None
    wants: dict[int, tuple[int, ...]] = field(default_factory=dict)
    want_top: int = 0
    want_from: int = 2**31 - 1
    found: dict[tuple[int, int], float] = field(default_factory=dict)
    found_top: dict[int, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    siblings: list[Sequence] = field(default_factory=list)
    state: State = State.WAITING
    row: int = -1
    lease: Lease | None = None
    unsaid: tuple[int, ...] = ()
    planned: int = 0
    preemptions: int = 0
    solo_failures: int = 0
    suspect: bool = False
    waits_for: Sequence | None = None
    counts: Counts = field(default_factory=Counts)
    cache: CacheReport = CacheReport()

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn at all (a score and a prompt-only request draw none)."""
        return self.limit > self.num_prompt

    def match_limit(self) -> int:
        """How many leading tokens may come from the cache: the last known token is always computed, for its logits and so
        that a step brings the sequence to its end; where logits are wanted from an earlier one, all from there on."""
        return max(0, min(len(self.ids) - 1, self.want_from))

    def count_cached(self, length: int) -> None:
        """Account for `length` leading tokens found in the cache at admission. Changes counts."""
        gained = min(length, self.num_prompt) - self.counts.frontier
        if gained > 0:
            self.counts.cached += gained
            self.counts.frontier += gained

    def count_computed(self, start: int, length: int) -> None:
        """Account for a settled span: positions seen before are recomputed. Changes counts."""
        counts, end = self.counts, start + length
        counts.recomputed += max(0, min(end, counts.frontier) - start)
        counts.computed += max(0, min(end, self.num_prompt) - max(start, counts.frontier))
        counts.frontier = max(counts.frontier, end)

    def prompt_logprobs(self) -> tuple[DrawnLogprob, ...]:
        """Log-probabilities of the prompt's tokens from `logprobs.prompt_from` on, once all are found. Answers only."""
        first = self.logprobs.prompt_from
        if first < 0:
            return ()
        ids = self.ids[: self.num_prompt].tolist()
        values = []
        for position in range(first, self.num_prompt):
            token = ids[position]
            if position == 0:
                values.append(DrawnLogprob(token, None))
                continue
            chosen = tuple((i, self.found[position - 1, i]) for i in self.logprobs.token_ids)
            top = self.found_top.get(position - 1, ())
            values.append(DrawnLogprob(token, self.found[position - 1, token], top, chosen))
        return tuple(values)


def want_prompt_logprobs(ids: Int32, logprobs: LogprobParams) -> tuple[dict[int, tuple[int, ...]], int]:
    """Which successors' log-probabilities prompt_from asks for, and the least position whose logits that needs."""
    if logprobs.prompt_from < 0:
        return {}, 2**31 - 1
    known = ids.tolist()
    first = max(logprobs.prompt_from, 1)
    wants = {p - 1: (known[p], *(i for i in logprobs.token_ids if i != known[p])) for p in range(first, len(known))}
    return wants, first - 1


def as_ids(buffer: bytes) -> Int32:
    """An int32 view of a buffer of ids."""
    return np.frombuffer(buffer, np.int32)


def timings(clock: Clock, now: float, preemptions: int) -> Timings:
    """Phases of a sequence that ends now. Pure."""
    admitted = clock.admitted or now
    first = clock.first_token or now
    return Timings(
        queue_s=admitted - clock.submitted,
        prefill_s=first - admitted,
        decode_s=now - first,
        mask_s=clock.masks,
        preemptions=preemptions,
    )
