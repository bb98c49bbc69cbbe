"""Where the server stands: starting, ready, draining, dead; how fast it works off its queue; who is being served."""

from __future__ import annotations

import time
from collections import deque
from enum import StrEnum

from ..async_engine import AsyncEngine
from ..errors import Overloaded, RamifyError

WINDOW = 256
"""Ends of requests from which the pace is measured."""


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    DEAD = "dead"


class Pace:
    """How fast requests end. Time is passed in."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=WINDOW)

    def ended(self, now: float) -> None:
        """A request has ended. Changes state."""
        self._ends.append(now)

    def seconds_for(self, requests: int, now: float) -> float:
        """How long so many requests will take, 1 to 60; 1 where nothing is known. Answers only."""
        if len(self._ends) < 2 or now <= self._ends[0]:
            return 1.0
        return max(1.0, min(60.0, requests * (now - self._ends[0]) / len(self._ends)))


class Life:
    """The engine while it starts, serves, and ends. One exists per server."""

    def __init__(self) -> None:
        self._engine: AsyncEngine | None = None
        self.draining = False
        self.dead: RamifyError | None = None
        self.pace = Pace()
        self.busy = 0
        """Requests that are being answered."""

    def started(self, engine: AsyncEngine) -> None:
        """The engine takes requests. Changes state."""
        self._engine = engine

    @property
    def state(self) -> State:
        """Answers only."""
        if self.dead is not None or (self._engine is not None and self._engine.given_up.is_set()):
            return State.DEAD
        if self.draining:
            return State.DRAINING
        if self._engine is None:
            return State.STARTING
        if not self._engine.is_up:
            return State.STARTING if self._engine.restarts else State.OVERLOADED
        full = self._engine.on_their_way >= self._engine.options.queue + self._engine.info.max_running
        return State.OVERLOADED if full else State.READY

    @property
    def engine(self) -> AsyncEngine:
        """The engine, for a request that arrives now. Raises Overloaded while there is none, or none any more."""
        if self.draining:
            raise Overloaded("The server is shutting down. Ask another one.", code="draining", retry_after_s=5)
        if self._engine is None:
            raise Overloaded("The model is still being loaded. Try again shortly.", code="loading", retry_after_s=2)
        return self._engine

    @property
    def loaded(self) -> AsyncEngine | None:
        """The engine in whatever state, None while it is loaded. Answers only."""
        return self._engine

    def retry_after_s(self) -> float:
        """When those who wait now will have been served, by the measured pace. Answers only."""
        waiting = self._engine.on_their_way if self._engine is not None else 0
        return self.pace.seconds_for(waiting, time.monotonic())
