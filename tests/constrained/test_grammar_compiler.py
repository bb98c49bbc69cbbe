"""The compile processes: what comes back, what is stopped, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import msgspec
import pytest
import pytest_asyncio
from grammar_bench import STOP

from ramify.constrained.compiler import GrammarCompiler, _Cache
from ramify.constrained.spec import Choice, Ebnf, JsonObject, JsonSchema, Regex
from ramify.constrained.store import Envelope
from ramify.runtime.errors import ConstraintError, EngineError

PATIENT_S = 60.0
SLOW = Ebnf("root ::= (" + " | ".join(f'"{"a" * count}"' for count in range(1, 480)) + ")+")
"""Within all caps, and seconds of work for the one engine that reads EBNF."""


# One event loop for the module: starting a worker takes seconds (it imports torch), so most tests share a compiler.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def vocabulary(bench) -> bytes:
    return bench.vocabulary.to_bytes()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def compiler(vocabulary):
    made = GrammarCompiler(vocabulary, time_s=PATIENT_S, workers=1)
    yield made
    pids = made.pids
    await made.close()
    assert made.pids == [] and not any(map(is_running, pids))


def is_running(pid: int) -> bool:
    """One that is killed, and whose parent has not looked yet, is not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [child for child in map(int, file.read().split()) if is_running(child)]


async def test_every_kind_of_constraint_comes_back_as_a_matcher(bench, compiler):
    asked = {
        JsonSchema('{"type":"integer"}'): "12",
        JsonObject(): "{}",
        Regex("a+"): "aa",
        Ebnf('root ::= "x"'): "x",
        Choice(("p", "q")): "q",
    }
    compiled = await asyncio.gather(*(compiler.compile(c) for c in asked))
    for grammar, text in zip(compiled, asked.values(), strict=True):
        assert bench.accepts(grammar, text)
    assert len(compiler.pids) == 1


async def test_a_refusal_comes_back_with_code_message_and_place(compiler):
    for _ in range(2):  # the second from the cache
        with pytest.raises(ConstraintError, match="maxLength") as error:
            await compiler.compile(JsonSchema('{"properties":{"a":{"maxLenght":3}}}'))
        assert (error.value.code, error.value.param) == ("unsupported_schema", "/properties/a/maxLenght")


async def test_a_constraint_over_its_cap_needs_no_process(vocabulary):
    compiler = GrammarCompiler(vocabulary)
    with pytest.raises(ConstraintError) as error:
        await compiler.compile(Regex("a" * 3000))
    assert error.value.code == "grammar_too_complex"
    assert compiler.pids == []


async def test_equal_constraints_asked_at_once_are_compiled_once(compiler):
    results = await asyncio.gather(*(compiler.compile(Regex("b+")) for _ in range(50)))
    assert all(result is results[0] for result in results)
    assert await compiler.compile(Regex("b+")) is results[0]


async def test_a_caller_that_gives_up_leaves_the_result_to_the_others(bench, compiler):
    first = asyncio.create_task(compiler.compile(Regex("c+")))
    second = asyncio.create_task(compiler.compile(Regex("c+")))
    await asyncio.sleep(0)
    first.cancel()
    assert bench.accepts(await second, "cc")
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_compilation_is_killed_at_its_limit_and_the_next_one_works(bench, vocabulary):
    compiler = GrammarCompiler(vocabulary, time_s=3.0, workers=1)
    compiler._setup = msgspec.structs.replace(compiler._setup, slow_s=0.05)  # a busy machine may give it little in its time
    try:
        await compiler.warm(5)
        await compiler.warm()
        assert bench.accepts(await compiler.compile(Regex("c")), "c")
        [pid] = compiler.pids
        [child] = children(pid)
        asked = asyncio.create_task(compiler.compile(SLOW))
        policies = set()
        while not asked.done() and os.SCHED_IDLE not in policies:
            policies.add(os.sched_getscheduler(child))
            await asyncio.sleep(0.01)
        assert os.SCHED_IDLE in policies, "it has taken long, and gives way wholly"
        with pytest.raises(ConstraintError):
            await asked
        for _ in range(2):  # not tried again
            with pytest.raises(ConstraintError, match="longer than 3 s") as error:
                await compiler.compile(SLOW)
            assert error.value.code == "grammar_too_complex"
        assert bench.accepts(await compiler.compile(Regex("d")), "d")
        while is_running(child):  # it was killed; on a busy machine nobody waits until it is gone
            await asyncio.sleep(0.01)
        assert compiler.pids == [pid] and children(pid) != [child], "what took seconds to import is still there"
    finally:
        await compiler.close()


