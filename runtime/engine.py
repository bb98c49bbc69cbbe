"""One step of the engine. Requests come in as messages, leave as messages; between lie the verbs below, in their order.

One loop for every wiring: depth 1 settles a step before the next is planned (CPU); depth 2 plans and launches the next
step while the last one runs, settles that one, and only then fills the grammar masks and draws, so that every matcher is
up to date while the device never waits for the host.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from ..constrained.masks import Masks
from ..radix.cache import PrefixCache
from .config import ScheduleConfig
from .plan import Executor, Int32, StepFailed
from .protocol import Finish
from .scheduler.arriving import AtOnce, Loading
from .scheduler.decide import decide
from .scheduler.scheduler import MatcherMaker, Scheduler
from .scheduler.settle import fail, settle
from .scheduler.take import Flight, take
from .wire import AbortKey, GrammarLoaded, Inbound, Outbound, StopAt, Submit, SubmitScore


class Engine:
    """Scheduler, executor and masks, and the steps that are in flight between them.

    loading: reads grammars beside the steps; by default they are read where they are first needed. clock: seconds, monotonic;
    injected so that tests own time.
    """

    def __init__(
        self,
        config: ScheduleConfig,
        cache: PrefixCache,
        executor: Executor,
        *,
        masks: Masks,
        make_matcher: MatcherMaker,
        loading: Loading | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._loading = loading or AtOnce()
        self.scheduler = Scheduler(config, cache, make_matcher, self._loading)
        self._config = config
        self._executor = executor
        self._masks = masks
        self._clock = clock
        self._in_flight: deque[Flight] = deque()

    def step(self, inbox: Iterable[Inbound] = ()) -> list[Outbound]:
        """One step, from requests to messages. Does nothing but answer when there is nothing to run."""
        events = self.enter(inbox)
        scheduler = self.scheduler
        choice = decide(
            scheduler.rows,
            scheduler.queue,
            chunk_tokens=self._config.chunk_tokens,
            page_size=scheduler.cache.page_size,
        )
        flight = take(scheduler, choice, scheduler.launched + 1, self._clock())
        if not len(flight.plan.rows):
            return events + self.settle_until(0)
        scheduler.launched = flight.plan.step
        try:
            flight.launched = self._executor.forward(flight.plan)
            self._in_flight.append(flight)
            events += self.settle_until(max(self._config.depth - 1, 1))
            if scheduler.settled < flight.plan.step:  # else it fell with the step before it
                flight.asked = True
                flight.launched.sample(self._fill(flight) if flight.matchers else None)
        except StepFailed as error:
            return events + self._failed(flight, error)
        return events + self.settle_until(self._config.depth - 1)

    def _fill(self, flight: Flight) -> Int32 | None:
        """The masks of a step. Changes what is known of their cost."""
        started = time.perf_counter()
        masks = self._masks.fill(flight.matchers)
        flight.mask_s = time.perf_counter() - started
        self.scheduler.count_masks(len(flight.matchers), flight.mask_s)
        return masks

    def enter(self, inbox: Iterable[Inbound]) -> list[Outbound]:
        """Requests join the queue, aborts and stops leave it, deadlines pass."""
        now = self._clock()
        events = self.scheduler.expire(now)
        for message in inbox:
            if isinstance(message, Submit):
                events += self.scheduler.submit(message, now)
            elif isinstance(message, SubmitScore):
                events += self.scheduler.submit_score(message, now)
            elif isinstance(message, StopAt):
                events += self.scheduler.stop_at(message.key, message.index, message.num_output, now)
            elif isinstance(message, GrammarLoaded):
                events += self.scheduler.grammar_loaded(message.ticket)
            elif isinstance(message, AbortKey):
                events += self.scheduler.end_request(message.key, Finish("abort"), now)
        return events

    def settle_until(self, depth: int) -> list[Outbound]:
        """Settle the oldest steps until at most `depth` are in flight."""
        events: list[Outbound] = []
        while len(self._in_flight) > depth:
            flight = self._in_flight.popleft()
            assert flight.launched is not None
            try:
                result = flight.launched.result()
            except StepFailed as error:
                events += self._failed(flight, error)
            else:
                events += settle(self.scheduler, flight, result, self._clock())
        return events

    def _failed(self, flight: Flight, error: StepFailed) -> list[Outbound]:
        """A step failed, and with it everything launched later, which may have read what it did not write."""
        earlier = [f for f in self._in_flight if f.plan.step < flight.plan.step]
        later = [f for f in self._in_flight if f.plan.step > flight.plan.step]
        self._in_flight = deque(earlier)
        events = self.settle_until(0)
        for lost in later:
            if lost.asked and lost.launched is not None:
                try:
                    lost.launched.result()  # the device must be through with it before its pages are free
                except StepFailed:
                    continue
        return events + fail(self.scheduler, [flight, *later], error, self._clock())

    def flush(self) -> int:
        """Drop what no running sequence holds from the prefix cache, with no step in flight. Returns the tokens dropped."""
        assert not self._in_flight, "flush is a barrier"
        return self.scheduler.cache.flush()

    def close(self) -> None:
        """Ends what works beside the steps."""
        self._loading.close()

    @property
    def awaits_grammars(self) -> bool:
        """Whether steps have nothing to do until a message says that a grammar was read."""
        return self.scheduler.only_arriving and not self._in_flight

    @property
    def idle(self) -> bool:
        """Whether there is nothing to run and nothing in flight."""
        return self.scheduler.idle and not self._in_flight

    @property
    def steps(self) -> int:
        """Steps settled so far."""
        return self.scheduler.settled
