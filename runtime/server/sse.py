"""A stream of server-sent events to one client, who may be slow or gone.

The engine never waits for a client. What the client has not read yet stays, up to a bound, in the connection's buffer;
beyond it the sender waits here, the events behind it merge (`streams.Pending`), and a client that reads nothing for too long is
given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiohttp import web
from aiohttp.web_request import BaseRequest

from ..errors import Aborted

CHUNK_BYTES = 64
"""What HTTP adds to a write at most, and to spare."""


class EventStream:
    """One response. Opened with the first event, so that every earlier error has its own status."""

    def __init__(self, request: BaseRequest, *, headers: dict[str, str], buffer_bytes: int, stall_s: float):
        self._request = request
        self._buffer_bytes, self._stall_s = buffer_bytes, stall_s
        self._stalled = False
        self.response = web.StreamResponse(
            headers={
                **headers,
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
            }
        )

    @property
    def is_open(self) -> bool:
        """Whether the status line is on its way, after which an error can only be an event."""
        return self.response.prepared

    async def send(self, data: bytes) -> None:
        """Frames for the client. Raises Aborted (client_too_slow) after `stall_s` without anything read, ConnectionError when
        it has gone, and when there is more to say to one that did not read."""
        if not self.response.prepared:
            await self._open()
        transport = self._request.transport
        if self._stalled and transport is not None:
            transport.abort()  # only now: what it was sent is no longer made
        if transport is None or transport.is_closing():
            raise ConnectionResetError("The client has gone.")
        size = transport.get_write_buffer_size() + len(data)
        if size + CHUNK_BYTES <= self._buffer_bytes and not self._request.protocol.writing_paused:
            await self.response.write(data)  # there is room: this does not wait
        else:
            await self._in_time(self.response.write(data), transport, size + CHUNK_BYTES)

    async def _in_time(self, writing: Coroutine[Any, Any, None], transport: asyncio.Transport, size: int) -> None:
        """Wait for a write as long as the client reads. size: bytes that it leaves unread at most. Raises as `send`."""
        written = asyncio.ensure_future(writing)
        try:
            while not (await asyncio.wait([written], timeout=self._stall_s))[0]:
                before, size = size, transport.get_write_buffer_size()
                if size >= before:
                    self._stalled = True
                    raise Aborted(f"The client read nothing for {self._stall_s:g} s.", code="client_too_slow")
        finally:
            written.cancel()
            [failed] = await asyncio.gather(written, return_exceptions=True)
        if failed is not None:
            raise failed

    async def _open(self) -> None:
        transport = self._request.transport
        if transport is not None:
            transport.set_write_buffer_limits(high=self._buffer_bytes)
        await self.response.prepare(self._request)

    async def close(self) -> web.StreamResponse:
        """The end of the response. Raises ConnectionError."""
        transport = self._request.transport
        if transport is not None and self._request.protocol.writing_paused:
            try:
                await self._in_time(self.response.write_eof(), transport, transport.get_write_buffer_size() + CHUNK_BYTES)
            except Aborted:
                transport.abort()
                raise ConnectionResetError("The client does not read.") from None
        else:
            await self.response.write_eof()
        return self.response
