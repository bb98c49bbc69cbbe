"""Connections: aiohttp's protocol with deadlines for slow clients, and errors of the HTTP parser in our own form.

aiohttp alone waits for ever for half a header, and answers what it cannot parse in plain text, with the client's own bytes in it.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from ..errors import InvalidRequest
from .responses import error_response

MOST_HEADERS = 100
MOST_HEADER_BYTES = 8190


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_header_timeout_s", "_reading_headers")

    def __init__(self, *args: Any, header_timeout_s: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._header_timeout_s = header_timeout_s
        self._reading_headers: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Bytes that do not complete the headers of a request start a clock that only the end of the headers stops."""
        super().data_received(data)
        idle = self._request_count == 0 if self._waiter is None else not self._waiter.done()  # None: not yet, or at a request
        waiting = idle and not self._messages
        if not waiting:
            self._stop_clock()
        elif self._reading_headers is None:
            self._reading_headers = self._loop.call_later(self._header_timeout_s, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def _stop_clock(self) -> None:
        if self._reading_headers is not None:
            self._reading_headers.cancel()
            self._reading_headers = None

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What the parser refused (and what our handler let through, which is our mistake), in the form of all errors."""
        if request.writer.output_size > 0:
            raise ConnectionError("The answer has begun; nothing else can be said.")
        if isinstance(exc, LineTooLong):
            text = f"A header line is longer than {MOST_HEADER_BYTES} bytes, or there are more than {MOST_HEADERS} headers."
            error = InvalidRequest(text, code="bad_headers")
        elif status < 500:
            too_many = "header" in str(message or "").lower() and "too many" in str(message or "").lower()
            code = "bad_headers" if too_many else "bad_request"
            error = InvalidRequest("The request is not valid HTTP.", code=code)
        else:
            self.logger.error("a handler failed", exc_info=exc)
            error = None
        response = error_response(error)
        response.headers["X-Request-Id"] = uuid.uuid4().hex
        response.force_close()
        return response


class HttpServer(web.Server):
    """Makes a `Connection` for each client. max_body: bytes of a request that are read at most."""

    def __init__(self, handler: Any, *, max_body: int, header_timeout_s: float, **kwargs: Any):
        super().__init__(
            handler,
            request_factory=self._request,
            handler_cancellation=True,
            auto_decompress=False,
            max_line_size=MOST_HEADER_BYTES,
            max_field_size=MOST_HEADER_BYTES,
            max_headers=MOST_HEADERS,
            access_log=None,
            **kwargs,
        )
        self._max_body, self._header_timeout_s = max_body, header_timeout_s

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> BaseRequest:
        return BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=self._max_body)

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, header_timeout_s=self._header_timeout_s, **self._kwargs)