async def test_a_compilation_that_needs_too_much_memory_is_refused(vocabulary):
    compiler = GrammarCompiler(vocabulary, time_s=PATIENT_S, memory_bytes=48 * 1024 * 1024, workers=1)
    try:
        with pytest.raises(ConstraintError, match=r"memory|two compile processes") as error:
            await compiler.compile(SLOW)
        assert error.value.code == "grammar_too_complex"
    finally:
        await compiler.close()


async def test_a_worker_killed_in_the_middle_is_replaced_and_the_work_done_again(bench, compiler):
    [pid] = compiler.pids
    os.kill(pid, signal.SIGSTOP)  # so that the job is surely not done yet
    asked = asyncio.create_task(compiler.compile(Regex("e+")))
    await asyncio.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    assert bench.accepts(await asked, "e")
    assert pid not in compiler.pids and len(compiler.pids) == 1


async def test_a_child_killed_in_the_middle_is_replaced_and_the_work_done_again(bench, compiler):
    assert bench.accepts(await compiler.compile(Regex("f+")), "f")
    [pid] = compiler.pids
    [child] = children(pid)
    os.kill(child, signal.SIGSTOP)
    asked = asyncio.create_task(compiler.compile(Regex("g+")))
    await asyncio.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    assert bench.accepts(await asked, "g")
    assert compiler.pids == [pid] and child not in children(pid)


async def test_what_a_child_may_take_of_memory_and_of_the_processor_is_bounded(bench, compiler):
    assert bench.accepts(await compiler.compile(Regex("h+")), "h")
    [child] = children(compiler.pids[0])
    with open(f"/proc/{child}/limits", encoding="ascii") as file:
        [bound] = [line.split()[3] for line in file if line.startswith("Max address space")]
    assert bound.isdigit()
    with open(f"/proc/{child}/status", encoding="ascii") as file:
        [caught] = [int(line.split()[1], 16) for line in file if line.startswith("SigCgt")]
    assert caught >> (signal.SIGALRM - 1) & 1, "it yields"


async def test_close_ends_every_process_and_every_wait(vocabulary):
    compiler = GrammarCompiler(vocabulary, time_s=PATIENT_S)
    waiting = asyncio.create_task(compiler.compile(SLOW))
    while not compiler.pids or not children(compiler.pids[0]):
        await asyncio.sleep(0.01)
    pids = compiler.pids
    compiling = [child for pid in pids for child in children(pid)]
    await compiler.close()
    assert compiler.pids == [] and not any(map(is_running, pids))
    for _ in range(200):  # the system ends a child with its parent, at once but not before
        if not any(map(is_running, compiling)):
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError(f"{compiling} outlived their worker")
    with pytest.raises((asyncio.CancelledError, EngineError)):
        await waiting
    with pytest.raises(EngineError, match="closed"):
        await compiler.compile(Regex("a"))
    await compiler.close()


async def test_a_cache_drops_the_least_recently_used_beyond_its_bytes():
    cache = _Cache(3000)
    asked = [Regex(letter) for letter in "abcd"]
    for constraint in asked[:3]:
        cache.put(constraint, bytes(300))
    assert cache.get(asked[0]) is not None  # now the most recently used
    cache.put(asked[3], bytes(300))
    assert [cache.get(c) is not None for c in asked] == [True, False, True, True]
    cache.put(asked[1], bytes(5000))
    assert [cache.get(c) for c in asked] == [None] * 4


PARENT = """
import asyncio
from ramify.constrained.compiler import Worker

async def main():
    worker = await Worker.start()
    print(worker.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)}


async def test_a_worker_ends_with_its_parent_however_that_ended():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment()) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    for _ in range(3000):
        if not is_running(pid):
            return
        time.sleep(0.01)
    raise AssertionError(f"worker {pid} outlived its parent")


async def test_a_worker_ends_at_the_end_of_its_input():
    command = [sys.executable, "-m", "ramify.constrained.worker"]
    done = subprocess.run(command, input=b"", capture_output=True, env=environment(), timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


async def test_what_travels_names_its_vocabulary_and_engine(bench, compiler):
    envelope = Envelope.from_bytes(await compiler.compile(Regex("a|b")))
    assert envelope.engine == "xgrammar"
    assert len(envelope.vocabulary) == len(envelope.key) == 32
    matcher = bench.store.matcher(envelope.to_bytes())
    assert matcher.accept(97) and matcher.accept(STOP)
