"""HTTP calls to a server, Ramify's own or one that speaks OpenAI's protocol: server-sent events, errors, bounded retries.

An error that may pass (429, 5xx, a broken connection) is tried again only while nothing of the answer has arrived.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ...runtime.errors import EngineError, InvalidRequest, ModelNotFound, Overloaded, RamifyError, from_code

if TYPE_CHECKING:
    import aiohttp

RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 529})


class EventDecoder:
    """Bytes as they come from the network -> the `data` of each event. Any line ending, any cut, comments ignored."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self._data: list[str] = []
        self._after_return = False

    def feed(self, chunk: bytes, *, final: bool = False) -> list[str]:
        """The events that are complete after these bytes. final: no more will come, so what is left is an event too."""
        text = self._decoder.decode(chunk, final)
        if self._after_return and text:
            text = text.removeprefix("\n")
        self._after_return = text.endswith("\r") if text else self._after_return
        *lines, self._line = (self._line + text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
        if final and self._line:
            lines.append(self._line)
            self._line = ""
        events = []
        for line in [*lines, ""] if final else lines:
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif not line and self._data:
                events.append("\n".join(self._data))
                self._data.clear()
        return events


def error_of(status: int, body: str, retry_after: str | None = None) -> RamifyError:
    """The error that a response with this status and body means. Reads OpenAI's nested form and the flat one."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    inner = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if not isinstance(inner, dict):
        inner = {"message": inner if isinstance(inner, str) else body.strip()[:500]}
    code, param = inner.get("code"), inner.get("param")
    message = f"The server answered {status}: {inner.get('message') or 'no message'}"
    if status in (429, 503, 529):
        seconds = float(retry_after) if retry_after and retry_after.replace(".", "", 1).isdigit() else 1.0
        return Overloaded(message, code=code if isinstance(code, str) else None, retry_after_s=seconds)
    if status in (401, 403):
        return InvalidRequest(f"{message} Check api_key, for OpenAI also OPENAI_API_KEY.", code="invalid_api_key")
    if status == 404:
        return ModelNotFound(f"{message} Check the model's name and base_url.")
    if isinstance(code, str) and code:
        return from_code(code, message, param if isinstance(param, str) else None)
    return InvalidRequest(message, param=param if isinstance(param, str) else None) if status < 500 else EngineError(message)


class Http:
    """One server. Its session is made at the first call, on the loop that calls. retries: further tries of a failed call."""

    def __init__(self, base_url: str, headers: Mapping[str, str], *, timeout_s: float, retries: int):
        self._base_url = base_url.rstrip("/")
        self._headers = dict(headers)
        self._timeout_s = timeout_s
        self._retries = retries
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None or self._session.closed:
            # No limit of connections: how many calls run at once is the program's to say (num_threads).
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=self._timeout_s)
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout)
        return self._session

    async def get(self, path: str) -> Any:
        """The JSON at `path`."""
        return await self._json(await self._open("GET", path, None))

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON answer to a JSON body."""
        return await self._json(await self._open("POST", path, body))

    async def exchange(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The answer as it is; body: JSON already."""
        return await _whole(await self._open(method, path, body))

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The JSON of each event of a streamed answer, up to [DONE]. Raises RamifyError for an error inside of the stream."""
        response = await self._open("POST", path, body)
        if "text/event-stream" not in response.headers.get("Content-Type", ""):
            yield _checked(await self._json(response))  # a server that does not stream
            return
        async with aclosing(_data(response)) as lines:
            async for data in lines:
                yield _checked(_parsed(data))

    async def stream(self, path: str, body: bytes) -> AsyncIterator[str]:
        """The data of each event of a streamed answer, as it is, up to [DONE]; body: JSON already."""
        async with aclosing(_data(await self._open("POST", path, body))) as lines:
            async for data in lines:
                yield data

    async def _json(self, response: aiohttp.ClientResponse) -> Any:
        return _parsed((await _whole(response)).decode("utf-8", "replace"))

    async def _open(self, method: str, path: str, body: Mapping[str, Any] | bytes | None) -> aiohttp.ClientResponse:
        """A good response, to be closed by the caller. Tries again where that may help."""
        import aiohttp

        tried = 0
        while True:
            wait_s = min(8.0, 0.25 * 2**tried) * (0.75 + random.random() / 2)
            try:
                response = await self._opened().request(method, self._base_url + path, **_content(body))
                if response.status < 400:
                    return response
                async with response:
                    error = error_of(response.status, await response.text(), response.headers.get("Retry-After"))
                if response.status not in RETRIED or response.headers.get("x-should-retry") == "false":
                    raise error
                if isinstance(error, Overloaded) and "Retry-After" in response.headers:
                    wait_s = min(30.0, error.retry_after_s)
            except (TimeoutError, aiohttp.ClientError) as failure:
                reason = str(failure) or type(failure).__name__
                error = Overloaded(f"{self._base_url} cannot be reached: {reason}.", code="engine_unavailable")
            if tried == self._retries:
                raise error
            tried += 1
            await asyncio.sleep(wait_s)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


def _content(body: Mapping[str, Any] | bytes | None) -> dict[str, Any]:
    """A body as aiohttp takes it; bytes through a file, of which it sends a piece at a time."""
    if isinstance(body, bytes):
        return {"data": io.BytesIO(body), "headers": {"Content-Type": "application/json"}}
    return {"json": body}


async def _data(response: aiohttp.ClientResponse) -> AsyncGenerator[str, None]:
    """The data of each event, up to [DONE]."""
    async with response:
        decoder = EventDecoder()
        async for chunk in _chunks(response):
            for data in decoder.feed(chunk, final=not chunk):
                if data == "[DONE]":
                    return
                yield data


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    async with response:
        return b"".join([chunk async for chunk in _chunks(response)])


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it arrives, then an empty chunk. Raises EngineError where it breaks off."""
    import aiohttp

    try:
        async for chunk in response.content.iter_any():
            if chunk:
                yield chunk
    except (TimeoutError, aiohttp.ClientError) as error:
        raise EngineError(f"The answer broke off: {type(error).__name__} {error}. Run the program again.") from None
    yield b""


def _parsed(data: str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise EngineError(f"The server sent something that is not JSON: {data[:200]!r}.") from None


def _checked(event: Any) -> dict[str, Any]:
    """The event, unless it tells of an error."""
    if not isinstance(event, dict):
        raise EngineError(f"The server sent an event that is no object: {str(event)[:200]}.")
    if event.get("error"):
        raise error_of(int(event.get("status") or 500), json.dumps(event))
    return event
