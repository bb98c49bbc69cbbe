"""The handlers of the routes that generate: body -> requests -> answer. Each is named in `routes.py`."""

from __future__ import annotations

import time
import uuid
from typing import Any

from aiohttp import web
from msgspec.structs import replace

from ..async_engine import AsyncEngine
from ..errors import ModelNotFound
from ..protocol import GenerateRequest
from .exchange import Answering, Exchange
from .fields import ChatBody, CompletionBody, GenerateBody, Sampling
from .life import Life
from .native import NativeReply, native_requests
from .openai_chat import ChatReply, chat_request
from .openai_completions import CompletionReply, completion_requests, prompt_text
from .options import ServerOptions
from .parse import decode
from .programs import EventFrames, decode_generate, decode_score, encode_scored
from .sampling import rid_of


class Generating:
    """Handlers of one server. names: what clients may call the model; the first is shown."""

    def __init__(self, life: Life, options: ServerOptions, answering: Answering, names: list[str]):
        self._life, self._options, self._answering, self._names = life, options, answering, names

    async def chat(self, exchange: Exchange) -> web.StreamResponse:
        """POST /v1/chat/completions"""
        body = decode(exchange.body, ChatBody, self._ignored(exchange))
        engine = self._life.engine
        model = self._model(body.model)
        request = chat_request(body, self._options, tenant=exchange.caller.tenant, rid=_label(body, exchange))
        reply = ChatReply(request, **self._about(exchange, engine, body, model))
        return await self._answer(exchange, engine, [request], reply, body.stream)

    async def completions(self, exchange: Exchange) -> web.StreamResponse:
        """POST /v1/completions"""
        body = decode(exchange.body, CompletionBody, self._ignored(exchange))
        engine = self._life.engine
        model = self._model(body.model)
        requests = completion_requests(body, self._options, tenant=exchange.caller.tenant, rid=_label(body, exchange))
        echo = [prompt_text(request, engine.tokenizer) for request in requests] if body.echo else []
        shown = 1 if body.n is None else body.n
        reply = CompletionReply(requests[0], shown=shown, echo=echo, **self._about(exchange, engine, body, model))
        return await self._answer(exchange, engine, requests, reply, body.stream)

    async def generate(self, exchange: Exchange) -> web.StreamResponse:
        """POST /generate"""
        body = decode(exchange.body, GenerateBody, self._ignored(exchange))
        engine = self._life.engine
        model = self._model(body.model)
        label = rid_of(body.rid if isinstance(body.rid, str) else None)
        requests, several = native_requests(body, self._options, tenant=exchange.caller.tenant, rid=label or exchange.rid)
        reply = NativeReply(
            requests,
            several=several,
            with_texts=bool(body.return_text_in_logprobs),
            rid=label or _answer_id(exchange),
            model=model,
            created=int(time.time()),
            tokenizer=engine.tokenizer,
            with_prompt_ids=bool(body.return_prompt_token_ids),
        )
        return await self._answer(exchange, engine, requests, reply, body.stream)

    async def _answer(
        self, exchange: Exchange, engine: AsyncEngine, requests: list[GenerateRequest], reply: Any, stream: bool | None
    ) -> web.StreamResponse:
        if stream:
            return await self._answering.stream(exchange, engine, requests, reply)
        return await self._answering.whole(exchange, engine, requests, reply)

    def _ignored(self, exchange: Exchange) -> list[str] | None:
        """Where unknown fields are listed, None where they are refused."""
        return exchange.ignored if self._options.lenient_params else None

    def _model(self, said: str | None) -> str:
        """The name that the answer bears. Raises ModelNotFound for a model that is not served here."""
        if said is None or said in self._names or said == "default":
            return self._names[0]
        text = f"The model {said[:128]!r} is not served here; {self._names[0]!r} is."
        raise ModelNotFound(text, param="model")

    def _about(self, exchange: Exchange, engine: AsyncEngine, body: Sampling, model: str) -> dict[str, Any]:
        stream = body.stream_options
        return {
            "rid": _answer_id(exchange),
            "model": model,
            "created": int(time.time()),
            "tokenizer": engine.tokenizer,
            "include_usage": bool(stream and stream.include_usage),
            "continuous": bool(stream and stream.continuous_usage_stats),
            "with_meta": bool(body.return_meta_info),
            "with_ids": bool(body.return_token_ids),
            "with_prompt_ids": bool(body.return_prompt_token_ids),
        }

    # ------------------------------------------------------------------------------------------------------ programs

    async def program_generate(self, exchange: Exchange) -> web.StreamResponse:
        """POST /ramify/generate: the protocol's events as they are."""
        engine = self._life.engine
        request = self._mine(decode_generate(exchange.body, vocab_size=engine.info.vocab_size, options=self._options), exchange)
        return await self._answering.stream(exchange, engine, [request], EventFrames())

    async def program_score(self, exchange: Exchange) -> web.StreamResponse:
        """POST /ramify/score: a Scored."""
        engine = self._life.engine
        scored = await engine.score(self._mine(decode_score(exchange.body), exchange))
        return web.Response(body=encode_scored(scored), content_type="application/json")

    def _mine(self, request: Any, exchange: Exchange) -> Any:
        """The request within the cache of its caller, and within the time that a request may take."""
        longest = self._options.request_timeout_s
        deadline_s = longest if request.deadline_s is None else min(longest, request.deadline_s)
        return replace(request, tenant=exchange.caller.tenant, deadline_s=deadline_s)


def _label(body: Sampling, exchange: Exchange) -> str:
    """What `/abort_request` calls this request. Raises InvalidRequest."""
    return rid_of(body.rid) or rid_of(body.request_id, "request_id") or exchange.rid


def _answer_id(exchange: Exchange) -> str:
    """An id that no other answer has: clients may call several of their requests the same."""
    return uuid.uuid4().hex if "X-Request-Id" in exchange.request.headers else exchange.rid
