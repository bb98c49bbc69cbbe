"""An answer's text as it comes -> content and calls. The pieces of any chunking, joined, are those of the whole; linear in it.

text --trigger--> frame --name--> arguments --> tail --> text, or the frame of the next call
     |                     `--> not a call after all: all of it is content
     `-- a format that calls at the start or not at all begins in the frame, and what is no call is content to the end
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ...protocol import CallDelta
from .steps import Frame, Steps
from .values import Value


@dataclass
class Pieces:
    """What was read since the last look."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[CallDelta] = field(default_factory=list)


class Words:
    """Text without the white space at its end, which is held until more words come."""

    def __init__(self) -> None:
        self._held: list[str] = []

    def feed(self, text: str) -> str:
        """What may be passed on. Changes state."""
        kept = text.rstrip()
        if not kept:
            self._held += [text] if text else []
            return ""
        ready = "".join((*self._held, kept))
        self._held = [text[len(kept) :]]
        return ready

    def take(self) -> str:
        """What was held. Changes state."""
        held, self._held = "".join(self._held), []
        return held


class Mark:
    """Finds one text. control: it is a control token, so characters that spell it are not it."""

    def __init__(self, text: str, *, control: bool):
        self._text, self._control = text, control
        self._held = ""

    def feed(self, text: str, is_control: bool) -> tuple[str, str | None]:
        """(text before the mark, text behind it), None while it has not come. What may become the mark is held."""
        if self._control:
            return ("", "") if is_control and text == self._text else (text, None)
        whole, self._held = self._held + text, ""
        at = whole.find(self._text)
        if at >= 0:
            return whole[:at], whole[at + len(self._text) :]
        size = next(k for k in range(min(len(self._text) - 1, len(whole)), -1, -1) if whole.endswith(self._text[:k]))
        self._held = whole[len(whole) - size :]
        return whole[: len(whole) - size], None

    def flush(self) -> str:
        """What was held. Changes state."""
        held, self._held = self._held, ""
        return held


@dataclass(frozen=True)
class Grammar:
    """How calls are framed. trigger: comes before the frame; "" where a call is at the start or nowhere. value: makes a reader
    of arguments. first: frames of a first call; behind: frames after arguments, of which those in `again` begin a next call and
    the others end the calls (empty: the arguments do)."""

    trigger: str
    value: Callable[[], Value]
    first: tuple[Steps, ...]
    behind: tuple[Steps, ...] = ()
    again: frozenset[int] = frozenset()


class CallReader:
    """Reads one answer. new_id: makes the ids of calls. `pieces` is taken and emptied by whoever drives it."""

    def __init__(self, grammar: Grammar, new_id: Callable[[], str], *, control: bool):
        """control: the trigger is a control token of this model."""
        self._grammar, self._new_id = grammar, new_id
        self._mark = Mark(grammar.trigger, control=control) if grammar.trigger else None
        self._frame: Frame | None = None if grammar.trigger else Frame(grammar.first)
        self._value: Value | None = None
        self._name = ""
        self._raw: list[str] = []  # what may turn out to be content: a trigger and a frame before arguments have begun
        self._started = False  # arguments have begun; what follows belongs to a call
        self._words = Words()
        self.count = 0
        self.pieces = Pieces()

    def feed(self, text: str, is_control: bool = False) -> None:
        """More of the answer; is_control: `text` is a whole control token. Changes state."""
        at = 0
        while at < len(text):
            if self._value is not None:
                at = self._arguments(text, at)
            elif self._frame is not None:
                at = self._framed(text, at)
            elif self._mark is None:
                self._content(text[at:])
                return
            else:
                before, behind = self._mark.feed(text[at:], is_control)
                self._content(before)
                if behind is None:
                    return
                self._frame, self._raw = Frame(self._grammar.first), [self._grammar.trigger]
                text, at = behind, 0

    def flush(self) -> None:
        """The answer has ended. Changes state."""
        if self._frame is not None and not self._started:
            self._give_up(self._frame)
        elif self._value is not None and not self._started:
            self._content("".join(self._raw) + self._value.skipped)
        if self._mark is not None:
            self._content(self._mark.flush())
        space = self._words.take()
        if not self.count and space:
            self.pieces.content.append(space)

    # ---- states ----

    def _framed(self, text: str, at: int) -> int:
        frame = self._frame
        assert frame is not None
        start, at = at, frame.feed(text, at)
        if frame.failed:
            self._give_up(frame)
        elif frame.done:
            self._raw.append(frame.taken + text[start:at])
            self._after(frame)
        return at

    def _after(self, frame: Frame) -> None:
        """A frame is complete."""
        self._frame = None
        if not self._started or frame.which in self._grammar.again:
            self._value, self._name, self._started = self._grammar.value(), frame.name, False
        else:
            self._raw, self._started = [], False

    def _arguments(self, text: str, at: int) -> int:
        value = self._value
        assert value is not None
        at, new = value.feed(text, at)
        if value.failed:
            self._value = None
            self._content("".join(self._raw) + value.skipped)
            self._raw = []
            return at
        if new and not self._started:
            self._started = True
            self._words.take()  # the white space before a call is the format's
            self.pieces.calls.append(CallDelta(self.count, self._new_id(), self._name, new))
            self.count += 1
        elif new:
            self.pieces.calls.append(CallDelta(self.count - 1, arguments=new))
        if value.done:
            self._value, self._raw = None, []
            self._frame = Frame(self._grammar.behind) if self._grammar.behind else None
            self._started = self._frame is not None
        return at

    def _give_up(self, frame: Frame) -> None:
        """It is no frame: what was taken for one is content."""
        raw = "".join(self._raw) + frame.taken
        self._frame, self._raw, self._started = None, [], False
        self._content(raw)

    def _content(self, text: str) -> None:
        """White space is held: before a call, and at the end after one, it is no content."""
        ready = self._words.feed(text)
        if ready:
            self.pieces.content.append(ready)
