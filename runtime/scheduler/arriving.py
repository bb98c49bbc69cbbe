"""Requests whose grammar is being read. They exist, so they may be aborted and their deadlines may pass, and they join the queue
when it is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ..wire import Submit
from .sequence import Sequence, State


class Loading(Protocol):
    """Grammars that are read beside the steps: see `constrained.loading.GrammarLoader`."""

    def want(self, grammar: bytes) -> int | None: ...

    def take(self, ticket: int) -> None: ...

    def close(self) -> None: ...


class AtOnce:
    """Every grammar is read where its matcher is made."""

    def want(self, grammar: bytes) -> int | None:
        """Never a ticket."""

    def take(self, ticket: int) -> None:
        """Nothing was wanted."""

    def close(self) -> None:
        """Nothing runs."""


Arrived = tuple[Submit, list[Sequence]]
"""A request and its sequences, the first one first."""


class Arriving:
    """Requests by the ticket that they wait for."""

    def __init__(self, loading: Loading):
        self._loading = loading
        self._by_ticket: dict[int, list[Arrived]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_ticket.values()))

    def ticket(self, grammar: bytes | None) -> int | None:
        """What a request with this grammar must wait for; None: nothing. Raises what `Loading.want` raises."""
        return None if grammar is None else self._loading.want(grammar)

    def add(self, ticket: int, request: Submit, everyone: list[Sequence]) -> None:
        """A request waits for a ticket."""
        self._by_ticket.setdefault(ticket, []).append((request, everyone))

    def take(self, ticket: int) -> tuple[list[Arrived], Exception | None]:
        """A ticket was announced: who waited for it, and why its grammar could not be read, if it could not."""
        arrived = self._by_ticket.pop(ticket, [])
        try:
            self._loading.take(ticket)
        except Exception as error:  # whatever it is, it is those who asked for this grammar that fail
            return arrived, error
        return arrived, None

    def sequences(self) -> Iterator[Sequence]:
        """Those that have not ended meanwhile. Answers only."""
        for arrived in self._by_ticket.values():
            yield from (s for _, everyone in arrived for s in everyone if s.state is not State.DONE)
