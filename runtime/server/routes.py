"""The routes: one table from which dispatch, authentication and the OpenAPI document are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .fields import AbortBody, ChatBody, CompletionBody, DetokenizeBody, GenerateBody, TokenizeBody


@dataclass(frozen=True)
class Route:
    """method and path; name: the handler's. body: the struct it takes, None for none (or a body that it decodes itself).

    tag: its section in the documentation. public: needs no key. admin: needs an admin key. streams: answers with events too.
    """

    method: str
    path: str
    name: str
    summary: str
    tag: str
    body: type[Any] | None = None
    public: bool = False
    admin: bool = False
    streams: bool = False


ROUTES = (
    Route("POST", "/v1/chat/completions", "chat", "Answer a conversation.", "OpenAI", ChatBody, streams=True),
    Route("POST", "/v1/completions", "completions", "Continue texts or token ids.", "OpenAI", CompletionBody, streams=True),
    Route("GET", "/v1/models", "models", "The models that are served.", "OpenAI"),
    Route("GET", "/v1/models/{id}", "model", "One of them; the id may hold slashes.", "OpenAI"),
    Route(
        "POST",
        "/generate",
        "generate",
        "Continue text, ids, or both in turn; SGLang's fields.",
        "Native",
        GenerateBody,
        streams=True,
    ),
    Route("POST", "/tokenize", "tokenize", "Text or a conversation to token ids.", "Native", TokenizeBody),
    Route("POST", "/v1/tokenize", "tokenize", "The same.", "Native", TokenizeBody),
    Route("POST", "/detokenize", "detokenize", "Token ids to text.", "Native", DetokenizeBody),
    Route("POST", "/v1/detokenize", "detokenize", "The same.", "Native", DetokenizeBody),
    Route(
        "POST", "/ramify/generate", "program_generate", "A program's call, in the protocol's own form.", "Programs", streams=True
    ),
    Route("POST", "/ramify/score", "program_score", "A program's choice, in the protocol's own form.", "Programs"),
    Route(
        "POST", "/flush_cache", "flush_cache", "Drop what no running request holds from the prefix cache.", "Control", admin=True
    ),
    Route("GET", "/flush_cache", "flush_cache", "The same.", "Control", admin=True),
    Route("POST", "/abort_request", "abort_request", "End requests by their id.", "Control", AbortBody, admin=True),
    Route("GET", "/server_info", "server_info", "Model, settings, cache and scheduler.", "Control"),
    Route("GET", "/get_server_info", "server_info", "The same, by SGLang's older name.", "Control"),
    Route("GET", "/model_info", "model_info", "The model in a few words.", "Control"),
    Route("GET", "/get_model_info", "model_info", "The same, by SGLang's older name.", "Control"),
    Route("GET", "/cache_tree", "cache_tree", "The prefix tree.", "Control", admin=True),
    Route("GET", "/health", "health", "Whether the process lives.", "Health", public=True),
    Route("GET", "/ping", "health", "The same.", "Health", public=True),
    Route("GET", "/ready", "ready", "Whether requests are taken and answered.", "Health", public=True),
    Route("GET", "/health_generate", "health_generate", "Whether a token can be made.", "Health", public=True),
    Route("GET", "/metrics", "metrics", "Prometheus metrics.", "Health", public=True),
    Route("GET", "/version", "version", "The version.", "Health", public=True),
    Route("GET", "/openapi.json", "openapi", "This document.", "Documentation", public=True),
    Route("GET", "/docs", "docs", "This document as a page.", "Documentation", public=True),
    Route("GET", "/", "docs", "The same.", "Documentation", public=True),
)

_BY_PATH: dict[str, dict[str, Route]] = {}
for _route in ROUTES:
    if "{" not in _route.path:
        _BY_PATH.setdefault(_route.path, {})[_route.method] = _route
_PREFIXES = tuple((route.path.partition("{")[0], route) for route in ROUTES if "{" in route.path)


def find(path: str) -> tuple[dict[str, Route], str]:
    """The routes of a raw path by method, empty if there is none, and what stands in the place of `{id}`. Pure.

    The path is compared as it was sent: no decoding, no joining of slashes, so nothing reaches a route by another spelling.
    """
    if path in _BY_PATH:
        return _BY_PATH[path], ""
    for prefix, route in _PREFIXES:
        if path.startswith(prefix) and len(path) > len(prefix):
            return {route.method: route}, path[len(prefix) :]
    return {}, ""
