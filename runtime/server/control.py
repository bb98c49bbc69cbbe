"""The handlers that do not generate: models, tokens, control, health."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import web

from ... import __version__
from ..errors import InvalidRequest, ModelNotFound, RamifyError
from ..protocol import Chat, GenerateRequest, Text, greedy, tokens, unpack_ids
from ..text.segments import encode_prompt
from .exchange import Exchange
from .fields import AbortBody, ChatBody, DetokenizeBody, TokenizeBody
from .gather import collect
from .life import Life, State
from .metrics import Metrics
from .openai_chat import chat_segment
from .openai_completions import ids_of
from .options import ServerOptions
from .parse import decode, decode_part
from .responses import json_response

STATS_S = 2.0
"""How long a scrape waits for an engine that is in a long step; then the last counts are told again."""


class Control:
    """Handlers of one server. names: what clients may call the model."""

    def __init__(self, life: Life, options: ServerOptions, metrics: Metrics, names: list[str]):
        self._life, self._options, self._metrics, self._names = life, options, metrics, names
        self._created = int(time.time())
        self._probe: asyncio.Task[Any] | None = None

    # --------------------------------------------------------------------------------------------------------- models

    async def models(self, exchange: Exchange) -> web.Response:
        """GET /v1/models"""
        return json_response({"object": "list", "data": [self._card(name) for name in self._names]})

    async def model(self, exchange: Exchange) -> web.Response:
        """GET /v1/models/{id}"""
        if exchange.part not in self._names:
            raise ModelNotFound(f"The model {exchange.part[:128]!r} is not served here; {self._names[0]!r} is.", param="model")
        return json_response(self._card(exchange.part))

    def _card(self, name: str) -> dict[str, Any]:
        engine = self._life.loaded
        length = engine.info.context_length if engine is not None else None
        card = {"id": name, "object": "model", "created": self._created, "owned_by": "ramify"}
        return {**card, "root": name, "parent": None, "max_model_len": length}

    async def model_info(self, exchange: Exchange) -> web.Response:
        """GET /model_info"""
        info = self._life.engine.info
        facts = {"model_path": info.path, "architecture": info.architecture, "parameters": info.parameters}
        return json_response({**facts, "dtype": info.dtype, "max_model_len": info.context_length, "is_generation": True})

    # --------------------------------------------------------------------------------------------------------- tokens

    async def tokenize(self, exchange: Exchange) -> web.Response:
        """POST /tokenize"""
        body = decode(exchange.body, TokenizeBody)
        engine = self._life.engine
        text = body.prompt if body.prompt is not None else body.text
        if (text is None) == (body.messages is None):
            raise InvalidRequest("Give either prompt or messages.", code="missing_required_parameter", param="prompt")
        if body.messages is not None:
            as_chat = ChatBody(
                model="",
                messages=body.messages,
                tools=body.tools,
                add_generation_prompt=body.add_generation_prompt,
                continue_final_message=body.continue_final_message,
                chat_template_kwargs=body.chat_template_kwargs,
            )
            prompt: Chat | Text = chat_segment(as_chat, self._options)
            ids = (await asyncio.to_thread(encode_prompt, (prompt,), engine.tokenizer, engine.template)).ids
        else:
            ids = await asyncio.to_thread(engine.tokenizer.encode, text or "", bos=body.add_special_tokens is not False)
        listed = ids.tolist()
        answer = {"tokens": listed, "count": len(listed), "max_model_len": engine.info.context_length}
        if body.return_token_strs:
            answer["token_strs"] = [engine.tokenizer.token_text(token) for token in listed]
        return json_response(answer)

    async def detokenize(self, exchange: Exchange) -> web.Response:
        """POST /detokenize"""
        body = decode(exchange.body, DetokenizeBody)
        engine = self._life.engine
        said = decode_part(body.tokens, "tokens")
        if not isinstance(said, list):
            raise InvalidRequest("tokens must be a list of token ids.", code="invalid_token_id", param="tokens")
        segment = ids_of(said, "tokens") if said else tokens(())
        ids = unpack_ids(segment.ids)  # type: ignore[union-attr]
        if wrong := [token for token in ids if token >= engine.info.vocab_size]:
            text = f"tokens holds {wrong[0]}; this model has tokens 0 to {engine.info.vocab_size - 1}."
            raise InvalidRequest(text, code="invalid_token_id", param="tokens")
        return json_response({"text": engine.tokenizer.decode(ids, skip_special=bool(body.skip_special_tokens))})

    # -------------------------------------------------------------------------------------------------------- control

    async def flush_cache(self, exchange: Exchange) -> web.Response:
        """POST /flush_cache"""
        return json_response({"tokens": await self._life.engine.flush_cache()})

    async def abort_request(self, exchange: Exchange) -> web.Response:
        """POST /abort_request"""
        body = decode(exchange.body, AbortBody)
        engine = self._life.engine
        if body.abort_all:
            ended = await engine.abort_all()
        elif body.rid:
            ended = await engine.abort(body.rid)
        else:
            raise InvalidRequest("Give rid, or abort_all: true.", code="missing_required_parameter", param="rid")
        return json_response({"aborted": ended})

    async def server_info(self, exchange: Exchange) -> web.Response:
        """GET /server_info"""
        engine = self._life.engine
        info = await engine.server_info()
        more = {"ramify": __version__, "model_name": self._names[0], "state": self._life.state.value, "restarts": engine.restarts}
        return json_response({**info, **more, "requests": engine.on_their_way})

    async def cache_tree(self, exchange: Exchange) -> web.Response:
        """GET /cache_tree"""
        return json_response(await self._life.engine.cache_tree())

    # --------------------------------------------------------------------------------------------------------- health

    async def health(self, exchange: Exchange) -> web.Response:
        """GET /health: 200 as long as the process can do what it is for."""
        state = self._life.state
        return json_response({"status": state.value}, 503 if state is State.DEAD else 200)

    async def ready(self, exchange: Exchange) -> web.Response:
        """GET /ready: 200 where a request that came now would be answered."""
        state = self._life.state
        headers = {} if state is State.READY else {"Retry-After": "1"}
        return json_response({"status": state.value}, 200 if state is State.READY else 503, headers)

    async def health_generate(self, exchange: Exchange) -> web.Response:
        """GET /health_generate: a token is made; probes that come meanwhile share it."""
        engine = self._life.engine
        if self._probe is None or self._probe.done():
            request = GenerateRequest(
                (tokens([0]),), greedy(1, ignore_eos=True), priority=2**30, deadline_s=20.0, tenant="\x1fprobe"
            )
            self._probe = asyncio.create_task(collect(engine, [request]))
        await asyncio.shield(self._probe)
        return json_response({"status": self._life.state.value})

    async def metrics(self, exchange: Exchange) -> web.Response:
        """GET /metrics"""
        engine = self._life.loaded
        if engine is None or not engine.is_up:
            self._metrics.engine_away()
        else:
            try:
                stats = await asyncio.wait_for(engine.server_info(), STATS_S)
            except (TimeoutError, RamifyError):  # in a long step: what it said last still holds
                stats = {}
            self._metrics.engine_stats(stats, engine.heartbeat)
        body, content_type = self._metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def version(self, exchange: Exchange) -> web.Response:
        """GET /version"""
        return json_response({"version": __version__})
