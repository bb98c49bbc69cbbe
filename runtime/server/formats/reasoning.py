"""Reasoning before an answer, and the reader of both: what is between the marks is reasoning, what follows is the answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from ...protocol import CallDelta
from .reader import CallReader, Mark, Pieces, Words


@dataclass(frozen=True)
class Reasoning:
    """The marks of a model's reasoning. controls: texts of the model's control tokens."""

    controls: Collection[str]
    begin: str = "<think>"
    end: str = "</think>"

    def mark(self, text: str) -> Mark:
        """Finds one of the marks."""
        return Mark(text, control=text in self.controls)


class AnswerReader:
    """An answer token by token -> reasoning, content, calls.

    `text` is pushed as it comes out of the detokenizer and the stop strings, which may hold it for a while; `control` says, as a
    place in the whole text, where a control token stands, before the text of that place is pushed.
    """

    def __init__(self, reasoning: Reasoning | None, calls: CallReader | None, *, begun: bool = False):
        """begun: the prompt has opened the reasoning. Without `calls` all of the answer is content."""
        self._reasoning, self._calls = reasoning, calls
        self._controls: deque[tuple[int, int]] = deque()
        self._at = 0
        self._part: list[str] = []  # of a control token's text
        self._words, self._at_start = Words(), True
        self._phase = "answer" if reasoning is None else "thinking" if begun else "before"
        self._mark = reasoning.mark(reasoning.end if begun else reasoning.begin) if reasoning is not None else None
        self._pieces = Pieces()

    @property
    def is_reasoning(self) -> bool:
        """Whether what comes next is reasoning."""
        return self._phase == "thinking"

    def control(self, start: int, end: int) -> None:
        """Characters [start, end) of the text are one control token. Changes state."""
        if start < end:
            self._controls.append((start, end))

    def push(self, text: str) -> Pieces:
        """What `text` adds. Changes state."""
        while text:
            start, end = self._controls[0] if self._controls else (self._at + len(text), 0)
            if self._at < start:
                run, text = text[: start - self._at], text[start - self._at :]
                self._at += len(run)
                self._feed(run, False)
                continue
            part, text = text[: end - self._at], text[end - self._at :]
            self._at += len(part)
            self._part.append(part)
            if self._at == end:
                self._controls.popleft()
                whole, self._part = "".join(self._part), []
                self._feed(whole, True)
        return self._taken()

    def flush(self) -> Pieces:
        """The answer has ended: what was held. Changes state."""
        if self._part:
            self._feed("".join(self._part), False)
            self._part = []
        if self._mark is not None and self._phase == "before":
            self._answer(self._words.take() + self._mark.flush(), False)
        elif self._mark is not None and self._phase == "thinking":
            self._thought(self._mark.flush())
        if self._calls is not None:
            self._calls.flush()
        return self._taken()

    # ---- phases ----

    def _feed(self, text: str, is_control: bool) -> None:
        if self._phase == "before":
            self._before(text, is_control)
        elif self._phase == "thinking":
            assert self._mark is not None
            before, behind = self._mark.feed(text, is_control)
            self._thought(before)
            if behind is not None:
                self._begin("answer", None)
                if behind:
                    self._feed(behind, False)
        elif self._at_start and self._reasoning is not None:
            text = text.lstrip()  # between reasoning and answer
            if text:
                self._at_start = False
                self._answer(text, is_control)
        else:
            self._answer(text, is_control)

    def _before(self, text: str, is_control: bool) -> None:
        """An answer that may begin with reasoning."""
        assert self._mark is not None and self._reasoning is not None
        if is_control and text != self._reasoning.begin:  # a call without any reasoning, say
            space = self._words.take() + self._mark.flush()
            self._begin("answer", None, at_start=False)
            self._answer(space, False)
            self._answer(text, True)
            return
        before, behind = self._mark.feed(text, is_control)
        if behind is not None and not before.strip():
            self._begin("thinking", self._reasoning.mark(self._reasoning.end))
            self._feed(behind, False)
        elif before.strip():
            rest = self._words.take() + before + self._mark.flush()
            rest += "" if behind is None else self._reasoning.begin + behind
            self._begin("answer", None, at_start=False)
            self._answer(rest, False)
        else:
            self._words.feed(before)

    def _begin(self, phase: str, mark: Mark | None, *, at_start: bool = True) -> None:
        self._phase, self._mark, self._at_start = phase, mark, at_start
        self._words = Words()

    def _thought(self, text: str) -> None:
        """White space around the reasoning is the format's."""
        if self._at_start:
            text = text.lstrip()
        ready = self._words.feed(text)
        if ready:
            self._at_start = False
            self._pieces.reasoning.append(ready)

    def _answer(self, text: str, is_control: bool) -> None:
        if self._calls is not None:
            self._calls.feed(text, is_control)
        elif text:
            self._pieces.content.append(text)

    def _taken(self) -> Pieces:
        """What was read since the last time."""
        pieces, self._pieces = self._pieces, Pieces()
        if self._calls is not None:
            pieces.content += self._calls.pieces.content
            pieces.calls += self._calls.pieces.calls
            self._calls.pieces = Pieces()
        return pieces


def joined_calls(calls: Collection[CallDelta]) -> list[CallDelta]:
    """The pieces of each call as one."""
    whole: dict[int, list[CallDelta]] = {}
    for piece in calls:
        whole.setdefault(piece.index, []).append(piece)
    return [
        CallDelta(index, parts[0].id, parts[0].name, "".join(part.arguments for part in parts))
        for index, parts in whole.items()
    ]
