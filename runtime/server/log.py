"""What a server writes to stderr: one line a request, one at start and stop, and what went wrong. Never a prompt or a key.

    2026-01-31T09:15:02.120Z info    POST /v1/chat/completions 200 id=req-1 model=tiny prompt=120 cached=96 output=32
    2026-01-31T09:15:02.377Z warning POST /v1/completions 400 invalid_json id=req-2 ...

Whatever a client may have chosen (names, ids) is escaped, so that a line is always a line and a terminal only shows it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

from .options import LOG_LEVELS

MOST_CHARACTERS = 200
"""Of a value that a client chose."""
_PLAIN = re.compile(r"[\w./:@+{}-]+", re.ASCII)


@dataclass(slots=True)
class RequestLine:
    """One request, as far as it may be logged. route: its pattern. ttft_s, duration_s: seconds. key: `Caller.label`."""

    request_id: str
    route: str
    status: int
    method: str = "POST"
    code: str = ""
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    ttft_s: float | None = None
    duration_s: float = 0.0
    key: str = "-"


class Log:
    """Lines for people, or a JSON object a line. Writing never fails: a server does not end because nobody reads it."""

    def __init__(
        self, level: str = "info", *, as_json: bool = False, out: TextIO | None = None, clock: Callable[[], float] = time.time
    ):
        """level: of LOG_LEVELS. out: default stderr. clock: seconds since 1970."""
        self._least = LOG_LEVELS.index(level)
        self._json, self._clock = as_json, clock
        self._out: TextIO = out or sys.stderr
        self.logger = logging.Logger("ramify.server", getattr(logging, level.upper()))
        """For libraries that write to a `logging.Logger`; their lines come out as ours."""
        self.logger.addHandler(_Bridge(self))

    def request(self, line: RequestLine) -> None:
        """A request that ended: a warning where it had an error, else info."""
        level = "warning" if line.code or line.status >= 400 else "info"
        if not self.shows(level):
            return
        tokens = {"prompt": line.prompt_tokens, "cached": line.cached_tokens, "output": line.output_tokens}
        times = {"ttft_s": line.ttft_s, "duration_s": line.duration_s}
        rounded = {name: round(value, 4) for name, value in times.items() if value is not None}
        fields = {"id": line.request_id, "model": line.model, **tokens, **rounded, "key": line.key}
        if self._json:
            head = {"method": line.method, "route": line.route, "status": line.status, "code": line.code}
            self._write(level, "request", {**head, **fields})
        else:
            words = (line.method, line.route, str(line.status), line.code)
            self._write(level, " ".join(plain(word) for word in words if word), fields)

    def started(self, url: str, model: str, num_keys: int | None = None) -> None:
        """The server takes requests."""
        self._said("info", "listening", url=url, model=model, keys=num_keys)

    def draining(self, reason: str, in_flight: int, timeout_s: float) -> None:
        """No new requests; those on their way may end."""
        self._said("info", "draining", reason=reason, in_flight=in_flight, timeout_s=timeout_s)

    def stopped(self, status: int) -> None:
        """The last line. status: exit status."""
        self._said("info" if status == 0 else "error", "stopped", status=status)

    def debug(self, text: str, **fields: object) -> None:
        self._said("debug", text, **fields)

    def info(self, text: str, **fields: object) -> None:
        self._said("info", text, **fields)

    def warning(self, text: str, **fields: object) -> None:
        self._said("warning", text, **fields)

    def error(self, text: str, error: BaseException | None = None, **fields: object) -> None:
        """Something of ours failed. Of an exception the type and the places in the code are shown, not its message, which
        may quote a prompt."""
        if error is not None:
            frames = traceback.extract_tb(error.__traceback__)
            fields["exception"] = type(error).__name__
            fields["at"] = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
        self._said("error", text, **fields)

    def shows(self, level: str) -> bool:
        """Whether lines of this level are written."""
        return LOG_LEVELS.index(level) >= self._least

    def _said(self, level: str, text: str, **fields: object) -> None:
        if self.shows(level):
            self._write(level, text, fields)

    def _write(self, level: str, text: str, fields: Mapping[str, object]) -> None:
        now = self._clock()
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
        if self._json:
            shown = {name: shorten(value) if isinstance(value, str) else value for name, value in fields.items()}
            line = quoted({"time": stamp, "level": level, "message": text, **shown})
        else:
            pairs = [f"{name}={plain(value)}" for name, value in fields.items() if value not in (None, "")]
            line = " ".join((stamp, f"{level:7}", escaped(text), *pairs))
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except (OSError, ValueError):  # nobody reads, the disk is full, or the stream was closed
            pass


class _Bridge(logging.Handler):
    """Records of other libraries as our lines."""

    def __init__(self, log: Log):
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno >= logging.ERROR:
            self._log.error(record.getMessage(), error)
        else:
            self._log._said(record.levelname.lower() if record.levelname.lower() in LOG_LEVELS else "info", record.getMessage())


def plain(value: object) -> str:
    """A value as it stands in a line: bare where it is one harmless word, else a JSON string in ASCII. Pure."""
    text = shorten(str(value))
    return text if _PLAIN.fullmatch(text) else quoted(text)


def quoted(value: object) -> str:
    """JSON in printable ASCII, so that no character moves a cursor or turns a text around. Pure."""
    return json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f")


def escaped(text: str) -> str:
    """A text of ours for a line, with what is not printable escaped, whoever put it there. Pure."""
    return text if text.isprintable() and text.isascii() else quoted(text)[1:-1]


def shorten(text: str) -> str:
    """At most MOST_CHARACTERS and a mark. Pure."""
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "..."
