"""What a server says while it loads, while it drains, and when it made a mistake itself."""

from __future__ import annotations

import asyncio
import json
import signal
import time

from aiohttp import web
from http_calls import CHAT, COMPLETIONS, GENERATE, Answer, answer_on, assert_error, call, chat, completion, connected, native

from ramify.runtime.errors import EngineError
from ramify.runtime.server.auth import Keys
from ramify.runtime.server.connection import HttpServer
from ramify.runtime.server.dispatch import Dispatch
from ramify.runtime.server.exchange import Exchange
from ramify.runtime.server.life import Life
from ramify.runtime.server.log import Log
from ramify.runtime.server.metrics import Metrics
from ramify.runtime.server.options import ServerOptions


def test_a_server_that_loads_says_so_and_one_that_drains_finishes_what_it_has(server_with) -> None:
    """One server from its first second to its last: 503 loading, then answers, then 503 draining beside a stream that ends."""
    running = server_with("--lenient-params", ready=False)
    end = time.monotonic() + 60
    while running.status_of("/health") != 200:
        assert time.monotonic() < end
        time.sleep(0.01)
    seen = set()
    while running.status_of("/ready") != 200:
        assert time.monotonic() < end
        for path, body in ((CHAT, chat()), (COMPLETIONS, completion(stream=True)), (GENERATE, native())):
            answer = call(running.port, path, body)
            seen.add(answer.status)
            if answer.status == 503:
                assert_error(answer, 503, "loading", kind="overloaded_error")
                assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert 503 in seen

    # Told to be lenient, it takes a field that it does not know, and says so in its log.
    for path, body in ((CHAT, chat(tempature=1)), (COMPLETIONS, completion(tempature=1)), (GENERATE, native(tempature=1))):
        assert call(running.port, path, body, {"X-Request-Id": f"lenient-{len(path)}"}).status == 200
        assert f"unknown fields were ignored id=lenient-{len(path)} fields=tempature" in running.logged()
    assert_error(call(running.port, CHAT, chat(tempature=1, n=0)), 400, "out_of_range", param="n")

    data = json.dumps(completion(max_tokens=200, ignore_eos=True, stream=True)).encode()
    with connected(running.port) as raw, connected(running.port) as kept:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(data), data))
        while running.server_info()["requests"] != 1:
            time.sleep(0.01)
        running.process.send_signal(signal.SIGTERM)
        while running.status_of("/ready") == 200:
            time.sleep(0.005)
        answer = call(running.port, CHAT, chat())
        assert_error(answer, 503, "draining", kind="overloaded_error")
        assert 1 <= int(answer.headers["retry-after"]) <= 60 and answer.headers["connection"] == "close"
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = answer_on(kept)
        assert answer is not None and answer.status == 200
        streamed = answer_on(raw)
        assert streamed is not None and streamed.events[-1] == "[DONE]"
        assert json.loads(streamed.events[-2])["choices"][0]["finish_reason"] == "length"
    assert running.process.wait(30) == 0


async def answered(handlers: dict, path: str) -> tuple[Answer, Metrics]:
    """One POST to a server of these handlers."""
    options, metrics = ServerOptions(), Metrics()
    dispatch = Dispatch(handlers, life=Ready(), options=options, keys=Keys(), log=Log("error"), metrics=metrics)
    runner = web.ServerRunner(HttpServer(dispatch, max_body=options.max_body, header_timeout_s=10))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        answer = await asyncio.to_thread(call, runner.addresses[0][1], path, {})
    finally:
        await runner.cleanup()
    return answer, metrics


class Ready(Life):
    """A life whose engine nobody asks for anything."""

    @property
    def engine(self):
        return None


async def test_a_mistake_of_ours_is_500_with_a_fixed_text(capsys) -> None:
    async def chat(exchange: Exchange) -> web.StreamResponse:
        raise ValueError("the prompt was: secret words")

    answer, _ = await answered({"chat": chat}, CHAT)
    assert_error(answer, 500, "internal_error", kind="server_error")
    assert b"secret" not in answer.body
    logged = capsys.readouterr().err
    assert answer.headers["x-request-id"] in logged and "ValueError" in logged and "secret" not in logged


async def test_a_mistake_of_the_engine_is_500_with_its_own_code() -> None:
    async def chat(exchange: Exchange) -> web.StreamResponse:
        raise EngineError("The logits of this request are not numbers.", code="nan_logits")

    answer, _ = await answered({"chat": chat}, CHAT)
    assert_error(answer, 500, "nan_logits", kind="server_error")
