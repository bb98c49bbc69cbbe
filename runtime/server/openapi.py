"""The OpenAPI document, and the page that shows it.

Made from the table of routes and the structs of their bodies and answers; `descriptions.py` has the words for the fields,
`examples.py` the examples.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from ... import __version__
from ..protocol import GenerateRequest, ScoreRequest
from . import examples
from .answers import ANSWERS, EVENTS, Error
from .descriptions import described
from .exchange import Exchange
from .fields import REFUSED, REFUSED_NATIVE, NativeSampling
from .responses import json_response
from .routes import ROUTES, Route

PAGE = Path(__file__).with_name("docs.html")
REF = "#/components/schemas/{name}"
_BODIES: dict[str, type[Any]] = {"program_generate": GenerateRequest, "program_score": ScoreRequest}
_TEXTS = {"metrics": "text/plain", "docs": "text/html"}
"""Handlers whose answers are no JSON."""
_TAGS = {
    "OpenAI": "The routes of OpenAI's protocol, with the further fields of SGLang and vLLM under their names.",
    "Native": "SGLang's own route, with token ids in and out, and the tokenizer.",
    "Programs": "What `RuntimeEndpoint` sends: requests and events of Ramify's own protocol. Token ids are base64 of int32.",
    "Control": "What runs, what is cached, and how to end it. Those that change it need an admin key, where the server has any.",
    "Health": "For load balancers, supervisors and Prometheus; without a key.",
    "Documentation": "This document; without a key.",
}
_ERRORS = {
    "400": "The request is wrong; error.code and error.param say where.",
    "401": "The key is missing or unknown.",
    "403": "The route needs an admin key.",
    "404": "There is no such model.",
    "408": "The body took too long to arrive, or the request passed its deadline.",
    "413": "The body is too large.",
    "415": "The body is not JSON, or is compressed.",
    "429": "The key has too many requests on their way; Retry-After says when to try again.",
    "500": "The server or the engine made a mistake.",
    "503": "Loading, draining, full, or without an engine; Retry-After says when to try again.",
}
_ABOUT = """Serves {model}.

`null` means the default in every field. A field that does not exist is refused, with the nearest name. Every answer has an
`X-Request-Id`: the client's own, or a new one. Every error has one form: `error.message`, `error.type`, `error.param`,
`error.code`; in a stream it is an event, before the last one, `data: [DONE]`.

Where the server has API keys, send one as `Authorization: Bearer KEY`."""


def _body_of(route: Route) -> type[Any] | None:
    return route.body or _BODIES.get(route.name)


def document(model: str) -> dict[str, Any]:
    """The document. model: what stands in the examples."""
    bodies = {route.name: body for route in ROUTES if (body := _body_of(route)) is not None}
    kinds = [*bodies.values(), *ANSWERS.values(), *EVENTS.values(), NativeSampling, Error]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REF)
    known = iter(schemas)
    of_body, of_answer, of_event = ({name: next(known) for name in names} for names in (bodies, ANSWERS, EVENTS))
    paths: dict[str, dict[str, Any]] = {}
    named: set[str] = set()
    for route in ROUTES:
        made = _operation(route, of_body.get(route.name), of_answer.get(route.name), of_event.get(route.name))
        made["operationId"] = _operation_id(route, named)
        paths.setdefault(route.path, {})[route.method.lower()] = examples.with_model(made, model)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ramify",
            "version": __version__,
            "summary": "An engine for programs that call a language model many times, and OpenAI's protocol over it.",
            "description": _ABOUT.format(model=model),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {name: _component(name, schema) for name, schema in sorted(components.items())},
            "headers": {
                "X-Request-Id": {"description": "The request's id: the client's, or a new one.", "schema": {"type": "string"}},
                "Retry-After": {"description": "Seconds until it may go better.", "schema": {"type": "integer", "minimum": 1}},
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "A key of this server."}},
        },
    }


def _component(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A struct's schema with our words for its fields."""
    text = inspect.cleandoc(schema.get("description", ""))
    if not text or text.startswith("POST "):  # the route itself says it
        schema = {key: value for key, value in schema.items() if key != "description"}
    else:
        schema = {**schema, "description": text}
    return described(name, schema, REFUSED_NATIVE if name == "GenerateBody" else REFUSED)


def _operation_id(route: Route, named: set[str]) -> str:
    """The handler's name for its first route, and a longer one for the others."""
    name = route.name
    if name in named:
        name = f"{name}_{route.method.lower()}_{route.path.strip('/').replace('/', '_') or 'root'}"
    named.add(name)
    return name


def _operation(route: Route, body: Any, answer: Any, event: Any) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if answer is not None:
        shown = {"example": examples.ANSWERS[route.name]} if route.name in examples.ANSWERS else {}
        content["application/json"] = {"schema": answer, **shown}
    if event is not None:
        content["text/event-stream"] = {"schema": event}
    if route.name in _TEXTS:
        content[_TEXTS[route.name]] = {"schema": {"type": "string"}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "tags": [route.tag],
        "responses": {"200": _response("The answer.", content), **_error_responses(route)},
    }
    if body is not None:
        shown = {title: {"summary": title, "value": value} for title, value in examples.BODIES[route.name].items()}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body, "examples": shown}}}
    if "{id}" in route.path:
        text = "The model's name. It may hold slashes, which are sent as they are."
        operation["parameters"] = [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": text,
                "schema": {"type": "string"},
                "example": "{model}",
            }
        ]
    if route.admin:
        operation["description"] = "Needs an admin key, where the server has any."
        operation["x-admin"] = True
    operation["security"] = [{}] if route.public else [{"bearer": []}, {}]
    return operation


def _response(text: str, content: dict[str, Any], *headers: str) -> dict[str, Any]:
    named = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *headers)}
    return {"description": text, "headers": named, **({"content": content} if content else {})}


def _error_responses(route: Route) -> dict[str, Any]:
    """The errors that a route can answer with, each in the form of all."""
    codes = ["400", "500"]
    if not route.public:
        codes += ["401", "429"]
    if route.admin:
        codes.append("403")
    if route.name in ("chat", "completions", "generate", "model"):
        codes.append("404")
    if route.method == "POST":
        codes += ["408", "413", "415"]
    if route.method == "POST" or route.tag == "Control" or route.name == "health_generate":
        codes.append("503")
    form = {"schema": {"$ref": REF.format(name="Error")}, "example": examples.ERROR}
    found = {code: _response(_ERRORS[code], {"application/json": form}) for code in sorted(codes)}
    for code in {"429", "503"} & set(found):
        found[code]["headers"]["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
    if route.name in ("health", "ready"):
        status = {"schema": {"$ref": REF.format(name="Status")}}
        found["503"] = _response("It does not.", {"application/json": status})
    return found


def document_of(model: str) -> Callable[[Exchange], Awaitable[web.Response]]:
    """The handler of GET /openapi.json."""
    made = cache(lambda: document(model))

    async def handler(exchange: Exchange) -> web.Response:
        return json_response(made())

    return handler


async def page(exchange: Exchange) -> web.Response:
    """GET /docs: a page of ours, which loads nothing from anywhere but this server."""
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'"
    )
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    return web.Response(body=PAGE.read_bytes(), headers={**headers, "Content-Type": "text/html; charset=utf-8"})
