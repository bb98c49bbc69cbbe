"""Is the engine alive? It beats once a second between steps; a long step delays a beat without meaning harm."""

from __future__ import annotations

LEAST_S = 5.0
TIMES = 3.0


class Pulse:
    """When the engine was last heard of, and how long it has been silent before. Time is a number that is passed in."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._longest = 0.0

    def begin(self, now: float) -> None:
        """An engine is ready. Changes state."""
        self._last = now

    def beat(self, now: float) -> None:
        """It was heard of. Changes state."""
        if self._last is not None:
            self._longest = max(self._longest, now - self._last)
        self._last = now

    def stop(self) -> None:
        """It is lost. Changes state."""
        self._last = None

    def is_regular(self, now: float) -> bool:
        """Silent for at most five seconds, or three times its longest silence so far. Answers only."""
        return self._last is not None and now - self._last <= max(LEAST_S, TIMES * self._longest)
