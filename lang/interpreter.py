"""Nodes become requests: one interpreter per state executes what was appended to it, in order, on the background loop.

`submit` may be called from any thread and never blocks; what it is given waits in a queue. Text is only noted, so that
everything between two calls becomes one piece of prompt. A call that fails ends its state: whatever was queued behind it is
given the same fault, so no reader waits for something that will not come.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..runtime.errors import Aborted
from ..runtime.protocol import ProgramHint
from . import background
from .calls import call
from .chat import Transcript
from .nodes import Answered, Constant, Expr, Gen, Line, RoleBegin, RoleEnd, ScopeBegin, ScopeEnd, Select
from .run import Run
from .variables import Fault, TextLog, Variable, give

_fork_groups = itertools.count(1)


# What a state can be asked besides expressions. Each is answered even when the state has failed.


@dataclass(frozen=True)
class Barrier:
    """`reached` is set when everything before it is done, well or badly."""

    reached: Future[None]


@dataclass(frozen=True)
class Branch:
    """The children start from here."""

    children: tuple[Interpreter, ...]


@dataclass(frozen=True)
class Append:
    """What the children wrote since they were forked is appended, child by child."""

    children: tuple[Interpreter, ...]


@dataclass(frozen=True)
class End:
    """Nothing comes after this: the text log ends."""


@dataclass(frozen=True)
class Entry:
    """One thing to do. variable: what it will set."""

    leaf: Expr | Barrier | Branch | Append | End
    line: Line | None
    variable: Variable | None = None


class Faulted(Exception):
    """Another state's fault becomes this one's."""

    def __init__(self, fault: Fault):
        super().__init__(fault)
        self.fault = fault


class Interpreter:
    """Executes one state's leaves. Owner of its transcript, its text and its variables."""

    def __init__(self, run: Run, *, parent: Interpreter | None = None, fork_group: int = 0):
        self.run = run
        self.transcript = Transcript(template_kwargs=run.options.template_kwargs, tools=run.options.tools)
        self.log = TextLog()
        self.variables: dict[str, Variable] = dict(parent.variables) if parent else {}
        self.inherited = frozenset(self.variables)
        self.fault: Fault | None = None
        self.fork_group = fork_group
        self._scopes: dict[str, tuple[Variable, int]] = {}
        self._awaited: list[tuple[str, Future[Variable | None]]] = []
        self._at_end: list[Future[None]] = []
        self._queue: deque[Entry] = deque()
        self._lock = threading.Lock()
        self._busy = parent is not None  # a child waits for its parent's Branch
        self._task: asyncio.Future[None] | None = None
        self._executing = False  # the task is inside an entry, where a cancellation is caught
        run.interpreters.append(self)

    # ---------------------------------------------------------------------------------------- from any thread

    def submit(self, leaf: Expr, line: Line) -> None:
        """Queue one leaf; the variable it will set exists from now on. Returns at once."""
        variable = None
        if isinstance(leaf, (Gen, Select, ScopeBegin)) and leaf.name is not None:
            variable = self.declare(Variable(leaf.name))
        elif isinstance(leaf, ScopeEnd):
            variable = self.variables[leaf.name]
            variable.is_open = False
        if variable is not None and isinstance(leaf, ScopeBegin):
            variable.is_open = True
        self._put(Entry(leaf, line, variable))

    def declare(self, variable: Variable) -> Variable:
        """Make a variable known under its name, in place of an earlier one."""
        with self._lock:
            self.variables[variable.name] = variable
            ready = [future for name, future in self._awaited if name == variable.name]
            self._awaited = [(name, future) for name, future in self._awaited if name != variable.name]
        for future in ready:
            give(future, variable)
        return variable

    def find(self, name: str, *, later: bool = False) -> Future[Variable | None]:
        """The variable of that name, or None. later: if the program still runs, wait until it is declared or never will be."""
        future: Future[Variable | None] = Future()
        with self._lock:
            known = self.variables.get(name)
            if known is None and later and not self.run.body_done:
                self._awaited.append((name, future))
                return future
        future.set_result(known)
        return future

    def fork(self, number: int, line: Line) -> list[Interpreter]:
        """Children that go on from what is queued so far. Returns at once."""
        group = next(_fork_groups)
        children = [Interpreter(self.run, parent=self, fork_group=group) for _ in range(number)]
        self._put(Entry(Branch(tuple(children)), line))
        return children

    def append(self, children: list[Interpreter], line: Line) -> None:
        """Queue the appending of what the children wrote."""
        self._put(Entry(Append(tuple(children)), line))

    def drained(self, *, whole: bool = False) -> Future[None]:
        """Done when everything that is queued now is done, well or badly. whole: and everything that the program will queue."""
        reached: Future[None] = Future()
        with self._lock:
            if whole and not self.run.body_done:
                self._at_end.append(reached)
                return reached
        self._put(Entry(Barrier(reached), None))
        return reached

    def finish(self) -> None:
        """The program has ended: close the text after what is queued, answer those who wait for undeclared variables."""
        with self._lock:
            waiting, self._awaited = self._awaited, []
            at_end, self._at_end = self._at_end, []
        for _, future in waiting:
            give(future, None)
        for reached in at_end:
            self._put(Entry(Barrier(reached), None))
        self._put(Entry(End(), None))

    def cancel(self, fault: Fault) -> None:
        """Stop the running call and fail what is queued, and what is queued from now on."""
        with self._lock:
            self.fault = self.fault or fault  # at once: the End that is queued next must find it
        background.loop().call_soon_threadsafe(self._stop)

    def _put(self, entry: Entry) -> None:
        with self._lock:
            self._queue.append(entry)
            if self._busy:
                return
            self._busy = True
        background.loop().call_soon_threadsafe(self._start)

    # ------------------------------------------------------------------------------------ on the background loop

    def _start(self) -> None:
        self._task = asyncio.ensure_future(self._drain())

    def _begin_from(self, parent: Interpreter) -> None:
        """Start a child where its parent stands now."""
        self.transcript = parent.transcript.copy()
        self.log.append(parent.log.text())
        self.fault = self.fault or parent.fault
        self._start()

    def _stop(self) -> None:
        if self._task is not None and self._executing:
            self._task.cancel()

    async def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._busy = False
                    return
                entry = self._queue.popleft()
            if self.fault is None:
                self._executing = True
                try:
                    await self._execute(entry)
                    continue
                except Faulted as stopped:
                    self.fault = stopped.fault
                except asyncio.CancelledError:
                    self.fault = self.fault or Fault(Aborted("The program was stopped before this call ended."), entry.line)
                except BaseException as error:
                    self.fault = Fault(error, entry.line)
                finally:
                    self._executing = False
            self._abandon(entry, self.fault)

    def _abandon(self, entry: Entry, fault: Fault) -> None:
        """Answer an entry that will not be executed."""
        self.log.close(fault)
        if entry.variable is not None:
            entry.variable.fail(fault)
        if isinstance(entry.leaf, Barrier):
            give(entry.leaf.reached, None)
        elif isinstance(entry.leaf, Branch):
            for child in entry.leaf.children:
                child._begin_from(self)

    async def _execute(self, entry: Entry) -> None:
        leaf, transcript = entry.leaf, self.transcript
        if isinstance(leaf, Constant):
            self.log.append(transcript.text(leaf.text))
        elif isinstance(leaf, RoleBegin):
            self.log.append(transcript.begin(leaf.role, leaf.call_id))
        elif isinstance(leaf, RoleEnd):
            self.log.append(transcript.end())
        elif isinstance(leaf, (Gen, Select)):
            await self._call(leaf, entry.variable)
        elif isinstance(leaf, Answered):
            transcript.called(leaf.text, b"", "", leaf.read)
            self.log.append(leaf.text)
        elif isinstance(leaf, ScopeBegin):
            assert entry.variable is not None
            self._scopes[leaf.name] = (entry.variable, len(self.log.text()))
        elif isinstance(leaf, ScopeEnd):
            variable, start = self._scopes.pop(leaf.name)
            variable.set(self.log.text()[start:])
        elif isinstance(leaf, Branch):
            for child in leaf.children:
                child._begin_from(self)
        elif isinstance(leaf, Append):
            await self._append(leaf)
        elif isinstance(leaf, Barrier):
            give(leaf.reached, None)
        elif isinstance(leaf, End):
            self.log.close()

    async def _append(self, leaf: Append) -> None:
        for child in leaf.children:
            await asyncio.wrap_future(child.drained())
            if child.fault is not None:
                raise Faulted(child.fault)
        for child in leaf.children:
            for written in child.transcript.written:
                await self._execute(Entry(written, None))

    async def _call(self, leaf: Gen | Select, variable: Variable | None) -> None:
        """Make one call; its text is shown while it comes, and the state goes on from where it ends."""

        def show(text: str, meta: dict[str, Any]) -> None:
            self.log.append(text, meta)
            if variable is not None:
                variable.log.append(text, meta)

        if isinstance(leaf, Gen) and leaf.tools is not None and leaf.tools.tools:
            self.transcript.tools = leaf.tools.definitions
        outcome = await call(self.run, leaf, self.transcript.prompt(), self._hint(), show)
        self.transcript.called(outcome.text, outcome.held, outcome.tail, outcome.read)
        if variable is not None:
            variable.answers, variable.meta = outcome.answers, outcome.meta
            variable.set(outcome.value)

    def _hint(self) -> ProgramHint:
        with self._lock:
            more = not self.run.body_done or any(isinstance(e.leaf, (Gen, Select, Branch)) for e in self._queue)
        return ProgramHint(self.run.program, next(self.run.calls), expects_more=more, fork_group=self.fork_group)
