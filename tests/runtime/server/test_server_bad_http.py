"""The table of bad inputs, HTTP itself: headers, lengths, hosts, paths, verbs, slow clients; then keys, and too much at once."""

from __future__ import annotations

import json
import threading
import time

import pytest
from http_calls import (
    CHAT,
    COMPLETIONS,
    GENERATE,
    Answer,
    answer_on,
    assert_error,
    assert_still_good,
    call,
    chat,
    completion,
    connected,
    exchanged,
    is_closed,
    native,
    resident_bytes,
)

USER, OTHER, ADMIN = "sk-user-1", "sk-other-2", "sk-admin-3"
AS_USER, AS_OTHER, AS_ADMIN = ({"Authorization": f"Bearer {key}"} for key in (USER, OTHER, ADMIN))
HEADER_S, BODY_S, IDLE_S = 1.0, 1.5, 2.5
POST = b"POST /v1/completions HTTP/1.1\r\n"
JSON = b"Content-Type: application/json\r\n"
KEY = b"Authorization: Bearer " + USER.encode() + b"\r\n"
GOOD = json.dumps(completion()).encode()
LENGTH = b"Content-Length: %d\r\n" % len(GOOD)


@pytest.fixture(scope="module")
def server(server_with):
    """Keys, at most two requests a key, three on their way in all, and little patience."""
    return server_with(
        *("--api-key", USER, "--api-key", OTHER, "--admin-api-key", ADMIN, "--key-concurrency", "2"),
        *("--header-timeout-s", str(HEADER_S), "--body-timeout-s", str(BODY_S), "--idle-timeout-s", str(IDLE_S)),
        *("--max-running", "1", "--queue", "2"),
    )


