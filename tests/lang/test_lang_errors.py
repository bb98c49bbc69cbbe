"""Errors reach the one who asked, with the program's own line, and nobody waits for something that will not come."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator

import pytest

import ramify as sgl
from ramify.lang.backends.scripted import Scripted
from ramify.runtime.errors import ContextLengthExceeded, EngineError, Overloaded
from ramify.runtime.protocol import Delta, Event, Failure, GenerateRequest

pytestmark = pytest.mark.timeout(20)


def failing(prompt: str) -> str:
    """Fails where the prompt says `boom`."""
    if "boom" in prompt:
        raise ContextLengthExceeded("The prompt has 9120 tokens, but this model's context is 8192. Shorten the prompt.")
    return "fine"


def here() -> int:
    """The caller's line number."""
    return sys._getframe(1).f_lineno


def test_the_error_of_a_call_names_the_line_that_appended_it():
    lines = []

    @sgl.function
    def program(s):
        s += "boom"
        s += sgl.gen("x"); lines.append(here())  # noqa: E702
        s += "more"

    with pytest.raises(ContextLengthExceeded) as caught:
        program.run(backend=Scripted(failing))
    assert caught.value.code == "context_length_exceeded"
    assert "9120 tokens" in str(caught.value)
    assert f"{__file__}:{lines[0]}, in program: s += sgl.gen" in str(caught.value)
    assert caught.value.program_line.number == lines[0]


@pytest.mark.parametrize("form", ["group", "role", "context manager"])
def test_the_line_is_the_programs_in_every_form(form):
    @sgl.function
    def program(s):
        if form == "group":
            forks = s.fork(2)
            forks += "boom" + sgl.gen("x")  # the line
        elif form == "role":
            s.user("boom")
            s.assistant(sgl.gen("x"))  # the line
        else:
            s.user("boom")
            with s.assistant():
                s += sgl.gen("x")  # the line

    with pytest.raises(ContextLengthExceeded, match="# the line"):
        program.run(backend=Scripted(failing))


def test_reading_raises_the_error_and_the_run_does_not_raise_it_again():
    @sgl.function
    def program(s):
        s += "boom" + sgl.gen("x")
        try:
            s["x"]
        except ContextLengthExceeded:
            return "handled"

    assert program.run(backend=Scripted(failing)).ret_value == "handled"


def test_an_error_that_nobody_read_is_raised_when_the_run_ends():
    @sgl.function
    def program(s):
        s += "ok" + sgl.gen("x")
        forks = s.fork(2)
        forks[1] += "boom" + sgl.gen("y")

    with pytest.raises(ContextLengthExceeded):
        program.run(backend=Scripted(failing))


def test_everything_behind_a_failed_call_raises_its_error():
    @sgl.function
    def program(s):
        s += "ok" + sgl.gen("before") + "boom" + sgl.gen("x") + sgl.gen("after")
        with s.var_scope("scope"):
            s += "text"
        forks = s.fork(2)
        forks += sgl.gen("branch")
        forks.join()
        reads = (*(lambda name=name: s[name] for name in ("x", "after", "scope", "branch")), s.text, s.messages, s.sync)
        for read in (*reads, forks[0].text, lambda: forks[1]["branch"], lambda: list(s.text_iter())):
            with pytest.raises(ContextLengthExceeded):
                read()
        assert isinstance(s.error(), ContextLengthExceeded)
        return s["before"]

    assert program.run(backend=Scripted(failing)).ret_value == "fine"


def test_appending_after_a_failure_never_hangs():
    @sgl.function
    def program(s):
        s += "boom" + sgl.gen("x")
        assert isinstance(s.error(), ContextLengthExceeded)
        s += "later" + sgl.gen("y")
        with pytest.raises(ContextLengthExceeded):
            s["y"]

    program.run(backend=Scripted(failing))


def test_one_branch_may_fail_while_others_go_on():
    @sgl.function
    def program(s):
        forks = s.fork(3)
        forks += ["a" + sgl.gen("x"), "boom" + sgl.gen("x"), "c" + sgl.gen("x")]
        results = []
        for f in forks:
            try:
                results.append(f["x"])
            except ContextLengthExceeded:
                results.append(None)
        return results

    assert program.run(backend=Scripted(failing)).ret_value == ["fine", None, "fine"]


