"""Jump-forward: tokens that a grammar forces are not drawn one step after the other. They become known together, and the next
step computes them in the span of the token before them.

What is generated is the same without it: where a run is forced, the mask allows its first token alone (`constrained/forced.py`).
"""

from __future__ import annotations

from ...constrained.matcher import Matcher

MOST_FORCED = 256
"""Of a sequence in one step, beyond the budget for prompts: a longer run takes several steps."""

WORTH_WAITING = 4
"""Forced tokens for which a sequence waits until the step in flight, which draws the first of them, has settled."""


def jump(matcher: Matcher, room: int, stop_ids: tuple[int, ...]) -> list[int]:
    """Accepts the tokens that are forced here, `room` at most, and returns them. One that ends the sequence (an end id, the last
    one of its length) is left to be drawn, so that there is one way to end. Changes the matcher."""
    taken: list[int] = []
    room = min(room, MOST_FORCED)
    while len(taken) < room and matcher.forced and matcher.forced[0] not in stop_ids:
        token = matcher.forced[0]
        if not matcher.accept(token):
            raise AssertionError(f"token {token} is forced, and the grammar forbids it")
        taken.append(token)
    return taken
