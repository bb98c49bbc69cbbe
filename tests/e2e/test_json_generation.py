"""JSON under a schema from the real engine at temperature 1: everything that ends is valid, by an independent judge."""

from __future__ import annotations

import asyncio
import json

import jsonschema
import pytest
from referencing import Registry

from ramify.constrained.spec import JsonSchema
from ramify.runtime.async_engine import AsyncEngine, complete
from ramify.runtime.config import EngineOptions
from ramify.runtime.protocol import GenerateRequest, SamplingParams, Text

STRING, INTEGER, BOOLEAN = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}


def record(**properties) -> dict:
    """A closed object, all of it required."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SCHEMAS = [
    record(name={"type": "string", "maxLength": 12}, age={"type": "integer", "minimum": 0, "maximum": 130}),
    record(city=STRING, open=BOOLEAN),
    record(kind={"enum": ["cat", "dog", "bird"]}, legs={"const": 4}),
    record(tags={"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3}),
    record(point=record(x=INTEGER, y=INTEGER), label={"type": "string", "maxLength": 8}),
    record(value={"anyOf": [INTEGER, {"type": "null"}]}),
    record(code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}),
    record(score={"type": "number", "minimum": 0, "maximum": 1}),
    {"type": "array", "items": {"type": "integer", "minimum": -5, "maximum": 5}, "minItems": 1, "maxItems": 4},
    {"type": "string", "minLength": 1, "maxLength": 10},
    {"type": "integer", "minimum": 10, "maximum": 99},
    {"type": "boolean"},
    {"enum": ["a \"quoted\" word", "line\nbreak", "🙂", 7, None]},
    record(a=record(b=record(c=BOOLEAN))),
    record(items={"type": "array", "items": record(id=INTEGER, ok=BOOLEAN), "maxItems": 2}),
    {"type": "object", "properties": {"x": INTEGER, "y": BOOLEAN}, "required": ["x"], "additionalProperties": False},
    record(day={"type": "string", "format": "date"}),
    {"$defs": {"leaf": record(v=BOOLEAN)}, "type": "array", "items": {"$ref": "#/$defs/leaf"}, "minItems": 2, "maxItems": 2},
    record(role={"type": "string", "enum": ["user", "assistant"]}, text={"type": "string", "maxLength": 20}),
    record(either={"anyOf": [record(n=INTEGER), {"type": "string", "maxLength": 6}]}),
]


@pytest.mark.timeout(400)
def test_two_hundred_generations_over_twenty_schemas_are_valid_whenever_they_end():
    """Also the shortest and the longest: no generation here is chosen."""

    async def generate() -> list[tuple[dict, str, str]]:
        async with await AsyncEngine.start(EngineOptions(threads=1, kv_tokens=30_000)) as engine:

            async def one(number: int) -> tuple[dict, str, str]:
                schema = SCHEMAS[number % len(SCHEMAS)]
                sampling = SamplingParams(max_new_tokens=120, temperature=1.0, seed=number)
                prompt = Text(f"Here is a record, number {number}:\n")
                request = GenerateRequest((prompt,), sampling, JsonSchema(json.dumps(schema)))
                [finished] = await complete(engine, request)
                return schema, finished.text, finished.finish.reason

            return await asyncio.gather(*(one(number) for number in range(200)))

    results = asyncio.run(generate())
    ended = [(schema, text) for schema, text, reason in results if reason == "stop"]
    assert len(ended) > 150, "most should end by themselves"
    for schema, text in ended:
        jsonschema.Draft202012Validator(schema, registry=Registry()).validate(json.loads(text))
    assert len({text for _, text in ended}) > 100, "at temperature 1 the texts differ"
