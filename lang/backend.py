"""What every backend is: something that answers requests with events, on the background loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, runtime_checkable

from ..runtime.errors import InvalidRequest
from ..runtime.protocol import Event, GenerateRequest, Scored, ScoreRequest


@runtime_checkable
class Backend(Protocol):
    """Answers requests. All coroutines run on the background loop (`background.py`), many at once.

    Errors are `RamifyError`s. Closing the iterator of `generate` stops the request. What a backend cannot do exactly as
    asked (a constraint, a sampling parameter) it refuses with InvalidRequest.
    """

    def generate(self, request: GenerateRequest) -> AsyncIterator[Event]:
        """Delta events as output comes, and one Finished for each of the n sequences. Finished.held may be empty."""
        ...

    async def score(self, request: ScoreRequest) -> Scored:
        """Log-probabilities of each choice's tokens. Scored.prompt_ids may be empty."""
        ...

    async def flush_cache(self) -> int:
        """Forget what is cached and not in use; returns how many tokens were freed."""
        ...

    async def server_info(self) -> dict[str, Any]:
        """What the backend says of itself: model, cache, counters."""
        ...

    async def close(self) -> None:
        """Give everything back. Requests in flight end with an error."""
        ...

    def token_text(self, token: int) -> str | None:
        """The text of one token id, None if unknown. Does not block."""
        ...


class Default:
    """The backend that is used where none is said. One of these exists, `default`."""

    def __init__(self) -> None:
        self.backend: Backend | None = None


default = Default()


def backend_of(given: Any) -> Backend:
    """`given` if it is a backend, or the backend that it holds (as an Engine does); None: the default. Raises InvalidRequest."""
    if given is None:
        given = default.backend
    if given is None:
        raise InvalidRequest(
            "No backend is set. Call ramify.set_default_backend(ramify.Engine()) once, which runs the bundled model here, "
            "or pass backend=... to this run.",
            code="no_backend",
        )
    given = getattr(given, "backend", given)
    if not isinstance(given, Backend):
        raise InvalidRequest(f"{type(given).__name__} is not a backend. Pass an Engine, an OpenAI or an object like them.")
    return given
