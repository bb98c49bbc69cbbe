"""xgrammar: the only importer of it, inside functions, because it brings torch and transformers (seconds).

Two faces: `XGrammarCompiler` runs in a compile process, `XGrammarEngine` in the engine process. What travels between them is
whatever the engine process reads faster (measured with xgrammar 0.2.8 on one core):

    vocabulary   schema                  compile   read back   serialised
         4,096   4 properties               2 ms        2 ms       145 KB
       152,000   4 properties              75 ms       22 ms       2.9 MB
         4,096   400 optional properties  750 ms           -       140 MB (18 s to write: it repeats the whole automaton per rule)

So: the grammar's text when compiling it took little or the serialised form would be huge, else the compiled grammar, which is
JSON made of numbers and therefore deflated. Either way it has been compiled once, within the limits of a compile process.

xgrammar's own conversion of JSON schemas and of regexes is not used. It lets raw control characters into strings with a
length, lone surrogates into escapes, and treats several keywords as absent; the grammars of `lowering.py` are ours, and
xgrammar enforces them exactly. Whitespace follows from that: one form, `", "` and `": "`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import ConstraintError
from .ebnf import to_ebnf
from .grammar import EMPTY, Alt, Chars, Grammar, Literal, Node, Ref, Seq, chars, complement, repeat
from .store import no_first_token, packed, unpacked
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import xgrammar

_CHEAP_S = 0.02
_SERIALISED_BYTES = 8 * 1024 * 1024


def _tokenizer_info(vocabulary: Vocabulary) -> xgrammar.TokenizerInfo:
    """xgrammar treats tokens without bytes, and ids past the list, as special: no mask ever allows them."""
    import xgrammar

    return xgrammar.TokenizerInfo(
        vocabulary.tokens, xgrammar.VocabType.RAW, vocab_size=vocabulary.size, stop_token_ids=vocabulary.stop_ids
    )


# ---- the compile process --------------------------------------------------------------------------------------------


class XGrammarCompiler:
    """Compiles grammars for one vocabulary, on the calling thread."""

    name = "xgrammar"

    def __init__(self, vocabulary: Vocabulary):
        import xgrammar

        self._words = (vocabulary.size + 31) // 32
        self._info = _tokenizer_info(vocabulary)
        self._compiler = xgrammar.GrammarCompiler(self._info, max_threads=1, cache_enabled=False)

    def compile(self, grammar: Grammar) -> bytes:
        """The payload of a grammar's envelope. Raises ConstraintError."""
        try:
            return self._payload(to_ebnf(grammar))
        except RuntimeError as error:
            if "bad_alloc" not in str(error):
                raise
            raise ConstraintError(
                "The grammar needs too much memory. Simplify the constraint.", code="grammar_too_complex"
            ) from error

    def _payload(self, ebnf: str) -> bytes:
        started = time.process_time()
        compiled = _compiled(self._compiler, ebnf)
        took_s = time.process_time() - started
        self._check_first_mask(compiled)
        is_text = took_s < _CHEAP_S or _serialised_bytes(compiled) > _SERIALISED_BYTES
        return packed(b"t", ebnf) if is_text else packed(b"c", compiled.serialize_json())

    def _check_first_mask(self, compiled: xgrammar.CompiledGrammar) -> None:
        import xgrammar

        mask = np.zeros((1, self._words), dtype=np.int32)
        xgrammar.GrammarMatcher(compiled).fill_next_token_bitmask(mask, 0)
        if not mask.any():
            raise no_first_token()


def _compiled(compiler: xgrammar.GrammarCompiler, ebnf: str) -> xgrammar.CompiledGrammar:
    try:
        return compiler.compile_grammar(ebnf)
    except RuntimeError as error:
        what = "needs too much memory" if "bad_alloc" in str(error) else f"is refused by xgrammar: {_reason(error)}"
        raise ConstraintError(f"The grammar {what}. Simplify the constraint.", code="grammar_too_complex") from error


def _serialised_bytes(compiled: xgrammar.CompiledGrammar) -> int:
    """About how long the serialised form would be: each rule repeats an automaton of the size of the whole grammar."""
    text = str(compiled.grammar)
    return text.count("\n") * len(text)


def _reason(error: Exception) -> str:
    """The sentence of an xgrammar error, without its time and source line."""
    return str(error).split("error at ", 1)[-1].split("cc:", 1)[-1].strip()


# ---- reading EBNF ---------------------------------------------------------------------------------------------------


class _Serialized(msgspec.Struct):
    """The part of xgrammar's serialised grammar that is read: rules as [name, body, lookahead, ...], expressions as
    [kind, length, data...] at the offsets of `grammar_expr_indptr`."""

    rules: list[list[Any]]
    grammar_expr_data: list[int]
    grammar_expr_indptr: list[int]
    root_rule_id: int


def read_ebnf(text: str) -> Grammar:
    """GBNF text as a grammar: xgrammar parses it, and what it understood is taken over.

    Raises ConstraintError `invalid_grammar` for a syntax error, a missing rule, and for xgrammar's extensions (token ids, tag
    dispatch, lookahead, embedded regexes), which are more or less than a set of texts.
    """
    import xgrammar

    try:
        parsed = msgspec.json.decode(xgrammar.Grammar.from_ebnf(text).serialize_json(), type=_Serialized)
    except (RuntimeError, UnicodeError) as error:
        raise ConstraintError(f"The EBNF grammar cannot be read: {_reason(error)}", code="invalid_grammar") from error
    names = [str(rule[0]) for rule in parsed.rules]
    for rule in parsed.rules:
        if rule[2] != -1:
            raise _extension(f"rule {rule[0]!r} has a lookahead assertion")
    rules = {str(rule[0]): _node(parsed, names, int(rule[1])) for rule in parsed.rules}
    return Grammar(rules, names[parsed.root_rule_id])


