"""The engine process's side: compiled grammars arrive as bytes, matchers are made of them."""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from ..runtime.errors import ConstraintError, EngineError
from .forced import Canonical, ForcedFiller, ForcedMatcher
from .matcher import Matcher, NativeMatcher
from .vocabulary import Vocabulary, fingerprint


class Envelope(msgspec.Struct, frozen=True):
    """A compiled grammar on its way to the engine process: what `GrammarCompiler.compile` returns, encoded.

    `key` names the content (hex), `vocabulary` the fingerprint of the vocabulary that it was compiled for, `engine` who reads
    `payload`. `not_enforced`: what of a schema that is not strict could not be enforced, as (keyword, JSON pointer, why).
    """

    engine: str
    key: str
    vocabulary: str
    payload: bytes
    not_enforced: tuple[tuple[str, str, str], ...] = ()

    def to_bytes(self) -> bytes:
        """MessagePack; `from_bytes` is the way back."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """Raises msgspec.DecodeError for bytes that are not an envelope."""
        return msgspec.msgpack.decode(data, type=cls)


class Said(msgspec.Struct):
    """What an envelope says beside its payload, which may have megabytes and is not looked at."""

    engine: str
    key: str
    vocabulary: str
    not_enforced: tuple[tuple[str, str, str], ...] = ()


def said(grammar: bytes) -> Said:
    """Of an encoded envelope. Raises EngineError for bytes that are none."""
    try:
        return msgspec.msgpack.decode(grammar, type=Said)
    except msgspec.DecodeError as error:
        raise EngineError(f"A compiled grammar of {len(grammar)} bytes cannot be read: {error}.") from error


def not_enforced(grammar: bytes) -> tuple[tuple[str, str, str], ...]:
    """`Envelope.not_enforced` of an encoded envelope."""
    return said(grammar).not_enforced


_READING_S = {"xgrammar": 5e-8, "llguidance": 4e-6}
"""For each byte of a grammar as it travels."""


def reading_s(grammar: bytes) -> float:
    """Seconds that an engine takes about to read an encoded envelope."""
    return len(grammar) * _READING_S.get(said(grammar).engine, 0.0)


_DEFLATE_FROM = 64 * 1024


def packed(form: bytes, text: str) -> bytes:
    """A payload: `form`, one byte of the engine's own, then z or - for deflated or not, then the text."""
    data = text.encode()
    return form + (b"z" + zlib.compress(data, 1) if len(data) >= _DEFLATE_FROM else b"-" + data)


def unpacked(payload: bytes) -> tuple[bytes, str]:
    """The form and the text of a payload."""
    data = zlib.decompress(payload[2:]) if payload[1:2] == b"z" else payload[2:]
    return payload[:1], data.decode()


def no_first_token() -> ConstraintError:
    """The refusal of a grammar whose first mask allows nothing."""
    return ConstraintError("No token of this model can begin a text of this grammar.", code="unsatisfiable_grammar")


class GrammarEngine(Protocol):
    """One grammar engine as the store sees it."""

    def load(self, payload: bytes) -> Any:
        """The compiled grammar of an envelope's payload."""
        ...

    def matcher(self, compiled: Any) -> NativeMatcher:
        """A new matcher at the start of `compiled`."""
        ...

    def fill(self, matchers: Sequence[Any], mask: Any, rows: Sequence[int]) -> None:
        """See `MaskFiller`."""
        ...


class Loaded(NamedTuple):
    """A compiled grammar that its engine has read. num_bytes: of its serialised form."""

    key: str
    engine: GrammarEngine
    compiled: Any
    num_bytes: int


