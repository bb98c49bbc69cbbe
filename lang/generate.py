"""SGLang's engine API, `generate(prompt, sampling_params, ...)`, over any backend: arguments become requests, events dicts.

A result is `{"text", "output_ids", "meta_info"}`; a list of prompts, or n > 1, gives a list of them (all n of the first
prompt, then those of the second). Streams give the text so far each time, with `index` where there are several.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from ..runtime.errors import InvalidRequest, from_code
from ..runtime.meta_info import meta_info
from ..runtime.protocol import (
    Delta,
    Event,
    Failure,
    Finished,
    GenerateRequest,
    SamplingParams,
    Segment,
    Text,
    tokens,
    unpack_ids,
)
from .backend import Backend
from .calls import collect as run_one
from .calls import logprob_params
from .nodes import Logprobs
from .sampling import engine_params

_calls = itertools.count(1)


@dataclass(frozen=True)
class Asked:
    """What one call of `generate` asks. several: the answer is a list."""

    requests: tuple[GenerateRequest, ...]
    several: bool
    with_texts: bool


def asked(
    prompt: str | Sequence[str] | None,
    sampling_params: SamplingParams | Mapping[str, Any] | Sequence[Any] | None,
    input_ids: Sequence[int] | Sequence[Sequence[int]] | None,
    logprobs: Logprobs,
    token_ids: Sequence[int] = (),
) -> Asked:
    """The requests for these arguments. token_ids: whose log-probabilities are wanted beside each token's.

    Raises InvalidRequest where they do not fit together.
    """
    if (prompt is None) == (input_ids is None):
        raise InvalidRequest("Give either prompt (text) or input_ids (token ids), and not both.", param="prompt")
    segments, single = _segments(prompt, input_ids)
    params: list[Any] = list(sampling_params) if isinstance(sampling_params, (list, tuple)) else [sampling_params] * len(segments)
    if len(params) != len(segments):
        raise InvalidRequest(f"{len(params)} sampling_params were given for {len(segments)} prompts.", param="sampling_params")
    requests = []
    for segment, said in zip(segments, params, strict=True):
        sampling, constraint = engine_params(said)
        rid = f"generate-{next(_calls)}"
        wanted = logprob_params(logprobs)
        wanted = replace(wanted, token_ids=tuple(token_ids)) if wanted.output else wanted
        requests.append(GenerateRequest((segment,), sampling, constraint, wanted, rid=rid))
    several = not single or requests[0].sampling.n > 1
    return Asked(tuple(requests), several, bool(logprobs.return_text_in_logprobs))


def _segments(prompt: Any, input_ids: Any) -> tuple[list[Segment], bool]:
    if prompt is not None:
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not all(isinstance(text, str) for text in texts):
            raise InvalidRequest("prompt is neither a string nor a list of strings.", param="prompt")
        return [Text(text) for text in texts], isinstance(prompt, str)
    single = not input_ids or isinstance(input_ids[0], int)
    return [tokens(ids) for ids in ([input_ids] if single else input_ids)], single


async def collect(backend: Backend, call: Asked) -> Any:
    """All results, computed together."""
    parts = await asyncio.gather(*(_one(backend, request, call.with_texts) for request in call.requests))
    results = [result for part in parts for result in part]
    return results if call.several else results[0]


async def _one(backend: Backend, request: GenerateRequest, with_texts: bool) -> list[dict[str, Any]]:
    started = time.perf_counter()
    answers = await run_one(backend, request)
    latency_s = time.perf_counter() - started
    return [_result(backend, request, answer, latency_s, with_texts) for answer in answers]


async def growing(backend: Backend, call: Asked) -> AsyncGenerator[dict[str, Any], None]:
    """Results as they grow, those of all prompts mixed as they come. Closing it stops them all."""
    queue: asyncio.Queue[dict[str, Any] | BaseException | None] = asyncio.Queue()
    first = list(itertools.accumulate((request.sampling.n for request in call.requests), initial=0))
    tasks = [
        asyncio.ensure_future(_pump(backend, request, call, first[number], queue)) for number, request in enumerate(call.requests)
    ]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(backend: Backend, request: GenerateRequest, call: Asked, first: int, queue: asyncio.Queue[Any]) -> None:
    texts, ids = [""] * request.sampling.n, [b""] * request.sampling.n
    started = time.perf_counter()
    try:
        async with aclosing(backend.generate(request)) as events:  # type: ignore[type-var]
            async for event in events:
                event = _checked(event)
                if isinstance(event, Delta):
                    texts[event.index] += event.text
                    ids[event.index] += event.ids
                    output_ids = unpack_ids(ids[event.index])
                    meta = {"id": request.rid, "finish_reason": None, "completion_tokens": len(output_ids)}
                    result = {"text": texts[event.index], "output_ids": output_ids, "meta_info": meta}
                elif isinstance(event, Finished):
                    result = _result(backend, request, event, time.perf_counter() - started, call.with_texts)
                else:
                    continue
                await queue.put({**result, "index": first + event.index} if call.several else result)
        await queue.put(None)
    except Exception as error:
        await queue.put(error)


def _checked(event: Event) -> Event:
    if isinstance(event, Failure):
        raise from_code(event.code, event.message, event.param)
    return event


def _result(backend: Backend, request: GenerateRequest, event: Finished, latency_s: float, with_texts: bool) -> dict[str, Any]:
    meta = meta_info(event, request.rid, latency_s, backend.token_text if with_texts else None)
    return {"text": event.text, "output_ids": unpack_ids(event.output_ids), "meta_info": meta}
