"""Exact continuation: the ids of the last call are kept where the newly rendered conversation still spells them.

    held      <s> user: hi </s> assistant: | Hel lo        prompt and output of the last call, as ids
    rendered  <s> user: hi </s> assistant:  Hello </s> user: more </s> assistant:
              '------------- kept -------------------''----- tokenised --------'

Tokenising the rendered text anew could cut `Hello` differently from what the model generated, and the cache would miss from
there on. All comparing is done on bytes, because a token may hold a part of a character. Pure: nothing here has state.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .pieces import Pieces, joined
from .tokenizer import Tokenizer

_TRIES = 8  # message boundaries that are rendered again below the first guess before a control token serves as one


class Continuation(NamedTuple):
    """How a conversation continues held ids: the first `kept_tokens` of them stay, and `rest` is to be tokenised after them.

    reason: "new" (nothing was held), "continued", or "template rewrote history at message 3" (messages[3] is the first that
    did not stay as it was held; without the number where the template cannot tell).
    """

    kept_tokens: int
    rest: Pieces
    reason: str

    def ids(self, held: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
        """The whole conversation as ids, int32."""
        kept = held[: self.kept_tokens]
        new = tokenizer.encode_pieces(self.rest, after=int(kept[-1]) if len(kept) else None)
        return np.concatenate([kept, new]).astype(np.int32, copy=False)


class _Target(NamedTuple):
    """A rendered conversation. data: its UTF-8, control tokens spelled out. starts: first byte of each piece, and the end."""

    pieces: Pieces
    data: bytes
    starts: list[int]

    def rest(self, at: int) -> Pieces:
        """The pieces from byte `at` on, which is the beginning of a character."""
        first = int(np.searchsorted(self.starts, at, side="right")) - 1
        if first >= len(self.pieces) or self.starts[first] == at:
            return self.pieces[first:]
        tail = self.data[at : self.starts[first + 1]].decode()
        return joined([tail, *self.pieces[first + 1 :]])


class _Held(NamedTuple):
    """Held ids as they spell the target. ends: byte after each token, int64; exact only up to where the two differ."""

    ids: np.ndarray
    data: bytes
    ends: np.ndarray


def continue_from(
    held: np.ndarray,
    pieces: Pieces,
    tokenizer: Tokenizer,
    *,
    messages: int,
    history: Callable[[int], Pieces | None],
) -> Continuation:
    """How much of the ids `held` (int32) is still the beginning of the conversation `pieces`, and what follows it.

    messages: how many there are. history(k): the first k alone as the template renders them, or None if it refuses; asked
    O(log messages) times, and only where history was rewritten. An end token (eos_ids) that the model generated is given up
    where the template writes another or none. Linear in the text.
    """
    if not len(held):
        return Continuation(0, pieces, "new")
    target = _target(pieces, tokenizer)
    mine = _spell(held, target, tokenizer)
    common = _common(mine, target, tokenizer)
    count = _whole(mine, common, tokenizer.eos_ids)
    if count and _is_character(target.data, at := int(mine.ends[count - 1])):
        return Continuation(count, target.rest(at), "continued")
    if common == len(target.data) and (count := _count(mine, common)):  # an earlier point of the same conversation
        return Continuation(count, [], "continued")
    k, at = _boundary(mine, target, common, messages, history, tokenizer)
    return Continuation(_count(mine, at), target.rest(at), "template rewrote " + _what(k, messages))


def _what(k: int | None, messages: int) -> str:
    if k is None:
        return "history"
    return f"history at message {k}" if k < messages else "what follows the last message"


def _target(pieces: Pieces, tokenizer: Tokenizer) -> _Target:
    pieces = [tokenizer.normalise(piece) if isinstance(piece, str) else piece for piece in pieces]
    parts = [piece.encode() if isinstance(piece, str) else tokenizer.spell([piece]) for piece in pieces]
    starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    return _Target(pieces, b"".join(parts), starts)


def _spell(held: np.ndarray, target: _Target, tokenizer: Tokenizer) -> _Held:
    """The bytes of the held ids without the dummy spaces that tokenising text put before it."""
    table = tokenizer.token_bytes
    parts = [table[i] if i < len(table) else b"" for i in held.tolist()]
    if tokenizer.scheme.dummy:
        parts = _without_dummies(held, parts, target.data, tokenizer)
    data = b"".join(parts)
    try:
        data.decode()
    except UnicodeDecodeError:
        if not (target.data.startswith(data) and _is_character(target.data, len(data))):
            return _replaced(held, parts)
    return _Held(held, data, np.cumsum([len(part) for part in parts]))


def _without_dummies(held: np.ndarray, parts: list[bytes], data: bytes, tokenizer: Tokenizer) -> list[bytes]:
    """Run by run between control tokens: a leading space that `data` does not have at this place is a dummy."""
    control = np.flatnonzero(np.isin(held, list(tokenizer.control_ids))).tolist()
    parts = list(parts)
    at = first = 0
    for stop in [*control, len(parts)]:
        run = b"".join(parts[first : stop + 1])  # with the control token behind it
        may_have_dummy = run.startswith(b" ") and (tokenizer.scheme.dummy == "each" or first == 0)
        agrees_without = data.startswith(run[1:], at) or not data.startswith(b" ", at)
        if may_have_dummy and agrees_without and not data.startswith(run, at):
            parts[first] = parts[first][1:]
            run = run[1:]
        at += len(run)
        first = stop + 1
    return parts


def _replaced(held: np.ndarray, parts: list[bytes]) -> _Held:
    """Spelled as text that was shown: bytes that are no character are U+FFFD.

    A token that ends within a character ends at the second byte of what is shown for it, so that nothing is cut there.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    shown: list[bytes] = []
    within: list[bool] = []
    for part in parts:
        if within and within[-1] and part and part[0] & 0xC0 != 0x80:  # the character before was never finished
            shown[-1] += decoder.decode(b"", final=True).encode()
            within[-1] = False
        shown.append(decoder.decode(part).encode())
        within.append(bool(decoder.getstate()[0]))
    shown[-1] += decoder.decode(b"", final=True).encode()
    within[-1] = False
    ends = np.cumsum([len(part) for part in shown]) + np.array(within, dtype=np.int64)
    return _Held(held, b"".join(shown), ends)


