"""A server as users start it, for the tests of this folder: `ramify serve` in a process of its own, with the bundled model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from serving import RunningServer, Starter, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with its defaults and a small cache, one for all tests of a file."""
    with serving(tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def server_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """`server_with(*flags)`: a server with these flags; the same flags are the same server, until the file's tests end.

    ready=False: as soon as the process runs. alone=True: a server that no other test gets.
    """
    with contextlib.ExitStack() as stack:
        known: dict[tuple[str, ...], RunningServer] = {}

        def start(*flags: str, ready: bool = True, alone: bool = False) -> RunningServer:
            if flags in known and not alone and ready:
                return known[flags]
            log = tmp_path_factory.mktemp("server") / "log"
            running = stack.enter_context(serving(log, *flags, ready=ready))
            if ready and not alone:
                known[flags] = running
            return running

        yield start
