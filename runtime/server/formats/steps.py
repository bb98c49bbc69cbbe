"""A fixed text with a name in it, read piece by piece: the frame around a call's arguments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Step(Enum):
    """SPACE: any white space, also none. NAME: a function's name."""

    SPACE = "space"
    NAME = "name"


SPACE, NAME = Step.SPACE, Step.NAME
Steps = tuple[str | Step, ...]
_RUNS = {SPACE: re.compile(r"\s*"), NAME: re.compile(r"[A-Za-z0-9_.\-]*")}
MOST_SPACE = 256
"""White space within a frame, and characters of a name, beyond which it is none."""


@dataclass
class _Track:
    """How far one frame has been read."""

    steps: Steps
    step: int = 0
    inside: int = 0
    name: str = ""
    failed: bool = False

    @property
    def done(self) -> bool:
        return self.step == len(self.steps)

    def feed(self, text: str, at: int) -> int:
        """Reads on from `at`; returns where it stopped: at the end, when done, or at the first character that does not fit."""
        while at < len(text) and not self.done and not self.failed:
            step = self.steps[self.step]
            if isinstance(step, str):
                size = min(len(step) - self.inside, len(text) - at)
                if text[at : at + size] != step[self.inside : self.inside + size]:
                    self.failed = True
                    break
                at, self.inside = at + size, self.inside + size
                ended = self.inside == len(step)
            else:
                found = _RUNS[step].match(text, at)
                assert found is not None
                self.inside += found.end() - at
                self.name += found[0] if step is NAME else ""
                at = found.end()
                ended = at < len(text)
                self.failed = self.inside > MOST_SPACE or (ended and step is NAME and not self.name)
            if ended and not self.failed:
                self.step, self.inside = self.step + 1, 0
        return at


class Frame:
    """One of several frames, whichever the text turns out to be. They must differ before one of them ends.

    done: a frame is complete, `which` and the `name` in it are known. failed: it is none of them, and `taken` is its text.
    """

    def __init__(self, frames: Sequence[Steps]):
        self._tracks = [_Track(steps) for steps in frames]
        self._taken: list[str] = []
        self.which, self.name = -1, ""

    @property
    def done(self) -> bool:
        return self.which >= 0

    @property
    def failed(self) -> bool:
        return all(track.failed for track in self._tracks)

    @property
    def taken(self) -> str:
        return "".join(self._taken)

    def feed(self, text: str, at: int) -> int:
        """Reads text[at:] up to the end of a frame; returns where that is. Changes state."""
        ends = []
        for number, track in enumerate(self._tracks):
            if not track.failed:
                end = track.feed(text, at)
                if track.done:
                    self.which, self.name = number, track.name
                    return end
                ends.append(end)
        end = max(ends, default=at)
        self._taken.append(text[at:end])
        return end