WRONG = {
    "header line of 9 KB": (b"GET /health HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 9000 + b"\r\n\r\n", "bad_headers"),
    "path of 9 KB": (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", "bad_headers"),
    "request id of 10 KB": (b"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-Id: " + b"x" * 10240 + b"\r\n\r\n", "bad_headers"),
    "key of 9 KB": (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + b"x" * 9000 + b"\r\n\r\n", "bad_headers"),
    "5,000 headers": (b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(5000)) + b"\r\n",
                      "bad_headers"),
    "length and chunks": (POST + b"Host: a\r\n" + KEY + JSON + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                          "bad_request"),
    "negative length": (POST + b"Host: a\r\n" + KEY + JSON + b"Content-Length: -5\r\n\r\n", "bad_request"),
    "two lengths": (POST + b"Host: a\r\n" + KEY + JSON + LENGTH + b"Content-Length: 5\r\n\r\n" + GOOD, "bad_request"),
    "length a word": (POST + b"Host: a\r\n" + KEY + JSON + b"Content-Length: five\r\n\r\n", "bad_request"),
    "two hosts": (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "bad_request"),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", "bad_request"),
    **{
        f"host {host!r}": (b"GET /health HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", "bad_request")
        for host in (b"a/b", b"a?b", b"a#b", b"a@b", b"a\\b", b"a b", b"a:port", b"a:1:2", b"[::1", b"\xff")
    },
    "line end in the request id": (b"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\nb\r\n\r\n", "bad_request"),
    "NUL in a header": (b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: a\x00b\r\n\r\n", "bad_request"),
    "space before the colon": (b"GET /health HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n", "bad_request"),
    "folded header": (b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n", "bad_request"),
    "no HTTP at all": (b"hello world\r\n\r\n", "bad_request"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x11" * 64 + b"\r\n\r\n", "bad_request"),
    "version 3": (b"GET /health HTTP/3.0\r\nHost: a\r\n\r\n", "bad_request"),
    "chunk of no number": (POST + b"Host: a\r\n" + KEY + JSON + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "bad_request"),
}


@pytest.mark.parametrize(("sent", "code"), WRONG.values(), ids=WRONG)
def test_what_is_not_http_is_400_in_our_form_and_the_connection_ends(server, sent: bytes, code: str) -> None:
    answer = exchanged(server.port, sent, closed=True)
    assert_error(answer, 400, code)
    assert b"xxx" not in answer.body and b"five" not in answer.body, "what was sent is not echoed"
    assert_still_good(server.port, AS_USER)


def test_a_wrong_chunk_in_the_middle_ends_the_request(server) -> None:
    with connected(server.port) as raw:
        raw.sendall(POST + b"Host: a\r\n" + KEY + JSON + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{\"mod\r\n")
        time.sleep(0.1)
        raw.sendall(b"zzz\r\n")
        answer = answer_on(raw)
        assert answer is None or answer.status in (400, 408)
    assert_still_good(server.port, AS_USER)


def test_a_good_host_is_a_name_or_an_address_with_or_without_a_port(server) -> None:
    for host in (b"localhost", b"example.org:8000", b"127.0.0.1", b"[::1]:80", b"a_b.internal", b"xn--bcher-kva.example."):
        assert exchanged(server.port, b"GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host).status == 200


# ------------------------------------------------------------------------------------------------------- slow clients


def closed_after(port: int, sent: bytes, trickle: bytes = b"") -> tuple[float, int | None]:
    """Seconds until the server ends the connection, and the status of its answer. trickle: sent on, a byte each 0.2 s."""
    started = time.monotonic()
    with connected(port) as raw:
        raw.sendall(sent)

        def write() -> None:
            try:
                for byte in trickle:
                    time.sleep(0.2)
                    raw.sendall(bytes([byte]))
            except OSError:
                pass

        writer = threading.Thread(target=write)
        writer.start()
        answer = answer_on(raw)
        if answer is not None:
            assert is_closed(raw)
        took = time.monotonic() - started
        writer.join()
        return took, None if answer is None else answer.status


def test_half_a_header_is_closed_without_an_answer(server) -> None:
    took, status = closed_after(server.port, POST + b"Host: a\r\nX-Slow")
    assert status is None and HEADER_S * 0.9 <= took < HEADER_S + 1


def test_a_byte_now_and_then_does_not_keep_a_half_header_alive(server) -> None:
    took, status = closed_after(server.port, POST + b"Host: a\r\nX-Slow: ", b"x" * 15)
    assert status is None and took < HEADER_S + 1


def test_half_a_body_is_408(server) -> None:
    half = POST + b"Host: a\r\n" + KEY + JSON + LENGTH + b"\r\n" + GOOD[:10]
    for trickle in (b"", b" " * 12):
        took, status = closed_after(server.port, half, trickle)
        assert status == 408 and BODY_S * 0.9 <= took < BODY_S + 3
    with connected(server.port) as raw:
        raw.sendall(half)
        answer = answer_on(raw)
        assert answer is not None
        assert_error(answer, 408, "request_timeout")
        assert answer.headers["x-should-retry"] == "false"


def test_silence_is_closed(server) -> None:
    took, status = closed_after(server.port, b"")
    assert status is None and IDLE_S * 0.9 <= took < IDLE_S + 2


def test_silence_after_an_answer_is_closed(server) -> None:
    with connected(server.port) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = answer_on(raw)
        assert answer is not None and answer.status == 200
        started = time.monotonic()
        assert is_closed(raw)
        assert IDLE_S * 0.8 <= time.monotonic() - started < IDLE_S + 2


# ----------------------------------------------------------------------------------------------------- paths and verbs


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/chat/completions/", "//v1/chat/completions", "/V1/models", "/admin", "/%00",
                                  "/..%2fetc%2fpasswd", "/" + "x" * 4000])
def test_an_unknown_path_is_404(server, path: str) -> None:
    for method in ("GET", "POST"):
        answer = call(server.port, path, b"{}" if method == "POST" else None, AS_USER)
        assert_error(answer, 404, "unknown_url")


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("GET", CHAT, "POST"), ("GET", COMPLETIONS, "POST"), ("GET", "/generate", "POST"), ("PUT", CHAT, "POST"),
    ("DELETE", "/v1/models", "GET"), ("POST", "/health", "GET"), ("PATCH", "/flush_cache", "GET, POST"), ("TRACE", CHAT, "POST"),
    ("OPTIONS", CHAT, "POST"),
])
def test_a_wrong_verb_is_405_and_told_the_right_one(server, method: str, path: str, allowed: str) -> None:
    answer = call(server.port, path, b"{}" if method == "POST" else None, AS_USER, method=method)
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


# --------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("headers", [
    {}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": f"Basic {USER}"}, {"Authorization": "Bearer " + "k" * 8000},
    {"Authorization": USER}, {"Authorization": f"Bearer {USER}x"}, {"Authorization": "Bearer"}, {"X-Api-Key": USER},
    {"Authorization": f"Bearer {USER} {ADMIN}"},
], ids=["none", "wrong", "basic", "8 KB", "no scheme", "longer", "scheme only", "another header", "two"])
def test_without_a_key_every_route_of_users_is_401(server, headers: dict[str, str]) -> None:
    for path, data in ((CHAT, chat()), (COMPLETIONS, completion(stream=True)), ("/generate", {"text": "x"}), ("/v1/models", None),
                       ("/server_info", None), ("/tokenize", {"prompt": "x"}), ("/flush_cache", b"")):
        answer = call(server.port, path, data, headers)
        assert_error(answer, 401, "invalid_api_key", kind="authentication_error")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert USER.encode() not in answer.body


