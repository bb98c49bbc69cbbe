"""Where a sequence stands in its grammar: the interface that every grammar engine implements.

A matcher is owned by one sequence and changes only through `accept` and `rollback`. End tokens: a stop id of the vocabulary is
allowed exactly where the text so far is a complete text of the grammar; accepting one terminates the matcher, and nothing but
a rollback leaves that state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class MaskFiller(Protocol):
    """Fills rows of a mask for several matchers of one engine."""

    def fill(self, matchers: Sequence[Any], mask: NDArray[np.int32], rows: Sequence[int]) -> None:
        """Writes row rows[i] of mask [rows, ceil(vocabulary size / 32)] for matchers[i], in native code. Bit t % 32 of
        word t // 32 is 1 when token t is allowed. Does not change the matchers."""
        ...


@runtime_checkable
class Matcher(Protocol):
    """The position of one sequence in its grammar."""

    def accept(self, token: int) -> bool:
        """Moves over `token`. False, and unchanged, when the grammar does not allow it here or the matcher has terminated."""
        ...

    def rollback(self, count: int) -> None:
        """Takes back the last `count` accepted tokens, an end token included. Raises ValueError when fewer were accepted."""
        ...

    def fork(self) -> Matcher:
        """An independent matcher at the same position, its history included; this one does not change."""
        ...

    @property
    def accepted(self) -> int:
        """How many tokens were accepted and not rolled back."""
        ...

    @property
    def may_end(self) -> bool:
        """True when the text so far is complete: the stop ids are allowed now, or one was accepted."""
        ...

    @property
    def is_terminated(self) -> bool:
        """True after a stop id was accepted."""
        ...

    @property
    def filler(self) -> MaskFiller:
        """What fills mask rows for matchers of this engine; one object per engine."""
        ...

    @property
    def forced(self) -> tuple[int, ...]:
        """Tokens that come next whatever is drawn: at each of them the mask allows that one alone. See `forced.py`."""
        ...


class NativeMatcher(Matcher, Protocol):
    """What a grammar engine makes: it forces nothing by itself."""

    def forced_text(self) -> str:
        """The text that every text of the grammar goes on with from here; empty where there is a choice, where the text may
        end, and within a character. Changes nothing."""
        ...

    def fork(self) -> NativeMatcher:
        """See `Matcher.fork`."""
        ...