def test_joining_a_failed_branch_fails_where_it_is_read():
    @sgl.function
    def gathering(s):
        forks = s.fork(2)
        forks += ["a" + sgl.gen("x"), "boom" + sgl.gen("x")]
        forks.join()
        with pytest.raises(ContextLengthExceeded):
            s["x"]
        s += "still fine" + sgl.gen("y")
        return s["y"]

    assert gathering.run(backend=Scripted(failing)).ret_value == "fine"

    @sgl.function
    def appending(s):
        forks = s.fork(2)
        forks += ["a" + sgl.gen("x"), "boom" + sgl.gen("x")]
        forks.join("concate_and_append")
        s += sgl.gen("y")

    with pytest.raises(ContextLengthExceeded):
        appending.run(backend=Scripted(failing))


def test_a_stream_gives_what_came_and_then_raises():
    @sgl.function
    def program(s):
        s += "ok" + sgl.gen("x") + "boom" + sgl.gen("y")

    state = program.run(backend=Scripted(failing), stream=True)
    got = []
    with pytest.raises(ContextLengthExceeded):
        for piece in state.text_iter():
            got.append(piece)
    assert "".join(got) == "okfineboom"
    with pytest.raises(ContextLengthExceeded):
        list(state.text_iter("y"))
    assert isinstance(state.error(), ContextLengthExceeded)


async def test_streams_raise_in_coroutines_as_well():
    @sgl.function
    async def program(s):
        s += "boom" + sgl.gen("x")

    state = program.run(backend=Scripted(failing), stream=True)
    with pytest.raises(ContextLengthExceeded):
        async for _ in state.text_async_iter("x"):
            pass
    with pytest.raises(ContextLengthExceeded):
        await state.get("x")
    with pytest.raises(ContextLengthExceeded):
        await program.arun(backend=Scripted(failing))


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_of_the_program_itself_reaches_the_readers_of_its_stream(is_async):
    def broken(s):
        s += "text"
        raise ZeroDivisionError("mine")

    async def broken_async(s):
        broken(s)

    state = sgl.function(broken_async if is_async else broken).run(backend=Scripted(failing), stream=True)
    for read in (lambda: list(state.text_iter()), lambda: list(state.text_iter("never")), lambda: state["never"], state.text):
        with pytest.raises(ZeroDivisionError, match="mine"):
            read()


def test_an_error_of_the_program_itself_is_not_overtaken_by_the_end_of_its_text():
    inside, ended = threading.Event(), threading.Event()

    def hold_the_loop(_):
        inside.set()
        ended.wait(5)

    @sgl.function
    def broken(s):
        s += "text"
        s._executor.drained().add_done_callback(hold_the_loop)  # the loop stands between two entries of the queue
        inside.wait(5)
        raise ZeroDivisionError("mine")

    state = broken.run(backend=Scripted(failing), stream=True)
    while not state._executor.run.body_done:
        time.sleep(0.001)
    time.sleep(0.02)  # the end of the text is queued by now
    ended.set()
    with pytest.raises(ZeroDivisionError, match="mine"):
        list(state.text_iter())


def test_a_stream_that_never_declares_a_variable_ends_its_readers():
    state = sgl.function(lambda s: s.__iadd__("text")).run(backend=Scripted(failing), stream=True)
    with pytest.raises(KeyError, match="never"):
        list(state.text_iter("never"))


class Endless:
    """Never answers; counts how many calls were stopped."""

    def __init__(self):
        self.stopped = 0
        self.started = asyncio.Event()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Event]:
        try:
            self.started.set()
            yield Delta(0, "some", b"")
            await asyncio.sleep(3600)
        finally:
            self.stopped += 1

    async def score(self, request):
        await asyncio.sleep(3600)

    async def flush_cache(self):
        return 0

    async def server_info(self):
        return {}

    async def close(self):
        pass

    def token_text(self, token):
        return None


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_a_program_that_raises_stops_its_calls(error):
    backend = Endless()

    @sgl.function
    def program(s):
        s += sgl.gen("x")
        forks = s.fork(2)
        forks += sgl.gen("y")
        next(s.text_iter())
        raise error

    with pytest.raises(error):
        program.run(backend=backend)
    stopped_soon(backend)


async def test_a_cancelled_run_stops_its_calls():
    backend = Endless()

    @sgl.function
    async def program(s):
        s += sgl.gen("x")
        await s.get("x")

    task = asyncio.ensure_future(program.arun(backend=backend))
    while not backend.started.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while not backend.stopped:
        await asyncio.sleep(0.001)


def stopped_soon(backend: Endless) -> None:
    from time import monotonic, sleep

    limit = monotonic() + 5
    while not backend.stopped and monotonic() < limit:
        sleep(0.001)
    assert backend.stopped == 1


