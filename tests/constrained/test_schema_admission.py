"""Two hundred schemas as they are found: how many are admitted, and that everything generated for those is valid."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from grammar_bench import constraint_of, loads, validator_of

from ramify.constrained import limits
from ramify.constrained.engines import ENGINES
from ramify.constrained.spec import Regex
from ramify.runtime.errors import ConstraintError

FOLDER = Path(__file__).parent / "schemas"
SCHEMAS: dict[str, Any] = {
    name: schema for path in sorted(FOLDER.glob("*.json")) for name, schema in json.loads(path.read_text()).items()
}
UNIQUE = "uniqueItems over free values"
CENTS = "multipleOf 0.01"
LOOKAROUND = "lookaround in a pattern"
FORMAT = "a format that no specification defines"
OUTSIDE = "a reference that leaves the schema"
REFUSED = {
    "choose_seats": UNIQUE,
    "create_calendar_event": UNIQUE,
    "custom_format_vin": FORMAT,
    "external_common_types": OUTSIDE,
    "filter_products": UNIQUE,
    "flashcards": UNIQUE,
    "isbn_book_custom_format": FORMAT,
    "isbn_checked": LOOKAROUND,
    "lookaround_slug": LOOKAROUND,
    "package_manifest": UNIQUE,
    "password_lookahead": LOOKAROUND,
    "price_multiple_of_cents": CENTS,
    "pydantic_set_of_tags": UNIQUE,
    "remote_ref": OUTSIDE,
    "scientific_paper": UNIQUE,
    "split_bill": CENTS,
    "subscription_plan": CENTS,
    "tls_settings": UNIQUE,
    "unique_participants": UNIQUE,
    "webhook_subscription": UNIQUE,
}
ADMITTED = [name for name in SCHEMAS if name not in REFUSED]
WALKED = ADMITTED[::6]


def test_180_of_200_realistic_schemas_are_admitted():
    assert len(SCHEMAS) == 200
    assert len(ADMITTED) == 180


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_the_others_are_refused_with_a_place(bench, name):
    with pytest.raises(ConstraintError) as error:
        bench.compile(constraint_of(SCHEMAS[name]))
    assert error.value.code == ("invalid_json_schema" if REFUSED[name] == OUTSIDE else "unsupported_schema")
    assert error.value.param is not None


def refuse(uri: str) -> Any:
    raise AssertionError(f"{uri} was about to be fetched")


@pytest.mark.parametrize("name", ADMITTED)
def test_what_is_generated_for_an_admitted_schema_is_valid(bench, name):
    """Two walks for each of the 180, eight for thirty of them: 500 and more generations at temperature 1."""
    schema = SCHEMAS[name]
    grammar = bench.compile(constraint_of(schema))
    strict = jsonschema_rs.validator_for(schema, validate_formats=True, ignore_unknown_formats=True, retriever=refuse)
    finished = 0
    for seed in range(8 if name in WALKED else 2):
        text = bench.walk(grammar, random.Random(f"{name} {seed}"), patience=40, limit=1500)
        if text is not None:
            finished += 1
            validator_of(schema).validate(loads(text))
            assert strict.is_valid(loads(text)), text
    assert finished > 0


@pytest.mark.slow
@pytest.mark.parametrize("engines", [ENGINES, ("llguidance",)])
def test_every_admitted_schema_compiles_within_the_time(bench, engines):
    for engine in engines:
        bench.compiler.only(engine).compile(Regex("a"))  # imported by now
    for name in ADMITTED:
        began = time.perf_counter()
        grammar = bench.compiler.only(*engines).compile(constraint_of(SCHEMAS[name]))
        assert time.perf_counter() - began < limits.COMPILE_S, name
        assert bench.walk(grammar, random.Random(name), patience=30, limit=2000) is not None, name


def test_random_schemas_are_enforced_or_refused(bench):
    """Schemas put together at random: walks are valid, and of a pool of instances nothing invalid is accepted."""
    outcomes = {"admitted": 0, "unsupported_schema": 0, "unsatisfiable_grammar": 0}
    for seed in range(120):
        rng = random.Random(seed)
        schema = random_schema(rng, 0)
        schema = {**schema, "$defs": {"d": random_schema(rng, 1), "e": random_schema(rng, 1)}}
        try:
            grammar = bench.compile(constraint_of(schema))
        except ConstraintError as error:
            outcomes[error.code] += 1
            continue
        outcomes["admitted"] += 1
        validator = validator_of(schema)
        for walk in range(3):
            text = bench.walk(grammar, random.Random(1000 * seed + walk), patience=20, limit=300)
            if text is not None:
                assert is_valid(validator, loads(text)), (schema, text)
        for instance in INSTANCES:
            if bench.accepts(grammar, json.dumps(instance)):
                assert is_valid(validator, instance), (schema, instance)
    assert outcomes["admitted"] > 60
    assert all(outcomes.values())


INSTANCES: list[Any] = [
    None,
    True,
    0,
    1,
    7,
    -1,
    1.5,
    "",
    "a",
    "abc",
    [],
    [1],
    [1, 1],
    [7, "a", None],
    ["a", "a"],
    {},
    {"a": 1},
    {"a": "x", "b": 2},
    {"k": "x"},
    {"c": [1]},
    {"a": 1, "b": "abc", "c": 7},
    {"b": None, "k": 1},
]


def is_valid(validator: Any, instance: Any) -> bool:
    """False only where the validator says so; a cycle of references, on which it would not end, says nothing."""
    try:
        return validator.is_valid(instance)
    except RecursionError:
        return True


def random_schema(rng: random.Random, depth: int) -> dict[str, Any]:
    """A schema of the shapes that people combine; deeper ones become scalars."""
    shapes = ("integer", "number", "string", "enum", "other", "ref")
    shapes = shapes if depth > 2 else (*shapes, "object", "object", "object", "array", "array", "combined", "combined")
    match rng.choice(shapes):
        case "integer" | "number" as kind:
            schema: dict[str, Any] = {"type": kind}
            maybe(rng, schema, rng.choice(["minimum", "exclusiveMinimum"]), [-10, -2.5, 0, 0.1, 1, 3], 0.5)
            maybe(rng, schema, rng.choice(["maximum", "exclusiveMaximum"]), [0, 0.5, 3.75, 10, 120], 0.5)
            maybe(rng, schema, "multipleOf", [1, 2, 5, 7, 0.5], 0.1)
        case "string":
            schema = {"type": "string"}
            maybe(rng, schema, "minLength", [0, 1, 3], 0.3)
            maybe(rng, schema, "maxLength", [0, 1, 3, 6], 0.3)
            maybe(rng, schema, "pattern", ["^a+$", "b", "^[A-Z]", "^\\d{2,4}$", "a|b", "^(x|yy)*$"], 0.3)
        case "enum":
            schema = {"enum": rng.sample([1, "a", "b", None, True, 2.5, [1], {"a": 1}], rng.randint(1, 4))}
        case "other":
            others = [{}, {"type": ["string", "null"]}, {"type": "boolean"}, {"minLength": 2}, {"required": ["a"]}]
            schema = dict(rng.choice(others))
        case "ref":
            schema = {"$ref": rng.choice(["#", "#/$defs/d", "#/$defs/e"])}
        case "object":
            schema = {"type": "object"}
            if rng.random() < 0.8:
                schema["properties"] = {
                    n: random_schema(rng, depth + 1) for n in rng.sample(["a", "b", "c", "k"], rng.randint(0, 3))
                }
            maybe(rng, schema, "required", [["a"], ["b", "a"], ["k"]], 0.5)
            maybe(rng, schema, "additionalProperties", [False, True, {"type": "integer"}], 0.4)
            maybe(rng, schema, "minProperties", [0, 1, 2], 0.1)
            maybe(rng, schema, "maxProperties", [0, 1, 2], 0.1)
            maybe(rng, schema, "dependentRequired", [{"a": ["b"]}], 0.1)
            if rng.random() < 0.1:
                schema["patternProperties"] = {"^[ab]": random_schema(rng, depth + 2), "c": {"type": "integer"}}
            maybe(rng, schema, "unevaluatedProperties", [False, True], 0.05)
        case "array":
            schema = {"type": "array", "items": random_schema(rng, depth + 1)}
            maybe(rng, schema, "prefixItems", [[random_schema(rng, depth + 1)]], 0.3)
            maybe(rng, schema, "minItems", [0, 1, 2], 0.4)
            maybe(rng, schema, "maxItems", [0, 1, 3], 0.4)
            maybe(rng, schema, "uniqueItems", [True], 0.1)
            if rng.random() < 0.2:
                schema["contains"] = random_schema(rng, depth + 2)
            maybe(rng, schema, "minContains", [0, 1, 2], 0.1)
            maybe(rng, schema, "maxContains", [1, 2], 0.1)
            maybe(rng, schema, "unevaluatedItems", [False, True], 0.05)
        case _:
            parts = [random_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]
            schema = {rng.choice(["anyOf", "oneOf", "allOf"]): parts}
            if rng.random() < 0.3:
                schema = {**random_schema(rng, depth + 1), **schema}
    if depth <= 2 and rng.random() < 0.1:
        schema["not"] = random_schema(rng, depth + 2)
    if depth <= 2 and rng.random() < 0.1:
        schema |= {"if": random_schema(rng, depth + 2), rng.choice(["then", "else"]): random_schema(rng, depth + 2)}
    return schema


def maybe(rng: random.Random, schema: dict[str, Any], keyword: str, values: list[Any], chance: float) -> None:
    if rng.random() < chance:
        schema[keyword] = rng.choice(values)
