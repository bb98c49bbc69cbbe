"""Programs over HTTP: the same texts and the same cache as on an engine, through a small server that drives a real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

import ramify as sgl
from ramify.lang import background
from ramify.lang.backends.server import ServerProcess, flags_of, free_port, is_free, serve_command, start_error
from ramify.runtime.errors import RamifyError
from ramify.runtime.protocol import (
    Chat,
    Delta,
    GenerateRequest,
    LogprobParams,
    Message,
    ProgramHint,
    SamplingParams,
    ScoreRequest,
    Text,
    greedy,
    pack_ids,
    tokens,
)
from ramify.runtime.server import programs, replies

pytestmark = pytest.mark.timeout(300)


class Site:
    """An aiohttp application on a free port of the background loop."""

    def __init__(self, app: web.Application):
        self.runner = web.AppRunner(app, handler_cancellation=True)

    async def start(self) -> str:
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"


@contextmanager
def serving(app: web.Application) -> Iterator[str]:
    site = Site(app)
    yield background.submit(site.start()).result(10)
    background.submit(site.runner.cleanup()).result(10)


class Small:
    """The programs' routes over an engine: what `runtime/server` does with `programs.py`, less everything else."""

    key = "secret"

    def __init__(self, engine: sgl.Engine):
        self.engine = engine
        self.asked: list[str] = []
        self.refuse: list[RamifyError] = []
        self.break_after: int | None = None
        self.fail_after: int | None = None

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 25, middlewares=[self.guard])
        app.router.add_post("/ramify/generate", self.generate)
        app.router.add_post("/ramify/score", self.score)
        app.router.add_get("/server_info", self.info)
        app.router.add_post("/flush_cache", self.flush)
        return app

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path)
        try:
            if request.headers.get("Authorization") != f"Bearer {self.key}":
                return web.json_response({"error": {"message": "no key", "code": "invalid_api_key"}}, status=401)
            if self.refuse:
                raise self.refuse.pop(0)
            return await handler(request)
        except RamifyError as error:
            body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
            hint = getattr(error, "retry_after_s", None)
            return web.json_response({"error": body}, status=error.status, headers={"Retry-After": str(hint)} if hint else None)

    async def generate(self, request: web.Request) -> web.StreamResponse:
        engine = await self.engine.backend.engine()
        asked = programs.decode_generate(await request.read(), vocab_size=engine.info.vocab_size)
        response, sent = None, 0
        async with aclosing(engine.generate(asked)) as events:
            async for event in events:
                if response is None:
                    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                    await response.prepare(request)
                if sent == self.break_after:
                    return response
                if sent == self.fail_after:
                    event = programs.failure_of(sgl.EngineError("The step failed."))
                await response.write(replies.frame(event))
                sent += 1
        assert response is not None
        await response.write(replies.DONE)
        return response

    async def score(self, request: web.Request) -> web.Response:
        engine = await self.engine.backend.engine()
        scored = await engine.score(programs.decode_score(await request.read()))
        return web.Response(body=programs.encode_scored(scored), content_type="application/json")

    async def info(self, request: web.Request) -> web.Response:
        return web.json_response({"ramify": sgl.__version__, "model_name": "small", **await self.engine.backend.server_info()})

    async def flush(self, request: web.Request) -> web.Response:
        return web.json_response({"tokens": await self.engine.backend.flush_cache()})


@pytest.fixture(scope="module")
def engine() -> Iterator[sgl.Engine]:
    with sgl.Engine(in_process=True, threads=1, kv_tokens=8192, dtype="float32") as started:
        yield started


@pytest.fixture
def small(engine: sgl.Engine) -> Small:
    return Small(engine)


@pytest.fixture
def url(small: Small) -> Iterator[str]:
    with serving(small.app()) as at:
        yield at


@pytest.fixture
def endpoint(url: str) -> Iterator[sgl.RuntimeEndpoint]:
    made = sgl.RuntimeEndpoint(url, Small.key, retries=1)
    yield made
    background.run(made.close(), "")


