"""A backend that notes what every call of a program took, for those who want to see it: `demo`, `run --explain`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TextIO

from ...constrained.spec import Choice, JsonSchema
from ...lang.backend import Backend
from ..console import table
from ..protocol import CacheReport, Event, Finished, GenerateRequest, Scored, ScoreRequest, Timings, Usage


@dataclass(frozen=True)
class Call:
    """One call that has ended. what: kind of call. text: what it answered."""

    what: str
    text: str
    usage: Usage
    cache: CacheReport
    timings: Timings


class Watched:
    """Passes everything on to a backend; `calls` grows with each call that ends, in the order of their ends."""

    def __init__(self, inner: Backend):
        self._inner = inner
        self.calls: list[Call] = []

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Event]:
        """See `lang.backend.Backend`."""
        async with aclosing(self._inner.generate(request)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Finished):
                    self.calls.append(Call(kind(request), event.text, event.usage, event.cache, event.timings))
                yield event

    async def score(self, request: ScoreRequest) -> Scored:
        """See `lang.backend.Backend`."""
        scored = await self._inner.score(request)
        best = max(range(len(scored.choices)), key=lambda i: sum(scored.choices[i].logprobs) / len(scored.choices[i].logprobs))
        what = f"select of {len(request.choices)}"
        self.calls.append(Call(what, request.choices[best], scored.usage, scored.cache, scored.timings))
        return scored

    async def flush_cache(self) -> int:
        """See `lang.backend.Backend`."""
        return await self._inner.flush_cache()

    async def server_info(self) -> dict[str, Any]:
        """See `lang.backend.Backend`."""
        return await self._inner.server_info()

    async def close(self) -> None:
        """Does nothing: the one who made the backend closes it."""

    def token_text(self, token: int) -> str | None:
        """See `lang.backend.Backend`."""
        return self._inner.token_text(token)

    def take(self) -> list[Call]:
        """The calls noted so far, which are forgotten here."""
        calls, self.calls = self.calls, []
        return calls


def kind(request: GenerateRequest) -> str:
    """A few words for what a request asks."""
    if request.constraint is None:
        return "gen"
    if isinstance(request.constraint, JsonSchema):
        return "gen, JSON"
    return "choice" if isinstance(request.constraint, Choice) else f"gen, {type(request.constraint).__name__.lower()}"


def shortened(text: str, length: int = 46) -> str:
    """One line of at most `length` characters. Pure."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."


def show_calls(calls: list[Call], *, file: TextIO | None = None) -> None:
    """A table of calls, with where each one's prompt came from, and their sum."""
    rows: list[tuple[object, ...]] = []
    for number, call in enumerate(calls, 1):
        usage, timings = call.usage, call.timings
        took = timings.queue_s + timings.prefill_s + timings.decode_s + timings.grammar_s
        counts = (usage.prompt, usage.cached, usage.computed, usage.output)
        rows.append((number, call.what, *counts, f"{took * 1000:.0f}", shortened(call.text)))
    if len(calls) > 1:
        sums = [sum(getattr(call.usage, name) for call in calls) for name in ("prompt", "cached", "computed", "output")]
        rows.append(("", "all", *sums, "", ""))
    headers = ("call", "what", "prompt", "cached", "computed", "output", "ms", "answer")
    table(headers, rows, right=(0, 2, 3, 4, 5, 6), file=file)
