"""Arguments of a call, read piece by piece: a JSON object as it stands, Python's keyword arguments as a JSON object."""

from __future__ import annotations

import ast
import json
import re
from typing import Protocol

_OUTSIDE = re.compile(r'[{}\[\]"]')
_INSIDE = re.compile(r'["\\]')
MOST_LITERAL = 1 << 20
MOST_SPACE = 256


class Value(Protocol):
    """done: all of it was read. failed: it is no such value, and nothing of it was taken. skipped: white space before it."""

    done: bool
    failed: bool
    skipped: str

    def feed(self, text: str, at: int) -> tuple[int, str]:
        """Reads on from `at`: where it stopped, and what is new of the arguments as JSON. Changes state."""
        ...


class JsonObjectValue:
    """A JSON object, passed on as it is written; white space before it is not part of it."""

    def __init__(self) -> None:
        self.done = self.failed = False
        self.skipped = ""
        self._depth = 0
        self._quoted = self._escaped = False

    def feed(self, text: str, at: int) -> tuple[int, str]:
        if not self._depth:
            while at < len(text) and text[at].isspace():
                self.skipped += text[at]
                at += 1
            self.failed = len(self.skipped) > MOST_SPACE
            if at == len(text):
                return at, ""
            if text[at] != "{":
                self.failed = True
                return at, ""
        end = self._end(text, at)
        return end, text[at:end]

    def _end(self, text: str, at: int) -> int:
        while at < len(text):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_INSIDE if self._quoted else _OUTSIDE).search(text, at)
            if found is None:
                return len(text)
            at, character = found.end(), found[0]
            if character == "\\":
                self._escaped = True
            elif character == '"':
                self._quoted = not self._quoted
            else:
                self._depth += 1 if character in "{[" else -1
                if not self._depth:
                    self.done = True
                    return at
        return at


class KeywordsValue:
    """`city="Bern", days=3)` as `{"city": "Bern", "days": 3}`; each value is passed on when it is complete."""

    def __init__(self) -> None:
        self.done = self.failed = False
        self.skipped = ""
        self._depth = 0
        self._quote = ""
        self._escaped = False
        self._part: list[str] = []
        self._count = 0

    _STOPS = re.compile(r"""[()\[\]{},"']""")
    _QUOTED = {quote: re.compile(rf"[{quote}\\]") for quote in "\"'"}

    def feed(self, text: str, at: int) -> tuple[int, str]:
        new: list[str] = []
        start = at
        while at < len(text) and not self.done:
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (self._QUOTED[self._quote] if self._quote else self._STOPS).search(text, at)
            if found is None:
                at = len(text)
                break
            at, character = found.end(), found[0]
            if character == "\\":
                self._escaped = True
            elif character in "\"'":
                self._quote = "" if self._quote else character
            elif character in ",)" and not self._depth:
                self._part.append(text[start : at - 1])
                start = at
                new.append(self._argument(last=character == ")"))
            else:
                self._depth += {"(": 1, "[": 1, "{": 1, ",": 0}.get(character, -1)
        if not self.done:
            self._part.append(text[start:at])
        return at, "".join(new)

    def _argument(self, *, last: bool) -> str:
        written, self._part = "".join(self._part), []
        self.done = last
        name, equals, value = written.partition("=")
        text = ""
        if equals:
            text = f"{', ' if self._count else '{'}{json.dumps(name.strip(), ensure_ascii=False)}: {as_json(value.strip())}"
            self._count += 1
        return text + (("}" if self._count else "{}") if last else "")


def as_json(literal: str) -> str:
    """A Python or JSON literal as JSON; what is neither is a JSON string of its text."""
    try:
        json.loads(literal)
        return literal
    except (ValueError, RecursionError):
        pass
    try:
        if len(literal) <= MOST_LITERAL:
            return json.dumps(ast.literal_eval(literal), ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        pass
    return json.dumps(literal, ensure_ascii=False)
