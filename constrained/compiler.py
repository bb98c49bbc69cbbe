"""From constraints to compiled grammars: cached, in processes of its own, with a limit on time and on memory.

A valid schema can keep a grammar compiler busy for half a minute, and a C++ thread cannot be cancelled: a process can.

    compile(constraint) --cache?--> bytes
         |  the same one under way? wait for it
         |  compiled by an earlier start? --disk--> bytes
         `--> an idle worker, else a new one (at most `workers`), else the next that becomes idle
                   answer within time_s --> bytes or ConstraintError
                   too long             --> ended by the worker; ConstraintError grammar_too_complex, for a minute
                   no answer            --> killed and replaced; the same error
                   died                 --> once more on a new worker, then grammar_too_complex
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
import time
from collections import OrderedDict
from pathlib import Path

import msgspec

from ..runtime.errors import ConstraintError, EngineError
from . import limits
from .disk_cache import DiskCache
from .spec import Constraint
from .vocabulary import fingerprint
from .worker import Answer, Compiled, Failed, Job, Ready, Refused, Setup, TooLong, frame

_START_S = 120.0
"""A worker imports xgrammar with all of torch; on a busy machine with cold disks that takes its time."""

_PATIENCE_S = 1.0 if sys.platform.startswith("linux") else 0.0
"""Beyond the limit, which the worker itself keeps where it can."""
_TOO_LONG_S = 60.0
"""So long a constraint that took too long is refused without another try: it may have been the machine that was busy."""

_DECODE = msgspec.msgpack.Decoder(Answer)


class GrammarCompiler:
    """Compiles constraints for one vocabulary. Used from one event loop; `close` ends its processes."""

    def __init__(
        self,
        vocabulary: bytes,
        *,
        workers: int = limits.WORKERS,
        time_s: float = limits.COMPILE_S,
        memory_bytes: int = limits.COMPILE_BYTES,
        cache_bytes: int = limits.CACHE_BYTES,
        folder: Path | None = None,
    ):
        """vocabulary: `Vocabulary.to_bytes()`. workers: processes at most, started when first needed. time_s: limit of one
        compilation. memory_bytes: address space of a compilation. cache_bytes: size of the results that are kept. folder: where
        compiled grammars outlive this process; None: nowhere."""
        self._setup = Setup(vocabulary, memory_bytes, time_s)
        self._time_s = time_s
        self._cache = _Cache(cache_bytes)
        self._disk = None
        if folder is not None:
            self._disk = DiskCache(folder, vocabulary=fingerprint(vocabulary), settings=(memory_bytes, time_s))
        self._too_long: OrderedDict[Constraint, float] = OrderedDict()
        self._pending: dict[Constraint, asyncio.Task[bytes]] = {}
        self._idle: list[Worker] = []
        self._live: set[Worker] = set()
        self._workers = workers
        self._slots = asyncio.Semaphore(workers)
        self._replacing: set[asyncio.Task[None]] = set()
        self._writing: set[asyncio.Future[None]] = set()
        self._closed = False

    async def compile(self, constraint: Constraint) -> bytes:
        """The compiled grammar (an encoded `store.Envelope`), from the cache if it was asked for before.

        Any number of callers may wait at once; equal constraints are compiled once. Raises ConstraintError: a constraint that
        is malformed, cannot be enforced, has no finite text, or costs more than the limits; EngineError when no worker starts
        and after `close`.
        """
        limits.check_text(constraint)
        if self._closed:
            raise EngineError("The grammar compiler is closed.")
        known = self._cache.get(constraint)
        if isinstance(known, bytes):
            return known
        if known is not None:
            raise _error(known)
        if self._too_long.get(constraint, 0.0) > time.monotonic():
            raise self._takes_too_long()
        task = self._pending.get(constraint)
        if task is None:
            task = asyncio.create_task(self._compile(constraint))
            self._pending[constraint] = task
            task.add_done_callback(lambda done: self._forget(constraint, done))
        return await asyncio.shield(task)  # a caller that gives up leaves the others their result

    async def warm(self, count: int = 1) -> None:
        """Makes sure that `count` workers (at most all) have started, so that the first constraints do not wait for their
        imports. Raises EngineError when one does not start."""
        count = min(count, self._workers)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(count):
                await stack.enter_async_context(self._slots)
            missing = count - len(self._idle)
            self._idle.extend(await asyncio.gather(*(self._worker() for _ in range(missing))))

    async def close(self) -> None:
        """Ends every worker and every compilation under way (their callers get EngineError). Idempotent."""
        self._closed = True
        tasks: list[asyncio.Task] = [*self._pending.values(), *self._replacing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._writing, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in list(self._live)))
        self._idle.clear()
        self._live.clear()

    @property
    def pids(self) -> list[int]:
        """The process ids of the live workers; each has a child that compiles."""
        return [worker.pid for worker in self._live]

    def _forget(self, constraint: Constraint, done: asyncio.Task[bytes]) -> None:
        self._pending.pop(constraint, None)
        if not done.cancelled():
            done.exception()  # looked at, even if every caller gave up

    async def _compile(self, constraint: Constraint) -> bytes:
        if self._disk is not None:
            kept = await asyncio.to_thread(self._disk.get, constraint)
            if kept is not None:
                self._cache.put(constraint, kept)
                return kept
        async with self._slots:
            for attempt in (1, 2):
                worker = await self._take(fresh=attempt == 2)
                answer = await self._ask(worker, constraint)
                if isinstance(answer, Compiled):
                    self._cache.put(constraint, answer.grammar)
                    self._write(constraint, answer.grammar)
                    return answer.grammar
                if isinstance(answer, Refused):
                    self._cache.put(constraint, answer)
                    raise _error(answer)
                if isinstance(answer, TooLong):
                    raise self._remember_too_long(constraint)
                if isinstance(answer, Failed):
                    raise EngineError(f"Compiling the constraint failed inside the compile process: {answer.message}")
        refusal = Refused("grammar_too_complex", "Compiling the constraint ended two compile processes. Simplify the constraint.")
        self._cache.put(constraint, refusal)
        raise _error(refusal)

    def _write(self, constraint: Constraint, grammar: bytes) -> None:
        """Keeps a compiled grammar on disk; nobody waits for that but `close`."""
        if self._disk is not None:
            writing = asyncio.ensure_future(asyncio.to_thread(self._disk.put, constraint, grammar))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)

    async def _take(self, *, fresh: bool) -> Worker:
        """A worker that nobody uses. With `fresh` a new one, in the place of an idle one if there is any."""
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive and not fresh:
                return worker
            was_alive = worker.is_alive
            await self._end(worker)
            if was_alive:
                break  # its place is free now
        return await self._worker()

    async def _ask(self, worker: Worker, constraint: Constraint) -> Answer | None:
        """The worker's answer, None if it died. It becomes idle again only after an answer. Raises ConstraintError at the
        time limit."""
        try:
            answer = await asyncio.wait_for(worker.ask(Job(constraint)), self._time_s + _PATIENCE_S)
        except (asyncio.IncompleteReadError, ConnectionError):
            answer = None
        except TimeoutError:
            await self._end(worker)
            replacing = asyncio.create_task(self._replace())
            self._replacing.add(replacing)
            replacing.add_done_callback(self._replacing.discard)
            raise self._remember_too_long(constraint) from None
        except BaseException:
            await self._end(worker)
            raise
        if answer is None:
            await self._end(worker)
        else:
            self._idle.append(worker)
        return answer

    def _takes_too_long(self) -> ConstraintError:
        what = f"Compiling the constraint took longer than {self._time_s:g} s."
        return limits.too_complex(f"{what} If the machine was busy, ask again in {_TOO_LONG_S:g} s.")

    def _remember_too_long(self, constraint: Constraint) -> ConstraintError:
        self._too_long[constraint] = time.monotonic() + _TOO_LONG_S
        if len(self._too_long) > 64:
            self._too_long.popitem(last=False)
        return self._takes_too_long()

    async def _worker(self) -> Worker:
        worker = await Worker.start()
        self._live.add(worker)
        try:
            answer = await asyncio.wait_for(worker.ask(self._setup), _START_S)
        except BaseException as error:
            await self._end(worker)
            if isinstance(error, (asyncio.IncompleteReadError, ConnectionError, TimeoutError)):
                what = "A grammar compile process did not start; its stderr says why. Is xgrammar installed?"
                raise EngineError(what) from error
            raise
        if not isinstance(answer, Ready):
            await self._end(worker)
            raise EngineError(f"A grammar compile process answered {answer!r} at its start.")
        return worker

    async def _replace(self) -> None:
        """Starts a worker for one that was killed, so that a later constraint does not wait for its imports. Without one it
        would, so an error here can wait for that constraint."""
        with contextlib.suppress(EngineError):
            async with self._slots:
                if len(self._live) < self._workers:
                    self._idle.append(await self._worker())

    async def _end(self, worker: Worker) -> None:
        self._live.discard(worker)
        await worker.kill()


class Worker:
    """One compile process and its pipes; `GrammarCompiler` owns them."""

    def __init__(self, process: asyncio.subprocess.Process):
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls) -> Worker:
        """A process that waits for its `Setup`. It finds what this process finds, and computes on one thread."""
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        environment = os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", f"{__package__}.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        return cls(process)

    async def ask(self, message: Setup | Job) -> Answer:
        """Sends one message and returns the answer. Raises IncompleteReadError or ConnectionError when the process ends."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(frame(message))
        await stdin.drain()
        (length,) = struct.unpack("<I", await stdout.readexactly(4))
        return _DECODE.decode(await stdout.readexactly(length))

    @property
    def is_alive(self) -> bool:
        """False once the process has been seen to end."""
        return self._process.returncode is None

    async def kill(self) -> None:
        """Ends the process at once and waits for it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class _Cache:
    """Results by constraint, the least recently used ones dropped beyond `capacity` bytes. Refusals are results, too."""

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._entries: OrderedDict[Constraint, bytes | Refused] = OrderedDict()
        self._bytes = 0

    def get(self, constraint: Constraint) -> bytes | Refused | None:
        """The result; makes it the most recently used."""
        if constraint in self._entries:
            self._entries.move_to_end(constraint)
        return self._entries.get(constraint)

    def put(self, constraint: Constraint, result: bytes | Refused) -> None:
        """Keeps a result and drops old ones."""
        self._entries[constraint] = result
        self._bytes += _size(constraint, result)
        while self._bytes > self._capacity:
            self._bytes -= _size(*self._entries.popitem(last=False))


def _size(constraint: Constraint, result: bytes | Refused) -> int:
    """Bytes of an entry: what came in, what came out, and the objects around them."""
    return len(msgspec.msgpack.encode(constraint)) + len(result if isinstance(result, bytes) else result.message) + 512


def _error(refused: Refused) -> ConstraintError:
    return ConstraintError(refused.message, code=refused.code, param=refused.param)
