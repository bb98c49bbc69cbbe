"""Question: what does the HTTP server cost beside the engine that it serves?

The bundled model, greedy, fixed lengths, many requests at once: through the engine's own API, through the server without and
with streams; tokens a second, and the processor time of the HTTP process for each streamed token. Then a thousand streams that
wait: what they take of memory. Ceiling: the engine's own throughput in the same run. The client is part of the load on these
cores: it reads bytes and counts events, no more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..async_engine import AsyncEngine, complete
from ..config import EngineOptions
from ..protocol import GenerateRequest, greedy, tokens
from .processes import cpu_s, rss_mb
from .server_process import exchange, serving


@dataclass(frozen=True)
class Load:
    """streams requests at once, `prompt` tokens in, `output` tokens out."""

    streams: int
    prompt: int
    output: int

    def ids(self, number: int) -> list[int]:
        """The prompt of request `number`; no two share a beginning."""
        return [256 + number % 3000, *(300 + (number * 7 + i) % 3000 for i in range(self.prompt - 1))]


async def engine_alone(load: Load, repeats: int) -> list[float]:
    """Tokens a second through `AsyncEngine`, its process beside this one."""
    options = EngineOptions(kv_tokens=load.streams * (load.prompt + load.output) * 2, max_running=load.streams)
    async with await AsyncEngine.start(options) as engine:

        async def one(number: int) -> None:
            await complete(engine, GenerateRequest((tokens(load.ids(number)),), greedy(load.output, ignore_eos=True)))

        rates = []
        for round_ in range(repeats + 1):
            await engine.flush_cache()
            started = time.perf_counter()
            await asyncio.gather(*(one(number) for number in range(load.streams)))
            if round_:  # the first one warms up
                rates.append(load.streams * load.output / (time.perf_counter() - started))
        return rates


def size(load: Load) -> tuple[str, ...]:
    """Flags of a server that is made for this load."""
    return "--kv-tokens", str(load.streams * (load.prompt + load.output) * 2), "--max-running", str(load.streams)


def post(body: dict[str, Any]) -> bytes:
    """POST /v1/completions on a connection of its own."""
    data = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def asked(load: Load, number: int, *, stream: bool) -> bytes:
    """One request of the load."""
    fixed = {"model": "default", "max_tokens": load.output, "temperature": 0, "ignore_eos": True}
    return post({**fixed, "prompt": load.ids(number), "stream": stream})


async def served(load: Load, repeats: int, *, stream: bool) -> tuple[list[float], list[float], int]:
    """Tokens a second, microseconds of the HTTP process a token, and requests that failed."""
    rates, costs, failed = [], [], 0
    async with serving(*size(load)) as (pid, port):
        for round_ in range(repeats + 1):
            await exchange(port, b"POST /flush_cache HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            before, started = cpu_s(pid), time.perf_counter()
            answers = await asyncio.gather(*(exchange(port, asked(load, n, stream=stream)) for n in range(load.streams)))
            seconds = time.perf_counter() - started
            end = b"data: [DONE]" if stream else b'"finish_reason":"length"'
            failed += sum(not (b" 200 " in answer[:16] and end in answer) for answer in answers)
            if round_:
                rates.append(load.streams * load.output / seconds)
                costs.append((cpu_s(pid) - before) / (load.streams * load.output) * 1e6)
    return rates, costs, failed


async def idle(count: int) -> float:
    """MB that `count` streams take of the HTTP process while they wait for their first token."""
    load = Load(8, 8, 8)
    async with serving(*size(load), "--queue", str(count)) as (pid, port):
        body = {"model": "default", "prompt": [300] * 8, "max_tokens": 24, "ignore_eos": True, "stream": True}
        await exchange(port, post(body))
        before = rss_mb(pid)
        writers = []
        for _ in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post({**body, "prompt": [300 + len(writers) % 1000] * 8}))
            writers.append(writer)
        await asyncio.sleep(0.5)
        taken = rss_mb(pid) - before
        for writer in writers:
            writer.close()
        return taken


async def run(load: Load, repeats: int, waiting: int) -> dict[str, Any]:
    """All of it; the three ways one after the other, each several times."""
    alone = await engine_alone(load, repeats)
    plain, _, plain_failed = await served(load, repeats, stream=False)
    streamed, costs, stream_failed = await served(load, repeats, stream=True)
    return {
        "streams": load.streams,
        "engine_tok_s": round(median(alone)),
        "unstreamed_tok_s": round(median(plain)),
        "streamed_tok_s": round(median(streamed)),
        "unstreamed_ratio": round(median(plain) / median(alone), 3),
        "streamed_ratio": round(median(streamed) / median(alone), 3),
        "http_us_token": round(median(costs), 1),
        "failed": plain_failed + stream_failed,
        "idle_streams_mb": round(await idle(waiting), 1),
    }


def main(argv: list[str]) -> int:
    """Run, print a table, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench serving", description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--output", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--idle", type=int, default=1000)
    said = parser.parse_args(argv)
    figures = asyncio.run(run(Load(said.streams, said.prompt, said.output), said.repeats, said.idle))
    for name, value in figures.items():
        print(f"{name:22} {value}")
    print(json.dumps({"bench": "serving", "load": os.getloadavg()[0], **figures}))
    return 0
