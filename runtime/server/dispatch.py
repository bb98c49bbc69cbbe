"""From bytes of a request to its handler, and from whatever that raises to an answer: every request ends in one place."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_request import BaseRequest

from ..errors import InvalidRequest, Overloaded, RamifyError
from .auth import Keys
from .exchange import Exchange
from .life import Life
from .log import Log, RequestLine
from .metrics import Metrics
from .options import ServerOptions
from .responses import error_response
from .routes import Route, find
from .sampling import REQUEST_ID

Handler = Callable[[Exchange], Awaitable[web.StreamResponse]]

_HOST = re.compile(r"[A-Za-z0-9._~-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")
CLIENT_GONE = 499
PREFLIGHT = Route("OPTIONS", "preflight", "preflight", "", "", public=True)


class Refusal(InvalidRequest):
    """A request that is wrong as HTTP. status: its own. headers: beside the usual ones. closes: the connection cannot go on."""

    def __init__(self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None, closes: bool = False):
        super().__init__(message, code=code)
        self.status, self.headers, self.closes = status, headers or {}, closes


class Dispatch:
    """Answers requests. handlers: by the names of `routes.py`."""

    def __init__(
        self, handlers: dict[str, Handler], *, life: Life, options: ServerOptions, keys: Keys, log: Log, metrics: Metrics
    ):
        self._handlers, self._life, self._options = handlers, life, options
        self._keys, self._log, self._metrics = keys, log, metrics

    async def __call__(self, request: BaseRequest) -> web.StreamResponse:
        """Never raises but for the end of the connection."""
        started = time.monotonic()
        rid, error_of_id = _request_id(request)
        headers = {"X-Request-Id": rid, **self._cors(request)}
        line = RequestLine(rid, "unknown", 500, method=request.method)
        exchange: Exchange | None = None
        self._life.busy += 1
        try:
            if error_of_id is not None:
                raise error_of_id
            _check_host(request)
            route, part = self._route(request)
            line.route = route.path
            exchange = await self._opened(request, route, part, rid, started, headers, line)
            with self._keys.enter(exchange.caller):
                response = await self._handlers[route.name](exchange)
            line.status = response.status
            if exchange.mistake is not None:
                self._log.error("a handler failed", exchange.mistake, id=rid, route=line.route)
        except asyncio.CancelledError:
            line.status, line.code = CLIENT_GONE, (exchange.code if exchange else None) or "client_gone"
            raise
        except ConnectionError:
            line.status, line.code = CLIENT_GONE, (exchange.code if exchange else None) or "client_gone"
            raise
        except RamifyError as error:
            retry = self._life.retry_after_s() if isinstance(error, Overloaded) and error.code == "queue_full" else None
            response = error_response(error, retry)
            line.status, line.code = response.status, error.code
            if isinstance(error, Refusal):
                response.headers.update(error.headers)
            if self._life.draining or (isinstance(error, Refusal) and error.closes):
                response.force_close()
        except Exception as error:
            self._log.error("a handler failed", error, id=rid, route=line.route)
            response = error_response(None)
            line.status, line.code = 500, "internal_error"
        finally:
            self._life.busy -= 1
            self._end(line, exchange, started)
        if not response.prepared:
            response.headers.update(headers)
            if self._life.draining:
                response.force_close()
        return response

    # ------------------------------------------------------------------------------------------------------- opening

    def _route(self, request: BaseRequest) -> tuple[Route, str]:
        path = request.raw_path.partition("?")[0]
        routes, part = find(path)
        if not routes:
            text = f"There is no {path[:128]!r} here. GET /docs lists what there is."
            raise Refusal(404, "unknown_url", text)
        method = "GET" if request.method == "HEAD" and "GET" in routes else request.method
        if method == "OPTIONS" and self._options.cors_origins:
            return PREFLIGHT, ""
        if method not in routes:
            allowed = ", ".join(sorted(routes))
            raise Refusal(
                405, "method_not_allowed", f"{path} takes {allowed}, not {request.method[:32]}.", headers={"Allow": allowed}
            )
        return routes[method], part

    async def _opened(
        self, request: BaseRequest, route: Route, part: str, rid: str, started: float, headers: dict[str, str], line: RequestLine
    ) -> Exchange:
        """Who asks, and what. Raises RamifyError."""
        caller = self._keys.check(request.headers.get("Authorization"), route.admin)
        if isinstance(caller, RamifyError) and not route.public:
            raise caller
        if isinstance(caller, RamifyError):
            caller = Keys().check(None, admin=False)
            assert not isinstance(caller, RamifyError)
        line.key = caller.label
        if route.tag in ("OpenAI", "Native", "Programs") and route.method == "POST":
            _ = self._life.engine  # while there is none, nothing is read
        body = await self._body(request) if route.method == "POST" else b""
        return Exchange(request, route, rid, caller, body, part, started, headers)

    async def _body(self, request: BaseRequest) -> bytes:
        most = self._options.max_body
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise Refusal(
                415,
                "unsupported_encoding",
                f"Content-Encoding {encoding[:32]!r} is not taken. Send the body as it is.",
                closes=True,
            )
        too_large = Refusal(413, "request_too_large", f"The body is larger than {most} bytes. Send less at once.", closes=True)
        if request.content_length is not None and request.content_length > most:
            raise too_large
        if request.can_read_body:
            kind = request.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
            if kind != "application/json":
                text = f"Content-Type {kind[:64]!r} is not taken. Send application/json."
                raise Refusal(415, "unsupported_media_type", text)
        try:
            async with asyncio.timeout(self._options.body_timeout_s):
                body = await _read(request, most)
        except TimeoutError:
            text = f"The body did not arrive within {self._options.body_timeout_s:g} s."
            raise Refusal(408, "request_timeout", text, closes=True) from None
        except web.RequestPayloadError:
            raise Refusal(400, "bad_request", "The body is not valid HTTP.", closes=True) from None
        if body is None:
            raise too_large
        return body

    def _cors(self, request: BaseRequest) -> dict[str, str]:
        origins, origin = self._options.cors_origins, request.headers.get("Origin")
        if not origins or origin is None or not ("*" in origins or origin in origins):
            return {}
        return {
            "Access-Control-Allow-Origin": "*" if "*" in origins else origin,
            "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Request-Id",
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Expose-Headers": "X-Request-Id, Retry-After",
            "Vary": "Origin",
        }

    # --------------------------------------------------------------------------------------------------------- ending

    def _end(self, line: RequestLine, exchange: Exchange | None, started: float) -> None:
        now = time.monotonic()
        line.duration_s = now - started
        if exchange is not None:
            line.code = line.code or exchange.code or ""
            line.ttft_s = exchange.ttft_s
            for finished in exchange.answers:
                line.output_tokens += finished.usage.output
                if finished.index == 0:
                    line.prompt_tokens += finished.usage.prompt
                    line.cached_tokens += finished.usage.cached
            if exchange.ignored:
                self._log.warning("unknown fields were ignored", id=line.request_id, fields=", ".join(exchange.ignored))
            if exchange.answers:
                self._life.pace.ended(now)
        self._metrics.request_ended(line.route, line.status, line.code or None, line.duration_s)
        quiet = exchange is not None and exchange.route.public and line.status in (200, 503)  # probes
        if not quiet or self._log.shows("debug"):
            self._log.request(line)


async def preflight(exchange: Exchange) -> web.Response:
    """OPTIONS of a browser; the headers that answer it are on every response."""
    return web.Response(status=204)


async def _read(request: BaseRequest, most: int) -> bytes | None:
    """The body, None if it has more than `most` bytes. No exception is raised over what was read: its traceback would hold it."""
    parts: list[bytes] = []
    size = 0
    while part := await request.content.readany():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)


def _request_id(request: BaseRequest) -> tuple[str, InvalidRequest | None]:
    """The client's id for this request, or a new one; and what is wrong with the client's."""
    fresh = uuid.uuid4().hex
    said = request.headers.get("X-Request-Id")
    if said is None:
        return fresh, None
    if not REQUEST_ID.fullmatch(said):
        text = "X-Request-Id must have 1 to 128 printable ASCII characters without spaces."
        return fresh, InvalidRequest(text, code="invalid_request_id")
    return said, None


def _check_host(request: BaseRequest) -> None:
    hosts = request.headers.getall("Host", [])
    if len(hosts) > 1 or (hosts and not _HOST.fullmatch(hosts[0])) or (not hosts and request.version >= (1, 1)):
        raise Refusal(400, "bad_request", "The Host header is missing, doubled or not a name with a port.", closes=True)
