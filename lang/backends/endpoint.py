"""A running Ramify server as a backend: the protocol itself over HTTP, so that nothing of what the engine can do is lost.

Who answers at the address is asked at the first use; a server of another make (SGLang's, vLLM's) is spoken to in OpenAI's
protocol. The other side is `runtime/server/programs.py`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from ...runtime.errors import EngineError, InvalidRequest, ModelNotFound, Overloaded, from_code
from ...runtime.protocol import Event, Failure, Finished, GenerateRequest, Scored, ScoreRequest, TokenLogprob
from .. import background
from .openai import OpenAI
from .sse import Http

T = TypeVar("T")
_encoder = msgspec.json.Encoder()
_event = msgspec.json.Decoder(Event)
_scored = msgspec.json.Decoder(Scored)


class RuntimeEndpoint:
    """A server by its address: `set_default_backend(RuntimeEndpoint("http://localhost:30000"))`.

    A conversation goes on from the exact token ids of its last call, as on an Engine. api_key: one of the server's keys, if
    it has any. timeout_s: the longest silence within an answer, and how long a request that finds the server's queue full
    asks again. retries: further tries on 429, 5xx and broken connections.
    """

    def __init__(self, base_url: str, api_key: str | None = None, *, timeout_s: float = 600.0, retries: int = 4):
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self._api_key = api_key or ""
        self._limits: dict[str, Any] = {"timeout_s": timeout_s, "retries": retries}
        self._timeout_s = timeout_s
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = Http(self.base_url, headers, **self._limits)
        self._asking = asyncio.Lock()
        self._is_known = False
        self._foreign: OpenAI | None = None
        self._texts: dict[int, str] = {}
        background.at_exit(self.close)

    async def _other(self) -> OpenAI | None:
        """The backend for a server of another make, None for one of ours. Raises RamifyError while nobody answers."""
        async with self._asking:
            if not self._is_known:
                if not await self._is_ours():
                    url = self.base_url + "/v1"
                    self._foreign = OpenAI(None, base_url=url, api_key=self._api_key, dialect="sglang", **self._limits)
                self._is_known = True
        return self._foreign

    async def _is_ours(self) -> bool:
        try:
            said = json.loads(await self._http.exchange("GET", "/server_info"))
        except (ModelNotFound, ValueError):  # 404, or no JSON
            return False
        except InvalidRequest as error:
            if error.code == "invalid_api_key":
                raise
            return False
        return isinstance(said, dict) and "ramify" in said

    # ------------------------------------------------------------------------------------------------------- requests

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Event]:
        """The engine's events. Closing the iterator closes the connection, by which the server stops the request."""
        other = await self._other()
        events = self._events(request) if other is None else other.generate(request)
        async with aclosing(events):  # type: ignore[type-var]
            async for event in events:
                yield event

    async def _events(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        body = _encoder.encode(request)
        patience = _Patience(self._timeout_s)
        finished = 0
        while True:
            has_begun = False
            try:
                async with aclosing(self._http.stream("/ramify/generate", body)) as lines:  # type: ignore[type-var]
                    async for data in lines:
                        event = _decoded(_event, data)
                        has_begun = True
                        if isinstance(event, Failure):
                            raise from_code(event.code, event.message, event.param)
                        if isinstance(event, Finished):
                            finished += 1
                            self._learn(event.logprobs)
                            self._learn(event.prompt_logprobs)
                        yield event
                break
            except Overloaded as error:
                if has_begun:
                    raise
                await patience.wait(error)
        if finished != request.sampling.n:
            raise EngineError(f"The answer broke off: {finished} of {request.sampling.n} sequences ended. Run the program again.")

    async def score(self, request: ScoreRequest) -> Scored:
        """The engine's answer."""
        other = await self._other()
        if other is not None:
            return await other.score(request)
        body = _encoder.encode(request)
        patience = _Patience(self._timeout_s)
        while True:
            try:
                return _decoded(_scored, await self._http.exchange("POST", "/ramify/score", body))
            except Overloaded as error:
                await patience.wait(error)

    async def flush_cache(self) -> int:
        """Tokens freed. Raises InvalidRequest (unsupported) for a server of another make."""
        other = await self._other()
        if other is not None:
            return await other.flush_cache()
        return int((await self._http.post("/flush_cache", {}))["tokens"])

    async def server_info(self) -> dict[str, Any]:
        """Version, model, cache, counters; of a server of another make, its models."""
        other = await self._other()
        return await (self._http.get("/server_info") if other is None else other.server_info())

    async def close(self) -> None:
        """Close all connections. The server stays."""
        await self._http.close()
        if self._foreign is not None:
            await self._foreign.close()

    # -------------------------------------------------------------------------------------------------------- tokens

    def token_text(self, token: int) -> str | None:
        """The text of a token whose log-probability has been seen here."""
        return self._texts.get(token) if self._foreign is None else self._foreign.token_text(token)

    def _learn(self, entries: Iterable[TokenLogprob]) -> None:
        self._texts.update((entry.token, entry.text) for entry in entries if entry.text)


class _Patience:
    """How long a request that finds the queue full goes on asking: a program is never too parallel."""

    def __init__(self, seconds: float):
        self._until = time.monotonic() + seconds

    async def wait(self, error: Overloaded) -> None:
        """Sleep as long as the server said; raises `error` where waiting does not help, or has lasted long enough."""
        if error.code != "queue_full" or time.monotonic() + error.retry_after_s > self._until:
            raise error
        await asyncio.sleep(error.retry_after_s)


def _decoded(decoder: msgspec.json.Decoder[T], data: str | bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(f"The server sent something unknown ({error}): {data[:200]!r}. Is it of this version?") from None
