"""What a grammar costs with each of the two engines: to compile, to load, and at each token of a text. A part of
`ramify bench constrained`.

Both engines go along the same texts, as the checkpoint's tokenizer writes them, so what is compared is the same work; places
where their masks differ are told. A text is a walk through the grammar that writes frequent words where it may. Times are those
of one row in this process, on one thread, the array of the mask included, as in a step of the engine.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...constrained.engines import ENGINES, ConstraintCompiler
from ...constrained.masks import Masks, allowed_tokens
from ...constrained.spec import Constraint, JsonObject, JsonSchema, Regex
from ...constrained.store import Envelope, GrammarStore
from ...constrained.vocabulary import Vocabulary
from ..errors import ConstraintError
from ..grammar import vocabulary_of
from ..models.config import read_config
from ..text.template import ChatTemplate
from ..text.tokenizer import Tokenizer

PASSES = 3
"""Times that each text is gone along, each with a new matcher, as new requests do."""
MOST_TOKENS = 200
FREE = 1_000
"""Allowed tokens from which a place counts as free text."""


def _closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _optional(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"field_{i}": {"type": "string"} for i in range(count)}}


def _schema(value: Any) -> JsonSchema:
    return JsonSchema(json.dumps(value))


_TEXT = {"type": "string"}
_ADDRESS = _closed(street=_TEXT, city=_TEXT, postcode={"type": "string", "pattern": "^[0-9]{5}$"})
_SHAPES = [
    _closed(kind={"const": "circle"}, radius={"type": "number", "minimum": 0, "maximum": 1000}),
    _closed(kind={"const": "square"}, side={"type": "number", "minimum": 0, "maximum": 1000}),
    _closed(kind={"const": "label"}, text={"type": "string", "maxLength": 80}, bold={"type": "boolean"}),
]
_NODE = {
    "type": "object",
    "properties": {"name": _TEXT, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 3}},
    "required": ["name", "children"],
}

GRAMMARS: dict[str, Constraint] = {
    "a flat record": _schema(_closed(name=_TEXT, age={"type": "integer"}, city=_TEXT, member={"type": "boolean"})),
    "a function's arguments": _schema(
        {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "City and country"},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
            },
            "required": ["location"],
            "additionalProperties": False,
        }
    ),
    "an order, nested": _schema(
        _closed(
            id={"type": "integer", "minimum": 1},
            buyer=_closed(name=_TEXT, address=_ADDRESS),
            lines={"type": "array", "items": _closed(sku=_TEXT, count={"type": "integer"}), "minItems": 1, "maxItems": 5},
        )
    ),
    "a union told apart by a constant": _schema({"type": "array", "items": {"oneOf": _SHAPES}, "minItems": 1, "maxItems": 4}),
    "a tree": _schema({"$ref": "#/$defs/node", "$defs": {"node": _NODE}}),
    "an enum of 200 texts": _schema(_closed(code={"enum": [f"item {i * 7919 % 100_003}" for i in range(200)]})),
    "formats": _schema(
        _closed(
            mail={"type": "string", "format": "email"},
            at={"type": "string", "format": "date-time"},
            id={"type": "string", "format": "uuid"},
            link={"type": "string", "format": "uri"},
        )
    ),
    "patterns": _schema(
        _closed(
            slug={"type": "string", "pattern": "^[a-z]+(-[a-z]+)*$", "maxLength": 40},
            phone={"type": "string", "pattern": "^\\+[1-9][0-9]{6,14}$"},
        )
    ),
    "counted strings": _schema(_closed(**{f"part_{i}": {"type": "string", "minLength": 1, "maxLength": 200} for i in range(5)})),
    "20 optional properties": _schema(_optional(20)),
    "60 optional properties": _schema(_optional(60)),
    "any JSON object": JsonObject(),
    "a regex": Regex(r"(?:[A-Z][a-z]+ ){1,8}[A-Z][a-z]+\."),
}


@dataclass(frozen=True)
class Cost:
    """Of one grammar with one engine. Seconds; num_bytes: of the compiled grammar as it travels. masks, accepts: one entry for
    each token of each pass, the first one's first."""

    compile_s: float
    load_s: float
    num_bytes: int
    masks: list[float]
    accepts: list[float]