def _common(held: _Held, target: _Target, tokenizer: Tokenizer) -> int:
    """How many bytes agree, in text and in kind.

    What the template writes as a control token must be held as one. A special token that is held must be one in the
    rendered text too; other added tokens (`<think>`) the model may have generated, and then they are text in its answer.
    """
    size = min(len(held.data), len(target.data))
    ours, theirs = np.frombuffer(held.data, np.uint8, size), np.frombuffer(target.data, np.uint8, size)
    different = np.flatnonzero(ours != theirs) if ours.tobytes() != theirs.tobytes() else []
    common = int(different[0]) if len(different) else size
    written = {start: piece for start, piece in zip(target.starts, target.pieces, strict=False) if isinstance(piece, int)}
    places = np.flatnonzero(np.isin(held.ids, list(tokenizer.control_ids))).tolist()
    begins = np.concatenate([[0], held.ends])
    kept = {int(begins[i]): int(held.ids[i]) for i in places}
    for start, token in written.items():
        if start < common and kept.get(start) != token:
            return min(common, start, *(s for s, t in kept.items() if _clashes(s, t, written, tokenizer)))
    return min([common, *(s for s, t in kept.items() if _clashes(s, t, written, tokenizer))])


def _clashes(start: int, token: int, written: dict[int, int], tokenizer: Tokenizer) -> bool:
    return token in tokenizer.special_ids and written.get(start) != token


def _whole(held: _Held, common: int, ends: frozenset[int]) -> int:
    """How many held ids stay if history is unchanged: all, or all but the end-of-turn that the template writes otherwise."""
    count = len(held.ids)
    while count and held.ends[count - 1] > common and int(held.ids[count - 1]) in ends:
        count -= 1
    return count if count and held.ends[count - 1] <= common else 0


def _is_character(data: bytes, at: int) -> bool:
    """Whether byte `at` begins a character, or is the end."""
    return at == len(data) or data[at] & 0xC0 != 0x80


def _boundary(
    held: _Held,
    target: _Target,
    common: int,
    messages: int,
    history: Callable[[int], Pieces | None],
    tokenizer: Tokenizer,
) -> tuple[int | None, int]:
    """(k, byte where messages[:k] end): the most messages that stay as they are, cut on a token border of the held ids.

    Found by bisection on the rendered length, as history only grows; where no boundary near serves, the last control
    token that is kept does. k is None if the template renders no history near.
    """
    rendered: dict[int, bytes | None] = {0: b""}

    def text(k: int) -> bytes | None:
        if k not in rendered:
            pieces = history(k)
            rendered[k] = None if pieces is None else _target(pieces, tokenizer).data
        return rendered[k]

    low, high = 0, messages
    while low < high:
        middle = (low + high + 1) // 2
        if len(text(middle) or b"") <= common:
            low = middle
        else:
            high = middle - 1
    for k in range(low, max(low - _TRIES, 0), -1):
        prefix = text(k)
        if prefix and target.data.startswith(prefix) and _count(held, len(prefix)):
            return k, len(prefix)
    control = np.isin(held.ids, list(tokenizer.control_ids)) & (held.ends <= common)
    at = int(held.ends[np.flatnonzero(control)[-1]]) if control.any() else 0
    return (None if text(low) is None else low), at


def _count(held: _Held, at: int) -> int:
    """How many held tokens spell exactly the first `at` bytes; 0 if none do, because `at` falls within a token."""
    count = int(np.searchsorted(held.ends, at, side="right"))
    return count if count and int(held.ends[count - 1]) == at else 0
