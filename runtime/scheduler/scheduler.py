"""The scheduler: owner of every sequence's life, from its arrival to its end.

Three verbs of a step live beside it: `decide.py` (pure), `take.py` (choice -> plan, the only place where pages are taken)
and `settle.py` (results -> messages). Here is what they share: who exists, and how one enters, steps back and leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from ...constrained.matcher import Matcher
from ...radix.cache import PrefixCache
from ...radix.keys import Namespace
from ..config import ScheduleConfig
from ..protocol import Failure, Finish, LogprobParams, Usage
from ..wire import Drawing, Outbound, Refused, SequenceEnd, Submit, SubmitScore
from .arriving import Arriving, Loading
from .jump import jump
from .queue import WaitingQueue
from .rows import Rows
from .score import ScoreGroup
from .sequence import Clock, Sequence, State, as_ids, timings, want_prompt_logprobs


class MatcherMaker(Protocol):
    """Makes a matcher at the start of a compiled grammar. canonical: see `constrained.store.GrammarStore.matcher`."""

    def __call__(self, grammar: bytes, *, canonical: bool) -> Matcher: ...


class Scheduler:
    """Sequences, the rows that run, the queue that waits, and the prefix cache that they lease from.

    launched, settled: the numbers of the last step launched and settled.
    """

    def __init__(self, config: ScheduleConfig, cache: PrefixCache, make_matcher: MatcherMaker, loading: Loading):
        self.config = config
        self.cache = cache
        self.rows = Rows(config.max_running, config.context_length)
        self.queue = WaitingQueue(config.policy)
        self.requests: dict[int, list[Sequence]] = {}
        self.launched = 0
        self.settled = 0
        self.preemptions = 0
        self.mask_rows = 0
        self.mask_s = 0.0
        self._make_matcher = make_matcher
        self._arriving = Arriving(loading)
        self._arrivals = 0
        self._deadlines = 0

    # ------------------------------------------------------------------------------------------------------- arrival

    def submit(self, request: Submit, now: float) -> list[Outbound]:
        """A request joins the queue, at once or when its grammar is read. Returns a refusal where it can never run."""
        prompt, output = as_ids(request.ids), as_ids(request.output)
        ids = np.concatenate([prompt, output]) if len(output) else prompt
        drawing = request.drawing
        room = self.config.context_length if drawing.limit is None else len(prompt) + drawing.limit
        if drawing.limit is None:
            room = min(room, self._most_tokens())
        refusal = self._refusal(len(prompt), room)
        if refusal is not None:
            return [Refused(request.key, refusal)]
        try:
            ticket = self._arriving.ticket(request.grammar)
        except Exception as error:
            return [_not_loaded(request, error)]
        wants, want_from = want_prompt_logprobs(prompt, request.logprobs)
        leader = self._sequence(request, ids, room, drawing, request.logprobs, now, index=request.index)
        leader.num_prompt = len(prompt)
        leader.wants, leader.want_from, leader.want_top = wants, want_from, request.logprobs.top if wants else 0
        plain = LogprobParams(output=request.logprobs.output, top=request.logprobs.top, token_ids=request.logprobs.token_ids)
        numbers = range(request.index + 1, request.index + drawing.n)
        everyone = [leader, *(self._sequence(request, ids, room, drawing, plain, now, index=number) for number in numbers)]
        self.requests.setdefault(request.key, []).extend(everyone)
        if ticket is None:
            return self._join(request, everyone)
        self._arriving.add(ticket, request, everyone)
        return []

    def grammar_loaded(self, ticket: int) -> list[Outbound]:
        """A grammar was read: who waits for it joins the queue, or, where it does not come back from its bytes, is refused."""
        messages: list[Outbound] = []
        arrived, error = self._arriving.take(ticket)
        for request, everyone in arrived:
            messages += self._join(request, everyone) if error is None else self._turn_away(request, everyone, error)
        return messages

    def _join(self, request: Submit, everyone: list[Sequence]) -> list[Outbound]:
        """What is left of a request's sequences gets its matchers; the first one joins the queue, the others behind it."""
        alive = [sequence for sequence in everyone if sequence.state is not State.DONE]
        if not alive:
            return []
        try:
            matchers = [self._matcher(request) for _ in alive]
        except Exception as error:
            return self._turn_away(request, alive, error)
        for sequence, matcher in zip(alive, matchers, strict=True):
            sequence.matcher, sequence.grammar = matcher, request.grammar
            self._begin_forced(sequence)
        leader, *siblings = alive
        leader.siblings = siblings
        self.queue.add(leader)
        return []

    def _turn_away(self, request: Submit, everyone: list[Sequence], error: Exception) -> list[Outbound]:
        """Sequences that have never waited leave, and their request is refused."""
        alive = [sequence for sequence in everyone if sequence.state is not State.DONE]
        for sequence in alive:
            self._leave(sequence)
        return [_not_loaded(request, error)] if alive else []

    def _matcher(self, request: Submit) -> Matcher | None:
        if request.grammar is None:
            return None
        matcher = self._make_matcher(request.grammar, canonical=request.drawing.canonical_forced)
        for token in as_ids(request.output).tolist():
            matcher.accept(token)
        return matcher

    def _begin_forced(self, sequence: Sequence) -> None:
        """What the grammar forces before anything is drawn is computed with the prompt. Changes the sequence."""
        matcher = sequence.matcher
        if matcher is not None and matcher.forced and self.jumps(sequence):
            run = jump(matcher, sequence.limit - len(sequence.ids) - 1, sequence.drawing.stop_ids)
            sequence.ids = np.concatenate([sequence.ids, np.array(run, np.int32)])
            sequence.unsaid = tuple(run)
            sequence.counts.forced += len(run)

    def jumps(self, sequence: Sequence) -> bool:
        """Whether forced tokens of this sequence are computed together: not where each one's log-probability is wanted."""
        return self.config.jump_forward and not sequence.logprobs.output

    def submit_score(self, request: SubmitScore, now: float) -> list[Outbound]:
        """Choices to score join the queue as one small tree of sequences."""
        prompt = as_ids(request.ids)
        choices = [as_ids(choice) for choice in request.choices]
        longest = len(prompt) + max(len(c) for c in choices)
        refusal = self._refusal(longest, longest)
        if refusal is not None:
            return [Refused(request.key, refusal)]
        group = ScoreGroup(request.key, prompt, choices, keep=request.keep, alone=request.alone)
        if not group.parts:
            return [group.answer(now)]
        sequences = []
        for part in group.parts:
            sequence = self._sequence(request, part.ids, len(part.ids), Drawing(), LogprobParams(), now, index=len(sequences))
            sequence.wants, sequence.want_from, sequence.group = part.wants, part.first, group
            sequences.append(sequence)
        group.sequences = sequences
        self.requests[request.key] = list(sequences)
        for sequence in sequences:
            self.queue.add(sequence)
        return []

    def _sequence(
        self,
        request: Submit | SubmitScore,
        ids: np.ndarray,
        limit: int,
        drawing: Drawing,
        logprobs: LogprobParams,
        now: float,
        *,
        index: int = 0,
    ) -> Sequence:
        self._arrivals += 1
        deadline = math.inf if request.deadline_s is None else now + request.deadline_s
        self._deadlines += request.deadline_s is not None
        return Sequence(
            key=request.key,
            index=index,
            arrival=self._arrivals,
            ids=ids,
            num_prompt=len(ids),
            limit=limit,
            drawing=drawing,
            namespace=Namespace(tenant=request.tenant),
            clock=Clock(submitted=now, deadline=deadline),
            priority=request.priority,
            logprobs=logprobs,
        )

    def _most_tokens(self) -> int:
        """Tokens of the longest sequence that fits the pool: the last one is never written, a page may be held for a copy."""
        stats = self.cache.view()
        pages = stats.total_pages - (1 if stats.page_size > 1 else 0)
        return pages * stats.page_size + 1

    def _refusal(self, num_prompt: int, room: int) -> Failure | None:
        context, pool = self.config.context_length, self._most_tokens()
        if num_prompt == 0:
            return Failure("empty_prompt", "The prompt is empty. Give at least one token.", "prompt")
        if room > context or num_prompt > context:
            return Failure(
                "context_length_exceeded",
                f"The prompt has {num_prompt} tokens and max_tokens is {room - num_prompt}, but this model's context is "
                f"{context}. Shorten the prompt or lower max_tokens.",
                "prompt",
            )
        if max(room, num_prompt) > pool:
            return Failure(
                "context_length_exceeded",
                f"The prompt has {num_prompt} tokens and max_tokens is {room - num_prompt}, but the KV pool holds {pool - 1} "
                "tokens. Raise kv_tokens, shorten the prompt or lower max_tokens.",
                "prompt",
            )
        if self.num_waiting >= self.config.queue:
            return Failure("queue_full", f"{self.num_waiting} requests are waiting, the most that may. Try again shortly.")
        return None

    # ----------------------------------------------------------------------------------------------- steps back, ends

    def step_back(self, sequence: Sequence) -> None:
        """A running sequence gives up its row and pages and waits again, with all its tokens. Changes state."""
        self._vacate(sequence)
        sequence.state = State.WAITING
        sequence.planned = 0
        self.queue.give_back(sequence)

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's pages; it comes back by itself."""
        sequence.preemptions += 1
        self.preemptions += 1
        self.step_back(sequence)

    def release_lease(self, sequence: Sequence) -> None:
        """Give the lease back. What is settled of a decoding sequence's own tokens becomes shareable first."""
        lease = sequence.lease
        if lease is None:
            return
        if sequence.row >= 0:
            settled = min(int(self.rows.computed[sequence.row]), int(self.rows.known[sequence.row]) - 1)
            if settled > lease.length:
                self.cache.commit(lease, self.rows.history[sequence.row, lease.length : settled])
        last_step = int(self.rows.last_step[sequence.row]) if sequence.row >= 0 else self.settled
        self.cache.release(lease, step=max(last_step, self.settled))
        sequence.lease = None
        if isinstance(sequence.group, ScoreGroup):
            sequence.group.leased.append((sequence.index, lease))

    def _vacate(self, sequence: Sequence) -> None:
        if sequence.row >= 0:
            sequence.counts.frontier = max(sequence.counts.frontier, int(self.rows.computed[sequence.row]))
            self.release_lease(sequence)
            self.rows.leave(sequence)

    def finish(self, sequence: Sequence, finish: Finish, now: float, failure: Failure | None = None) -> list[Outbound]:
        """The end of a sequence in whatever state it is. Everything it held comes free. Returns its last message."""
        if sequence.state is State.DONE:
            return []
        if sequence.row >= 0:
            self._vacate(sequence)
        else:
            self.queue.remove(sequence)
        self._leave(sequence)
        if sequence.siblings:
            waiting = sequence.siblings
            sequence.siblings = []
            if failure is None and finish.reason != "abort":
                for sibling in waiting:
                    self.queue.add(sibling)
        group = sequence.group
        if isinstance(group, ScoreGroup):
            if finish.reason == "abort":
                failure = Failure("aborted", "The request was aborted.")
            messages = group.ended(sequence, failure, now)
            if messages:
                self._drop_losers(group)
            return messages
        return [self._last_message(sequence, finish, now, failure)]

    def _leave(self, sequence: Sequence) -> None:
        """It exists no more. Changes state."""
        sequence.state = State.DONE
        alive = self.requests.get(sequence.key)
        if alive is not None:
            alive.remove(sequence)
            if not alive:
                del self.requests[sequence.key]
        self._deadlines -= sequence.clock.deadline < math.inf

    def _drop_losers(self, group: ScoreGroup) -> None:
        """All choices are scored: what only losing ones put into the tree leaves it. Changes the cache."""
        branches = group.losing_branches()
        while sum(self.cache.retract(lease, num_tokens) for lease, num_tokens in branches):
            pass  # one branch may have begun what others hung below: it can go once they are gone

    def _last_message(self, sequence: Sequence, finish: Finish, now: float, failure: Failure | None) -> SequenceEnd:
        clock, counts = sequence.clock, sequence.counts
        return SequenceEnd(
            key=sequence.key,
            index=sequence.index,
            num_output=len(sequence.ids) - sequence.num_prompt,
            finish=finish,
            usage=Usage(
                prompt=sequence.num_prompt,
                cached=counts.cached,
                computed=counts.computed,
                forced=min(counts.forced, len(sequence.ids) - sequence.num_prompt),
                output=len(sequence.ids) - sequence.num_prompt,
                recomputed=counts.recomputed,
            ),
            timings=timings(clock, now, sequence.preemptions),
            cache=sequence.cache,
            prompt_logprobs=sequence.prompt_logprobs() if finish.reason in ("stop", "length") else (),
            failure=failure,
        )

    def end_request(self, key: int, finish: Finish, now: float, failure: Failure | None = None) -> list[Outbound]:
        """End every sequence of a request."""
        messages: list[Outbound] = []
        for sequence in list(self.requests.get(key, ())):
            messages += self.finish(sequence, finish, now, failure)
        return messages

    def stop_at(self, key: int, index: int, num_output: int, now: float) -> list[Outbound]:
        """The text side saw a stop: the sequence ends after num_output tokens; later ones are dropped and not billed."""
        for sequence in self.requests.get(key, ()):
            if sequence.index == index and sequence.group is None:
                total = sequence.num_prompt + num_output
                if sequence.row >= 0:
                    self.rows.known[sequence.row] = min(total, int(self.rows.known[sequence.row]))
                else:
                    sequence.ids = sequence.ids[:total]
                return self.finish(sequence, Finish("stop"), now)
        return []

    def expire(self, now: float) -> list[Outbound]:
        """End the requests whose deadline has passed."""
        if not self._deadlines:
            return []
        late = {s.key for alive in self.requests.values() for s in alive if s.clock.deadline <= now}
        messages: list[Outbound] = []
        for key in late:
            clock = self.requests[key][0].clock
            text = f"The request's deadline of {clock.deadline - clock.submitted:.3g} s passed before it was done."
            messages += self.end_request(key, Finish("error"), now, Failure("deadline_exceeded", text))
        return messages

    # -------------------------------------------------------------------------------------------------------- answers

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self.requests

    @property
    def num_waiting(self) -> int:
        """Requests that do not run yet: in the queue, and those whose grammar is being read."""
        return len(self.queue) + len(self._arriving)

    @property
    def only_arriving(self) -> bool:
        """Whether there is nothing to do until a grammar is read."""
        return len(self._arriving) > 0 and not len(self.queue) and not self.rows.num_running

    def count_masks(self, rows: int, seconds: float) -> None:
        """So many rows of grammar masks were filled, in so many seconds. Changes counts."""
        self.mask_rows += rows
        self.mask_s += seconds

    def stats(self) -> dict[str, int | float]:
        """Counts for metrics and `server_info`. mask_rows, mask_s: rows of grammar masks filled, and seconds of it."""
        return {
            "requests": len(self.requests),
            "running": self.rows.num_running,
            "waiting": self.num_waiting,
            "preemptions": self.preemptions,
            "mask_rows": self.mask_rows,
            "mask_s": self.mask_s,
        }

    def sequences(self) -> Iterable[Sequence]:
        """All that are alive, in order of arrival of their request."""
        for alive in self.requests.values():
            yield from alive

    def check(self) -> None:
        """Every invariant between rows, queue and cache; AssertionError says which is broken. For tests and debugging."""
        self.cache.check()
        running = self.rows.running()
        assert len(running) == self.rows.num_running, "a row in use has no sequence"
        assert len(set(self.rows.free)) == len(self.rows.free), "a row is free twice"
        for sequence in running:
            assert self.rows.sequences[sequence.row] is sequence, "row and sequence disagree"
            assert sequence.state in (State.PREFILLING, State.DECODING), f"a {sequence.state} sequence has a row"
        waiting = list(self.queue)
        holds_nothing = all(s.state is State.WAITING and s.row < 0 and s.lease is None for s in waiting)
        assert holds_nothing, "a waiting sequence holds something"
        held_back = [b for s in self.sequences() for b in s.siblings]
        arriving = list(self._arriving.sequences())
        assert all(s.state is State.WAITING and s.row < 0 and s.lease is None for s in arriving), "what arrives holds something"
        known = {id(s) for s in [*running, *waiting, *held_back, *arriving]}
        assert known == {id(s) for s in self.sequences()}, "a sequence is neither running nor waiting"
        if self.idle and self.settled == self.launched:
            stats = self.cache.stats()
            assert stats.private == 0 and stats.draining == 0, f"idle, yet pages are held: {stats}"


def _not_loaded(request: Submit, error: Exception) -> Refused:
    return Refused(request.key, Failure("invalid_grammar", f"The compiled grammar could not be loaded: {error}"))