def ask(backend: Any, request: GenerateRequest) -> list[Any]:
    async def whole() -> list[Any]:
        return [event async for event in backend.generate(request)]

    return background.run(whole(), "")


# ------------------------------------------------------------------------------------------------------ the same results


EXAMPLES = ["batch", "chat", "choose", "extract", "few_shot", "fork", "tool"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_the_same_over_http_as_on_the_engine(name, engine, endpoint, capsys):
    """Texts, scores, and how many tokens each call found in the cache."""
    example = import_module(f"ramify.lang.examples.{name}")
    printed = []
    for backend in (engine, endpoint):
        engine.flush_cache()
        example.main(backend)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and printed[0]


def test_a_second_turn_goes_on_from_the_ids_of_the_first(engine, endpoint):
    @sgl.function
    def chat(s):
        s += sgl.user("My name is Nora. ü 🙂") + sgl.assistant(sgl.gen("a"))
        s += sgl.user("What is my name?") + sgl.assistant("It is" + sgl.gen("b"))
        s += sgl.user("Which?") + sgl.assistant(sgl.select("c", ["Nora", "Norah", "Paul"]) + "," + sgl.gen("d"))

    seen = []
    for backend in (engine, endpoint):
        engine.flush_cache()
        state = chat.run(backend=backend, temperature=0, max_new_tokens=8)
        calls = [state.explain(name) for name in "abcd"]
        seen.append((state.text(), [(call.prompt, call.cached, call.computed, call.continuation) for call in calls]))
    assert seen[0] == seen[1]
    assert [call[3] for call in seen[1][1][1:]] == ["continued"] * 3


def test_events_arrive_as_the_engine_made_them(engine, endpoint):
    request = GenerateRequest(
        (tokens([5, 6, 7]), Text("Hello 🙂")),
        SamplingParams(max_new_tokens=6, temperature=0.8, seed=2**62, n=2, stop=("zzz",), logit_bias={9: -1.5}),
        logprobs=LogprobParams(output=True, prompt_from=0, top=2, token_ids=(4,)),
        hint=ProgramHint(program=3, call=1),
    )
    sides = []
    for backend in (engine.backend, endpoint):
        engine.flush_cache()
        events = ask(backend, request)
        finished = sorted((event for event in events if not isinstance(event, Delta)), key=lambda event: event.index)
        sides.append([msgspec.structs.replace(event, timings=None) for event in finished])
        assert "".join(event.text for event in events if isinstance(event, Delta) and event.index == 0) == finished[0].text
    assert sides[0] == sides[1] and len(sides[1][0].logprobs) == 6
    entry = sides[1][0].logprobs[0]
    assert endpoint.token_text(entry.token) == entry.text and endpoint.token_text(2**30) is None


@pytest.mark.parametrize(
    "constraint",
    [
        {"regex": r"[A-C]{3}-\d{2}"},
        {"choices": ["one", "two"]},
        {"json_schema": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}},
        {"ebnf": 'root ::= "yes" | "no"'},
    ],
    ids=lambda constraint: next(iter(constraint)),
)
def test_constraints_hold_over_http(engine, endpoint, constraint):
    @sgl.function
    def program(s):
        s += sgl.user("Say it.") + sgl.assistant(sgl.gen("x", max_tokens=24, temperature=0, **constraint))

    assert program.run(backend=endpoint)["x"] == program.run(backend=engine)["x"]


def test_the_cache_is_flushed_and_the_server_tells_of_itself(engine, endpoint):
    ask(endpoint, GenerateRequest((Text("Hull is a town"),), greedy(2)))
    assert background.run(endpoint.flush_cache(), "") > 0 and background.run(endpoint.flush_cache(), "") == 0
    info = sgl.get_server_info(endpoint)
    assert info["model_name"] == "small" and info["vocab_size"] == engine.info.vocab_size


