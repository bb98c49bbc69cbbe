"""Token ids to text as they come: never half a character, and every character's token is known.

A token is a run of bytes that may begin or end within a character. The bytes go through one incremental UTF-8 decoder: what
may still become a character is held (at most 3 bytes), what cannot becomes U+FFFD at once, so time is linear whatever comes.
For any split of the ids the text is that of the whole decoded with errors="replace".
"""

from __future__ import annotations

import codecs
from bisect import bisect_right
from collections.abc import Collection, Iterable
from typing import NamedTuple

from .tokenizer import Tokenizer


class Kept(NamedTuple):
    """count: how many ids stay. end: how many characters they spell; the text from there to the cut is not theirs."""

    count: int
    end: int


class Detokenizer:
    """The text of one sequence. Owns what was decoded and not yet given out.

    ends: for each id, how many characters of the text are complete after it. length: characters given out so far.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special: bool = True,
        drop_space: bool = False,
        spoken: Collection[int] = (),
    ):
        """skip_special: special tokens spell nothing, but for those of `spoken`. drop_space: one space at the beginning is not
        part of the text: it is the template's (`Encoded.drop_space`), or the dummy space where the ids are a text from its
        beginning."""
        self._table = tokenizer.token_bytes
        self._silent = tokenizer.special_ids.difference(spoken) if skip_special else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._drop_space = drop_space
        self._skipped: list[bool] = []  # for each id, whether it is a special token that spells nothing
        self._whole: list[bool] = []  # for each id, whether no bytes were held after it
        self.ends: list[int] = []
        self.length = 0

    def push(self, ids: Iterable[int]) -> str:
        """The text that these ids complete. Ids outside the vocabulary spell nothing. Changes state."""
        return "".join([self._push(token) for token in ids])

    def _push(self, token: int) -> str:
        silent = token in self._silent
        text = "" if silent or not 0 <= token < len(self._table) else self._decoder.decode(self._table[token])
        if self._drop_space and text:
            self._drop_space = False
            text = text.removeprefix(" ")
        self.length += len(text)
        self.ends.append(self.length)
        self._skipped.append(silent)
        self._whole.append(not self._decoder.getstate()[0])
        return text

    def flush(self) -> str:
        """At the end of the sequence: bytes that were held become U+FFFD, which belongs to the last id that is not skipped.
        Changes state."""
        text = self._decoder.decode(b"", final=True)
        self.length += len(text)
        for index in range(len(self.ends) - 1, -1, -1) if text else ():
            self.ends[index] = self.length
            if not self._skipped[index]:
                self._whole[index] = True
                break
        return text

    def keep(self, position: int) -> Kept:
        """The ids that stay if the text ends at character `position`: the most whose text is a beginning of text[:position].

        They never end within a character, nor with special tokens that were skipped (a stop token is not part of the text).
        Answers; linear only in what is cut off.
        """
        count = bisect_right(self.ends, position)
        while count and (self._skipped[count - 1] or not self._whole[count - 1]):
            count -= 1
        return Kept(count, self.ends[count - 1] if count else 0)
