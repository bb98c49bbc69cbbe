"""Responses that are no stream: JSON, and errors as every client of OpenAI's protocol reads them."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from ..errors import Overloaded, RamifyError

MISTAKE = "The server made a mistake. Its log says more, under the id of this request."
"""All that a client is told of a failure of ours."""
_encode = msgspec.json.Encoder().encode


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A value as JSON."""
    return web.Response(body=_encode(value), status=status, headers=headers, content_type="application/json")


def error_body(error: RamifyError | None) -> dict[str, Any]:
    """OpenAI's nested form. None: a mistake of ours, of which nothing is told."""
    if error is None:
        return {"error": {"message": MISTAKE, "type": "server_error", "param": None, "code": "internal_error"}}
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def error_response(error: RamifyError | None, retry_after_s: float | None = None) -> web.Response:
    """An error with its status and the headers that clients obey. retry_after_s: measured, for an overloaded server."""
    headers: dict[str, str] = {}
    status = 500 if error is None else error.status
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(max(1, min(60, round(retry_after_s or error.retry_after_s))))
    elif status in (401,):
        headers["WWW-Authenticate"] = "Bearer"
    elif status == 429:
        headers["Retry-After"] = "1"
    elif status == 408 or (error is not None and error.code in ("engine_error", "nan_logits")):
        headers["x-should-retry"] = "false"  # a request that has crashed an engine twice would crash the next one too
    return json_response(error_body(error), status, headers)
