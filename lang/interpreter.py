"""Nodes become requests: one interpreter per state executes what was appended to it, in order, on the background loop.

`submit` may be called from any thread and never blocks; what it is given waits in a queue. Text is only noted, so that
everything between two calls becomes one piece of prompt. A call that fails ends its state: whatever was queued behind it is
given the same fault, so no reader waits for something that will not come.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ..constrained.spec import Choice
from ..runtime.errors import Aborted, EngineError, from_code
from ..runtime.protocol import (
    Delta,
    Failure,
    Finished,
    GenerateRequest,
    LogprobParams,
    ProgramHint,
    SamplingParams,
    ScoreRequest,
)
from . import background
from .backend import Backend
from .chat import Transcript
from .choices import mean
from .explain import choice_entries, meta_info
from .nodes import Constant, Expr, Gen, Line, Logprobs, RoleBegin, RoleEnd, ScopeBegin, ScopeEnd, Select
from .variables import Fault, TextLog, Variable

_programs = itertools.count(1)
_fork_groups = itertools.count(1)


@dataclass(frozen=True)
class RunOptions:
    """What a run says for all its calls. sampling: fields of SamplingParams. tools: JSON texts, for the chat template."""

    sampling: dict[str, Any] = field(default_factory=dict)
    logprobs: Logprobs = field(default_factory=Logprobs)
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    priority: int = 0
    deadline_s: float | None = None
    tenant: str = ""


class Run:
    """One run of one program: what its states have in common. `finished_body` is the only change after construction,
    but for the list of interpreters, which grows with every fork."""

    def __init__(self, name: str, backend: Backend, options: RunOptions):
        self.name = name
        self.backend = backend
        self.options = options
        self.program = next(_programs)
        self.calls = itertools.count()
        self.interpreters: list[Interpreter] = []
        self.body_done = False

    def finished_body(self) -> None:
        """The function has returned or raised: nothing more will be appended, so logs end with what is queued."""
        self.body_done = True
        for interpreter in list(self.interpreters):
            interpreter.finish()

    def cancel(self, fault: Fault) -> None:
        """End everything that is queued or running; its readers raise `fault`."""
        for interpreter in list(self.interpreters):
            interpreter.cancel(fault)

    def untold(self) -> Fault | None:
        """A fault that nobody was told yet, or None."""
        faults = (interpreter.fault for interpreter in self.interpreters)
        return next((fault for fault in faults if fault is not None and not fault.seen), None)


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
        self._put(Entry(leaf, line, variable))

    def declare(self, variable: Variable) -> Variable:
        """Make a variable known under its name, in place of an earlier one."""
        with self._lock:
            self.variables[variable.name] = variable
            ready = [future for name, future in self._awaited if name == variable.name]
            self._awaited = [(name, future) for name, future in self._awaited if name != variable.name]
        for future in ready:
            future.set_result(variable)
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
            future.set_result(None)
        for reached in at_end:
            self._put(Entry(Barrier(reached), None))
        self._put(Entry(End(), None))

    def cancel(self, fault: Fault) -> None:
        """Stop the running call and fail what is queued."""
        background.loop().call_soon_threadsafe(self._cancel, fault)

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
        self.fault = parent.fault
        self._start()

    def _cancel(self, fault: Fault) -> None:
        if self.fault is None:
            self.fault = fault
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
            entry.leaf.reached.set_result(None)
        elif isinstance(entry.leaf, Branch):
            for child in entry.leaf.children:
                child._begin_from(self)

    async def _execute(self, entry: Entry) -> None:
        leaf, transcript = entry.leaf, self.transcript
        if isinstance(leaf, Constant):
            self.log.append(transcript.text(leaf.text))
        elif isinstance(leaf, RoleBegin):
            self.log.append(transcript.begin(leaf.role))
        elif isinstance(leaf, RoleEnd):
            self.log.append(transcript.end())
        elif isinstance(leaf, Gen):
            await self._generate(leaf, entry.variable)
        elif isinstance(leaf, Select):
            await (self._select(leaf, entry.variable) if leaf.temperature < 1e-6 else self._sample_choice(leaf, entry.variable))
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
            leaf.reached.set_result(None)
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

    # ----------------------------------------------------------------------------------------------------- calls

    def _hint(self) -> ProgramHint:
        with self._lock:
            more = not self.run.body_done or any(isinstance(e.leaf, (Gen, Select, Branch)) for e in self._queue)
        return ProgramHint(self.run.program, next(self.run.calls), expects_more=more, fork_group=self.fork_group)

    async def _generate(self, leaf: Gen, variable: Variable | None) -> None:
        """One GenerateRequest. Of n > 1 texts the state goes on with the first; the variable is the list of all."""
        options, hint = self.run.options, self._hint()
        logprobs = merged_logprobs(leaf.logprobs, options.logprobs)
        request = GenerateRequest(
            prompt=self.transcript.prompt(),
            sampling=SamplingParams(**{**options.sampling, **dict(leaf.sampling)}),
            constraint=leaf.constraint,
            logprobs=logprob_params(logprobs),
            hint=hint,
            priority=options.priority,
            deadline_s=options.deadline_s,
            tenant=options.tenant,
            rid=f"{self.run.program}-{hint.call}",
        )
        started = time.perf_counter()
        answers = await self._collect(request, variable)
        latency_s = time.perf_counter() - started
        texts = self.run.backend.token_text if logprobs.return_text_in_logprobs else None
        self.transcript.called(answers[0].text, answers[0].held, answers[0].tail)
        if variable is None:
            return
        metas = [meta_info(answer, request.rid, latency_s, texts) for answer in answers]
        values = [converted(leaf, answer) for answer in answers]
        several = request.sampling.n > 1
        variable.answers, variable.meta = tuple(answers), metas if several else metas[0]
        variable.set(values if several else values[0])

    async def _collect(self, request: GenerateRequest, variable: Variable | None) -> list[Finished]:
        """Run the request, showing the first sequence's text as it comes. Returns one Finished per sequence, by index."""
        finished: dict[int, Finished] = {}
        shown, count = 0, 0
        async with aclosing(self.run.backend.generate(request)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Delta) and event.index == 0:
                    shown, count = shown + len(event.text), count + len(event.ids) // 4
                    self._show(event.text, variable, {"id": request.rid, "finish_reason": None, "completion_tokens": count})
                elif isinstance(event, Finished):
                    finished[event.index] = event
                elif isinstance(event, Failure):
                    raise from_code(event.code, event.message, event.param)
        answers = [finished[index] for index in sorted(finished)]
        if len(answers) != request.sampling.n:
            raise EngineError(f"The backend ended {len(answers)} of {request.sampling.n} sequences. Run the program again.")
        for answer in answers:
            if answer.finish.reason in ("abort", "error"):
                raise EngineError(f"The backend gave up this call ({answer.finish.reason}). Run the program again.")
        rest = answers[0].text[shown:]
        self._show(rest, variable, {"id": request.rid, "finish_reason": answers[0].finish.reason, "completion_tokens": count})
        return answers

    def _show(self, text: str, variable: Variable | None, meta: dict[str, Any]) -> None:
        self.log.append(text, meta)
        if variable is not None:
            variable.log.append(text, meta)

    async def _select(self, leaf: Select, variable: Variable | None) -> None:
        """One ScoreRequest; the choice that the method takes is the text from here on."""
        options, hint = self.run.options, self._hint()
        request = ScoreRequest(
            prompt=self.transcript.prompt(),
            choices=leaf.choices,
            unconditional=leaf.method.requires_unconditional_logprobs,
            hint=hint,
            priority=options.priority,
            deadline_s=options.deadline_s,
            tenant=options.tenant,
            rid=f"{self.run.program}-{hint.call}",
        )
        scored = await self.run.backend.score(request)
        given, alone = choice_entries(scored, self.run.backend.token_text)
        decision = leaf.method(
            choices=list(leaf.choices),
            normalized_prompt_logprobs=[mean(choice.logprobs) for choice in scored.choices],
            input_token_logprobs=given,
            output_token_logprobs=[[] for _ in given],
            unconditional_token_logprobs=alone,
        )
        if decision.decision not in leaf.choices:
            raise ValueError(f"The choices_method decided for {decision.decision!r}, which is none of {list(leaf.choices)}.")
        chosen = scored.choices[leaf.choices.index(decision.decision)]
        held = scored.prompt_ids + chosen.ids if scored.prompt_ids else b""
        self.transcript.called(decision.decision, held, "")
        meta = {
            "id": request.rid,
            "prompt_tokens": scored.usage.prompt,
            "cached_tokens": scored.usage.cached,
            **decision.meta_info,
        }
        self._show(decision.decision, variable, meta)
        if variable is not None:
            variable.answers, variable.meta = scored, meta
            variable.set(decision.decision)

    async def _sample_choice(self, leaf: Select, variable: Variable | None) -> None:
        """Above temperature 0 a choice is sampled token by token under the constraint, in the model's own proportions."""
        said = (("temperature", leaf.temperature), ("max_new_tokens", None), ("n", 1), ("stop", ()), ("min_new_tokens", 0))
        await self._generate(Gen(leaf.name, said, Choice(leaf.choices)), variable)


def converted(leaf: Gen, answer: Finished) -> Any:
    """The variable's value: the text, or what it spells of the type that was asked for."""
    if leaf.typed is None:
        return answer.text
    return leaf.typed.value(answer.text, cut_off=answer.finish.reason == "length")


def merged_logprobs(said: Logprobs, default: Logprobs) -> Logprobs:
    """What the call said, and where it said nothing what the run says."""
    pick = [a if a is not None else b for a, b in zip(vars(said).values(), vars(default).values(), strict=True)]
    return Logprobs(*pick)


def logprob_params(asked: Logprobs) -> LogprobParams:
    """SGLang's words as the protocol's. logprob_start_len: -1 (the default) is output only."""
    if not asked.return_logprob:
        return LogprobParams()
    start = -1 if asked.logprob_start_len is None else asked.logprob_start_len
    return LogprobParams(output=True, prompt_from=start, top=asked.top_logprobs_num or 0)
