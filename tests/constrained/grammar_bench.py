"""A tiny vocabulary, an engine for it, and random walks over its masks: what the tests of this room share."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

import jsonschema
import referencing

from ramify.constrained.masks import Masks, allowed_tokens
from ramify.constrained.matcher import Matcher
from ramify.constrained.schema import schema_text
from ramify.constrained.spec import Constraint, JsonSchema
from ramify.constrained.store import GrammarStore
from ramify.constrained.vocabulary import Vocabulary

STOP = 256
WORDS = [
    '", "',
    '": ',
    '{"',
    '"}',
    "true",
    "null",
    "name",
    "ab",
    "12",
    "00",
    ".5",
    "-1",
    "e1",
    " é",
    "漢字",
    "😀",
    '\\"',
    "\\u00",
    "]}",
]


@dataclass
class Bench:
    """A compiler, a store and masks over one vocabulary, all in this process."""

    vocabulary: Vocabulary
    compiler: Any
    store: GrammarStore
    masks: Masks

    def compile(self, constraint: Constraint) -> bytes:
        return self.compiler.compile(constraint)

    def matcher(self, constraint: Constraint) -> Matcher:
        return self.store.matcher(self.compile(constraint))

    def accepts(self, grammar: bytes, text: str) -> bool:
        """True when `text`, byte by byte, is a complete text of the grammar."""
        matcher = self.store.matcher(grammar)
        return all(matcher.accept(byte) for byte in text.encode("utf-8", "surrogatepass")) and matcher.may_end

    def walk(self, grammar: bytes, rng: random.Random, *, patience: int = 60, limit: int = 600) -> str | None:
        """A random text: each token drawn uniformly from the mask, the end token with a bias, and after `patience` tokens
        rather the ones that close something. None when `limit` tokens were not enough.

        Every mask on the way must allow at least one token.
        """
        matcher, output = self.store.matcher(grammar), b""
        for step in range(limit):
            row = self.masks.fill([matcher])[0]
            allowed = allowed_tokens(row, self.vocabulary.size)
            assert len(allowed), f"no token is allowed after {output!r}"
            if STOP in allowed and (step > patience or rng.random() < 0.3):
                assert matcher.accept(STOP)
                return output.decode("utf-8")
            texts = allowed[allowed != STOP]
            token = self._closing(texts) if step > patience and rng.random() < 0.7 else None
            token = int(rng.choice(texts)) if token is None and len(texts) else token
            if token is None:
                continue
            assert matcher.accept(token), (output, token)
            output += self.vocabulary.tokens[token]
        return None

    def _closing(self, allowed: Any) -> int | None:
        for wanted in b'"}]':
            if wanted in allowed:
                return wanted
        return None


def make_bench(vocabulary: Vocabulary) -> Bench:
    from ramify.constrained.engines import ConstraintCompiler

    data = vocabulary.to_bytes()
    return Bench(vocabulary, ConstraintCompiler(data), GrammarStore(data), Masks(vocabulary.size))


def byte_bench() -> Bench:
    """All single bytes, an end token (256), a hole, and some longer tokens; logits padded to 290."""
    tokens = [bytes([b]) for b in range(256)] + [b"", b""] + [w.encode() for w in WORDS]
    return make_bench(Vocabulary.from_tokens(tokens, stop_ids=[STOP], size=290))


def constraint_of(schema: Any) -> JsonSchema:
    return JsonSchema(schema_text(schema))


def validator_of(schema: Any) -> jsonschema.protocols.Validator:
    """The independent validator of a schema, formats included; it resolves nothing outside the schema."""
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return kind(schema, registry=referencing.Registry(), format_checker=kind.FORMAT_CHECKER)


def loads(text: str) -> Any:
    """JSON as a strict decoder reads it."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)
