"""The document of GET /openapi.json: valid, complete, and true of what the structs take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import pytest

from ramify.runtime.protocol import GenerateRequest, ScoreRequest
from ramify.runtime.server import examples, fields
from ramify.runtime.server.answers import ANSWERS
from ramify.runtime.server.descriptions import BODIES, GROUPS, KINDS, OWN
from ramify.runtime.server.openapi import PAGE, document
from ramify.runtime.server.routes import ROUTES

DOCUMENT = json.loads(msgspec.json.encode(document("org/tiny")))
OPERATIONS = [(path, verb, operation) for path, item in DOCUMENT["paths"].items() for verb, operation in item.items()]


def inside(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within a value."""
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from inside(one)
    elif isinstance(value, list):
        for one in value:
            yield from inside(one)


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def test_every_reference_leads_to_something() -> None:
    for one in inside(DOCUMENT):
        if isinstance(one.get("$ref"), str):
            at: Any = DOCUMENT
            for part in one["$ref"].removeprefix("#/").split("/"):
                at = at[part]
            assert isinstance(at, dict)


def test_every_route_is_in_it_with_an_id_of_its_own() -> None:
    assert {(path, verb.upper()) for path, verb, _ in OPERATIONS} == {(route.path, route.method) for route in ROUTES}
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids) == len(ROUTES)


def test_it_is_openapi_3_1() -> None:
    """By the parts of its own schema that matter here; each schema by JSON Schema's."""
    assert DOCUMENT["openapi"] == "3.1.0" and {"title", "version"} <= set(DOCUMENT["info"])
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for path, verb, operation in OPERATIONS:
        assert set(operation["tags"]) <= tags and operation["summary"] and "200" in operation["responses"]
        assert ("requestBody" in operation) <= (verb == "post")
        assert [parameter["name"] for parameter in operation.get("parameters", [])] == (["id"] if "{id}" in path else [])
        for response in operation["responses"].values():
            assert response["description"]
            for content in response.get("content", {}).values():
                jsonschema.Draft202012Validator.check_schema(content["schema"])


def test_every_field_of_a_body_is_described_and_none_that_does_not_exist() -> None:
    for name in (*BODIES, *OWN):
        described = DOCUMENT["components"]["schemas"][name]["properties"]
        assert [field for field, schema in described.items() if not schema.get("description")] == [], name
        known = set(getattr(fields, name).__struct_fields__)
        assert set(OWN.get(name, {})) | set(KINDS.get(name, {})) <= known, name
    of_bodies = {field for name in BODIES for field in getattr(fields, name).__struct_fields__}
    assert {name for group in GROUPS.values() for name in group} <= of_bodies
    assert sum(map(len, GROUPS.values())) == len({name for group in GROUPS.values() for name in group})


BODY_OF = {route.name: route.body for route in ROUTES if route.body} | {
    "program_generate": GenerateRequest,
    "program_score": ScoreRequest,
}


@pytest.mark.parametrize("handler", BODY_OF)
def test_an_example_is_valid_by_the_document_and_by_the_struct(handler: str) -> None:
    [operation] = [one for _, _, one in OPERATIONS if one["operationId"] == handler]
    content = operation["requestBody"]["content"]["application/json"]
    assert content["examples"]
    for title, example in content["examples"].items():
        validator(content["schema"]).validate(example["value"])
        msgspec.json.decode(msgspec.json.encode(example["value"]), type=BODY_OF[handler])
        assert example["summary"] == title and "{model}" not in json.dumps(example)


@pytest.mark.parametrize("handler", examples.ANSWERS)
def test_an_example_of_an_answer_is_one(handler: str) -> None:
    msgspec.convert(examples.ANSWERS[handler], ANSWERS[handler])
    [operation] = [one for _, _, one in OPERATIONS if one["operationId"] == handler]
    content = operation["responses"]["200"]["content"]["application/json"]
    validator(content["schema"]).validate(content["example"])


CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def test_what_the_server_takes_the_document_allows() -> None:
    validator({"$ref": "#/components/schemas/ChatBody"}).validate(CHAT)


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "messages": [{"role": "root", "content": "x"}]},
        {**CHAT, "temperature": 2.1},
        {**CHAT, "top_p": 0},
        {**CHAT, "max_tokens": 0},
        {**CHAT, "use_beam_search": True},
        {**CHAT, "cache_salt": ""},
        {**CHAT, "tempature": 1},
        {"model": "m"},
    ],
    ids=repr,
)
def test_what_the_server_refuses_the_document_refuses(body: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator({"$ref": "#/components/schemas/ChatBody"}).validate(body)


def test_null_is_allowed_wherever_a_field_may_be_left_out() -> None:
    for name in BODIES:
        schema = DOCUMENT["components"]["schemas"][name]
        for field in set(schema["properties"]) - set(schema.get("required", ())):
            validator(schema["properties"][field]).validate(None)


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "http://" not in page and "https://" not in page and page.isascii()
    assert not any(word in page for word in ("<link", " src=", "@import", "innerHTML", "eval(", "localStorage"))
    assert "url(" not in page.partition("</style>")[0]