async def test_a_reader_that_gives_up_disturbs_nobody():
    release = asyncio.Event()

    async def script(prompt: str) -> str:
        while not release.is_set():
            await asyncio.sleep(0.001)
        return "done"

    @sgl.function
    async def program(s):
        s += sgl.gen("x") + sgl.gen("y")
        await s.get("y")

    state = program.run(backend=Scripted(script), stream=True)
    reads = (lambda: state.get("x"), lambda: state.get("never"), lambda: anext(state.text_async_iter()), state.wait)
    for read in reads:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(), 0.02)
    release.set()
    assert (await state.get("x"), await state.get("y")) == ("done", "done")
    with pytest.raises(KeyError):
        await state.get("never")


@sgl.function
def qa(s, question):
    s += question + sgl.gen("answer")


def test_a_batch_raises_the_first_error_in_order():
    with pytest.raises(ContextLengthExceeded):
        qa.run_batch([{"question": q} for q in ("a", "boom", "c")], backend=Scripted(failing))


def test_a_batch_can_return_failed_states_among_the_others():
    states = qa.run_batch([{"question": q} for q in ("a", "boom", "c")], backend=Scripted(failing), raise_errors=False)
    assert [type(state.error()) for state in states] == [type(None), ContextLengthExceeded, type(None)]
    assert states[2]["answer"] == "fine"
    with pytest.raises(ContextLengthExceeded, match=r"s \+= question"):
        states[1]["answer"]


def test_a_program_error_is_the_state_error_of_a_batch():
    @sgl.function
    def program(s, number):
        s += str(1 // number)

    states = program.run_batch([{"number": 1}, {"number": 0}], backend=Scripted(failing), raise_errors=False)
    assert states[0].error() is None and isinstance(states[1].error(), ZeroDivisionError)


def test_a_batch_that_is_left_early_stops_the_rest():
    started, stopped = asyncio.Event(), threading.Event()

    async def script(prompt: str) -> str:
        if prompt == "fast":
            await started.wait()
            return "x"
        try:
            started.set()
            await asyncio.sleep(3600)
        finally:
            stopped.set()
        return "never"

    batch = qa.run_batch([{"question": "fast"}, {"question": "slow"}], backend=Scripted(script), generator_style=True)
    assert next(batch)["answer"] == "x"
    batch.close()
    assert stopped.wait(10)


def test_a_batch_that_is_no_list_of_dicts_is_refused():
    with pytest.raises(sgl.InvalidRequest, match="list of dicts"):
        qa.run_batch(["a"], backend=Scripted(failing))


def test_a_failure_that_arrives_as_a_value_is_raised():
    class Failing(Endless):
        async def generate(self, request):
            yield Failure("queue_full", "Too many requests wait.")

    with pytest.raises(Overloaded, match="Too many requests"):
        qa.run("a", backend=Failing())


def test_a_backend_that_ends_without_an_answer_is_an_error():
    class Silent(Endless):
        async def generate(self, request):
            yield Delta(0, "some", b"")

    with pytest.raises(EngineError, match="0 of 1 sequences"):
        qa.run("a", backend=Silent())


def test_a_bug_in_a_choices_method_is_raised_with_the_line():
    def method(**_):
        raise RuntimeError("my bug")

    method.requires_unconditional_logprobs = False

    @sgl.function
    def program(s):
        s += sgl.select("x", ["a"], choices_method=method)

    with pytest.raises(RuntimeError, match="my bug") as caught:
        program.run(backend=Scripted(failing))
    assert any("s += sgl.select" in note for note in caught.value.__notes__)


def test_typed_output_that_was_cut_off_says_so():
    @sgl.function
    def program(s):
        s += sgl.gen("x", type=list[int], max_tokens=4)

    with pytest.raises(sgl.InvalidRequest, match=r"\[1, .*raise max_tokens") as caught:
        program.run(backend=Scripted(["[1, 2, 3]"]))
    assert caught.value.code == "incomplete_output"


def test_two_readers_of_one_error_get_tracebacks_of_their_own():
    @sgl.function
    def program(s):
        s += "boom" + sgl.gen("x")
        errors = []
        for _ in range(2):
            with pytest.raises(ContextLengthExceeded) as caught:
                s["x"]
            errors.append(caught.value)
        assert errors[0] is not errors[1] and str(errors[0]) == str(errors[1])

    program.run(backend=Scripted(failing))
