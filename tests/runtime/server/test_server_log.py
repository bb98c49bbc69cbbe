"""The log: one line a request, for people or for machines, and nothing in it that a client wrote can break it."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.runtime.server.log import Log, RequestLine, escaped, plain

NASTY = "x\r\n2026 error forged\x1b[31m\x00\x7f\u202e\u2028é status=500"


def lines(log_json: bool = False, level: str = "info") -> tuple[Log, io.StringIO]:
    out = io.StringIO()
    return Log(level, as_json=log_json, out=out, clock=lambda: 1_769_850_902.1204), out


def request(**fields: object) -> RequestLine:
    said = {"request_id": "req-1", "route": "/v1/chat/completions", "status": 200, "model": "tiny", "prompt_tokens": 120}
    said |= {"cached_tokens": 96, "output_tokens": 32, "ttft_s": 0.04123, "duration_s": 0.53, "key": "ab12"}
    return RequestLine(**{**said, **fields})  # type: ignore[arg-type]


def test_a_request_is_one_line_for_people() -> None:
    log, out = lines()
    log.request(request())
    assert out.getvalue() == (
        "2026-01-31T09:15:02.120Z info    POST /v1/chat/completions 200 id=req-1 model=tiny prompt=120 cached=96 output=32 "
        "ttft_s=0.0412 duration_s=0.53 key=ab12\n"
    )


def test_or_one_json_object() -> None:
    log, out = lines(log_json=True)
    log.request(request(status=400, code="invalid_json", ttft_s=None))
    assert json.loads(out.getvalue()) == {
        "time": "2026-01-31T09:15:02.120Z",
        "level": "warning",
        "message": "request",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 400,
        "code": "invalid_json",
        "id": "req-1",
        "model": "tiny",
        "prompt": 120,
        "cached": 96,
        "output": 32,
        "duration_s": 0.53,
        "key": "ab12",
    }


@pytest.mark.parametrize(
    ("fields", "level"),
    [({}, "info"), ({"status": 404}, "warning"), ({"status": 500}, "warning"), ({"code": "engine_error"}, "warning")],
)
def test_a_request_with_an_error_is_a_warning(fields: dict[str, object], level: str) -> None:
    log, out = lines()
    log.request(request(**fields))
    assert out.getvalue().split()[1] == level


def test_only_the_levels_that_were_asked_for_are_written() -> None:
    log, out = lines(level="error")
    log.request(request(status=500))
    log.info("no")
    log.warning("no")
    assert out.getvalue() == ""
    log.error("yes")
    assert "error   yes" in out.getvalue()


@pytest.mark.parametrize("log_json", [False, True])
def test_what_a_client_wrote_stays_within_its_line_and_field(log_json: bool) -> None:
    log, out = lines(log_json)
    log.request(request(model=NASTY, request_id=NASTY, route="/" + NASTY, method=NASTY, code=NASTY))
    log.info(NASTY, value=NASTY)
    log.logger.warning(NASTY)
    text = out.getvalue()
    assert text.count("\n") == 3 and text.replace("\n", "").isprintable() and text.isascii()
    if log_json:
        assert [json.loads(line)["message"] for line in text.splitlines()] == ["request", NASTY, NASTY]
        assert json.loads(text.splitlines()[0])["model"] == NASTY


@given(st.text())
def test_any_text_is_one_printable_piece(text: str) -> None:
    assert plain(text).isascii() and plain(text).isprintable() and escaped(text).isprintable()
    assert " " not in plain(text) or plain(text).startswith('"')


def test_long_values_are_cut() -> None:
    log, out = lines()
    log.request(request(model="m" * 100_000))
    assert len(out.getvalue()) < 600 and "mmm..." in out.getvalue()


def test_start_and_stop_have_lines() -> None:
    log, out = lines()
    log.started("http://127.0.0.1:30000", "tiny", num_keys=0)
    log.draining("SIGTERM", in_flight=3, timeout_s=30.0)
    log.stopped(0)
    said = [line.split(maxsplit=2)[2] for line in out.getvalue().splitlines()]
    assert said == [
        "listening url=http://127.0.0.1:30000 model=tiny keys=0",
        "draining reason=SIGTERM in_flight=3 timeout_s=30.0",
        "stopped status=0",
    ]


def test_an_exception_is_shown_without_its_message() -> None:
    """A message may quote a prompt; the type and the places are what one needs."""
    log, out = lines()
    try:
        raise ValueError("the whole prompt")
    except ValueError as error:
        log.error("a request failed", error=error, id="req-1")
        log.logger.error("a handler failed", exc_info=True)
    first, second = out.getvalue().splitlines()
    assert "exception=ValueError" in first and "test_server_log.py" in first and "id=req-1" in first
    assert "exception=ValueError" in second and "prompt" not in out.getvalue()


def test_a_librarys_logger_writes_our_lines_at_our_level() -> None:
    log, out = lines()
    log.logger.debug("no")
    log.logger.info("a %s", "word")
    log.logger.log(logging.CRITICAL, "bad")
    assert [line.split()[1:] for line in out.getvalue().splitlines()] == [["info", "a", "word"], ["error", "bad"]]


def test_a_log_that_nobody_reads_fails_no_request() -> None:
    log, out = lines()
    out.close()
    log.request(request())