@pytest.mark.parametrize("name", ["api_key", "key", "access_token", "Authorization"])
def test_a_key_in_the_address_is_none(server, name: str) -> None:
    assert_error(call(server.port, f"{CHAT}?{name}={USER}", chat()), 401, "invalid_api_key", kind="authentication_error")
    assert USER not in server.logged()


def test_a_body_is_not_read_for_who_has_no_key(server) -> None:
    before = resident_bytes(server.pid)
    assert call(server.port, CHAT, b"[" * 1_000_000).status == 401
    assert resident_bytes(server.pid) - before < 4 * 2**20


def test_a_key_of_a_user_opens_no_route_of_admins(server) -> None:
    routes = (("/flush_cache", b""), ("/flush_cache", None), ("/abort_request", {"abort_all": True}), ("/cache_tree", None))
    for path, data in routes:
        assert_error(call(server.port, path, data, AS_USER), 403, "admin_only", kind="permission_error")
        assert call(server.port, path, data, AS_ADMIN).status == 200
    assert call(server.port, "/v1/models", None, AS_ADMIN).status == 200


@pytest.mark.parametrize("path", [b"//v1/models", b"/v1%2fmodels", b"/v1/../admin", b"/v1/../flush_cache", b"/./v1/models",
                                  b"/health/../v1/models", b"/v1/models;x", b"/v1/models%00", b"/v1/models/", b"/V1/MODELS",
                                  b"http://a/v1/models", b"/docs/../flush_cache", b"/v1/models/../models", b"/v1/models#x"])
def test_no_other_spelling_of_a_path_needs_no_key(server, path: bytes) -> None:
    answer = exchanged(server.port, b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.status in (400, 401, 404), answer.body
    assert_error(answer, answer.status, answer.json["error"]["code"], kind=answer.json["error"]["type"])


def test_health_metrics_and_documentation_need_no_key(server) -> None:
    for path in ("/health", "/ready", "/metrics", "/version", "/openapi.json", "/docs"):
        assert call(server.port, path).status == 200


# ----------------------------------------------------------------------------------------------------- too much at once


class Busy:
    """So many long streams of a key, until the block ends."""

    def __init__(self, port: int, count: int, headers: dict[str, str]):
        self._port, self._count, self._headers = port, count, headers
        self._sockets = []

    def _until(self, count: int) -> None:
        """Wait until so many requests are on their way."""
        end = time.monotonic() + 20
        while (found := call(self._port, "/server_info", None, AS_ADMIN).json["requests"]) != count:
            assert time.monotonic() < end, found
            time.sleep(0.02)

    def __enter__(self) -> None:
        before = call(self._port, "/server_info", None, AS_ADMIN).json["requests"]
        data = json.dumps(completion(max_tokens=4000, ignore_eos=True, stream=True)).encode()
        lines = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items()).encode()
        for number in range(1, self._count + 1):
            entered = connected(self._port)
            raw = entered.__enter__()
            self._sockets.append(entered)
            raw.sendall(POST + b"Host: a\r\n" + JSON + lines + b"Content-Length: %d\r\n\r\n" % len(data) + data)
            self._until(before + number)

    def __exit__(self, *error: object) -> None:
        for entered in self._sockets:
            entered.__exit__(None, None, None)


