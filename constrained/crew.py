"""Threads that help when work turns out to be more than a moment's.

    the caller    [group][group]..........[group]   waits for what others have begun
                        ^ PATIENCE_S: helpers are called
    a helper               [group][group]
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

PATIENCE_S = 0.0003
"""So long the caller works alone: to wake a helper takes it a fifth of that, and most work is done by then."""


class Crew:
    """A caller's `helpers` threads. They start when they are first called, and end when the crew is forgotten. What is to be
    done must let other threads run, or they are no help."""

    def __init__(self, helpers: int, name: str):
        self.size = 1 + helpers
        self._name = name
        self._calls: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._started = False

    def together(self, groups: Sequence[Sequence[int]], do: Callable[[int], None]) -> None:
        """Does `do` with each item of each group: the items of a group in their order and on one thread, the groups in any order
        and at once. Returns when all are done, then raises what `do` raised; the rest of that group is left out."""
        work = _Work(groups, do)
        began, alone = time.perf_counter(), self.size > 1

        def call() -> None:
            nonlocal alone
            if alone and time.perf_counter() - began > PATIENCE_S:
                alone = False
                self._call(work)

        work.take_part(call)
        failures = [work.ended.get() for _ in groups]
        for failure in failures:
            if failure is not None:
                raise failure

    def _call(self, work: _Work) -> None:
        wanted = min(self.size - 1, len(work.open))
        if wanted and not self._started:
            self._started = True
            for number in range(self.size - 1):
                threading.Thread(target=_help, args=(self._calls,), name=f"{self._name}-{number}", daemon=True).start()
            weakref.finalize(self, _dismiss, self._calls, self.size - 1)
        for _ in range(wanted):
            self._calls.put(work)


class _Work:
    """Groups that nobody has begun, and for each that has ended what it raised."""

    def __init__(self, groups: Sequence[Sequence[int]], do: Callable[[int], None]):
        self._do = do
        self.open = deque(groups)
        self.ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def take_part(self, after_each: Callable[[], None] | None = None) -> None:
        """Does groups until none is open."""
        while self.open:
            try:
                group = self.open.popleft()
            except IndexError:  # another thread was faster
                return
            failure = None
            try:
                for item in group:
                    self._do(item)
                    if after_each is not None:
                        after_each()
            except BaseException as error:
                failure = error
            self.ended.put(failure)


def _help(calls: queue.SimpleQueue[_Work | None]) -> None:
    while (work := calls.get()) is not None:
        work.take_part()
        del work  # what it holds must not live until the next one


def _dismiss(calls: queue.SimpleQueue[_Work | None], count: int) -> None:
    for _ in range(count):
        calls.put(None)
