"""What goes wrong with a server on the real processes: engines killed, clients gone, slow or too many, and its own end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import zmq
from served import WAIT_S, Served, assert_nothing_left, is_alive, num_files, rss_bytes, served

from ramify.runtime.bundled import MODEL_DIR

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CHAT, COMPLETIONS, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"


def text_body(prompt: str, tokens: int, **more: Any) -> dict[str, Any]:
    """A greedy completion that goes on to its last token, and of which every token is seen: also that the model has ended."""
    fixed = {"model": "default", "temperature": 0, "ignore_eos": True, "skip_special_tokens": False}
    return {**fixed, "prompt": prompt, "max_tokens": tokens, **more}


@contextlib.asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=WAIT_S, sock_connect=WAIT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as client:
        yield client


async def ask(client: aiohttp.ClientSession, running: Served, body: dict[str, Any], path: str = COMPLETIONS) -> str:
    """The text of a completion that succeeds."""
    status, said, _ = await post(client, running, body, path)
    assert status == 200, said
    return said["choices"][0]["text"]


async def post(
    client: aiohttp.ClientSession, running: Served, body: dict[str, Any], path: str = COMPLETIONS
) -> tuple[int, dict[str, Any], Any]:
    async with client.post(running.url + path, json=body) as response:
        return response.status, json.loads(await response.read()), response.headers


class Streaming:
    """A streamed completion that is being read. text: so far. error: of its error event. ended: [DONE] came."""

    def __init__(self, client: aiohttp.ClientSession, running: Served, body: dict[str, Any]):
        self.text, self.error, self.ended, self.chunks = "", None, False, 0
        self.reason: str | None = None
        self._more = asyncio.Condition()
        self.task = asyncio.create_task(self._read(client, running, body))

    async def _read(self, client: aiohttp.ClientSession, running: Served, body: dict[str, Any]) -> Streaming:
        async with client.post(running.url + COMPLETIONS, json={**body, "stream": True}) as response:
            assert response.status == 200, await response.read()
            async for line in response.content:
                if not line.startswith(b"data: "):
                    continue
                data = line.removeprefix(b"data: ").strip()
                if data == b"[DONE]":
                    self.ended = True
                    continue
                assert not self.ended
                said = json.loads(data)
                async with self._more:
                    self.chunks += 1
                    self.error = said.get("error", self.error)
                    for choice in said.get("choices", ()):
                        self.text += choice["text"]
                        self.reason = choice["finish_reason"] or self.reason
                    self._more.notify_all()
        return self

    async def until(self, chunks: int) -> None:
        """Wait for so many chunks."""
        async with asyncio.timeout(WAIT_S), self._more:
            await self._more.wait_for(lambda: self.chunks >= chunks)

    def leave(self) -> None:
        """Close the connection."""
        self.task.cancel()


async def until(running: Served, holds: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(running.until, holds, what)


# ----------------------------------------------------------------------------------------------------- the engine is killed


async def test_an_engine_that_is_killed_is_replaced_and_its_requests_end_with_the_same_text(tmp_path: Path):
    """In decode, in prefill and while idle. What was streamed is not said twice."""
    with served(tmp_path, "--chunk-tokens", "16") as running:
        async with session() as client:
            prompts = [f"Item {i}: a list of" for i in range(4)]
            calm = [await ask(client, running, text_body(prompt, 200)) for prompt in prompts]
            long = text_body("the sea and the road " * 600, 20)
            calm_long = await ask(client, running, long)
            pids = [running.engine_pid()]

            streams = [Streaming(client, running, text_body(prompt, 200)) for prompt in prompts[:3]]
            whole = asyncio.create_task(ask(client, running, text_body(prompts[3], 200)))
            await asyncio.gather(*(stream.until(5) for stream in streams))
            os.kill(pids[-1], signal.SIGKILL)
            done = await asyncio.gather(*(stream.task for stream in streams))
            assert [one.text for one in done] == calm[:3] and await whole == calm[3]
            assert all(one.ended and one.error is None and one.reason == "length" for one in done)
            pids.append(running.engine_pid())

            request = asyncio.create_task(ask(client, running, long))
            await until(running, lambda: running.info()["scheduler"]["running"] == 1, "in prefill")
            assert not request.done()
            os.kill(pids[-1], signal.SIGKILL)
            assert await request == calm_long
            pids.append(running.engine_pid())

            os.kill(pids[-1], signal.SIGSEGV)
            assert await ask(client, running, text_body(prompts[0], 200)) == calm[0]
            await until(running, running.is_idle, "idle")
            assert running.info()["restarts"] == 3 and running.get("/ready")[0] == 200
            assert len({*pids, running.engine_pid()}) == 4 and not any(is_alive(pid) for pid in pids)


async def test_while_the_engine_is_away_the_server_lives_and_is_not_ready(tmp_path: Path):
    with served(tmp_path) as running:
        pid = running.engine_pid()
        os.kill(pid, signal.SIGKILL)
        await until(running, lambda: running.get("/ready")[0] == 503, "not ready")
        assert running.get("/health") == (200, {"status": "starting"})
        running.ready()
        assert running.engine_pid() != pid


async def test_a_request_that_lost_two_engines_fails_alone(tmp_path: Path):
    with served(tmp_path) as running:
        async with session() as client:
            others = [text_body(f"Item {i}: a list of", 200) for i in range(3)]
            calm = [await ask(client, running, other) for other in others]
            stream = Streaming(client, running, text_body("Once upon a time", 6000))
            whole = asyncio.create_task(post(client, running, text_body("There was", 6000)))
            await stream.until(5)
            os.kill(running.engine_pid(), signal.SIGKILL)
            seen = stream.chunks
            await stream.until(seen + 20)
            later = [Streaming(client, running, other) for other in others]
            await asyncio.gather(*(one.until(5) for one in later))
            os.kill(running.engine_pid(), signal.SIGKILL)
            failed = await stream.task
            assert failed.ended and failed.error and failed.error["code"] == "engine_error" and failed.reason == "error"
            status, said, _ = await whole
            assert (status, said["error"]["code"]) == (500, "engine_error")
            assert [(await one.task).text for one in later] == calm, "who was there once goes on"
            assert all(one.error is None for one in later)
            await until(running, running.is_idle, "idle")


async def test_an_engine_that_cannot_start_again_ends_the_server_with_status_one(tmp_path: Path):
    """Its checkpoint has gone. Those who wait are told, and nothing is left behind."""
    model = tmp_path / "model"
    shutil.copytree(MODEL_DIR, model)
    with served(tmp_path / "server", str(model), status=1) as running:
        async with session() as client:
            request = asyncio.create_task(post(client, running, text_body("Once upon a time", 6000)))
            await until(running, lambda: running.info()["scheduler"]["running"] == 1, "running")
            shutil.rmtree(model)
            children = running.children()
            os.kill(running.engine_pid(), signal.SIGKILL)
            status, said, headers = await request
            assert (status, said["error"]["code"]) == (503, "engine_unavailable") and headers["Retry-After"]
        assert running.process.wait(WAIT_S) == 1
        assert not any(is_alive(pid) for pid in children)


async def test_an_engine_that_is_lost_for_the_sixth_time_is_given_up(tmp_path: Path):
    with served(tmp_path, status=1) as running:
        for _ in range(5):
            os.kill(running.ready().engine_pid(), signal.SIGKILL)
            await until(running, lambda: running.get("/ready")[0] == 503, "lost")
        pid = running.ready().engine_pid()
        os.kill(pid, signal.SIGKILL)
        assert running.process.wait(WAIT_S) == 1
        assert "given up" in running.logged()


# ------------------------------------------------------------------------------------------------------ the client has gone


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory):
    """A server that decodes two sequences at once and prefills in small chunks."""
    with served(tmp_path_factory.mktemp("narrow"), "--max-running", "2", "--chunk-tokens", "16", "--log-json") as running:
        yield running


async def frees_at_once(running: Served, left_to_do: int) -> None:
    """Nothing is held any more, long before the steps that were left could have run."""
    steps = running.info()["steps"]
    await until(running, running.is_idle, "idle")
    assert running.info()["steps"] - steps < left_to_do / 2


@pytest.mark.parametrize("n", [1, 2])
async def test_a_client_that_goes_in_decode_frees_its_pages(narrow: Served, n: int):
    async with session() as client:
        stream = Streaming(client, narrow, text_body("Once upon a time", 6000, n=n))
        await stream.until(10)
        assert narrow.info()["scheduler"]["running"] == n
        stream.leave()
        await frees_at_once(narrow, 6000)
        whole = asyncio.create_task(ask(client, narrow, text_body("There was", 6000, n=n)))
        await until(narrow, lambda: narrow.info()["scheduler"]["running"] == n, "running")
        whole.cancel()
        await frees_at_once(narrow, 6000)


async def test_a_client_that_goes_in_a_prefill_chunk_frees_its_pages(narrow: Served):
    async with session() as client:
        for n in (1, 3):
            prompt = f"n {n} " + "the sea and the road " * 900
            request = asyncio.create_task(ask(client, narrow, text_body(prompt, 100, n=n)))
            await until(narrow, lambda: narrow.info()["scheduler"]["running"] == 1, "in prefill")
            assert not request.done()
            request.cancel()
            await frees_at_once(narrow, 7000 // 16)


async def test_a_client_that_goes_while_queued_leaves_the_queue(narrow: Served):
    async with session() as client:
        running = [Streaming(client, narrow, text_body(f"Item {i}", 3000)) for i in range(2)]
        await asyncio.gather(*(stream.until(3) for stream in running))
        queued = [asyncio.create_task(ask(client, narrow, text_body("There was", 2000, n=n))) for n in (1, 3)]
        await until(narrow, lambda: narrow.info()["scheduler"]["requests"] == 4, "queued")
        for request in queued:
            request.cancel()
        await until(narrow, lambda: narrow.info()["scheduler"]["waiting"] == 0, "out of the queue")
        said = narrow.info()
        assert (said["requests"], said["scheduler"]["running"]) == (2, 2), "the others go on"
        for stream in running:
            assert not stream.task.done()
            stream.leave()
        await frees_at_once(narrow, 3000)


async def test_a_client_that_goes_while_its_grammar_is_compiled_leaves_nothing(narrow: Served):
    properties = {f"property_{i}": {"type": "string", "maxLength": 50} for i in range(200)}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    async with session() as client:
        before = narrow.logged().count('"client_gone"')
        for number in range(4):
            title = {"title": f"a new grammar each time {number}"}
            body = text_body("x", 2000, n=2, json_schema={**schema, **title})
            request = asyncio.create_task(ask(client, narrow, body))
            await asyncio.sleep(0.05)
            request.cancel()
        await until(narrow, lambda: narrow.logged().count('"client_gone"') == before + 4, "noticed")
        await frees_at_once(narrow, 2000)
        assert await ask(client, narrow, {"model": "default", "prompt": "x", "regex": "[0-9]{4}", "max_tokens": 20})


async def test_a_client_that_goes_from_several_prompts_frees_them_all(narrow: Served):
    async with session() as client:
        body = {**text_body("", 3000, n=2), "prompt": ["One", "Two", "Three"]}
        stream = Streaming(client, narrow, body)
        await stream.until(5)
        stream.leave()
        await frees_at_once(narrow, 3000)


# ------------------------------------------------------------------------------------------------------- slow and too many


def slow_reader(running: Served, body: dict[str, Any], path: str) -> socket.socket:
    """A connection with a small window, over which a request was sent and from which nothing is read."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", running.port))
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    reader.sendall(head.encode() + data)
    return reader