# --------------------------------------------------------------------------------------------------------- when it fails


def test_an_error_is_the_engines_own_with_the_programs_line(endpoint):
    @sgl.function
    def program(s):
        s += "town " * 20_000 + sgl.gen("x")

    with pytest.raises(sgl.ContextLengthExceeded, match=r"test_lang_endpoint\.py:\d+, in program: s \+="):
        program.run(backend=endpoint)
    with pytest.raises(sgl.ConstraintError) as caught:
        ask(endpoint, GenerateRequest((Text("a"),), constraint=sgl_regex("(?=a)")))
    assert caught.value.code == "unsupported_regex"


def sgl_regex(pattern: str) -> Any:
    from ramify.constrained.spec import Regex

    return Regex(pattern)


def test_an_error_after_the_first_event_is_an_error(small, endpoint):
    small.fail_after = 2
    with pytest.raises(sgl.EngineError, match="step failed"):
        ask(endpoint, GenerateRequest((Text("a"),), greedy(6)))


def test_an_answer_that_breaks_off_is_an_error(small, endpoint):
    small.break_after = 2
    with pytest.raises(sgl.EngineError, match="broke off: 0 of 1"):
        ask(endpoint, GenerateRequest((Text("a"),), greedy(6)))


def test_a_full_queue_is_asked_again_until_there_is_room(small, endpoint):
    background.run(endpoint.server_info(), "")
    small.refuse = [sgl.Overloaded("The queue is full.", retry_after_s=0.01) for _ in range(5)]
    assert ask(endpoint, GenerateRequest((Text("a"),), greedy(1)))
    small.refuse = [sgl.Overloaded("The queue is full.", retry_after_s=0.01) for _ in range(5)]
    assert background.run(endpoint.score(ScoreRequest((Text("a"),), ("b",))), "").choices
    small.refuse = [sgl.Overloaded("Ending.", code="draining", retry_after_s=0.01) for _ in range(5)]
    with pytest.raises(sgl.Overloaded, match="Ending"):
        ask(endpoint, GenerateRequest((Text("a"),), greedy(1)))


def test_a_wrong_key_is_said_so_and_nothing_else_is_tried(small, url):
    with pytest.raises(sgl.InvalidRequest, match="401") as caught:
        ask(sgl.RuntimeEndpoint(url, "wrong"), GenerateRequest((Text("a"),)))
    assert caught.value.code == "invalid_api_key" and small.asked == ["/server_info"]


def test_nobody_there_is_said_so():
    with pytest.raises(sgl.Overloaded, match="cannot be reached"):
        ask(sgl.RuntimeEndpoint(f"http://127.0.0.1:{free_port('127.0.0.1')}", retries=0), GenerateRequest((Text("a"),)))