def eventually(port: int, headers: dict[str, str], status: int) -> Answer:
    """The answer to a small request once it has this status: of whoever has gone, the server hears a moment later."""
    end = time.monotonic() + 20
    while (answer := call(port, COMPLETIONS, completion(), headers)).status != status:
        assert time.monotonic() < end, answer.body
        time.sleep(0.02)
    return answer


def test_a_key_with_all_its_requests_on_their_way_is_429(server) -> None:
    with Busy(server.port, 2, AS_USER):
        answer = call(server.port, COMPLETIONS, completion(), {**AS_USER, "X-Request-Id": "third"})
        assert_error(answer, 429, "concurrency_limit", kind="rate_limit_error")
        assert 1 <= int(answer.headers["retry-after"]) <= 60 and answer.headers["x-request-id"] == "third"
        assert call(server.port, "/v1/models", None, AS_OTHER).status == 200
    eventually(server.port, AS_USER, 200)


def test_a_full_queue_is_503_with_the_time_it_takes(server) -> None:
    """One runs and two wait: the fourth is told when to come again."""
    with Busy(server.port, 2, AS_USER), Busy(server.port, 1, AS_OTHER):
        for stream in (False, True):
            answer = call(server.port, COMPLETIONS, completion(stream=stream), AS_ADMIN)
            assert_error(answer, 503, "queue_full", kind="overloaded_error")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert call(server.port, "/ready").status == 503
        assert call(server.port, "/health").status == 200
    eventually(server.port, AS_ADMIN, 200)


def test_a_deadline_that_passes_in_the_queue_is_408(server) -> None:
    with Busy(server.port, 2, AS_USER):
        for stream in (False, True):
            answer = call(server.port, COMPLETIONS, completion(timeout_s=0.3, stream=stream), AS_OTHER)
            assert_error(answer, 408, "deadline_exceeded", kind="timeout_error")
            assert answer.headers["x-should-retry"] == "false"
    eventually(server.port, AS_USER, 200)


def test_a_deadline_that_passes_while_a_request_runs_is_408_or_an_event(server) -> None:
    long = {"max_tokens": 4000, "ignore_eos": True, "timeout_s": 0.4}
    answer = call(server.port, CHAT, chat(**long), AS_USER)
    assert_error(answer, 408, "deadline_exceeded", kind="timeout_error")
    assert answer.headers["x-should-retry"] == "false"
    for path, body in ((CHAT, chat), (COMPLETIONS, completion)):
        answer = call(server.port, path, {**body(), **long, "stream": True}, AS_USER)
        assert answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-request-id"]
        *_, failed, done = answer.events
        assert done == "[DONE]"
        said = json.loads(failed)
        assert (said["error"]["type"], said["error"]["code"]) == ("timeout_error", "deadline_exceeded")
        assert [choice["finish_reason"] for choice in said["choices"]] == ["error"]
    body = native("Hello", {"max_new_tokens": 4000, "ignore_eos": True}, stream=True, timeout_s=0.4)
    answer = call(server.port, GENERATE, body, AS_USER)
    said = json.loads(answer.events[-2])
    assert said["error"]["code"] == "deadline_exceeded" and said["meta_info"]["finish_reason"]["type"] == "error"
    assert_still_good(server.port, AS_USER)
