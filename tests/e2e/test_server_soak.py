"""A minute of everything at once: what clients do well and badly leaves no trace in counts, descriptors or memory."""

from __future__ import annotations

import asyncio
import collections
import json
import random
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from served import WAIT_S, Served, num_files, rss_bytes, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SECONDS = 60.0
CLIENTS = 12


def good(random_: random.Random) -> tuple[str, dict[str, Any]]:
    """A request that succeeds."""
    words = " ".join(random_.choices(["sea", "road", "list", "blue", "word"], k=random_.choice([3, 30, 300])))
    drawn = {"n": random_.choice([1, 1, 3]), "temperature": random_.choice([0, 1]), "seed": 1}
    kind = random_.randrange(4)
    if kind == 0:
        return "/v1/chat/completions", {
            "model": "default",
            "messages": [{"role": "user", "content": words}],
            "max_tokens": 12,
            **drawn,
        }
    if kind == 1:
        more = random_.choice([{}, {"echo": True}, {"logprobs": 1}, {"regex": "[a-z]{3,9}[0-9]"}])
        return "/v1/completions", {"model": "default", "prompt": [words, "x"], "max_tokens": 8, **more, **drawn}
    if kind == 2:
        schema = {"type": "object", "properties": {"a": {"enum": [random_.randrange(5)]}}, "required": ["a"]}
        named = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        return "/v1/chat/completions", {
            "model": "default",
            "messages": [{"role": "user", "content": words}],
            "max_tokens": 30,
            "response_format": named,
            **drawn,
        }
    return "/generate", {"text": words, "sampling_params": {"max_new_tokens": 10, **drawn}, "return_logprob": True}


BAD: tuple[tuple[str, Any], ...] = (
    ("/v1/chat/completions", b"{"),
    ("/v1/chat/completions", {"model": "default", "messages": []}),
    ("/v1/completions", {"model": "default", "prompt": "x", "max_tokens": 10**6}),
    ("/v1/completions", {"model": "default", "prompt": "word " * 9000}),
    ("/v1/completions", {"model": "default", "prompt": "x", "regex": "(?=x)y"}),
    ("/v1/completions", {"model": "default", "prompt": "x", "json_schema": {"$ref": "#"}}),
    ("/generate", {"text": "x", "sampling_params": {"tempature": 1}}),
    ("/nowhere", {}),
)


async def one(client: aiohttp.ClientSession, running: Served, random_: random.Random) -> str:
    """Do something. Returns what it was."""
    what = random_.choice(["good", "good", "stream", "leave", "leave whole", "bad", "abort", "deadline"])
    path, body = good(random_)
    if what == "bad":
        path, body = random_.choice(BAD)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with client.post(running.url + path, data=data, headers={"Content-Type": "application/json"}) as response:
            assert response.status in (400, 404), await response.read()
            assert json.loads(await response.read())["error"]["code"]
        return what
    long = {"model": "default", "prompt": "a long one", "max_tokens": 3000, "ignore_eos": True, "n": random_.choice([1, 2])}
    if what == "leave":
        async with client.post(running.url + "/v1/completions", json={**long, "stream": True}) as response:
            for _ in range(random_.randrange(8)):
                await response.content.readline()
            response.close()
        return what
    if what == "leave whole":
        asked = asyncio.create_task(client.post(running.url + "/v1/completions", json=long))
        await asyncio.sleep(random_.random() / 2)
        asked.cancel()
        return what
    if what == "deadline":
        async with client.post(running.url + "/v1/completions", json={**long, "timeout_s": 0.3}) as response:
            assert response.status == 408, await response.read()
        return what
    if what == "abort":
        rid = f"soak-{random_.random()}"
        asked = asyncio.create_task(client.post(running.url + "/v1/completions", json={**long, "rid": rid}))
        while not asked.done():
            await asyncio.sleep(0.1)
            async with client.post(running.url + "/abort_request", json={"rid": rid}) as response:
                assert response.status == 200
        async with asked.result() as response:
            assert response.status == 200
            assert {choice["finish_reason"] for choice in (await response.json())["choices"]} == {"abort"}
        return what
    async with client.post(running.url + path, json={**body, "stream": what == "stream"}) as response:
        said = await response.read()
        assert response.status == 200, said
        assert what != "stream" or (said.endswith(b"data: [DONE]\n\n") and b'"error"' not in said)
    return what


async def all_lengths(running: Served) -> None:
    """Prompts of many lengths: they fill the pool, and what is kept for a matrix product of each number of rows."""
    random_ = random.Random(0)
    prompts = [[random_.randrange(300, 4000) for _ in range(length)] for length in range(1, 480, 3)]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_S)) as session:
        for prompt in prompts:
            body = {"model": "default", "prompt": prompt, "max_tokens": 1}
            async with session.post(running.url + "/v1/completions", json=body) as response:
                assert response.status == 200, await response.read()


async def test_a_minute_of_mixed_traffic_leaves_no_trace(tmp_path: Path):
    # A pool that the first seconds fill, so that memory which grows later is memory that is lost.
    with served(tmp_path, "--max-running", "8", "--log-level", "error", kv_tokens=8200) as running:
        pids = (running.process.pid, running.engine_pid())
        done: collections.Counter[str] = collections.Counter()
        timeout = aiohttp.ClientTimeout(total=WAIT_S)

        async def client(number: int, rounds: int, seconds: float) -> None:
            """So many rounds at least, and as long."""
            random_, began = random.Random(number), time.monotonic()
            async with aiohttp.ClientSession(timeout=timeout) as session:
                while rounds > 0 or time.monotonic() - began < seconds:
                    done[await one(session, running, random_)] += 1
                    rounds -= 1

        await all_lengths(running)
        await asyncio.gather(*(client(number, 20, 0) for number in range(CLIENTS)))
        await asyncio.to_thread(running.until, running.is_idle, "idle")
        done.clear()
        warm = [rss_bytes(pid) for pid in pids], [num_files(pid) for pid in pids]
        await asyncio.gather(*(client(CLIENTS + number, 5, SECONDS) for number in range(CLIENTS)))
        await asyncio.to_thread(running.until, running.is_idle, "idle")
        said = running.info()
        assert said["pid"] == pids[1] and said["restarts"] == 0
        assert len(done) == 7 and min(done.values()) > 0, done
        grown = [now - before for now, before in zip(map(rss_bytes, pids), warm[0], strict=True)]
        assert max(grown) < 32 * 2**20, f"memory grew by {grown} bytes in {SECONDS:g} s of {done}"
        await asyncio.to_thread(running.until, lambda: num_files(pids[0]) <= warm[1][0] + 2, "connections closed")
        assert num_files(pids[1]) <= warm[1][1] + 1
        assert "a handler failed" not in running.logged() and "Traceback" not in running.logged(), running.last_words()
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(running.url + "/flush_cache", json={}) as response,
        ):
            assert response.status == 200
        cache = running.info()["cache"]
        assert cache["free"] == cache["total"] and cache["tokens"] == 0, "all pages came back"