def test_closing_the_answer_stops_the_request(engine, endpoint):
    async def begin_and_leave() -> None:
        request = GenerateRequest((Text("Once upon a time"),), SamplingParams(max_new_tokens=None, ignore_eos=True, seed=1, n=2))
        async with aclosing(endpoint.generate(request)) as events:
            await anext(events)

    background.run(begin_and_leave(), "")
    until = time.monotonic() + 20
    while counts := engine.get_server_info()["scheduler"]["requests"]:
        assert time.monotonic() < until, counts
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------------------- bad bodies


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"", "invalid_json", "empty"),
        (b'{"prompt": [', "invalid_json", "not valid JSON"),
        (b'{"prompt": [], "x": ' + b"[" * 200_000, "invalid_json", "too deeply"),
        (b'{"prompt": [{"type": "text", "text": "\\ud800"}]}', "invalid_unicode", "surrogate"),
        (b'{"prompt": [], "deadline_s": NaN}', "invalid_number", "NaN"),
        (b"[]", "invalid_json", "object"),
        (b"{}", "missing_required_parameter", "prompt"),
        (b'{"prompt": [{"type": "tokens", "ids": [1]}]}', "invalid_prompt", "prompt[0].ids"),
        (b'{"prompt": [{"type": "video"}]}', "invalid_prompt", "video"),
        (b'{"prompt": [], "tenant": "other"}', "not_allowed", "API key"),
        (b'{"prompt": [], "priority": 100000000000000000000}', "out_of_range", "priority"),
        (b'{"prompt": [], "priority": ' + b"9" * 400 + b"}", "out_of_range", "too large"),
        (b'{"prompt": [], "sampling": {"max_new_tokens": ' + b"9" * 400 + b"}}", "out_of_range", "max_new_tokens"),
        (b'{"prompt": [], "hint": {"program": 100000000000000000000}}', "out_of_range", "hint.program"),
        (b'{"prompt": [], "deadline_s": 0}', "out_of_range", "deadline_s"),
        (b'{"prompt": [], "rid": "a\\nb"}', "invalid_request_id", "rid"),
        (b'{"prompt": [], "sampling": {"stop": [""]}}', "invalid_stop", "sampling.stop"),
        (b'{"prompt": [], "logprobs": {"top": -1}}', "invalid_logprobs", "logprobs.top"),
        (b'{"prompt": [], "logprobs": {"top": 65}}', "invalid_logprobs", "logprobs.top"),
        (b'{"prompt": [], "logprobs": {"token_ids": [64]}}', "invalid_token_id", "64"),
    ],
    ids=lambda value: value[:40] if isinstance(value, bytes) else "",
)
def test_a_bad_body_is_refused_with_a_code_and_the_field(body, code, said):
    with pytest.raises(sgl.InvalidRequest) as caught:
        programs.decode_generate(body, vocab_size=64)
    assert caught.value.code == code and said in caught.value.message


def test_requests_and_events_survive_the_way():
    chat = Chat((Message("user", "ü", extra={"a": [1]}),), held=pack_ids([1, 2**31 - 1]), template_kwargs={"b": None})
    request = GenerateRequest((chat, Text("x"), tokens([0])), SamplingParams(logit_bias={3: 0.5}), sgl_regex("a"))
    assert programs.decode_generate(msgspec.json.encode(request)) == request
    scoring = ScoreRequest((chat,), ("a", "b"), unconditional=True)
    assert programs.decode_score(msgspec.json.encode(scoring)) == scoring
    failure = programs.failure_of(sgl.DeadlineExceeded("Too late.", param="deadline_s"))
    assert json.loads(replies.frame(failure).removeprefix(b"data: ")) == {
        "type": "failure",
        "code": "deadline_exceeded",
        "message": "Too late.",
        "param": "deadline_s",
    }


def test_too_many_choices_are_refused():
    body = msgspec.json.encode(ScoreRequest((Text("a"),), tuple("b" * 1025)))
    with pytest.raises(sgl.InvalidRequest, match="choices has 1025"):
        programs.decode_score(body)


# ----------------------------------------------------------------------------------------------------- servers of another make


