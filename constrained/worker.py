"""A compile process: `python -m ramify.constrained.worker`, started by `compiler.py`.

It reads framed messages from stdin and answers on stdout: first `Setup`, answered by `Ready`, then one `Job` at a time, each
answered by `Compiled`, `Refused`, `TooLong` or `Failed`. A frame is its length (4 bytes, little endian) and a MessagePack value,
decoded into these types and nothing else. The process ends at the end of stdin, and when its parent dies.

    this process: imports, vocabulary ──fork──> a child compiles, job after job, its address space bounded
         ^ a child that takes too long is killed here, and the next one is there in milliseconds

Importing what compiles takes seconds, so it is done once and never killed: a hostile constraint costs the time that it is given,
and the next one does not wait for another start. Where a fork is not safe (other systems than Linux) jobs are done here, and
the parent kills this process at the limit.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

import msgspec

from ..runtime.errors import ConstraintError
from .spec import Constraint, JsonSchema
from .store import reading_s

T = TypeVar("T")
_FIRST = JsonSchema('{"type":"object","properties":{"a":{"type":"string","minLength":1},"b":{"enum":[1,2]}},"required":["a"]}')
"""Compiled once before the address space is bounded, so that everything is imported by then."""


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The vocabulary (`Vocabulary.to_bytes`) and the limits: bytes of address space on top of what set-up needed, seconds until a
    grammar is compiled and, about, read by an engine. slow_s: seconds of a processor after which a compilation gets only what
    nobody else wants. By its own time and not by the clock: on a busy machine, what hardly runs must not be taken for something
    that takes long."""

    vocabulary: bytes
    memory_bytes: int
    time_s: float
    slow_s: float = 0.5


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The engines are imported and the vocabulary prepared."""


class Job(msgspec.Struct, frozen=True, tag="job"):
    """Compile this."""

    constraint: Constraint


class Compiled(msgspec.Struct, frozen=True, tag="compiled"):
    """`grammar`: an encoded `store.Envelope`."""

    grammar: bytes


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The compile process met an error of its own; its stderr has the traceback."""

    message: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """A ConstraintError as a value."""

    code: str
    message: str
    param: str | None = None


class TooLong(msgspec.Struct, frozen=True, tag="too_long"):
    """The job was not done in its time, and was ended."""


Answer = Ready | Compiled | Refused | Failed | TooLong
_ANSWER = msgspec.msgpack.Decoder(Answer)
_JOBS_OF_A_CHILD = 256
"""Then another takes its place, so that what a library keeps for ever is not kept."""
_YIELDS_S = 0.00025
"""So often a child offers its core to others: beside a compilation, decoding gets most of a core that both want."""
_LOOK_EVERY_S = 0.05
_DYING_S = 0.05


def frame(message: Setup | Job | Answer) -> bytes:
    """A message with its length before it."""
    body = msgspec.msgpack.encode(message)
    return struct.pack("<I", len(body)) + body


def main() -> None:
    """Serves jobs until stdin ends."""
    _die_with_parent(os.getppid())
    inbox, outbox = sys.stdin.buffer, _private_stdout()
    setup = _read(inbox, Setup)
    if setup is None:
        return
    from .engines import ConstraintCompiler

    compiler = ConstraintCompiler(setup.vocabulary)
    for engine in compiler.engines:
        _answer(compiler.only(engine).compile, _FIRST)
    forks = sys.platform.startswith("linux")
    if not forks:
        _bound_address_space(setup.memory_bytes)
    compiles = _Child(compiler.compile, setup).answer if forks else lambda job: _answer(compiler.compile, job.constraint)
    _write(outbox, Ready())
    while (job := _read(inbox, Job)) is not None:
        _write(outbox, compiles(job))


