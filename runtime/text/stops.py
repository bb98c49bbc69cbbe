"""Stop strings and stop regexes over text that comes in pieces, across token borders.

Every decision is taken character by character, so it does not depend on how the text was cut into pieces: the stop whose
match ends first wins, and of those the one that begins first. Strings are followed by Knuth-Morris-Pratt automata: exact,
linear, and what may be the beginning of a stop is held back, no more. Regexes run in google-re2 (linear time; Python's own
`re` is open to patterns that never end) over the last `REGEX_WINDOW` characters; that many less one are held back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import InvalidRequest

REGEX_WINDOW = 256  # characters: longer matches of a stop regex are not found
MAX_REGEX_BYTES = 2048


class Match(NamedTuple):
    """matched: the stop string or regex. position: how many characters of the whole text stay (the stop cut off, or kept)."""

    matched: str
    position: int


class _Word:
    """A stop string and how many of its characters the text ends with. Source: Knuth, Morris, Pratt (1977)."""

    def __init__(self, text: str):
        self.text = text
        self.state = 0
        self._fail = [0] * len(text)
        k = 0
        for i in range(1, len(text)):
            while k and text[i] != text[k]:
                k = self._fail[k - 1]
            k += text[i] == text[k]
            self._fail[i] = k

    def step(self, char: str) -> bool:
        """Whether the text with `char` behind it ends with the stop string. Changes state."""
        state = self.state
        while state and self.text[state] != char:
            state = self._fail[state - 1]
        self.state = state + (self.text[state] == char)
        return self.state == len(self.text)


class StopWatcher:
    """Watches one sequence's text. Owns the text that was held back.

    stop, stop_regex: what ends the text. keep_stop: the stop stays in the text. window: characters that a regex can match.
    Raises InvalidRequest: invalid_stop for an empty stop; unsupported_regex for a regex that re2 does not take, or where
    google-re2 is not installed.
    """

    def __init__(
        self,
        stop: Sequence[str] = (),
        stop_regex: Sequence[str] = (),
        *,
        keep_stop: bool = False,
        window: int = REGEX_WINDOW,
    ):
        if "" in stop or "" in stop_regex:
            raise InvalidRequest(
                "A stop is the empty string, which is everywhere. Leave it out.", code="invalid_stop", param="stop"
            )
        self._words = [_Word(text) for text in stop]
        self._regexes = [(pattern, _compile(pattern)) for pattern in stop_regex]
        self._keep_stop = keep_stop
        self._window = window
        self._first = re.compile("|".join(re.escape(char) for char in sorted({text[0] for text in stop})) if stop else "(?!)")
        self._held = ""  # given out later, or never
        self._recent = ""  # the last characters of the text, for regexes: the window and one character of context
        self._length = 0  # of the whole text

    def push(self, text: str) -> tuple[str, Match | None]:
        """(text that may be shown now, the stop if one was found; then nothing more may be pushed). Changes state."""
        if not self._regexes and not any(word.state for word in self._words) and not self._first.search(text):
            self._length += len(text)
            return text, None
        for index, char in enumerate(text):
            found = self._step(char)
            if found is not None:
                pending = self._held + text[: index + 1]
                stays = found.position - (self._length - len(pending))
                self._held = ""
                return pending[:stays], found
        pending = self._held + text
        hold = min(self._holding(), len(pending))
        self._held = pending[len(pending) - hold :]
        return pending[: len(pending) - hold], None

    def flush(self) -> str:
        """What was held back, at the end of a text without a stop. Changes state."""
        held, self._held = self._held, ""
        return held

    def _step(self, char: str) -> Match | None:
        self._length += 1
        found = [(len(word.text), 0, word.text) for word in self._words if word.step(char)]
        if self._regexes:
            self._recent = (self._recent + char)[-self._window - 1 :]
            found += [hit for pattern, regex in self._regexes if (hit := self._search(pattern, regex)) is not None]
        if not found:
            return None
        begin, end, matched = max(found, key=lambda hit: hit[0])
        return Match(matched, self._length - (end if self._keep_stop else begin))

    def _search(self, pattern: str, regex: Any) -> tuple[int, int, str] | None:
        """(how many characters before the end of the text the match begins, how many before it ends, the pattern)."""
        start = len(self._recent) - self._window if self._length > self._window else 0
        found = regex.search(self._recent, start)
        if found is None or found.start() == found.end():
            return None
        return len(self._recent) - found.start(), len(self._recent) - found.end(), pattern

    def _holding(self) -> int:
        """How many of the last characters may be the beginning of a stop."""
        longest = max((word.state for word in self._words), default=0)
        return max(longest, self._window - 1) if self._regexes else longest


@lru_cache(maxsize=256)
def _compile(pattern: str) -> Any:
    try:
        import re2
    except ImportError:
        raise InvalidRequest(
            "A stop_regex needs google-re2, which is not installed. Install it (pip install google-re2), or use stop strings.",
            code="unsupported_regex",
            param="stop_regex",
        ) from None
    if len(pattern.encode()) > MAX_REGEX_BYTES:
        raise InvalidRequest(
            f"A stop_regex has {len(pattern.encode())} bytes; at most {MAX_REGEX_BYTES} are taken. Shorten it.",
            code="unsupported_regex",
            param="stop_regex",
        )
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise InvalidRequest(
            f"The stop_regex {pattern!r} cannot be used: {_reason(error)}. The syntax is RE2's: no lookaround, no backreference.",
            code="unsupported_regex",
            param="stop_regex",
        ) from None


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