def _node(parsed: _Serialized, names: list[str], index: int) -> Node:
    start = parsed.grammar_expr_indptr[index]
    kind, length = parsed.grammar_expr_data[start : start + 2]
    data = parsed.grammar_expr_data[start + 2 : start + 2 + length]
    match kind:
        case 0:  # bytes
            return _literal(bytes(data))
        case 1:  # character class
            return _class(data)
        case 2:  # character class, any number of times
            return repeat(_class(data), 0, None)
        case 3:
            return EMPTY
        case 4:
            return Ref(names[data[0]])
        case 5:
            return Seq(tuple(_node(parsed, names, item) for item in data))
        case 6:
            return Alt(tuple(_node(parsed, names, item) for item in data))
        case 8:
            return repeat(Ref(names[data[0]]), data[1], None if data[2] < 0 else data[2])
        case _:
            raise _extension("it uses a token, tag dispatch or Regex() expression")


def _literal(data: bytes) -> Node:
    try:
        return Literal(data.decode())
    except UnicodeDecodeError:
        raise ConstraintError("A literal of the grammar is not valid Unicode.", code="invalid_grammar") from None


def _class(data: list[int]) -> Chars:
    found = chars(zip(data[1::2], data[2::2], strict=True))
    return complement(found) if data[0] else found


def _extension(what: str) -> ConstraintError:
    return ConstraintError(
        f"The grammar goes beyond GBNF: {what}. Use literals, character classes, repetition, groups and rules.",
        code="invalid_grammar",
    )


# ---- the engine process ---------------------------------------------------------------------------------------------


class XGrammarEngine:
    """Loads compiled grammars and fills masks, on the calling thread only (one thread; `threads` more for large batches)."""

    def __init__(self, vocabulary: Vocabulary, *, threads: int = 1):
        import xgrammar

        self._xgrammar = xgrammar
        self._info = _tokenizer_info(vocabulary)
        self._compiler = xgrammar.GrammarCompiler(self._info, max_threads=1, cache_enabled=False)
        self._batch = xgrammar.BatchGrammarMatcher(max_threads=threads)
        self._stops = frozenset(vocabulary.stop_ids)
        self._spelled = np.fromiter((bool(token) for token in vocabulary.tokens), bool, len(vocabulary.tokens))
        for stop in self._stops:
            if stop < len(self._spelled):
                self._spelled[stop] = True

    def load(self, payload: bytes) -> xgrammar.CompiledGrammar:
        """The compiled grammar of an envelope's payload."""
        form, text = unpacked(payload)
        if form == b"t":
            return _compiled(self._compiler, text)
        return self._xgrammar.CompiledGrammar.deserialize_json(text, self._info)

    def matcher(self, compiled: xgrammar.CompiledGrammar) -> XGrammarMatcher:
        """A new matcher at the start of `compiled`."""
        return XGrammarMatcher(self, self._xgrammar.GrammarMatcher(compiled))

    def is_candidate(self, token: int) -> bool:
        """True for a token that has bytes or ends the output; asking xgrammar about any other writes to stderr."""
        return token in self._stops or (0 <= token < len(self._spelled) and bool(self._spelled[token]))

    def fill(self, matchers: Sequence[Any], mask: NDArray[np.int32], rows: Sequence[int]) -> None:
        """Fills rows of mask [rows, words] in one native call; see `MaskFiller`."""
        self._batch.batch_fill_next_token_bitmask([m.native for m in matchers], mask, list(rows))


class XGrammarMatcher:
    """A `Matcher` over xgrammar's."""

    __slots__ = ("accepted", "filler", "native")

    def __init__(self, engine: XGrammarEngine, native: xgrammar.GrammarMatcher, accepted: int = 0):
        self.filler = engine
        self.native = native
        self.accepted = accepted

    def accept(self, token: int) -> bool:
        """See `Matcher.accept`."""
        if self.native.is_terminated() or not self.filler.is_candidate(token) or not self.native.accept_token(token):
            return False
        self.accepted += 1
        return True

    def rollback(self, count: int) -> None:
        """See `Matcher.rollback`."""
        if not 0 <= count <= self.accepted:
            raise ValueError(f"cannot roll back {count} tokens: {self.accepted} were accepted")
        if count:
            self.native.rollback(count)
            self.accepted -= count

    def fork(self) -> XGrammarMatcher:
        """See `Matcher.fork`."""
        return XGrammarMatcher(self.filler, self.native.fork(), self.accepted)

    forced: tuple[int, ...] = ()

    def forced_text(self) -> str:
        """See `NativeMatcher.forced_text`."""
        try:
            return self.native.find_jump_forward_string()
        except UnicodeDecodeError:
            return ""

    @property
    def may_end(self) -> bool:
        """See `Matcher.may_end`."""
        return self.native.is_completed()

    @property
    def is_terminated(self) -> bool:
        """See `Matcher.is_terminated`."""
        return self.native.is_terminated()