def foreign(info: Any) -> web.Application:
    """A server that speaks OpenAI's protocol. info: what GET /server_info answers, None for 404."""

    async def chat(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for choice in ({"delta": {"content": "Paris"}}, {"delta": {}, "finish_reason": "stop"}):
            await response.write(b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": request.headers.get("Authorization", "no key")}]})

    async def server_info(request: web.Request) -> web.Response:
        return web.Response(text=info) if isinstance(info, str) else web.json_response(info)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/v1/models", models)
    if info is not None:
        app.router.add_get("/server_info", server_info)
    return app


@pytest.mark.parametrize("info", [None, {"version": "0.5", "model_path": "m"}, "<html>Hello</html>", []])
def test_a_server_of_another_make_is_spoken_to_in_openais_protocol(info, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "meant for OpenAI alone")

    @sgl.function
    def program(s):
        s += sgl.user("Capital of France?") + sgl.assistant(sgl.gen("x"))

    with serving(foreign(info)) as at:
        endpoint = sgl.RuntimeEndpoint(at + "/v1/", retries=0)
        assert program.run(backend=endpoint)["x"] == "Paris"
        assert sgl.get_server_info(endpoint)["model"] == "no key"
        with pytest.raises(sgl.InvalidRequest, match="flush"):
            sgl.flush_cache(endpoint)
        background.run(endpoint.close(), "")


# ------------------------------------------------------------------------------------------------------ a server of one's own

CHILD = """
import http.server, sys
from ramify.runtime.server.parent import end_with_parent

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()

end_with_parent()
print("listening", file=sys.stderr, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

PARENT = """
import sys, time
from ramify.lang import background
from ramify.lang.backends.server import ServerProcess
process = ServerProcess([sys.executable, sys.argv[1], sys.argv[2]], f"http://127.0.0.1:{sys.argv[2]}", {})
background.run(process.start(60), "")
print(process.pid, flush=True)
if sys.argv[3] == "stay":
    time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


@pytest.fixture
def child(tmp_path: Path) -> str:
    path = tmp_path / "child.py"
    path.write_text(CHILD, encoding="utf-8")
    return str(path)


def test_a_child_is_started_waited_for_and_ended(child):
    port = free_port("127.0.0.1")
    process = ServerProcess([sys.executable, child, str(port)], f"http://127.0.0.1:{port}", {})
    background.run(process.start(60), "")
    pid = process.pid
    assert pid and is_running(pid) and not is_free("127.0.0.1", port)
    background.run(process.stop(), "")
    assert process.pid is None and not is_running(pid) and is_free("127.0.0.1", port)
    background.run(process.stop(), "")


def test_a_child_that_ends_early_says_why():
    said = "import sys; print('line\\nramify serve: There is no model x.', file=sys.stderr); sys.exit(2)"
    with pytest.raises(sgl.InvalidRequest) as caught:
        background.run(ServerProcess([sys.executable, "-c", said], "http://127.0.0.1:9", {}).start(60), "")
    assert str(caught.value) == "There is no model x."
    with pytest.raises(sgl.EngineError, match=r"(?s)status 1 before it was ready.*division by zero"):
        background.run(ServerProcess([sys.executable, "-c", "1/0"], "http://127.0.0.1:9", {}).start(60), "")


def test_a_child_that_is_never_ready_is_ended():
    process = ServerProcess([sys.executable, "-c", "import time; time.sleep(60)"], "http://127.0.0.1:9", {})
    with pytest.raises(sgl.EngineError, match=r"not ready after 0.2 s"):
        background.run(process.start(0.2), "")
    assert process.pid is None


@pytest.mark.parametrize("how", ["stay", "leave"])
def test_a_child_ends_with_its_parent_however_that_ends(child, tmp_path, how):
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    command = [sys.executable, str(script), child, str(free_port("127.0.0.1")), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if how == "stay":
            assert is_running(pid)
            parent.send_signal(signal.SIGKILL)
        parent.wait(30)
    until = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_options_become_flags():
    said = {"kv_tokens": 64, "generation_defaults": False, "queue": 1024, "device": None, "log_json": True, "allow": ["a", "-b"]}
    assert flags_of(said) == ["--kv-tokens=64", "--no-generation-defaults", "--log-json", "--allow=a", "--allow=-b"]
    assert serve_command("m", "--port", "1")[1:] == ["-m", "ramify.runtime.cli", "serve", "m", "--end-with-parent", "--port", "1"]


def test_what_a_server_said_before_it_ended_is_the_error():
    assert start_error(2, ["usage: ...", "error: unrecognized arguments: --nonsense=1"]).message.endswith("--nonsense=1")
    assert "ended with status -9" in start_error(-9, []).message


needs_serve = pytest.mark.skipif(find_spec("ramify.runtime.commands.serve") is None, reason="there is no `ramify serve` yet")


@needs_serve
def test_a_runtime_serves_what_the_engine_says(engine, capsys):
    with sgl.Runtime(kv_tokens=8192, dtype="float32", threads=1, api_key="k") as runtime:
        pid = runtime.pid
        said = {"max_new_tokens": 6, "temperature": 0}
        assert runtime.generate("Hull is", said)["text"] == engine.generate("Hull is", said)["text"]
        *_, last = runtime.generate("Hull is", said, stream=True)
        assert last["meta_info"]["cached_tokens"] > 0
        assert runtime.flush_cache() > 0 and runtime.get_server_info()["ramify"] == sgl.__version__
        for name in EXAMPLES:
            printed = []
            for backend in (engine, runtime):
                backend.flush_cache()
                import_module(f"ramify.lang.examples.{name}").main(backend)
                printed.append(capsys.readouterr().out)
            assert printed[0] == printed[1] and printed[0]
    assert pid and not is_running(pid)


@needs_serve
def test_a_runtime_says_what_is_wrong_with_its_model():
    with pytest.raises(sgl.InvalidRequest, match="no-such-folder"):
        sgl.Runtime("./no-such-folder")


def test_a_runtimes_port_that_is_in_use_is_said_so(url):
    with pytest.raises(sgl.InvalidRequest, match="in use"):
        sgl.Runtime(port=int(url.rpartition(":")[2]))


# ------------------------------------------------------------------------------------------------------- the command line


def run_chat(*words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ramify.runtime.cli", "chat", *words]
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, input=said, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_chat_talks_to_a_server(url, engine):
    engine.flush_cache()
    words = ("--url", url, "--api-key", Small.key, "--max-tokens", "8", "--temperature", "0")
    done = run_chat(*words, said="My name is Nora.\nWhat is my name?\n/explain\n")
    assert done.returncode == 0, done.stderr
    assert f"Talking to small at {url}." in done.stderr and "continued" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--url", "http://127.0.0.1:9", "--kv-tokens", "64"], "--kv-tokens is said where the engine is started"),
        (["--url", "http://127.0.0.1:9", "model"], "MODEL is said where"),
        (["--api-key", "k"], "--url"),
    ],
)
def test_chat_refuses_what_does_not_go_together(words, said):
    done = run_chat(*words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


async def test_many_programs_at_once(engine, endpoint):
    @sgl.function
    def program(s, i):
        s += f"Town {i}:" + sgl.gen("x", max_tokens=3, temperature=0)

    states = await asyncio.to_thread(program.run_batch, [{"i": i} for i in range(16)], backend=endpoint)
    alone = await asyncio.to_thread(program.run, 7, backend=engine)
    assert states[7]["x"] == alone["x"] and len({state.text() for state in states}) == 16


# -------------------------------------------------------------------------------------------------------------- tools


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@sgl.function
def sums(s, **said):
    s += sgl.user("What is 27 plus 58?")
    return sgl.run_tools(s, [add], max_tokens=64, temperature=0, **said)


def without_ids(state: sgl.ProgramState) -> Any:
    """The conversation, less what is drawn anew each time."""
    messages = json.loads(json.dumps(state.messages()))
    for message in messages:
        message.pop("tool_call_id", None)
        for call in message.get("tool_calls", ()):
            assert call.pop("id").startswith("call_")
    return messages


def test_functions_are_called_on_the_engine_as_over_http(engine, endpoint):
    for said in ({}, {"tool_choice": "required"}, {"tool_choice": add, "parallel_tool_calls": False}):
        seen = []
        for backend in (engine, endpoint):
            engine.flush_cache()
            state = _with(said).run(backend=backend)
            seen.append((without_ids(state), state.ret_value.text, state.explain("answer").continuation))
        assert seen[0] == seen[1] and seen[0][2] == "continued"
        assert [m["content"] for m in seen[0][0] if m["role"] == "tool"] == ["85"] and "85" in seen[0][1]


def _with(said: dict[str, Any]) -> sgl.Program:
    @sgl.function
    def program(s):
        return sums(s, **said)

    return program
