"""llguidance: the only importer of it, inside functions.

What travels from the compile process to the engine process is the grammar's text (`lark.py`): reading it takes about a
millisecond, because the automata of its lexemes are built while masks are filled. So it takes what costs xgrammar too much, with
masks that cost more at first. Of what is forced its bytes are used, not its tokens; its own JSON schemas are not used.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import ConstraintError
from .crew import Crew
from .grammar import Grammar
from .lark import to_lark
from .plain_text import Listed, PlainText, PlainTokens, Strings, survey
from .store import no_first_token, packed, unpacked
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import llguidance


class _Tokens:
    """A vocabulary as llguidance asks for one. It tokenizes nothing for us, so how does not matter."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], stop_ids: list[int]):
        self.tokens = tokens
        self.eos_token_id = stop_ids[0]
        self.special_token_ids = list(stop_ids)

    def __call__(self, text: bytes) -> list[int]:
        return []


def _tokenizer(vocabulary: Vocabulary) -> llguidance.LLTokenizer:
    import llguidance

    tokens = vocabulary.tokens + [b""] * (vocabulary.size - len(vocabulary.tokens))
    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Tokens(tokens, vocabulary.stop_ids)))


STEP_ITEMS = 200_000
"""Items of llguidance's parser that one mask may take, about 10 ms."""
ROW_ITEMS = 100_000
"""Of these in one place: an enum of n values, or an object of n optional properties, has some n."""
MOST_THREADS = 8
"""A grammar is read once for each, which takes 2 ms and 0.3 MB."""
MOST_READ_OFTEN = 4 * 1024
"""Characters of a grammar's text, of which a thousand take about a millisecond to read."""
_PROBED = 8
"""Tokens along which a grammar's limits are tried before it is taken."""


def _read(tokenizer: llguidance.LLTokenizer, text: str, step_items: int) -> llguidance.LLMatcher:
    """A matcher at the start of a grammar's text. Raises ConstraintError when llguidance's limits do not suffice: its own for
    a step, wider ones for what is read once."""
    import llguidance

    limits = llguidance.LLParserLimits(
        initial_lexer_fuel=20_000_000,
        max_grammar_size=2_000_000,
        max_items_in_row=ROW_ITEMS,
        step_max_items=step_items,
        verbose_errors=False,
    )
    matcher = llguidance.LLMatcher(tokenizer, text, log_level=0, limits=limits)
    if matcher.is_error():
        reason = matcher.get_error().strip().splitlines()[0][:200]
        raise ConstraintError(
            f"The grammar is refused by llguidance: {reason}. Simplify the constraint.", code="grammar_too_complex"
        )
    return matcher


class LLGuidanceCompiler:
    """Writes and checks grammars for one vocabulary, on the calling thread."""

    name = "llguidance"

    def __init__(self, vocabulary: Vocabulary):
        self._stops = frozenset(vocabulary.stop_ids)
        self._tokenizer = _tokenizer(vocabulary)

    def compile(self, grammar: Grammar) -> bytes:
        """The payload of a grammar's envelope. Raises ConstraintError, and NotWritable for a grammar without lexemes."""
        text = to_lark(grammar)
        matcher = _read(self._tokenizer, text, STEP_ITEMS)
        first = matcher.compute_bitmask()
        if matcher.is_error():
            raise ConstraintError("The grammar's first mask is refused by llguidance.", code="grammar_too_complex")
        if not any(first):
            raise no_first_token()
        self._probe(matcher)
        strings = survey(grammar)
        return packed(b"l", text) if strings is None else packed(b"s", f"{strings.to_line()}\n{text}")

    def _probe(self, matcher: llguidance.LLMatcher) -> None:
        """Goes some tokens along the grammar: what is too large for the limits is so at its beginning."""
        for _ in range(_PROBED):
            mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
            allowed = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
            texts = [int(token) for token in allowed if token not in self._stops]
            if not texts:
                return
            if matcher.try_consume_tokens([texts[0]]) != 1 or matcher.is_error():
                raise ConstraintError(
                    "The grammar takes more work at a step than is allowed. Simplify the constraint.", code="grammar_too_complex"
                )


# ---- the engine process ---------------------------------------------------------------------------------------------


class Reading:
    """A grammar, read once. `native` and `plain_text` stay at the start; `matchers` were made of it and are not yet forgotten.

    All of them share one lexer, which learns as it goes, behind a lock: two threads with matchers of one reading wait for each
    other, with matchers of two they do not.
    """

    __slots__ = ("matchers", "native", "plain_text")

    def __init__(self, native: llguidance.LLMatcher, plain_text: PlainText | None):
        self.native = native
        self.plain_text = plain_text
        self.matchers: weakref.WeakSet[LLGuidanceMatcher] = weakref.WeakSet()