class GrammarStore:
    """Compiled grammars of one engine process, the most recently used ones kept: `capacity` of them, and no more of their
    serialised bytes than `capacity_bytes`.

    One thread makes matchers and keeps grammars; `warm` and `load` may be called from any.
    """

    def __init__(
        self,
        vocabulary: bytes,
        *,
        encode: Callable[[str], Sequence[int]] | None = None,
        threads: int = 1,
        capacity: int = 256,
        capacity_bytes: int = 256 * 1024 * 1024,
    ):
        """vocabulary: `Vocabulary.to_bytes()`. encode: see `forced.Canonical`; without it nothing is forced. threads: that
        may fill masks at once."""
        self.vocabulary = Vocabulary.from_bytes(vocabulary)
        self._encode = encode
        self._threads = threads
        self._canonical: Canonical | None = None
        self._fillers: dict[str, ForcedFiller] = {}
        self._fingerprint = fingerprint(vocabulary)
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._engines: dict[str, GrammarEngine] = {}
        self._making = threading.Lock()
        self._kept: OrderedDict[str, Loaded] = OrderedDict()
        self._kept_bytes = 0

    def warm(self) -> None:
        """Imports the grammar engines and prepares the vocabulary for them (seconds); without it the first grammar waits."""
        for name in _ENGINES:
            self._engine(name)
        if self._encode is not None:
            self._canonical = Canonical(self.vocabulary, self._encode)

    def matcher(self, grammar: bytes, *, canonical: bool = True) -> Matcher:
        """A new matcher at the start of the grammar that `GrammarCompiler.compile` returned. canonical: forced runs are
        written with the tokenizer's own tokens (see `forced.py`).

        Changes the store: the grammar becomes the most recently used one. Raises EngineError when the bytes were made for
        another vocabulary or are not a grammar.
        """
        named = said(grammar)
        if not self.has(grammar):
            self.keep(self.load(grammar))
        self._kept.move_to_end(named.key)
        engine, compiled = self._kept[named.key].engine, self._kept[named.key].compiled
        native = engine.matcher(compiled)
        if not canonical or self._encode is None:
            return native
        if self._canonical is None:
            self._canonical = Canonical(self.vocabulary, self._encode)
        if named.engine not in self._fillers:
            self._fillers[named.engine] = ForcedFiller(engine)
        return ForcedMatcher(native, self._canonical, self._fillers[named.engine])

    def has(self, grammar: bytes) -> bool:
        """Whether a compiled grammar is kept, so that a matcher is made at once. Raises EngineError for bytes that are none, and
        for another vocabulary's."""
        named = said(grammar)
        if named.vocabulary != self._fingerprint:
            raise EngineError("A grammar was compiled for another vocabulary than this engine's; compile it again.")
        return named.key in self._kept

    def load(self, grammar: bytes) -> Loaded:
        """Reads a compiled grammar, which may take tens of milliseconds; it is not kept yet. Raises EngineError, and whatever
        its engine raises."""
        engine = self._engine(said(grammar).engine)
        envelope = Envelope.from_bytes(grammar)
        return Loaded(envelope.key, engine, engine.load(envelope.payload), len(envelope.payload))

    def keep(self, loaded: Loaded) -> None:
        """Keeps what was loaded, as the most recently used, and drops the least recently used ones."""
        if loaded.key not in self._kept:
            self._kept[loaded.key] = loaded
            self._kept_bytes += loaded.num_bytes
        self._kept.move_to_end(loaded.key)
        while len(self._kept) > 1 and (len(self._kept) > self._capacity or self._kept_bytes > self._capacity_bytes):
            self._kept_bytes -= self._kept.popitem(last=False)[1].num_bytes

    def _engine(self, name: str) -> GrammarEngine:
        with self._making:
            if name not in self._engines:
                if name not in _ENGINES:
                    raise EngineError(f"A grammar was compiled by {name!r}, which this engine process does not have.")
                self._engines[name] = _ENGINES[name](self.vocabulary, self._threads)
            return self._engines[name]


def _xgrammar(vocabulary: Vocabulary, threads: int) -> GrammarEngine:
    from .xgrammar_backend import XGrammarEngine

    return XGrammarEngine(vocabulary)


def _llguidance(vocabulary: Vocabulary, threads: int) -> GrammarEngine:
    from .llguidance_backend import LLGuidanceEngine

    return LLGuidanceEngine(vocabulary, threads=threads)


_ENGINES: dict[str, Callable[[Vocabulary, int], GrammarEngine]] = {"xgrammar": _xgrammar, "llguidance": _llguidance}
