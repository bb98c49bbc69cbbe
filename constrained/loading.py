"""Compiled grammars are read beside the steps of the engine, on a thread, one after the other.

    want(grammar) --kept--> None: matchers are made at once
         |
         `--> ticket ... the thread reads it ... announce(ticket) ~~ a message ~~> take(ticket): the store keeps it

Reading one takes up to tens of milliseconds, the first one seconds of imports; both engines let other threads run meanwhile. What
the store keeps changes in `take` alone, so it depends on the order of messages and not on the thread.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable

from .store import GrammarStore, Loaded, said


class GrammarLoader:
    """Reads grammars for a store. `announce` is called on the thread, once for each ticket; everything else on the store's."""

    def __init__(self, store: GrammarStore, announce: Callable[[int], None]):
        self._store, self._announce = store, announce
        self._numbers = itertools.count(1)
        self._under_way: dict[str, int] = {}
        self._keys: dict[int, str] = {}
        self._read: dict[int, Loaded | Exception] = {}
        self._jobs: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="ramify-grammars", daemon=True).start()

    def want(self, grammar: bytes) -> int | None:
        """The ticket of a grammar that is being read from now on, or is already; None where a matcher can be made at once. Raises
        EngineError for bytes that are no grammar of this vocabulary."""
        if self._store.has(grammar):
            return None
        key = said(grammar).key
        if key not in self._under_way:
            ticket = self._under_way[key] = next(self._numbers)
            self._keys[ticket] = key
            self._jobs.put((ticket, grammar))
        return self._under_way[key]

    def take(self, ticket: int) -> None:
        """A ticket was announced: the store keeps what was read. Raises what reading it raised."""
        del self._under_way[self._keys.pop(ticket)]
        read = self._read.pop(ticket)
        if isinstance(read, Exception):
            raise read
        self._store.keep(read)

    def close(self) -> None:
        """Ends the thread once it has read what was wanted before. Does not wait."""
        self._jobs.put(None)

    def _work(self) -> None:
        with contextlib.suppress(Exception):  # whoever needs what is missing meets the same error, and is told
            self._store.warm()
        while (job := self._jobs.get()) is not None:
            ticket, grammar = job
            try:
                self._read[ticket] = self._store.load(grammar)
            except Exception as error:
                self._read[ticket] = error
            self._announce(ticket)
