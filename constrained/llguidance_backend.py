"""llguidance: the only importer of it, inside functions.

What travels from the compile process to the engine process is the grammar's text (`lark.py`): reading it takes about a
millisecond, because the automata of its lexemes are built while masks are filled. So it takes what costs xgrammar too much, with
masks that cost more at first. Of what is forced its bytes are used, not its tokens; its own JSON schemas are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import ConstraintError
from .grammar import Grammar
from .lark import to_lark
from .store import no_first_token, packed, unpacked
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import llguidance


class _Tokens:
    """A vocabulary as llguidance asks for one. It tokenizes nothing for us, so how does not matter."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary):
        self.tokens = vocabulary.tokens + [b""] * (vocabulary.size - len(vocabulary.tokens))
        self.eos_token_id = vocabulary.stop_ids[0]
        self.special_token_ids = list(vocabulary.stop_ids)

    def __call__(self, text: bytes) -> list[int]:
        return []


def _tokenizer(vocabulary: Vocabulary) -> llguidance.LLTokenizer:
    import llguidance

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Tokens(vocabulary)))


STEP_ITEMS = 200_000
"""Items of llguidance's parser that one mask may take, about 10 ms."""
ROW_ITEMS = 100_000
"""Of these in one place: an enum of n values, or an object of n optional properties, has some n."""
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
        return packed(b"l", text)

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


class LLGuidanceEngine:
    """Makes matchers and fills their masks, `threads` at a time; one is the caller's own, which waits for no core."""

    def __init__(self, vocabulary: Vocabulary, *, threads: int = 1, step_items: int = STEP_ITEMS):
        import llguidance

        self._step_items = step_items
        self._tokenizer = _tokenizer(vocabulary)
        self._executor = llguidance.LLExecutor(threads) if threads > 1 else None
        self.stops = frozenset(vocabulary.stop_ids)
        self._others = vocabulary.stop_ids[1:]
        self.size = vocabulary.size

    def load(self, payload: bytes) -> llguidance.LLMatcher:
        """A matcher that stays at the start, of an envelope's payload."""
        return _read(self._tokenizer, unpacked(payload)[1], self._step_items)

    def matcher(self, compiled: llguidance.LLMatcher) -> LLGuidanceMatcher:
        """A new matcher at the start of `compiled`."""
        return LLGuidanceMatcher(self, compiled.deep_copy())

    def fill(self, matchers: Sequence[Any], mask: NDArray[np.int32], rows: Sequence[int]) -> None:
        """Fills rows of mask [rows, words]; see `MaskFiller`. A matcher that meets llguidance's limits of a step allows its end
        token alone from then on, and does not accept it: its sequence fails, and no other."""
        start, stride = mask.ctypes.data, mask.shape[1] * 4
        if self._executor is None or len(matchers) == 1:
            for matcher, row in zip(matchers, rows, strict=True):
                matcher.native.unsafe_compute_mask_ptr(start + row * stride, stride)
        else:
            jobs = [(matcher.native, row) for matcher, row in zip(matchers, rows, strict=True)]
            self._executor.unsafe_compute_mask_ptr(jobs, start, stride, mask.shape[0])
        for matcher, row in zip(matchers, rows, strict=True):
            if self._others and matcher.may_end:  # llguidance knows one end token
                for stop in self._others:
                    mask[row, stop >> 5] |= np.uint32(1 << (stop & 31)).astype(np.int32)


class LLGuidanceMatcher:
    """A `Matcher` over llguidance's. The end token is not its business: what it does after one differs from what we do."""

    __slots__ = ("accepted", "filler", "is_terminated", "native")

    def __init__(self, engine: LLGuidanceEngine, native: llguidance.LLMatcher, accepted: int = 0, terminated: bool = False):
        self.filler = engine
        self.native = native
        self.accepted = accepted
        self.is_terminated = terminated

    def accept(self, token: int) -> bool:
        """See `Matcher.accept`."""
        if self.is_terminated or not 0 <= token < self.filler.size:
            return False
        if token in self.filler.stops:
            self.is_terminated = self.may_end
            taken = self.is_terminated
        else:
            taken = self.native.try_consume_tokens([token]) == 1
        self.accepted += taken
        return taken

    def rollback(self, count: int) -> None:
        """See `Matcher.rollback`."""
        if not 0 <= count <= self.accepted:
            raise ValueError(f"cannot roll back {count} tokens: {self.accepted} were accepted")
        of_native = count - (self.is_terminated and count > 0)
        if of_native:
            self.native.rollback(of_native)
        self.is_terminated = self.is_terminated and count == 0
        self.accepted -= count

    def fork(self) -> LLGuidanceMatcher:
        """See `Matcher.fork`."""
        return LLGuidanceMatcher(self.filler, self.native.deep_copy(), self.accepted, self.is_terminated)

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
