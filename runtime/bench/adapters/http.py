"""Any server that speaks OpenAI's protocol, by its URL, and Ramify's own server, started here. Prompts are token ids."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from ..server_process import serving
from .base import Continuation, Generate, Needs, Run, Unusable, Work, prompt_lists


def spread(stamps: list[tuple[float, int]], count: int) -> tuple[float, ...]:
    """A time for each of `count` tokens from (time, chunks so far) of a stream: a chunk is a token where their number fits,
    else the tokens are laid evenly between the first chunk and the last. Pure."""
    times = [stamp for stamp, _ in stamps]
    if len(times) == count:
        return tuple(times)
    if not times:
        return ()
    step = (times[-1] - times[0]) / max(count - 1, 1)
    return tuple(times[0] + step * i for i in range(count))


class HttpAdapter:
    """See `base.Adapter`. Streams /completions of `url` (which ends in /v1, as OpenAI's clients want it)."""

    def __init__(self, name: str, url: str):
        self.name, self.about, self.keeps_prefixes = name, f"{url}, streamed", True
        self._url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self._model = ""

    async def start(self, model: Path, needs: Needs) -> None:
        """The first model that the server lists; it must be the benchmark's checkpoint, which nobody can see from here."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None, sock_connect=30)
        )
        try:
            async with self._session.get(f"{self._url}/models") as answer:
                answer.raise_for_status()
                self._model = (await answer.json())["data"][0]["id"]
        except (aiohttp.ClientError, LookupError, ValueError) as error:
            raise Unusable(f"{self._url}/models did not answer as OpenAI's does: {error}") from error

    async def flush(self) -> None:
        """By `/flush_cache`, which Ramify and SGLang have, or `/reset_prefix_cache` (vLLM in development mode)."""
        root = self._url.removesuffix("/v1")
        for path in ("flush_cache", "reset_prefix_cache"):
            with contextlib.suppress(aiohttp.ClientError):
                async with self._http.post(f"{root}/{path}") as answer:
                    if answer.status == 200:
                        return
        raise Unusable(f"{root} has no way to forget its cached prefixes, so that no run of it is cold.")

    @property
    def _http(self) -> aiohttp.ClientSession:
        assert self._session is not None
        return self._session

    async def run(self, work: Work) -> Run:
        """See `base.Adapter`. Does not score."""
        if not isinstance(work, Generate):
            raise Unusable("scores cannot be had through this protocol")
        started = time.perf_counter()
        answers = await asyncio.gather(*(self._one(prompt, work, started) for prompt in prompt_lists(work)))
        seconds = time.perf_counter() - started
        cached = [count for _, count in answers]
        known = sum(count for count in cached if count is not None) if None not in cached else None
        sequences = tuple(one for made, _ in answers for one in made)
        prompt_tokens = sum(map(len, work.prompts))
        return Run(seconds, sequences, cached=known, computed=None if known is None else prompt_tokens - known)

    async def _one(self, prompt: list[int], work: Generate, started: float) -> tuple[list[Continuation], int | None]:
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": work.output,
            "temperature": 0 if work.samples == 1 else 1,
            "n": work.samples,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        stamps: list[list[tuple[float, int]]] = [[] for _ in range(work.samples)]
        usage: dict[str, Any] = {}
        async with self._http.post(f"{self._url}/completions", json=body) as answer:
            if answer.status != 200:
                raise Unusable(f"{self._url} answered {answer.status}: {(await answer.text())[:300]}")
            async for line in answer.content:
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                now = time.perf_counter() - started
                event = json.loads(line[6:])
                usage = event.get("usage") or usage
                for choice in event.get("choices", ()):
                    if not choice.get("finish_reason") or choice.get("text"):
                        stamps[choice["index"]].append((now, 1))
        if usage.get("completion_tokens", work.output * work.samples) != work.output * work.samples:
            raise Unusable(f"{self._url} generated {usage['completion_tokens']} tokens, not {work.output * work.samples}")
        details = usage.get("prompt_tokens_details") or {}
        return [Continuation((), spread(one, work.output)) for one in stamps], details.get("cached_tokens")

    async def close(self) -> None:
        """See `base.Adapter`."""
        if self._session is not None:
            await self._session.close()


class RamifyServerAdapter(HttpAdapter):
    """`ramify serve`, started for the benchmark. said: engine options by name, as flags."""

    def __init__(self, name: str, said: Mapping[str, str]):
        super().__init__(name, "http://127.0.0.1/v1")
        self._said = dict(said)
        self._stack = AsyncExitStack()

    async def start(self, model: Path, needs: Needs) -> None:
        """See `base.Adapter`."""
        sizes = {"kv_tokens": needs.tokens, "max_running": needs.rows, "threads": needs.threads}
        words = {"dtype": needs.dtype, **sizes, **self._said}
        flags = [word for name, value in words.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        try:
            _, port = await self._stack.enter_async_context(serving(str(model), *flags))
        except RuntimeError as error:
            raise Unusable(str(error)) from error
        self._url = f"http://127.0.0.1:{port}/v1"
        await super().start(model, needs)
        self.about = "Ramify's server, streamed"

    async def close(self) -> None:
        """See `base.Adapter`."""
        await super().close()
        await self._stack.aclose()
