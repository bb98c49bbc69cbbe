"""The OpenAI backend against a small real server that speaks the protocol, also badly."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

import ramify as sgl
from ramify.lang import background
from ramify.lang.backends.openai import OpenAI
from ramify.lang.backends.sse import EventDecoder, error_of

pytestmark = pytest.mark.timeout(30)


class Server:
    """Answers from a list; remembers what it was asked. An answer is a list of chunks, a status with a body, or an object."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.answers: list[Any] = []
        self.cut = 1 << 20
        self.gone = asyncio.Event()

    async def start(self) -> str:
        app = web.Application()
        app.router.add_post("/v1/{path:.*}", self.post)
        app.router.add_get("/v1/models", self.models)
        self.runner = web.AppRunner(app, handler_cancellation=True)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "served-model"}]})

    async def post(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append({"path": request.match_info["path"], **await request.json()})
        self.headers.append(request.headers)
        answer = self.answers.pop(0)
        if callable(answer):
            answer = answer(self.bodies[-1])
        if isinstance(answer, tuple):
            return web.json_response(answer[1], status=answer[0], headers=answer[2] if len(answer) > 2 else None)
        if isinstance(answer, dict):
            return web.json_response(answer)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        raw = b"".join(answer if answer and isinstance(answer[0], bytes) else [sse(part) for part in answer])
        for start in range(0, len(raw), self.cut):
            await response.write(raw[start : start + self.cut])
            await asyncio.sleep(0)
        if answer and answer[-1] == HANG:
            try:
                await asyncio.sleep(60)
            finally:
                self.gone.set()
        return response


HANG = {"choices": [], "hang": True}


def sse(data: Any) -> bytes:
    return f"data: {data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}\n\n".encode()


def chat(*texts: str, reason: str = "stop", usage: dict | None = None, index: int = 0) -> list[Any]:
    """A streamed chat answer."""
    parts = [{"choices": [{"index": index, "delta": {"role": "assistant", "content": ""}}]}]
    parts += [{"choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    parts.append({"choices": [{"index": index, "delta": {}, "finish_reason": reason}]})
    return [*parts, {"choices": [], "usage": usage or {"prompt_tokens": 9, "completion_tokens": len(texts)}}, "[DONE]"]


def completion(text: str, **more: Any) -> list[Any]:
    return [{"choices": [{"index": 0, "text": text, "finish_reason": "stop", **more}]}, "[DONE]"]


@pytest.fixture
def server():
    made = Server()
    made.url = background.submit(made.start()).result(10)
    yield made
    background.submit(made.runner.cleanup()).result(10)


def backend_for(server: Server, **options: Any) -> OpenAI:
    return OpenAI("m", base_url=server.url, **{"retries": 2, **options})


@sgl.function
def ask(s, question, **said):
    s += sgl.system("Be brief.") + sgl.user(question)
    s += sgl.assistant(sgl.gen("answer", **said))


@sgl.function
def complete(s, text, **said):
    s += text + sgl.gen("answer", **said)


# --------------------------------------------------------------------------------------------------------- the happy way


def test_a_conversation_goes_to_chat_completions(server):
    usage = {"prompt_tokens": 12, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    server.answers = [chat("Par", "is", usage=usage)]
    state = ask.run("Capital of France?", backend=backend_for(server, api_key="k"), temperature=0.5, max_new_tokens=9, stop="\n")
    assert state["answer"] == "Paris"
    (body,) = server.bodies
    assert body["path"] == "chat/completions" and body["model"] == "m" and body["stream"] is True
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of France?"}]
    assert (body["temperature"], body["max_tokens"], body["stop"]) == (0.5, 9, ["\n"])
    assert server.headers[0]["Authorization"] == "Bearer k"
    explained = state.explain("answer")
    assert (explained.prompt, explained.cached, explained.computed, explained.output) == (12, 4, 8, 2)


def test_raw_text_goes_to_completions_and_grows_from_call_to_call(server):
    server.answers = [completion(" Paris"), completion(" Rome")]

    @sgl.function
    def program(s):
        s += "France:" + sgl.gen("a") + "\nItaly:" + sgl.gen("b")

    state = program.run(backend=backend_for(server))
    assert [body["prompt"] for body in server.bodies] == ["France:", "France: Paris\nItaly:"]
    assert state.text() == "France: Paris\nItaly: Rome"


def test_the_deltas_of_a_stream_are_passed_on_as_they_come(server):
    server.answers = [chat("One ", "two ", "three")]
    state = ask.run("Count", backend=backend_for(server), stream=True)
    assert list(state.text_iter("answer")) == ["One ", "two ", "three"]


def test_n_answers_are_told_apart_by_their_index(server):
    first, second = chat("a", "b")[:-2], chat("c", index=1)
    server.answers = [[*first[:2], *second[:2], *first[2:], *second[2:]]]
    assert ask.run("?", n=2, backend=backend_for(server))["answer"] == ["ab", "c"]
    assert server.bodies[0]["n"] == 2


def test_the_model_is_the_servers_first_if_none_is_named(server):
    server.answers = [chat("x")]
    endpoint = sgl.RuntimeEndpoint(server.url.removesuffix("/v1"))
    ask.run("?", backend=endpoint)
    assert server.bodies[0]["model"] == "served-model"
    assert sgl.get_server_info(endpoint)["model"] == "served-model"


def test_a_server_that_does_not_stream_is_understood(server):
    server.answers = [{"choices": [{"index": 0, "message": {"content": "whole"}, "finish_reason": "length"}], "usage": None}]
    state = ask.run("?", backend=backend_for(server))
    assert state["answer"] == "whole" and state.get_meta_info("answer")["finish_reason"]["type"] == "length"


def test_an_open_turn_is_continued_where_the_server_can(server):
    server.answers = [chat("4")]

    @sgl.function
    def program(s):
        s += sgl.user("2 + 2?") + sgl.assistant("It is " + sgl.gen("x"))

    program.run(backend=backend_for(server))
    assert server.bodies[0]["continue_final_message"] is True
    assert server.bodies[0]["messages"][-1] == {"role": "assistant", "content": "It is "}
    with pytest.raises(sgl.InvalidRequest, match="cannot continue a turn"):
        program.run(backend=backend_for(server, dialect="openai"))


CONSTRAINTS = [
    ("sglang", {"regex": "a+"}, {"regex": "a+"}),
    ("sglang", {"ebnf": "root ::= x"}, {"ebnf": "root ::= x"}),
    ("sglang", {"choices": ["a.", "b"], "temperature": 0.5}, {"regex": r"(a\.|b)"}),
    ("vllm", {"regex": "a+"}, {"structured_outputs": {"regex": "a+"}}),
    ("vllm", {"choices": ["a", "b"], "temperature": 0.5}, {"structured_outputs": {"choice": ["a", "b"]}}),
]


@pytest.mark.parametrize(("dialect", "said", "sent"), CONSTRAINTS)
def test_constraints_are_sent_in_the_servers_own_words(server, dialect, said, sent):
    server.answers = [chat("a")]

    @sgl.function
    def program(s):
        s += sgl.user("?") + sgl.assistant(sgl.gen("x", **said))

    program.run(backend=backend_for(server, dialect=dialect))
    assert {key: server.bodies[0][key] for key in sent} == sent


def test_a_json_schema_is_a_response_format_everywhere(server):
    for dialect in ("openai", "sglang", "vllm"):
        server.answers = [chat('{"a": 1}')]

        @sgl.function
        def program(s):
            s += sgl.user("?") + sgl.assistant(sgl.gen("x", type=dict[str, int]))

        assert program.run(backend=backend_for(server, dialect=dialect))["x"] == {"a": 1}
        described = server.bodies[-1]["response_format"]["json_schema"]
        assert described["strict"] is True and described["schema"]["type"] == "object"


REFUSED = [
    ({"regex": "a"}, "cannot enforce a constraint of kind Regex"),
    ({"top_k": 5}, "has no top_k"),
    ({"min_tokens": 5}, "has no min_new_tokens"),
    ({"return_logprob": True, "logprob_start_len": 0}, "output only"),
]


@pytest.mark.parametrize(("said", "message"), REFUSED)
def test_what_a_server_does_not_know_is_refused_and_never_left_out(server, said, message):
    @sgl.function
    def program(s):
        s += sgl.user("?") + sgl.assistant(sgl.gen("x", **said))

    with pytest.raises(sgl.InvalidRequest, match=message):
        program.run(backend=backend_for(server, dialect="openai"))
    assert server.bodies == []


def test_logprobs_keep_their_form(server):
    top = [{"token": "Par", "logprob": -0.1}, {"token": "Lon", "logprob": -2}]
    content = [{"token": "Par", "logprob": -0.1, "top_logprobs": top}]
    server.answers = [
        [{"choices": [{"index": 0, "delta": {"content": "Par"}, "logprobs": {"content": content}, "finish_reason": "stop"}]}],
        completion("x", logprobs={"tokens": ["x"], "token_logprobs": [-0.3], "top_logprobs": [{"x": -0.3, "y": -1.5}]}),
    ]
    said = {"return_logprob": True, "top_logprobs_num": 2, "return_text_in_logprobs": True}
    for program, question, expected in (
        (ask, "?", [(-0.1, "Par"), (-2, "Lon")]),
        (complete, "p", [(-0.3, "x"), (-1.5, "y")]),
    ):
        meta = program.run(question, backend=backend_for(server), **said).get_meta_info("answer")
        assert [(logprob, text) for logprob, _, text in meta["output_top_logprobs"][0]] == expected


# ---------------------------------------------------------------------------------------------------------------- select


def echoed(body: dict[str, Any]) -> dict[str, Any]:
    """Completions with echo: one token a word (spaces belong to the word behind), `Paris` likely."""
    text, tokens, offsets = body["prompt"], [], []
    for word in text.replace(" ", "\0 ").split("\0"):
        offsets.append(sum(map(len, tokens)))
        tokens.append(word)
    values = [None] + [-0.1 if "Paris" in token else -4.0 for token in tokens[1:]]
    return {"choices": [{"text": text, "logprobs": {"tokens": tokens, "token_logprobs": values, "text_offset": offsets}}]}


def test_select_in_raw_text_scores_the_choices_by_echo(server):
    server.answers = [echoed, echoed]

    @sgl.function
    def program(s):
        s += "The capital of France is" + sgl.select("city", [" London", " Paris"])

    state = program.run(backend=backend_for(server))
    assert state["city"] == " Paris" and state.text().endswith("is Paris")
    assert {body["prompt"] for body in server.bodies} == {"The capital of France is London", "The capital of France is Paris"}
    assert all(body["echo"] and body["max_tokens"] == 0 for body in server.bodies)
    assert state.get_meta_info("city")["input_token_logprobs"][1] == [(-0.1, 1, " Paris")]


def decided(choice: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": json.dumps({"choice": choice})}}], "usage": {"prompt_tokens": 5}}


def test_select_in_a_conversation_lets_the_server_decide_under_a_schema(server):
    server.answers = [decided("Paris")]

    @sgl.function
    def program(s):
        s += sgl.user("Capital of France?") + sgl.assistant(sgl.select("city", ["London", "Paris"]))

    state = program.run(backend=backend_for(server))
    assert state["city"] == "Paris" and "schema" in state.explain("city").continuation
    schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["choice"]["enum"] == ["London", "Paris"]


def test_select_falls_back_where_a_server_has_no_echo(server):
    refused = (400, {"error": {"message": "echo is not supported", "code": "unsupported"}})
    server.answers = [refused, refused, decided("b")]

    @sgl.function
    def program(s):
        s += "a or b? " + sgl.select("x", ["a", "b"])

    assert program.run(backend=backend_for(server))["x"] == "b"


# ---------------------------------------------------------------------------------------------------------------- errors


def test_errors_become_ours_with_the_servers_words_and_the_programs_line(server):
    server.answers = [(400, {"error": {"message": "too long", "code": "context_length_exceeded", "param": "messages"}})]
    with pytest.raises(sgl.ContextLengthExceeded, match=r"too long(?s:.*)gen") as caught:
        ask.run("?", backend=backend_for(server))
    assert caught.value.param == "messages"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(server, status):
    server.answers = [(status, {"error": {"message": "busy"}}, {"Retry-After": "0.01"}), chat("x")]
    assert ask.run("?", backend=backend_for(server))["answer"] == "x"
    assert len(server.bodies) == 2


def test_the_number_of_tries_is_bounded(server):
    server.answers = [(503, {"error": {"message": "busy"}}, {"Retry-After": "0.01"})] * 5
    with pytest.raises(sgl.Overloaded, match="busy"):
        ask.run("?", backend=backend_for(server, retries=1))
    assert len(server.bodies) == 2


def test_what_will_not_pass_is_not_tried_again(server):
    for status, kind in ((401, sgl.InvalidRequest), (404, sgl.ModelNotFound), (422, sgl.InvalidRequest)):
        server.answers = [(status, {"message": "flat error"})]
        with pytest.raises(kind, match="flat error"):
            ask.run("?", backend=backend_for(server))
    assert len(server.bodies) == 3


def test_an_error_within_a_stream_is_raised_and_not_tried_again(server):
    server.answers = [[*chat("half")[:2], {"error": {"message": "engine died", "code": "engine_error"}}]]
    with pytest.raises(sgl.EngineError, match="engine died"):
        ask.run("?", backend=backend_for(server))
    assert len(server.bodies) == 1


def test_a_stream_that_ends_too_early_is_an_error(server):
    server.answers = [chat("half")[:2]]
    with pytest.raises(sgl.EngineError, match="ended before the answer"):
        ask.run("?", backend=backend_for(server))


def test_a_server_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(sgl.Overloaded, match=r"127\.0\.0\.1:9.*cannot be reached") as caught:
        ask.run("?", backend=OpenAI("m", base_url="http://127.0.0.1:9/v1", retries=0))
    assert caught.value.code == "engine_unavailable"


def test_stopping_a_program_stops_the_servers_work(server):
    server.answers = [[*chat("half")[:2], HANG]]

    @sgl.function
    def program(s):
        s += sgl.user("?") + sgl.assistant(sgl.gen("x"))
        next(s.text_iter("x"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        program.run(backend=backend_for(server))
    background.submit(asyncio.wait_for(server.gone.wait(), 10)).result()


def test_a_key_is_asked_for_only_by_openai_itself(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(sgl.InvalidRequest, match="OPENAI_API_KEY"):
        OpenAI("gpt")
    OpenAI("m", base_url="http://localhost:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
    OpenAI("gpt")


@pytest.mark.parametrize("body", ["", "<html>bad</html>", "null", "[1]", '"text"', '{"error": "text"}', '{"error": null}'])
def test_any_error_body_is_understood(body):
    assert error_of(502, body).status == 500
    assert error_of(429, body, "soon").retry_after_s == 1.0


# ------------------------------------------------------------------------------------------------------------------- sse


def test_a_stream_may_be_cut_anywhere(server):
    """Also within a character; line ends may be of any kind."""
    text = ["Grüße ", "🦜", " 日本"]
    for cut in (1, 2, 3, 7):
        server.cut = cut
        raw = b"".join(map(sse, chat(*text)))
        for line_end in (b"\n", b"\r\n", b"\r"):
            server.answers = [[b": a comment\n\n", b"event: x\n", raw.replace(b"\n", line_end)]]
            assert ask.run("?", backend=backend_for(server))["answer"] == "".join(text)


events = st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip), max_size=4)


@given(events, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(1, 5), min_size=1), st.booleans())
def test_the_decoder_gives_every_event_once_however_it_is_cut(datas, line_end, cuts, ended):
    raw = b"".join(b"data: " + data.encode() + line_end * 2 for data in datas)
    if not ended and raw:
        raw = raw[: -2 * len(line_end)]  # the last event's end never came
    decoder, got, at, turn = EventDecoder(), [], 0, 0
    while at < len(raw):
        size = cuts[turn % len(cuts)]
        got += decoder.feed(raw[at : at + size])
        at, turn = at + size, turn + 1
    assert got + decoder.feed(b"", final=True) == datas