async def test_a_reader_that_stalls_is_given_up_and_nobody_else_notices(tmp_path: Path):
    flags = ("--stall-timeout-s", "1", "--output-buffer", "65536", "--log-json")
    with served(tmp_path, *flags) as running:
        async with session() as client:
            calm = await ask(client, running, text_body("Once upon a time", 600))
            before, steps = rss_bytes(running.process.pid), running.info()["steps"]
            params = {"max_new_tokens": 7000, "temperature": 0, "ignore_eos": True, "skip_special_tokens": False}
            slow = [
                slow_reader(running, {"text": f"Item {i}", "stream": True, "sampling_params": params}, GENERATE) for i in range(2)
            ]
            most = text_body("Item 2", 7000, n=2, logprobs=20, stream=True)
            slow.append(slow_reader(running, most, COMPLETIONS))
            try:
                other = Streaming(client, running, text_body("Once upon a time", 600))
                await other.until(3)
                assert (await other.task).text == calm
                await until(running, running.is_idle, "given up")
                assert running.logged().count('"client_too_slow"') == 3
                assert running.info()["steps"] - steps < 7000, "nothing more is made for who does not read"
                assert rss_bytes(running.process.pid) - before < 64 * 2**20
            finally:
                for reader in slow:
                    reader.close()
            assert await ask(client, running, text_body("Once upon a time", 600)) == calm


