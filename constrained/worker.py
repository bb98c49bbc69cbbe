"""A compile process: `python -m ramify.constrained.worker`, started and killed by `compiler.py`.

It reads framed messages from stdin and answers on stdout: first `Setup`, answered by `Ready`, then one `Job` at a time, each
answered by `Compiled`, `Refused` or `Failed`. A frame is its length (4 bytes, little endian) and a MessagePack value, decoded
into these types and nothing else. The process ends at the end of stdin, when its parent dies, and when a job takes far longer
than the parent would have waited. After set-up its address space is bounded, so a grammar cannot take the machine's memory.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import traceback
from typing import BinaryIO, TypeVar

import msgspec

from ..runtime.errors import ConstraintError
from .spec import Constraint, JsonSchema

T = TypeVar("T")
_FIRST = JsonSchema('{"type":"object","properties":{"a":{"type":"string","minLength":1},"b":{"enum":[1,2]}},"required":["a"]}')
"""Compiled once before the address space is bounded, so that everything is imported by then."""


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The vocabulary (`Vocabulary.to_bytes`) and the limits: bytes of address space on top of what set-up needed, seconds."""

    vocabulary: bytes
    memory_bytes: int
    time_s: float


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The engine is imported and the vocabulary prepared."""


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


Answer = Ready | Compiled | Refused | Failed


def frame(message: Setup | Job | Answer) -> bytes:
    """A message with its length before it."""
    body = msgspec.msgpack.encode(message)
    return struct.pack("<I", len(body)) + body


def main() -> None:
    """Serves jobs until stdin ends."""
    _die_with_parent()
    inbox, outbox = sys.stdin.buffer, _private_stdout()
    setup = _read(inbox, Setup)
    if setup is None:
        return
    from .xgrammar_backend import XGrammarCompiler

    compiler = XGrammarCompiler(setup.vocabulary)
    _answer(compiler.compile, _FIRST)
    _bound_address_space(setup.memory_bytes)
    _write(outbox, Ready())
    while (job := _read(inbox, Job)) is not None:
        signal.setitimer(signal.ITIMER_REAL, 2 * setup.time_s + 1)
        _write(outbox, _answer(compiler.compile, job.constraint))
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
    head = inbox.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("<I", head)
    body = inbox.read(length)
    return msgspec.msgpack.decode(body, type=kind) if len(body) == length else None


def _write(outbox: BinaryIO, message: Answer) -> None:
    outbox.write(frame(message))
    outbox.flush()


def _die_with_parent() -> None:
    """Asks Linux to kill this process when its parent ends; elsewhere the end of stdin and the timer do it."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    parent = os.getppid()
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
