"""What enters and leaves the tree, as typed events in a bounded buffer: for routers by prefix, views and tests.

A page stands at one place of the tree at a time, so the page before a run names its parent: a reader that keeps
page -> tokens can rebuild the tree without knowing how nodes are split.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .keys import Int32, Namespace


@dataclass(frozen=True, slots=True)
class Stored:
    """Tokens that can be matched from now on (pending ones included).

    start: position of the first. ids: int32 [n]. pages: int32 [m], those that hold them. parent_page: the page that holds
    the tokens before `start`, -1 where there are none. A tail that was stored before is removed first when it grows.
    """

    namespace: Namespace
    start: int
    ids: Int32
    pages: Int32
    parent_page: int


@dataclass(frozen=True, slots=True)
class Removed:
    """Tokens that cannot be matched any more. reason: evicted | cut off (their step failed) | replaced (a tail grew) |
    dropped (who put them there took them back)."""

    namespace: Namespace
    start: int
    num_tokens: int
    pages: Int32
    reason: str


class EventBuffer:
    """The last `capacity` events. A reader that comes too late learns how many it has lost and reads the tree anew."""

    def __init__(self, capacity: int):
        self._events: deque[Stored | Removed] = deque(maxlen=capacity)
        self._lost = 0

    def add(self, event: Stored | Removed) -> None:
        """Keep an event; the oldest goes when the buffer is full. Changes state."""
        if len(self._events) == self._events.maxlen:
            self._lost += 1
        self._events.append(event)

    def drain(self) -> tuple[list[Stored | Removed], int]:
        """The events since the last call, oldest first, and how many before them were lost. Changes state: both are reset."""
        events, lost = list(self._events), self._lost
        self._events.clear()
        self._lost = 0
        return events, lost