async def test_a_reader_that_is_slow_but_reads_gets_the_whole_answer(tmp_path: Path):
    """It takes far longer than the time after which a client that reads nothing is given up."""
    flags = ("--stall-timeout-s", "2", "--output-buffer", "16384")
    with served(tmp_path, *flags) as running:
        body = {"text": "Item", "stream": True, "sampling_params": {"max_new_tokens": 900, "temperature": 0, "ignore_eos": True}}
        with slow_reader(running, body, GENERATE) as reader:
            said = b""
            end = time.monotonic() + WAIT_S
            while b"[DONE]" not in said[-200:]:
                await asyncio.sleep(0.2 if time.monotonic() - end + WAIT_S < 12 else 0)
                part = await asyncio.to_thread(reader.recv, 32_768)
                assert part and time.monotonic() < end, said[-500:]
                said += part
        assert b'"error"' not in said
        await until(running, running.is_idle, "idle")


async def test_two_thousand_requests_are_all_answered(tmp_path: Path):
    """Queue 1,000, eight running: each gets its text, or a 503 that says when to come again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 5000:
        pytest.skip("needs 5,000 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5000), hard))
    with served(tmp_path, "--queue", "1000", "--max-running", "8", "--log-level", "error") as running:
        async with session() as client:
            texts = {i: await ask(client, running, text_body(f"Item {i}", 8)) for i in range(10)}

            async def one(number: int) -> int:
                status, said, headers = await post(client, running, text_body(f"Item {number % 10}", 8))
                if status == 200:
                    assert said["choices"][0]["text"] == texts[number % 10]
                else:
                    assert (status, said["error"]["code"], said["error"]["type"]) == (503, "queue_full", "overloaded_error")
                    assert 1 <= int(headers["Retry-After"]) <= 60
                return status

            statuses = await asyncio.gather(*(one(number) for number in range(2000)))
            assert len(statuses) == 2000 and set(statuses) <= {200, 503}
            assert statuses.count(200) >= 1000
            await until(running, running.is_idle, "idle")
            assert await ask(client, running, text_body("Item 0", 8)) == texts[0]


# ------------------------------------------------------------------------------------------------------------- its own end


async def test_told_to_end_under_load_it_finishes_what_runs_and_refuses_what_comes(tmp_path: Path):
    with served(tmp_path, "--drain-timeout-s", "200", status=None) as running:
        async with session() as client:
            bodies = [text_body(f"Item {i}", 300) for i in range(4)]
            calm = [await ask(client, running, body) for body in bodies]
            streams = [Streaming(client, running, body) for body in bodies[:3]]
            whole = asyncio.create_task(post(client, running, bodies[3]))
            await asyncio.gather(*(stream.until(3) for stream in streams))
            await until(running, lambda: running.info()["scheduler"]["running"] == 4, "running")
            running.process.send_signal(signal.SIGTERM)
            await until(running, lambda: running.get("/ready") == (503, {"status": "draining"}), "draining")
            status, said, headers = await post(client, running, bodies[0])
            assert (status, said["error"]["code"]) == (503, "draining")
            assert headers["Connection"] == "close" and headers["Retry-After"]
            assert [(await stream.task).text for stream in streams] == calm[:3]
            assert all(stream.ended and stream.error is None for stream in streams)
            status, said, _ = await whole
            assert status == 200 and said["choices"][0]["text"] == calm[3]
            assert await asyncio.to_thread(running.process.wait, WAIT_S) == 0


@pytest.mark.parametrize("how", ["second signal", "drain timeout"])
async def test_what_does_not_end_in_time_is_told_so(tmp_path: Path, how: str):
    timeout_s = "200" if how == "second signal" else "0.5"
    with served(tmp_path, "--drain-timeout-s", timeout_s, status=None) as running:
        async with session() as client:
            stream = Streaming(client, running, text_body("Once upon a time", 7000))
            whole = asyncio.create_task(post(client, running, text_body("There was", 7000)))
            await stream.until(3)
            await until(running, lambda: running.info()["scheduler"]["running"] == 2, "running")
            running.process.send_signal(signal.SIGTERM)
            if how == "second signal":
                await until(running, lambda: running.get("/ready")[1] == {"status": "draining"}, "draining")
                assert not stream.task.done()
                running.process.send_signal(signal.SIGINT)
            done = await stream.task
            assert done.ended and done.error and done.error["code"] == "draining"
            status, said, headers = await whole
            assert (status, said["error"]["code"]) == (503, "draining") and headers["Retry-After"]
            assert await asyncio.to_thread(running.process.wait, WAIT_S) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_while_it_loads_it_ends(tmp_path: Path, number: signal.Signals):
    with Served(tmp_path) as running:
        running.until(lambda: running.get("/health")[0] == 200, "listening")
        children = running.children()
        assert running.end(number) == 0, running.last_words()
    assert_nothing_left(running, children)


def test_a_port_in_use_is_one_line_and_status_two_before_anything_is_loaded(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said_by_user = ("serve", str(tmp_path / "no-model"), "--port", port)
        command = [sys.executable, "-X", "importtime", "-m", "ramify.runtime.cli", *said_by_user]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
    said = [line for line in ended.stderr.splitlines() if not line.startswith("import time:")]
    assert ended.returncode == 2 and ended.stdout == ""
    assert len(said) == 1 and port in said[0] and "in use" in said[0]
    assert not any(line.rpartition("|")[2].strip() == "torch" for line in ended.stderr.splitlines())


def test_a_killed_server_leaves_no_process(tmp_path: Path):
    with Served(tmp_path) as running:
        children = running.ready().children()
        assert children
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
    end = time.monotonic() + WAIT_S
    while any(is_alive(pid) for pid in children):
        assert time.monotonic() < end
        time.sleep(0.05)


# ---------------------------------------------------------------------------------------------------- descriptors, garbage


async def test_garbage_on_the_engines_sockets_does_no_harm(tmp_path: Path):
    with served(tmp_path) as running:
        async with session() as client:
            calm = await ask(client, running, text_body("Once upon a time", 300))
            pid = running.engine_pid()
            [folder] = [one for one in running.tmp.iterdir() if (one / "1.out").exists()]
            assert folder.stat().st_mode & 0o077 == 0, "nobody else of this machine can reach them"
            stream = Streaming(client, running, text_body("Once upon a time", 300))
            await stream.until(3)
            for name in ("1.in", "1.out"):
                for data in (b"", b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f" * 50):
                    with socket.socket(socket.AF_UNIX) as raw:
                        raw.connect(str(folder / name))
                        with contextlib.suppress(OSError):
                            raw.sendall(data)
            with zmq.Context() as context, context.socket(zmq.PUSH) as rogue:
                rogue.connect(f"ipc://{folder}/1.out")
                forged: list[Any] = [
                    [{"type": "progress", "step": 1, "keys": b"abc", "indices": b"", "tokens": b""}],
                    [{"type": "progress", "step": 1, "keys": b"\0" * 8, "indices": b"", "tokens": b"\0" * 4}],
                    [{"type": "answer", "token": 10**9, "body": b"{"}],
                    [{"type": "refused", "key": -1, "failure": {"code": "x", "message": "y"}}],
                    {"type": "fatal"},
                    ["ready"],
                    None,
                ]
                frames = [b"", b"\xc1", os.urandom(1000), b"\x91" * 10_000, b"x" * 10**6, *map(msgspec.msgpack.encode, forged)]
                for frame in frames:
                    rogue.send(frame)
                rogue.send_multipart([b"one", b"two", b""])
                assert (await stream.task).text == calm
                assert await ask(client, running, text_body("Once upon a time", 300)) == calm
            assert running.engine_pid() == pid and running.info()["restarts"] == 0
            assert is_alive(pid)


async def test_out_of_descriptors_it_stays_up_and_answers_once_some_are_free(tmp_path: Path):
    with served(tmp_path, limit_files=64) as running:
        assert await asyncio.to_thread(running.get, "/health") == (200, {"status": "ready"})
        idle = []
        for _ in range(100):
            one = socket.socket()
            one.settimeout(5)
            with contextlib.suppress(OSError):
                one.connect(("127.0.0.1", running.port))
            idle.append(one)
        await asyncio.sleep(3)
        assert running.process.poll() is None
        for one in idle:
            one.close()
        async with session() as client:
            await until(running, lambda: running.get("/ready")[0] == 200, "ready again")
            assert await ask(client, running, text_body("Once upon a time", 20))
        await until(running, running.is_idle, "idle")
        assert num_files(running.process.pid) < 64
        assert len(running.logged()) < 200_000, "it does not fill the disk with one complaint"
