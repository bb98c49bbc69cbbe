"""How large a constraint may be, checked before anything is parsed; and what is refused for being more."""

from __future__ import annotations

from ..runtime.errors import ConstraintError
from .spec import Choice, Constraint, Ebnf, JsonSchema, Regex

SCHEMA_BYTES = 128 * 1024
SCHEMA_DEPTH = 64
SCHEMA_PROPERTIES = 4096
ENUM_VALUES = 32768
REGEX_BYTES = 2 * 1024
EBNF_BYTES = 128 * 1024
CHOICE_BYTES = 1024 * 1024
COMPILE_S = 2.0
COMPILE_BYTES = 512 * 1024 * 1024
WORKERS = 2
CACHE_BYTES = 256 * 1024 * 1024
RULES = 50_000
"""Rules of a lowered grammar: counting properties or repeats can multiply a small schema."""


def too_complex(what: str, param: str | None = None) -> ConstraintError:
    """The refusal of a constraint that would cost too much: `what` is a sentence with the numbers."""
    message = f"{what} Simplify the constraint, or split it over several calls."
    return ConstraintError(message, code="grammar_too_complex", param=param)


def check_size(constraint: Constraint) -> None:
    """Raises ConstraintError `grammar_too_complex` when a constraint's text is over its cap. Costs microseconds."""
    match constraint:
        case JsonSchema(schema):
            _cap("JSON schema", len(schema.encode("utf-8", "surrogatepass")), SCHEMA_BYTES)
        case Regex(pattern):
            _cap("regex", len(pattern.encode("utf-8", "surrogatepass")), REGEX_BYTES)
        case Ebnf(grammar):
            _cap("EBNF grammar", len(grammar.encode("utf-8", "surrogatepass")), EBNF_BYTES)
        case Choice(options):
            if len(options) > ENUM_VALUES:
                raise too_complex(f"There are {len(options)} choices; at most {ENUM_VALUES} are taken.")
            _cap("choices", sum(len(o.encode("utf-8", "surrogatepass")) for o in options), CHOICE_BYTES)
        case _:
            pass


def _cap(what: str, found: int, most: int) -> None:
    if found > most:
        raise too_complex(f"The {what} has {found} bytes; at most {most} are taken.")
