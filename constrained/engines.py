"""From a constraint to an envelope: lowered once, then compiled by the engine that costs least.

Both engines enforce the same grammar, so the choice is one of cost. xgrammar walks the vocabulary at every state of the grammar
while it compiles, and has the cheaper masks afterwards where that was enough; llguidance reads any grammar in milliseconds and
does that work when a state is met. 180 schemas as they are found, 151,936 tokens, one core, in milliseconds:

    engine       compile p50   p99   mask p50    p99
    xgrammar             160  7100      0.012     74
    llguidance           7.4    98      0.012    0.9

The tail is strings with formats and counts, and objects of many optional properties. So: llguidance, unless the grammar has so
few states that most tokens could continue that xgrammar is through with them at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from ..runtime.errors import ConstraintError
from .automaton import automaton
from .free_text import ControlTokens
from .grammar import Alt, Chars, Grammar, Literal, Node, Repeat, Seq, Token, Within
from .lark import NotWritable
from .lowering import lower
from .spec import Constraint, Ebnf
from .spelling import spellable
from .store import Envelope
from .vocabulary import Vocabulary, fingerprint

WALKED_TOKENS = 100_000
"""Tokens that xgrammar may look at while it compiles: about 15 ms, twice what llguidance takes for most grammars. Where texts are
free its masks cost as much as llguidance's, and the slowest of them far more (`ramify bench constrained --only masks`)."""
LEAST_TOKENS = 40_000
"""A state costs as much as so many tokens even where the vocabulary is smaller."""
MAX_RULES = 100
"""An object of optional properties has two rules for each; beyond so many xgrammar's masks expand too much at each step."""
MAX_LISTED = 1_000
"""Alternatives in one place, as of an enum."""


def engine_order(grammar: Grammar, vocabulary_size: int) -> tuple[str, ...]:
    """The names of the engines to ask for `grammar`, the cheaper one first. Pure."""
    walks = sum(map(vocabulary_walks, grammar.rules.values()))
    listed = max(map(num_alternatives, grammar.rules.values()))
    tokens = walks * max(vocabulary_size, LEAST_TOKENS)
    is_heavy = tokens > WALKED_TOKENS or len(grammar.rules) > MAX_RULES or listed > MAX_LISTED
    return ("llguidance", "xgrammar") if is_heavy else ("xgrammar", "llguidance")


def vocabulary_walks(node: Node) -> float:
    """The states of an automaton of `node`, counts written out, each as the part of a vocabulary that is looked at there: all
    of it before a class of all characters, a sixth before a digit, next to nothing before a certain character."""
    match node:
        case Literal(text):
            return len(text) / 200
        case Chars(ranges):
            return _share(ranges)
        case Seq(items) | Alt(items):
            return sum(map(vocabulary_walks, items))
        case Repeat(item, least, most):
            return vocabulary_walks(item) * max(1, least if most is None else most)
        case Token(item):
            return vocabulary_walks(item)
        case Within():
            return sum(_share(ranges) for steps in automaton(node).steps for ranges, _ in steps)
    return 0.01


def num_alternatives(node: Node) -> int:
    """The greatest number of alternatives in one place of `node`."""
    match node:
        case Alt(items):
            return max(len(items), *map(num_alternatives, items), 0)
        case Seq(items):
            return max(map(num_alternatives, items), default=0)
        case Repeat(item, _, _) | Token(item):
            return num_alternatives(item)
    return 1


def _share(ranges: Iterable[tuple[int, int]]) -> float:
    """The part of the letters and digits of ASCII that a class has, as a measure of the tokens that begin with it."""
    return sum(max(0, min(high, last) - max(low, first) + 1) for low, high in ranges for first, last in _ALPHANUMERIC) / 62


_ALPHANUMERIC = ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A))


class ConstraintCompiler:
    """Compiles constraints for one vocabulary, on the calling thread. `engines` are those it may ask, by name."""

    def __init__(self, vocabulary: bytes):
        self._vocabulary = Vocabulary.from_bytes(vocabulary)
        self._alphabet = spellable(self._vocabulary)
        self._controls = ControlTokens(self._vocabulary.controls, self._vocabulary.specials)
        self._fingerprint = fingerprint(vocabulary)
        self._compilers: dict[str, Any] = {}
        self.engines: tuple[str, ...] = ENGINES

    def only(self, *engines: str) -> ConstraintCompiler:
        """This compiler, confined to some engines; what it has loaded is shared."""
        confined = object.__new__(ConstraintCompiler)
        confined.__dict__.update(self.__dict__, engines=engines)
        return confined

    def compile(self, constraint: Constraint) -> bytes:
        """The encoded `Envelope` of a constraint. Raises ConstraintError."""
        from .xgrammar_backend import read_ebnf

        grammar, not_enforced = lower(constraint, self._alphabet, read_ebnf, self._controls)
        order = [name for name in engine_order(grammar, self._vocabulary.size) if name in self.engines]
        if isinstance(constraint, Ebnf):
            order = [name for name in order if name == "xgrammar"]
        refusal: ConstraintError | None = None
        for name in order:
            try:
                payload = self._compiler(name).compile(grammar)
            except NotWritable:
                continue
            except ConstraintError as error:
                refusal = refusal or error
                continue
            key = hashlib.blake2b(name.encode() + payload, digest_size=16).hexdigest()
            dropped = tuple((one.keyword, one.pointer, one.why) for one in not_enforced)
            return Envelope(name, key, self._fingerprint, payload, dropped).to_bytes()
        raise refusal or ConstraintError("No grammar engine can enforce this constraint.", code="grammar_too_complex")

    def _compiler(self, name: str) -> Any:
        if name not in self._compilers:
            self._compilers[name] = _COMPILERS[name](self._vocabulary)
        return self._compilers[name]


def _xgrammar(vocabulary: Vocabulary) -> Any:
    from .xgrammar_backend import XGrammarCompiler

    return XGrammarCompiler(vocabulary)


def _llguidance(vocabulary: Vocabulary) -> Any:
    from .llguidance_backend import LLGuidanceCompiler

    return LLGuidanceCompiler(vocabulary)


_COMPILERS: dict[str, Callable[[Vocabulary], Any]] = {"xgrammar": _xgrammar, "llguidance": _llguidance}
ENGINES = tuple(_COMPILERS)
"""The names of all engines."""