class LLGuidanceEngine:
    """Makes matchers and fills their masks, on up to `threads` threads; one is the caller's own."""

    def __init__(self, vocabulary: Vocabulary, *, threads: int = 1, step_items: int = STEP_ITEMS):
        self._step_items = step_items
        self._tokenizer = _tokenizer(vocabulary)
        self._stop_ids = vocabulary.stop_ids
        self._plain = PlainTokens(vocabulary)
        self.tokens = vocabulary.tokens
        self._crew = Crew(min(threads, MOST_THREADS) - 1, "ramify-masks")
        self.stops = frozenset(vocabulary.stop_ids)
        self._others = vocabulary.stop_ids[1:]
        self.size = vocabulary.size

    def load(self, payload: bytes) -> list[Reading]:
        """An envelope's grammar, read as often as there are threads, which takes some milliseconds each; a large one once."""
        form, text = unpacked(payload)
        listed = None
        if form == b"s":
            said, text = text.split("\n", 1)
            listed = Listed(Strings.from_line(said)) if self._plain.usable else None
        count = self._crew.size if len(text) <= MOST_READ_OFTEN else 1
        return [self._reading(text, listed) for _ in range(count)]

    def _reading(self, text: str, listed: Listed | None) -> Reading:
        native, plain_text = _read(self._tokenizer, text, self._step_items), None
        if listed is not None:
            plain_text = PlainText(self._plain, listed, _read(self._other_tokens, text, self._step_items))
        return Reading(native, plain_text)

    @cached_property
    def _other_tokens(self) -> llguidance.LLTokenizer:
        """Without plain tokens, with a ladder. Without slices, too: those are of plain text."""
        import llguidance

        tokens = llguidance.TokenizerWrapper(_Tokens(self._plain.tokens, self._stop_ids))
        return llguidance.LLTokenizer(tokens, slices=[])

    def matcher(self, compiled: list[Reading]) -> LLGuidanceMatcher:
        """A new matcher at the start of `compiled`, of the reading that has the fewest."""
        reading = min(compiled, key=lambda one: len(one.matchers))
        plain_text = None if reading.plain_text is None else reading.plain_text.fork()
        return LLGuidanceMatcher(self, reading, reading.native.deep_copy(), plain_text)

    def fill(self, matchers: Sequence[Any], mask: NDArray[np.int32], rows: Sequence[int]) -> None:
        """Fills rows of mask [rows, words]; see `MaskFiller`. A matcher that meets llguidance's limits of a step allows its end
        token alone from then on, and does not accept it: its sequence fails, and no other."""
        start, stride = mask.ctypes.data, mask.shape[1] * 4

        def fill_row(at: int) -> None:
            matcher = matchers[at]
            if matcher.plain_text is None or not matcher.plain_text.fill(mask[rows[at]]):
                matcher.native.unsafe_compute_mask_ptr(start + rows[at] * stride, stride)

        if self._crew.size == 1 or len(matchers) == 1:
            for at in range(len(matchers)):
                fill_row(at)
        else:
            by_reading: dict[int, list[int]] = {}
            for at, matcher in enumerate(matchers):
                by_reading.setdefault(id(matcher.reading), []).append(at)
            self._crew.together(list(by_reading.values()), fill_row)
        if self._others:  # llguidance knows one end token
            for matcher, row in zip(matchers, rows, strict=True):
                if matcher.may_end:
                    for stop in self._others:
                        mask[row, stop >> 5] |= np.uint32(1 << (stop & 31)).astype(np.int32)


class LLGuidanceMatcher:
    """A `Matcher` over llguidance's. The end token is not its business: what it does after one differs from what we do."""

    __slots__ = ("__weakref__", "accepted", "filler", "is_terminated", "native", "plain_text", "reading")

    def __init__(
        self,
        engine: LLGuidanceEngine,
        reading: Reading,
        native: llguidance.LLMatcher,
        plain_text: PlainText | None,
        accepted: int = 0,
        terminated: bool = False,
    ):
        self.filler = engine
        self.reading = reading
        self.native = native
        self.plain_text = plain_text
        self.accepted = accepted
        self.is_terminated = terminated
        reading.matchers.add(self)

    def accept(self, token: int) -> bool:
        """See `Matcher.accept`."""
        if self.is_terminated or not 0 <= token < self.filler.size:
            return False
        if token in self.filler.stops:
            self.is_terminated = self.may_end
            taken = self.is_terminated
        else:
            taken = self.native.try_consume_tokens([token]) == 1
            if taken and self.plain_text is not None:
                self.plain_text.took(self.filler.tokens[token])
        self.accepted += taken
        return taken

    def rollback(self, count: int) -> None:
        """See `Matcher.rollback`."""
        if not 0 <= count <= self.accepted:
            raise ValueError(f"cannot roll back {count} tokens: {self.accepted} were accepted")
        of_native = count - (self.is_terminated and count > 0)
        if of_native:
            self.native.rollback(of_native)
            if self.plain_text is not None:
                self.plain_text.back(of_native)
        self.is_terminated = self.is_terminated and count == 0
        self.accepted -= count

    def fork(self) -> LLGuidanceMatcher:
        """See `Matcher.fork`."""
        plain_text = None if self.plain_text is None else self.plain_text.fork()
        native = self.native.deep_copy()
        return LLGuidanceMatcher(self.filler, self.reading, native, plain_text, self.accepted, self.is_terminated)

    forced: tuple[int, ...] = ()

    def forced_text(self) -> str:
        """See `NativeMatcher.forced_text`."""
        if self.may_end:
            return ""
        data = self.native.compute_ff_bytes()
        try:
            return data.decode()
        except UnicodeDecodeError as error:  # the end of a character may be a choice, its beginning is in the next run
            return data[: error.start].decode()

    @property
    def may_end(self) -> bool:
        """See `Matcher.may_end`."""
        return self.is_terminated or self.native.is_accepting()
