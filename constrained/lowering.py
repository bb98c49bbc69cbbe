"""From what was asked to a grammar: the one table of the kinds of constraint.

The grammar that comes out is pruned (every prefix of it can be completed), confined to what the vocabulary can spell, and the
same for every engine. Ebnf is the exception: its syntax is an engine's own, so the engine reads it (`read_ebnf`).
"""

from __future__ import annotations

from collections.abc import Callable

from ..runtime.errors import ConstraintError
from . import json_text, limits, regex, schema, tags
from .free_text import ControlTokens
from .grammar import SURROGATES, Chars, Grammar, Literal, alt, prune, token
from .spec import Choice, Constraint, Ebnf, JsonObject, JsonSchema, Reasoned, Regex, StructuralTags, TagRow
from .spelling import confine


def lower(
    constraint: Constraint,
    alphabet: Chars | None,
    read_ebnf: Callable[[str], Grammar],
    controls: ControlTokens | None = None,
) -> schema.Lowered:
    """The pruned grammar whose texts are outputs that satisfy `constraint`, and what it does not enforce. Pure.

    alphabet: what the vocabulary can write (`spelling.spellable`), None for everything. controls: its control tokens. Raises
    ConstraintError: invalid_json_schema, unsupported_schema, unsupported_regex, invalid_grammar, unsatisfiable_grammar,
    grammar_too_complex.
    """
    limits.check_text(constraint)
    lowering = _Lowering(read_ebnf, controls or ControlTokens())
    grammar = lowering.grammar(constraint)
    return schema.Lowered(prune(confine(grammar, alphabet)), tuple(lowering.not_enforced))


class _Lowering:
    """not_enforced: of all schemas that a constraint is made of."""

    def __init__(self, read_ebnf: Callable[[str], Grammar], controls: ControlTokens):
        self._read_ebnf, self._controls = read_ebnf, controls
        self.not_enforced: list[schema.Dropped] = []

    def grammar(self, constraint: Constraint) -> Grammar:
        """Not pruned."""
        match constraint:
            case JsonSchema(text, strict, whitespace):
                grammar, not_enforced = schema.lower(text, strict=strict, whitespace=whitespace)
                self.not_enforced += not_enforced
            case JsonObject(whitespace):
                grammar = json_text.any_object(whitespace)
            case Regex(pattern):
                grammar = Grammar({"root": token(regex.whole(pattern))})
            case Choice(options):
                grammar = _choice(options)
            case Ebnf(text):
                grammar = self._read_ebnf(text)
            case StructuralTags() | TagRow() | Reasoned():
                grammar = tags.lower(constraint, self._controls, self.grammar)
        return grammar


def _choice(options: tuple[str, ...]) -> Grammar:
    if not options:
        raise ConstraintError("The list of choices is empty; give at least one.", code="invalid_grammar", param="choices")
    first, last = map(chr, SURROGATES)
    for index, option in enumerate(options):
        if not option:
            raise ConstraintError(
                f"Choice {index} is empty: no output would stand for it. Remove it.", code="invalid_grammar", param="choices"
            )
        if any(first <= c <= last for c in option):
            raise ConstraintError(
                f"Choice {index} contains a lone surrogate, which is not a character.", code="invalid_grammar", param="choices"
            )
    return Grammar({"root": token(alt(*map(Literal, dict.fromkeys(options))))})
