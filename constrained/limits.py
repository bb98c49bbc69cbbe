"""What a constraint may be before anything is parsed: how large, and text at all; and what is refused for being more."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime.errors import ConstraintError
from .spec import Choice, Constraint, Ebnf, JsonSchema, Reasoned, Regex, StructuralTags, Tag, TagRow

SCHEMA_BYTES = 128 * 1024
SCHEMA_DEPTH = 64
SCHEMA_PROPERTIES = 4096
ENUM_VALUES = 32768
REGEX_BYTES = 2 * 1024
EBNF_BYTES = 128 * 1024
CHOICE_BYTES = 1024 * 1024
TAGS = 2048
TAG_BYTES = 1024 * 1024
TRIGGERS = 64
TRIGGER_LENGTH = 128
COMPILE_S = 1.8
COMPILE_BYTES = 512 * 1024 * 1024
WORKERS = 2
CACHE_BYTES = 256 * 1024 * 1024
DISK_BYTES = 256 * 1024 * 1024
RULES = 50_000
"""Rules of a lowered grammar: counting properties or repeats can multiply a small schema."""


def too_complex(what: str, param: str | None = None) -> ConstraintError:
    """The refusal of a constraint that would cost too much: `what` is a sentence with the numbers."""
    message = f"{what} Simplify the constraint, or split it over several calls."
    return ConstraintError(message, code="grammar_too_complex", param=param)


def check_text(constraint: Constraint) -> None:
    """Raises ConstraintError `grammar_too_complex` when a constraint's text is over its cap, `invalid_json_schema` or
    `invalid_grammar` when it has a lone surrogate, which no encoding can write. Costs microseconds."""
    match constraint:
        case JsonSchema(schema=schema):
            _check("JSON schema", [schema], SCHEMA_BYTES, "invalid_json_schema")
        case Regex(pattern):
            _check("regex", [pattern], REGEX_BYTES)
        case Ebnf(grammar):
            _check("EBNF grammar", [grammar], EBNF_BYTES)
        case Choice(options):
            if len(options) > ENUM_VALUES:
                raise too_complex(f"There are {len(options)} choices; at most {ENUM_VALUES} are taken.")
            _check("list of choices", options, CHOICE_BYTES)
        case StructuralTags(triggers, tags, otherwise=otherwise):
            if len(triggers) > TRIGGERS or any(len(trigger) > TRIGGER_LENGTH for trigger in triggers):
                raise too_complex(f"At most {TRIGGERS} triggers of {TRIGGER_LENGTH} characters are taken.")
            _check("list of triggers", triggers, TAG_BYTES)
            _check_tags(tags)
            if otherwise is not None:
                check_text(otherwise)
        case TagRow():
            _check_tags((constraint,))
        case Reasoned(begin, end, then):
            _check("mark of the reasoning", (begin, end), TRIGGER_LENGTH)
            check_text(then)
        case _:
            pass


def _check_tags(tags: Sequence[Tag | TagRow]) -> None:
    rows = [tag for tag in tags if isinstance(tag, TagRow)]
    single = [tag for tag in tags if isinstance(tag, Tag)] + [tag for row in rows for tag in row.tags]
    if len(single) > TAGS:
        raise too_complex(f"There are {len(single)} tags; at most {TAGS} are taken.")
    marks = [part for tag in single for part in (tag.begin, tag.end)]
    marks += [part for row in rows for part in (row.opening, row.separator or "", row.closing)]
    schemas = [tag.content.schema for tag in single if isinstance(tag.content, JsonSchema)]
    _check("list of tags", marks + schemas, TAG_BYTES)
    for tag in single:
        check_text(tag.content)


def _check(what: str, texts: Sequence[str], most: int, code: str = "invalid_grammar") -> None:
    try:
        found = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        message = f"The {what} contains {half}, half of a surrogate pair, which is not a character."
        raise ConstraintError(message, code=code) from None
    if found > most:
        raise too_complex(f"The {what} has {found} bytes; at most {most} are taken.")
