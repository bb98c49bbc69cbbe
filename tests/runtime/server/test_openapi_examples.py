"""Every example of /openapi.json is answered by a server, with an answer that the document allows."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import jsonschema
import pytest
from serving import RunningServer

from ramify.runtime.server import examples
from ramify.runtime.server.routes import ROUTES

PATHS = {route.name: route.path for route in reversed(ROUTES)}
CASES = [(handler, title) for handler, bodies in examples.BODIES.items() for title in bodies]


@pytest.fixture(scope="module")
def document(server: RunningServer) -> dict[str, Any]:
    return json.loads(ask(server, "/openapi.json")[1])


def ask(server: RunningServer, path: str, body: Any = None) -> tuple[str, str]:
    """Content type and text of the answer; an error status is an exception."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"} if data else {})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.headers.get_content_type(), answer.read().decode()


def check(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


@pytest.mark.parametrize(("handler", "title"), CASES)
def test_an_example_is_answered_as_the_document_says(
    server: RunningServer, document: dict[str, Any], handler: str, title: str
) -> None:
    operation = document["paths"][PATHS[handler]]["post"]
    body = operation["requestBody"]["content"]["application/json"]["examples"][title]["value"]
    kind, text = ask(server, PATHS[handler], body)
    content = operation["responses"]["200"]["content"][kind]["schema"]
    if kind == "application/json":
        check(json.loads(text), content, document)
    else:
        events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        assert events.pop() == "[DONE]" and events
        for event in events:
            check(json.loads(event), content, document)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "GET"], ids=lambda route: route.path)
def test_a_get_is_answered_as_the_document_says(server: RunningServer, document: dict[str, Any], route: Any) -> None:
    path = route.path.replace("{id}", "ramify-bundled")
    kind, text = ask(server, path)
    content = document["paths"][route.path]["get"]["responses"]["200"]["content"]
    assert set(content) == {kind}
    if kind == "application/json":
        check(json.loads(text), content[kind]["schema"], document)
