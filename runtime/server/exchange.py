"""One request and its answer: what the handlers, the log and the metrics have in common."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.web_request import BaseRequest

from ..async_engine import AsyncEngine
from ..errors import RamifyError
from ..protocol import Delta, Finished, GenerateRequest
from .auth import Caller
from .gather import collect, events_of
from .metrics import Metrics
from .options import ServerOptions
from .replies import DONE, Frames, Reply
from .responses import json_response
from .routes import Route
from .sse import EventStream


@dataclass
class Exchange:
    """A request that has found its route. body: its bytes. part: what stood in the place of `{id}`. started: monotonic.

    code: of the error that ended it. mistake: of ours, after the first byte of a stream. answers: what was generated, for the
    log. ttft_s: to the first token.
    ignored: fields that no route knows.
    """

    request: BaseRequest
    route: Route
    rid: str
    caller: Caller
    body: bytes
    part: str
    started: float
    headers: dict[str, str]
    code: str | None = None
    mistake: Exception | None = None
    ttft_s: float | None = None
    answers: list[Finished] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started


class Answering:
    """Runs generate requests and writes what comes, whole or as a stream. Keeps nothing."""

    def __init__(self, options: ServerOptions, metrics: Metrics):
        self._options, self._metrics = options, metrics

    async def whole(
        self, exchange: Exchange, engine: AsyncEngine, requests: Sequence[GenerateRequest], reply: Reply
    ) -> web.Response:
        """The answer in one piece. Raises RamifyError."""
        answers = await collect(engine, requests)
        reply.took(exchange.elapsed_s)
        for samples in answers:
            for finished in samples:
                self._ended(exchange, finished)
        first = answers[0][0].timings if answers and answers[0] else None
        if first is not None:
            exchange.ttft_s = first.queue_s + first.prefill_s + first.grammar_s
            self._metrics.first_token(exchange.ttft_s)
        return json_response(reply.whole(answers))

    async def stream(
        self, exchange: Exchange, engine: AsyncEngine, requests: Sequence[GenerateRequest], reply: Frames
    ) -> web.StreamResponse:
        """The answer as events. Raises RamifyError before the first byte; later errors are events."""
        stream = self._stream_to(exchange)
        answers: list[dict[int, Finished]] = [{} for _ in requests]
        try:
            async with aclosing(events_of(engine, requests, self._options.stream_interval)) as events:
                seen: dict[tuple[int, int], float] = {}
                async for prompt, event in events:
                    data: bytes | None = None
                    if isinstance(event, (Delta, Finished)):
                        key = (prompt, event.index)
                        if key not in seen and (begin := reply.begin(prompt, event.index)) is not None:
                            await stream.send(begin)
                        self._observe(exchange, seen, key, event)
                    if isinstance(event, Delta):
                        data = reply.delta(prompt, event)
                    elif isinstance(event, Finished):
                        answers[prompt][event.index] = event
                        self._ended(exchange, event)
                        reply.took(exchange.elapsed_s)
                        data = reply.end(prompt, event)
                    if data is not None:
                        await stream.send(data)
            last = reply.last([[samples[index] for index in sorted(samples)] for samples in answers])
            await stream.send(DONE if last is None else last + DONE)
        except RamifyError as error:
            if not stream.is_open:
                raise
            exchange.code = error.code
            await stream.send(reply.failed(error, _unfinished(requests, answers)) + DONE)
        except Exception as error:
            if not stream.is_open or isinstance(error, ConnectionError):
                raise
            exchange.mistake, exchange.code = error, "internal_error"
            await stream.send(reply.failed(None, _unfinished(requests, answers)) + DONE)
        return await stream.close()

    def _stream_to(self, exchange: Exchange) -> EventStream:
        """An event stream to the client of this exchange."""
        options = self._options
        return EventStream(
            exchange.request, headers=exchange.headers, buffer_bytes=options.output_buffer, stall_s=options.stall_timeout_s
        )

    def _observe(
        self, exchange: Exchange, seen: dict[tuple[int, int], float], key: tuple[int, int], event: Delta | Finished
    ) -> None:
        now = time.monotonic()
        before = seen.get(key)
        if before is None:
            if exchange.ttft_s is None:
                exchange.ttft_s = now - exchange.started
                self._metrics.first_token(exchange.ttft_s)
        elif isinstance(event, Delta):
            count = len(event.ids) // 4
            self._metrics.between_tokens(now - before, max(1, count))
        seen[key] = now

    def _ended(self, exchange: Exchange, finished: Finished) -> None:
        exchange.answers.append(finished)
        self._metrics.finished(finished)


def _unfinished(requests: Sequence[GenerateRequest], answers: Sequence[Mapping[int, Finished]]) -> list[tuple[int, int]]:
    """Prompt and sample of what has no answer yet. Pure."""
    samples = ((prompt, sample) for prompt, request in enumerate(requests) for sample in range(request.sampling.n))
    return [(prompt, sample) for prompt, sample in samples if sample not in answers[prompt]]
