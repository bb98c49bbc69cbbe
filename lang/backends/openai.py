"""Any server that speaks OpenAI's protocol, as a backend: chat/completions for conversations, completions for raw text.

Dialects differ in what can be asked besides OpenAI's own fields: `sglang` (Ramify's and SGLang's servers) and `vllm` know
regular expressions, grammars, top_k and an assistant turn that is to be continued; `openai` does not. What a dialect does
not know is refused, never left out.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from ...runtime.errors import EngineError, InvalidRequest
from ...runtime.protocol import (
    CacheReport,
    ChoiceScore,
    Event,
    GenerateRequest,
    Scored,
    ScoreRequest,
    Timings,
    Usage,
    pack_ids,
)
from .. import background
from .openai_fields import (
    Answer,
    Words,
    chat_messages,
    chat_of,
    constraint_fields,
    logprob_fields,
    prompt_fields,
    raw_text,
    sampling_fields,
    usage_of,
)
from .sse import Http

OPENAI_URL = "https://api.openai.com/v1"
DIALECTS = ("openai", "sglang", "vllm")


class OpenAI:
    """A backend over HTTP. `set_default_backend(OpenAI("gpt-4.1-mini"))`, `OpenAI("m", base_url="http://localhost:8000/v1")`.

    model: the server's name for it; None takes the first that the server lists. api_key: None takes OPENAI_API_KEY, "" none.
    dialect: what the server knows besides OpenAI's fields; by default "openai" at OpenAI's address and "sglang" elsewhere.
    timeout_s: the longest silence within an answer. retries: further tries on 429, 5xx and broken connections.
    extra_body: fields added to every request.

    `select` scores the choices with completions (echo and logprobs) for raw text; in a conversation, and where a server does
    not give those, the server decides under a JSON schema that lists the choices, and only the winner has a score.
    """

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        dialect: str | None = None,
        timeout_s: float = 600.0,
        retries: int = 4,
        extra_body: Mapping[str, Any] | None = None,
    ):
        url = base_url or OPENAI_URL
        self._dialect = dialect or ("openai" if "api.openai.com" in url else "sglang")
        if self._dialect not in DIALECTS:
            raise InvalidRequest(f"dialect {dialect!r} is not known. Use one of {', '.join(DIALECTS)}.", param="dialect")
        key = os.environ.get("OPENAI_API_KEY") if api_key is None else api_key
        if not key and base_url is None:
            raise InvalidRequest("OpenAI needs a key: pass api_key or set OPENAI_API_KEY.", code="invalid_api_key")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = Http(url, headers, timeout_s=timeout_s, retries=retries)
        self._model = model
        self._extra = dict(extra_body or {})
        self._words = Words()
        background.at_exit(self.close)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Event]:
        """One streamed call."""
        chat = chat_of(request.prompt)
        path = "/completions" if chat is None else "/chat/completions"
        body = {"model": await self._model_name(), **prompt_fields(request.prompt, self._dialect, request.answer)}
        body |= sampling_fields(request.sampling, self._dialect, chat=chat is not None)
        body |= constraint_fields(request.constraint, self._dialect, chat=chat is not None)
        body |= logprob_fields(request, chat=chat is not None)
        body |= {"stream": True, "stream_options": {"include_usage": True}, **self._extra}
        answers = [Answer(index, is_read=request.answer is not None) for index in range(request.sampling.n)]
        usage: Mapping[str, Any] = {}
        async with aclosing(self._http.events(path, body)) as events:  # type: ignore[type-var]
            async for event in events:
                usage = event.get("usage") or usage
                for choice in event.get("choices") or ():
                    index = choice.get("index", 0)
                    if index < len(answers) and (delta := answers[index].take(choice, self._words)) is not None:
                        yield delta
        for answer in answers:
            yield answer.finished(usage, request.sampling.seed or 0)

    async def score(self, request: ScoreRequest) -> Scored:
        """Scores by echo and logprobs where possible, else the server's own decision."""
        if chat_of(request.prompt) is None:
            scored = await self._echo_scores(request)
            if scored is not None:
                return scored
        return await self._decided(request)

    async def _echo_scores(self, request: ScoreRequest) -> Scored | None:
        """Log-probabilities of each choice after the prompt; None if the server does not give them."""
        prompt = raw_text(request.prompt)
        prefixes = [prompt, ""] if request.unconditional else [prompt]
        jobs = [self._echo(prefix, choice) for prefix in prefixes for choice in request.choices]
        try:
            entries = await asyncio.gather(*jobs)
        except InvalidRequest:
            return None  # a server without echo (OpenAI's own, today) says so with a 400
        if any(entry is None for entry in entries):
            return None
        known = [entry for entry in entries if entry is not None]
        number = len(request.choices)
        alone = known[number:] or [((), (), 0)] * number
        scores = []
        for (words, logprobs, _), (_, without, _) in zip(known[:number], alone, strict=True):
            ids = pack_ids(self._words.id_of(word) for word in words)
            scores.append(ChoiceScore(ids, tuple(lp or 0.0 for lp in logprobs), tuple(lp or 0.0 for lp in without[1:])))
        usage = Usage(prompt=known[0][2], computed=known[0][2])
        return Scored(tuple(scores), b"", usage, Timings(), CacheReport(continuation="scored by echo"))

    async def _echo(self, prefix: str, choice: str) -> tuple[tuple[str, ...], tuple[float | None, ...], int] | None:
        """(tokens of the choice, their log-probabilities, tokens of the prompt), or None."""
        body = {"model": await self._model_name(), "prompt": prefix + choice, "max_tokens": 0, "echo": True, "logprobs": 1}
        answer = await self._http.post("/completions", {**body, "temperature": 0.0, **self._extra})
        logprobs = (answer.get("choices") or [{}])[0].get("logprobs") or {}
        tokens, values, offsets = (logprobs.get(key) or [] for key in ("tokens", "token_logprobs", "text_offset"))
        if not tokens or len(tokens) != len(offsets) or offsets[-1] < len(prefix):
            return None
        # A token that spans the border belongs to the choice: it is the first whose end lies behind the prompt.
        start = max(i for i, offset in enumerate(offsets) if offset <= len(prefix))
        return tuple(tokens[start:]), tuple(values[start:]), start

    async def _decided(self, request: ScoreRequest) -> Scored:
        """One call that must answer with a choice."""
        options = list(request.choices)
        schema = {"type": "object", "properties": {"choice": {"type": "string", "enum": options}}}
        schema |= {"required": ["choice"], "additionalProperties": False}
        chat = chat_of(request.prompt)
        messages = chat_messages(chat) if chat else [{"role": "user", "content": raw_text(request.prompt)}]
        body = {"model": await self._model_name(), "messages": messages, "temperature": 0.0}
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "choice", "schema": schema, "strict": True}}
        answer = await self._http.post("/chat/completions", {**body, **self._extra})
        try:
            chosen = json.loads(answer["choices"][0]["message"]["content"])["choice"]
            winner = options.index(chosen)
        except (KeyError, IndexError, TypeError, ValueError):
            raise EngineError(f"The server did not decide for one of {options}: {str(answer)[:200]}.") from None
        scores = [0.0 if index == winner else -1e9 for index in range(len(options))]
        ids = [pack_ids([self._words.id_of(option)]) for option in options]
        usage = usage_of(answer.get("usage") or {})
        report = CacheReport(continuation="decided under a JSON schema")
        return Scored(tuple(map(_lone_score, ids, scores)), b"", usage, Timings(), report)

    async def _model_name(self) -> str:
        if self._model is None:
            listed = (await self._http.get("/models")).get("data") or []
            if not listed:
                raise InvalidRequest("The server lists no model. Name one: OpenAI(model, base_url=...).", param="model")
            self._model = str(listed[0]["id"])
        return self._model

    async def flush_cache(self) -> int:
        """OpenAI's protocol has no such request. Raises InvalidRequest."""
        raise InvalidRequest("OpenAI's protocol has no way to flush a server's cache.", code="unsupported")

    async def server_info(self) -> dict[str, Any]:
        """The models that the server lists."""
        return {"model": await self._model_name(), "dialect": self._dialect, "models": await self._http.get("/models")}

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    def token_text(self, token: int) -> str | None:
        """The text of an id that this backend gave out."""
        return self._words.word(token)


def _lone_score(ids: bytes, score: float) -> ChoiceScore:
    return ChoiceScore(ids, (score,))
