"""Requests of tests as bytes on a socket, and what every answer of an error must look like."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MODEL = "ramify-bundled"
CHAT, COMPLETIONS, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
IRE = "invalid_request_error"
TIMEOUT_S = 20.0


@dataclass
class Answer:
    """headers: names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        """The data of a stream's events."""
        return [part.removeprefix("data: ") for part in self.body.decode().split("\n\n") if part]


def call(
    port: int, path: str, body: Any = None, headers: dict[str, str] | None = None, *, method: str | None = None
) -> Answer:
    """One request on a connection of its own. body: bytes as they are, anything else as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if data is not None else {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(method or ("GET" if data is None else "POST"), path, data, {**sent, **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as raw:
        yield raw


def answer_on(raw: socket.socket) -> Answer | None:
    """The next answer on a socket; None where the connection was closed without one."""
    response = http.client.HTTPResponse(raw)
    try:
        response.begin()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    except (http.client.BadStatusLine, ConnectionError):
        return None
    finally:
        response.close()


def is_closed(raw: socket.socket) -> bool:
    """Whether the other side ends the connection; waits for it."""
    try:
        return raw.recv(1) == b""
    except ConnectionError:
        return True


def exchanged(port: int, sent: bytes, *, closed: bool = False) -> Answer:
    """The answer to these bytes. closed: the connection must end behind it."""
    with connected(port) as raw:
        with contextlib.suppress(ConnectionError):
            raw.sendall(sent)
        answer = answer_on(raw)
        assert answer is not None, "closed without an answer"
        if closed:
            assert is_closed(raw)
        return answer


def assert_error(answer: Answer, status: int, code: str, *, kind: str = IRE, param: str | None = None, text: str = "") -> None:
    """An error in the form that all have. param: where it must be named; text: a part of the message."""
    assert answer.status == status, (answer.status, answer.body[:500])
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers.get("x-request-id"), "no X-Request-Id"
    assert set(answer.json) == {"error"}
    error = answer.json["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    assert (error["type"], error["code"]) == (kind, code), error
    assert error["param"] is None or isinstance(error["param"], str)
    assert param is None or error["param"] == param, error
    assert text in error["message"], error
    assert 10 < len(error["message"]) < 1000, "an error says what was wrong and what to do, and does not echo everything"


def chat(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 1, **fields}


def completion(prompt: Any = "Hello", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, "max_tokens": 1, **fields}


def native(text: str = "Hello", sampling: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"text": text, "sampling_params": {"max_new_tokens": 1, **(sampling or {})}, **fields}


def assert_still_good(port: int, headers: dict[str, str] | None = None) -> None:
    """One token for a request that nothing is wrong with."""
    answer = call(port, COMPLETIONS, completion(), headers)
    assert answer.status == 200, answer.body[:500]
    assert answer.json["usage"]["completion_tokens"] == 1


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as counts:
        return int(counts.read().split()[1]) * 4096