class _Child:
    """A process that compiles, made anew when it is gone."""

    def __init__(self, compile_constraint: Callable[[Constraint], bytes], setup: Setup):
        self._compile, self._setup = compile_constraint, setup
        self._pid = 0
        self._jobs = self._answers = -1
        self._done = 0
        self._dying: list[int] = []

    def answer(self, job: Job) -> Answer:
        """The child's answer. A child that died is replaced, and its job done once more."""
        for _ in range(2):
            if not self._pid or self._done >= _JOBS_OF_A_CHILD:
                self._end()
                self._begin()
            self._done += 1
            answer = self._ask(job)
            if answer is not None:
                return answer
        return Refused("grammar_too_complex", "Compiling the constraint ended two compile processes. Simplify the constraint.")

    def _ask(self, job: Job) -> Answer | None:
        """None when the child died."""
        try:
            with os.fdopen(os.dup(self._jobs), "wb") as pipe:
                pipe.write(frame(job))
        except BrokenPipeError:
            return self._end()
        until = time.monotonic() + self._setup.time_s
        if not self._wait(until):
            self._end()
            return TooLong()
        with os.fdopen(os.dup(self._answers), "rb") as pipe:
            body = _read_frame(pipe)
        if body is None:
            return self._end()
        answer = _ANSWER.decode(body)
        in_time = not isinstance(answer, Compiled) or time.monotonic() + reading_s(answer.grammar) < until
        return answer if in_time else TooLong()

    def _wait(self, until: float) -> bool:
        """Whether something comes from the child by then."""
        slow_from, is_slow = self._processor_s() + self._setup.slow_s, False
        while not select.select([self._answers], [], [], _LOOK_EVERY_S)[0]:
            if time.monotonic() > until:
                return False
            if not is_slow and self._processor_s() > slow_from:
                is_slow = True
                with contextlib.suppress(OSError):  # it is gone, which the pipe will say
                    os.sched_setscheduler(self._pid, os.SCHED_IDLE, os.sched_param(0))
                self._done = _JOBS_OF_A_CHILD  # there is no way back from there
        return True

    def _processor_s(self) -> float:
        """Seconds of a processor that the child has had, threads included; 0.0 once it is gone."""
        with contextlib.suppress(OSError):
            return time.clock_gettime((~self._pid << 3) | 2)  # as clock_getcpuclockid(3) makes it
        return 0.0

    def _begin(self) -> None:
        jobs, self._jobs = os.pipe()
        self._answers, answers = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid:
            os.close(jobs)
            os.close(answers)
            self._done = 0
            return
        try:
            self._serve(parent, jobs, answers)
        finally:
            os._exit(0)

    def _serve(self, parent: int, jobs: int, answers: int) -> None:
        """The life of a child."""
        _die_with_parent(parent)
        os.close(0)
        os.close(self._jobs)
        os.close(self._answers)
        _bound_address_space(self._setup.memory_bytes)
        with os.fdopen(jobs, "rb") as inbox, os.fdopen(answers, "wb") as outbox:
            while (job := _read(inbox, Job)) is not None:
                with _yielding():
                    answer = _answer(self._compile, job.constraint)
                _write(outbox, answer)

    def _end(self) -> None:
        """Kills the child, if there is one. On a busy machine it may take long to die: it is not waited for beyond a moment."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.close(self._jobs)
            os.close(self._answers)
            self._dying.append(self._pid)
            self._pid = 0
        until = time.monotonic() + _DYING_S
        while self._dying and time.monotonic() < until:
            self._dying = [pid for pid in self._dying if os.waitpid(pid, os.WNOHANG) == (0, 0)]
            time.sleep(0.001 * bool(self._dying))


@contextlib.contextmanager
def _yielding() -> Iterator[None]:
    """Inside, this process yields its core every quarter of a millisecond, whatever library it is in.

    Niceness is not enough. Whoever runs goes on until the system's next tick, 4 ms on many machines, however nice it is, and even
    who just woke up waits for that: a thread that decodes and has slept for some microseconds would pay with several tokens. With
    yields and no niceness a compilation gets about what it gets at niceness 5, in small pieces. The signal's handler is the
    system call itself; nothing else runs in it. On an idle machine a yield returns at once.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGALRM, ctypes.cast(libc.sched_yield, ctypes.c_void_p))
    signal.setitimer(signal.ITIMER_REAL, _YIELDS_S, _YIELDS_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(compile_constraint, constraint: Constraint) -> Answer:
    try:
        return Compiled(compile_constraint(constraint))
    except ConstraintError as error:
        return Refused(error.code, error.message, error.param)
    except (MemoryError, RecursionError) as error:
        what = "memory" if isinstance(error, MemoryError) else "nesting"
        return Refused("grammar_too_complex", f"Compiling the constraint needs too much {what}. Simplify the constraint.")
    except Exception as error:
        traceback.print_exc()
        return Failed(f"{type(error).__name__}: {error}")


def _private_stdout() -> BinaryIO:
    """The pipe to the parent; what libraries print goes to stderr instead."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _read(inbox: BinaryIO, kind: type[T]) -> T | None:
    """The next message, None at the end of the input."""
    body = _read_frame(inbox)
    return None if body is None else msgspec.msgpack.decode(body, type=kind)


def _read_frame(inbox: BinaryIO) -> bytes | None:
    head = inbox.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("<I", head)
    body = inbox.read(length)
    return body if len(body) == length else None


def _write(outbox: BinaryIO, message: Answer) -> None:
    outbox.write(frame(message))
    outbox.flush()


def _die_with_parent(parent: int) -> None:
    """Asks Linux to kill this process when its parent, of that pid, ends; elsewhere the end of stdin does it."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit(0)


def _bound_address_space(extra_bytes: int) -> None:
    """Limits the address space to what is mapped now and `extra_bytes`, where the system says how much that is."""
    try:
        import resource

        with open("/proc/self/statm") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = mapped + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    main()