class Probe:
    """Compilers, stores and the tokenizer of one checkpoint."""

    def __init__(self, folder: Path):
        self._tokenizer = Tokenizer.load(folder)
        template = ChatTemplate.load(folder, self._tokenizer.named)
        size = read_config(folder).vocab_size
        self.vocabulary = vocabulary_of(folder, self._tokenizer, template, size)
        data = self.vocabulary.to_bytes()
        self._compiler, self._store, self._masks = ConstraintCompiler(data), GrammarStore(data), Masks(size)
        self._store.warm()
        self._words = np.array([len(t) > 1 and t.strip().isalpha() and t.isascii() for t in self.vocabulary.tokens])
        for engine in ENGINES:  # imports, and what is prepared for a vocabulary
            self._compiler.only(engine).compile(Regex("a"))

    def taken(self, constraint: Constraint) -> bytes:
        """The grammar as the engine that is asked first compiles it. Raises ConstraintError."""
        return self._compiler.compile(constraint)

    def text(self, grammar: bytes, seed: int) -> list[int]:
        """The tokens of a text of `grammar`, or of its beginning."""
        rng, matcher, written, free = random.Random(seed), self._store.matcher(grammar), b"", 0
        stops, quote = self.vocabulary.stop_ids, _index(self.vocabulary, b'"')
        for step in range(MOST_TOKENS):
            row = self._masks.fill([matcher])
            assert row is not None
            allowed = allowed_tokens(row[0], len(self.vocabulary.tokens))
            texts = allowed[~np.isin(allowed, stops)]
            if len(texts) < len(allowed) and (not len(texts) or step > MOST_TOKENS // 2 or rng.random() < 0.1):
                break
            free = free + 1 if len(texts) > FREE else 0
            words = texts[self._words[texts]]
            if free > rng.randrange(2, 8) and quote in texts:
                token, free = quote, 0
            else:
                among = words if free and len(words) else texts
                token = int(among[int(len(among) * rng.random() ** 3)])  # in order of ids: frequent ones first
            assert matcher.accept(token)
            written += self.vocabulary.tokens[token]
        return self._tokenizer.encode(written.decode("utf-8", "ignore"), control=False, after=-1).tolist()

    def cost(self, constraint: Constraint, engine: str, ids: Sequence[int]) -> tuple[Cost, np.ndarray]:
        """What one engine takes for a grammar and along a text, and its masks, int32 [tokens, words]. Raises ConstraintError."""
        started = time.perf_counter()
        grammar = self._compiler.only(engine).compile(constraint)
        compile_s = time.perf_counter() - started
        started = time.perf_counter()
        self._store.keep(self._store.load(grammar))
        load_s = time.perf_counter() - started
        masks, accepts, rows = [], [], []
        for number in range(PASSES):
            matcher = self._store.matcher(grammar, canonical=False)
            for token in ids:
                started = time.perf_counter()
                row = self._masks.fill([matcher])
                filled = time.perf_counter()
                assert matcher.accept(token), f"{engine} does not go along the text"
                accepts.append(time.perf_counter() - filled)
                masks.append(filled - started)
                if not number and row is not None:
                    rows.append(row[0])
        return Cost(compile_s, load_s, len(grammar), masks, accepts), np.array(rows)


def _index(vocabulary: Vocabulary, token: bytes) -> int:
    return vocabulary.tokens.index(token) if token in vocabulary.tokens else -1


def corpus(folder: Path) -> dict[str, Constraint]:
    """The schemas of a folder of JSON files, each an object of schemas by name."""
    found: dict[str, Constraint] = {}
    for file in sorted(folder.glob("*.json")):
        found |= {name: _schema(schema) for name, schema in json.loads(file.read_text(encoding="utf-8")).items()}
    return found


def measure(folder: Path, grammars: Mapping[str, Constraint], *, show_each: bool = True) -> dict[str, Any]:
    """Costs of each grammar with both engines over a checkpoint's vocabulary, as a table and as figures. Those that are refused
    are counted, and places where the engines' masks differ: xgrammar 0.2.8 leaves out some tokens of several characters that end
    a counted text."""
    probe = Probe(folder)
    found: dict[str, dict[str, Cost]] = {}
    taken: dict[str, str] = {}
    differ: dict[str, int] = {}
    refused = 0
    if show_each:
        print(f"{'':34} {'engine':11} {'compile ms':>10} {'load ms':>8} {'kB':>7} {'mask us':>8} {'p99':>8} {'accept us':>9}")
    for number, (name, constraint) in enumerate(grammars.items()):
        try:
            grammar = probe.taken(constraint)
        except ConstraintError:
            refused += 1
            continue
        ids = probe.text(grammar, number)
        taken[name] = Envelope.from_bytes(grammar).engine
        found[name], rows = {}, []
        for engine in ENGINES:
            try:
                cost, masks = probe.cost(constraint, engine, ids)
            except ConstraintError:
                continue
            found[name][engine] = cost
            rows.append(masks)
            if show_each:
                mark = "*" if engine == taken[name] else ""
                print(f"{name:34} {engine + mark:11} {_line(cost)}", flush=True)
        unequal = sum(int((rows[0] != other).any(-1).sum()) for other in rows[1:])
        if unequal:
            differ[name] = unequal
            print(f"{name}: the engines' masks differ at {unequal} of {len(ids)} tokens", flush=True)
    figures = {engine: _summary([costs[engine] for costs in found.values() if engine in costs]) for engine in ENGINES}
    figures["as chosen"] = _summary([costs[taken[name]] for name, costs in found.items() if taken[name] in costs])
    return {
        "vocabulary": probe.vocabulary.size,
        "grammars": len(found),
        "refused": refused,
        "differ": differ,
        **figures,
        "each": {
            name: {engine: _summary([cost]) | {"taken": engine == taken[name]} for engine, cost in costs.items()}
            for name, costs in found.items()
        },
    }


def _line(cost: Cost) -> str:
    masks, accepts = 1e6 * np.array(cost.masks), 1e6 * np.array(cost.accepts)
    return (
        f"{1e3 * cost.compile_s:10.1f} {1e3 * cost.load_s:8.1f} {cost.num_bytes / 1e3:7.0f} "
        f"{np.median(masks):8.1f} {np.quantile(masks, 0.99):8.1f} {np.median(accepts):9.1f}"
    )


def _summary(costs: Sequence[Cost]) -> dict[str, float]:
    """Medians, 99th percentiles and, of masks, 99.9th: of compilation and loading over grammars, of masks and accepts over all
    their tokens; of masks in each text's first pass, too."""
    if not costs:
        return {}
    firsts = np.concatenate([np.array(cost.masks[: len(cost.masks) // PASSES]) for cost in costs])
    masks, accepts = (np.concatenate([np.array(getattr(cost, name)) for cost in costs]) for name in ("masks", "accepts"))
    compiles, loads, sizes = ([getattr(cost, name) for cost in costs] for name in ("compile_s", "load_s", "num_bytes"))
    return {
        "tokens": len(firsts),
        "compile_ms": 1e3 * float(np.median(compiles)),
        "compile_p99_ms": 1e3 * float(np.quantile(compiles, 0.99)),
        "load_ms": 1e3 * float(np.median(loads)),
        "load_p99_ms": 1e3 * float(np.quantile(loads, 0.99)),
        "kilobytes": float(np.median(sizes)) / 1e3,
        "mask_us": 1e6 * float(np.median(masks)),
        "mask_p99_us": 1e6 * float(np.quantile(masks, 0.99)),
        "mask_p999_us": 1e6 * float(np.quantile(masks, 0.999)),
        "mask_first_p99_us": 1e6 * float(np.quantile(firsts, 0.99)),
        "accept_us": 1e6 * float(np.median(accepts)),
    }
