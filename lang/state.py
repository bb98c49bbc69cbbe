"""`ProgramState`, the `s` of a program: the only thing that a program changes. It belongs to one run.

Appending never blocks; reading waits for what is read and raises the error of the call that failed, with its line. Every
reading method has a form for coroutines: `await s.get("x")`, `await s.wait()`, `s.text_async_iter()`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from ..runtime.errors import InvalidRequest
from . import background
from .chat import Transcript
from .explain import Explanation, explain
from .nodes import (
    Concat,
    Constant,
    Expr,
    Gen,
    Line,
    RoleBegin,
    RoleEnd,
    ScopeBegin,
    ScopeEnd,
    Select,
    as_expr,
    caller,
    leaves,
    role_after,
)
from .tools import Call
from .variables import Fault, TextLog, Variable


class Executor(Protocol):
    """What a state hands its leaves to: an `Interpreter`, or the `Tracer` of a dry run."""

    log: TextLog
    fault: Fault | None
    variables: dict[str, Variable]
    inherited: frozenset[str]

    @property
    def transcript(self) -> Transcript: ...
    def submit(self, leaf: Expr, line: Line) -> None: ...
    def declare(self, variable: Variable) -> Variable: ...
    def find(self, name: str, *, later: bool = False) -> Future[Variable | None]: ...
    def fork(self, number: int, line: Line) -> Sequence[Executor]: ...
    def append(self, children: Any, line: Line) -> None: ...
    def drained(self, *, whole: bool = False) -> Future[None]: ...


class ProgramState:
    """What one run of a program has written and can read.

    s += "text" + gen("x")      append; never blocks, raises at once what is wrong with the expression itself
    s["x"], await s.get("x")    read a variable; raises KeyError if nothing so named was appended
    s.text(), s.messages()      everything written, waited for; turns are shown as `role: text`
    ret_value                   what the program's function returned
    """

    def __init__(self, executor: Executor, role: str | None = None, in_conversation: bool = False, *, outside: bool = False):
        """outside: this is a streamed run's state in the hands of its caller, while the program may still be appending."""
        self._executor = executor
        self._outside = outside
        self._role = role
        self._in_conversation = in_conversation
        self.ret_value: Any = None

    # ------------------------------------------------------------------------------------------------- writing

    def __iadd__(self, other: object) -> ProgramState:
        """Append an expression, text or a number. Raises TypeError or InvalidRequest where it does not fit here."""
        parts = tuple(leaves(as_expr(other)))
        self._check(parts)
        line = caller()
        for part in parts:
            self._executor.submit(part, line)
        return self

    def _check(self, parts: tuple[Expr, ...]) -> None:
        """Roles must nest in nothing, and a conversation has nothing outside of its turns."""
        role, conversation = self._role, self._in_conversation
        for part in parts:
            outside = conversation and role is None and isinstance(part, (Constant, Gen, Select))
            if outside and not (isinstance(part, Constant) and not part.text):
                raise InvalidRequest(
                    f"{part} stands outside of any role, after a conversation has begun; a chat template has no place for it. "
                    "Put it into a turn: s += user(...) or s += assistant(gen(...)).",
                    code="text_outside_role",
                )
            role = role_after(role, part)
            conversation = conversation or role is not None
        self._role, self._in_conversation = role, conversation

    def _turn(self, role: str, expr: object | None, call_id: str | None = None) -> Any:
        if expr is not None:
            self.__iadd__(Concat((RoleBegin(role, call_id), *leaves(as_expr(expr)), RoleEnd(role))))
            return Concat()  # so that `s += s.user(...)` appends nothing twice

        @contextmanager
        def turn() -> Iterator[None]:
            self.__iadd__(RoleBegin(role, call_id))
            try:
                yield
            finally:
                self.__iadd__(RoleEnd(role))

        return turn()

    def system(self, expr: object | None = None) -> Any:
        """A system turn: `s.system("...")` appends it, `with s.system():` opens and closes it."""
        return self._turn("system", expr)

    def user(self, expr: object | None = None) -> Any:
        """A user turn, as `system`."""
        return self._turn("user", expr)

    def assistant(self, expr: object | None = None) -> Any:
        """An assistant turn, as `system`."""
        return self._turn("assistant", expr)

    def tool(self, expr: object | None = None, call: Call | str | None = None) -> Any:
        """A turn with a tool's answer, as `system`. call: what it answers, or its id. Needs a template that knows the role."""
        return self._turn("tool", expr, call.id if isinstance(call, Call) else call)

    def system_begin(self) -> None:
        """Open a system turn."""
        self.__iadd__(RoleBegin("system"))

    def system_end(self) -> None:
        """Close the system turn."""
        self.__iadd__(RoleEnd("system"))

    def user_begin(self) -> None:
        """Open a user turn."""
        self.__iadd__(RoleBegin("user"))

    def user_end(self) -> None:
        """Close the user turn."""
        self.__iadd__(RoleEnd("user"))

    def assistant_begin(self) -> None:
        """Open an assistant turn."""
        self.__iadd__(RoleBegin("assistant"))

    def assistant_end(self) -> None:
        """Close the assistant turn."""
        self.__iadd__(RoleEnd("assistant"))

    @contextmanager
    def var_scope(self, name: str) -> Iterator[None]:
        """What is appended within becomes the variable `name`, as text."""
        self.__iadd__(ScopeBegin(name))
        try:
            yield
        finally:
            self.__iadd__(ScopeEnd(name))

    # ------------------------------------------------------------------------------------------------- forking

    def fork(self, number: int = 1, position_ids_offset: Sequence[int] | None = None) -> ProgramStateGroup:
        """`number` states that go on from here, each by itself; their common prefix is computed once. Never blocks.

        position_ids_offset is accepted for SGLang's sake and changes nothing: positions follow from the text."""
        if number < 1:
            raise InvalidRequest(f"fork({number}) asks for no state at all; ask for at least 1.", param="number")
        executors = self._executor.fork(int(number), caller())
        return ProgramStateGroup([ProgramState(e, self._role, self._in_conversation) for e in executors], self)

    def copy(self, position_ids_offset: Sequence[int] | None = None) -> AbstractContextManager[ProgramState]:
        """`with s.copy() as tmp:` a fork of one, joined at the end: its variables become lists of one value in `s`."""

        @contextmanager
        def copied() -> Iterator[ProgramState]:
            group = self.fork(1, position_ids_offset)
            yield group[0]
            group.join()

        return copied()

    # ------------------------------------------------------------------------------------------------- reading

    def __getitem__(self, name: str) -> Any:
        """The variable's value, waited for: text, a list of texts (n > 1), or a value of the type that was asked for."""
        return self._variable(name).value()

    def get_var(self, name: str) -> Any:
        """The same as `s[name]`."""
        return self._variable(name).value()

    async def get(self, name: str) -> Any:
        """`s[name]` for coroutines."""
        return await (await self._avariable(name)).avalue()

    def __setitem__(self, name: str, value: Any) -> None:
        """Give a variable a value of one's own."""
        self._executor.declare(Variable.holding(name, value))

    def set_var(self, name: str, value: Any) -> None:
        """The same as `s[name] = value`."""
        self[name] = value

    def __contains__(self, name: str) -> bool:
        """Whether a variable of that name was appended or set so far; does not wait."""
        return name in self._executor.variables

    def get_meta_info(self, name: str) -> Any:
        """SGLang's meta_info of the call behind a variable (a list of them if n > 1), waited for; None if there was no call."""
        variable = self._variable(name)
        variable.value()
        return variable.meta

    def explain(self, name: str) -> Explanation:
        """Tokens cached, computed and forced, why the cache ended there, and the times of the call behind a variable."""
        variable = self._variable(name)
        variable.value()
        if variable.answers is None:
            raise InvalidRequest(f"{name!r} was not made by a call, so there is nothing to explain.", param="name")
        return explain(name, variable.answers)

    def text(self) -> str:
        """Everything written and generated so far, waited for."""
        self.sync()
        return self._executor.log.text()

    def messages(self) -> list[dict[str, Any]]:
        """The conversation so far as OpenAI's messages, waited for."""
        self.sync()
        return self._executor.transcript.messages()

    def sync(self) -> None:
        """Wait for everything appended so far. Raises the error of the call that failed."""
        background.wait(self._executor.drained(whole=self._outside), "await s.wait()")
        self._raise()

    async def wait(self) -> None:
        """`sync` for coroutines."""
        await asyncio.shield(asyncio.wrap_future(self._executor.drained(whole=self._outside)))
        self._raise()

    def error(self) -> BaseException | None:
        """The error of the call that failed, waited for; None if all went well. Does not raise it."""
        background.wait(self._executor.drained(whole=self._outside), "await s.wait()")
        fault = self._executor.fault
        return None if fault is None else fault.tell()

    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        """The text, or one variable's text, piece by piece as it is generated; raises the error of a call that failed.

        It ends with what was appended when it was asked for; of a streamed run, read from outside, with the program."""
        if var_name is None:
            pieces = self._executor.log.read(self._executor.drained(whole=self._outside))
        else:
            pieces = self._variable(var_name).log.read()
        for piece, _ in pieces:
            yield piece

    async def text_async_iter(self, var_name: str | None = None, return_meta_data: bool = False) -> AsyncIterator[Any]:
        """`text_iter` for coroutines, in any loop. With return_meta_data pairs of (piece, meta_info so far)."""
        if var_name is None:
            pieces = self._executor.log.aread(self._executor.drained(whole=self._outside))
        else:
            pieces = (await self._avariable(var_name)).log.aread()
        async for piece, meta in pieces:
            yield (piece, meta) if return_meta_data else piece

    def _raise(self) -> None:
        if self._executor.fault is not None:
            raise self._executor.fault.tell()

    def _variable(self, name: str) -> Variable:
        return self._known(name, background.wait(self._executor.find(name, later=self._outside), f'await s.get("{name}")'))

    async def _avariable(self, name: str) -> Variable:
        return self._known(name, await asyncio.wrap_future(self._executor.find(name, later=self._outside)))

    def _known(self, name: str, variable: Variable | None) -> Variable:
        if variable is not None:
            if variable.is_open:
                raise InvalidRequest(f"{name!r} is read inside of its own var_scope, which has not ended yet.", param="name")
            return variable
        self._raise()
        known = ", ".join(map(repr, self._executor.variables)) or "none"
        raise KeyError(f"The program has appended nothing named {name!r}; its variables are: {known}.")

    def __repr__(self) -> str:
        return f"ProgramState({self._executor.log.text()})"


class ProgramStateGroup:
    """The states that one fork made. `forks[i]`, `len(forks)`, `for f in forks`; `forks += expr` appends to each."""

    def __init__(self, states: list[ProgramState], source: ProgramState):
        self.states = states
        self._source = source

    def __getitem__(self, index: int) -> ProgramState:
        return self.states[index]

    def __setitem__(self, index: int, value: ProgramState) -> None:
        """`forks[i] += ...` ends in an assignment of the same state; another one is refused."""
        if value is not self.states[index]:
            raise InvalidRequest("A forked state cannot be replaced; append to it instead.")

    def __len__(self) -> int:
        return len(self.states)

    def __iter__(self) -> Iterator[ProgramState]:
        return iter(self.states)

    def __iadd__(self, other: object | Callable[[int], object] | Sequence[object]) -> ProgramStateGroup:
        """Append to each state: the same expression, one of a list each, or what a function of the index gives."""
        if callable(other):
            parts: Sequence[object] = [other(index) for index in range(len(self.states))]
        elif isinstance(other, (list, tuple)):
            parts = other
        else:
            parts = [other] * len(self.states)
        if len(parts) != len(self.states):
            raise InvalidRequest(f"{len(parts)} expressions cannot be appended to {len(self.states)} states, one to each.")
        for state, part in zip(self.states, parts, strict=True):
            state += part
        return self

    def join(self, mode: str = "gather_variable") -> None:
        """Bring the branches back. Never blocks.

        gather_variable: each variable that a branch made becomes, in the source, the list of the branches' values.
        concate_and_append: what the branches wrote is appended to the source, branch by branch.
        """
        executor = self._source._executor
        if mode == "concate_and_append":
            executor.append([state._executor for state in self.states], caller())
        elif mode == "gather_variable":
            for name, parts in self._made().items():
                executor.declare(gathered(name, parts))
        else:
            raise InvalidRequest(
                f"join mode {mode!r} is not known. Use gather_variable or concate_and_append.", param="mode"
            )

    def _made(self) -> dict[str, list[Variable]]:
        made: dict[str, list[Variable]] = {}
        for state in self.states:
            for name, variable in state._executor.variables.items():
                if name not in state._executor.inherited:
                    made.setdefault(name, []).append(variable)
        return made


def gathered(name: str, parts: list[Variable]) -> Variable:
    """A variable that holds the list of `parts`' values as soon as all have theirs, or the first fault among them."""
    whole = Variable(name)
    count = itertools.count(1)  # its next() is atomic, and parts may be set in different threads

    def one_is_done() -> None:
        if next(count) == len(parts):
            fault = next((part.fault for part in parts if part.fault is not None), None)
            if fault is not None:
                whole.fail(fault)
            else:
                whole.meta = [part.meta for part in parts]
                whole.set([part.value() for part in parts])

    for part in parts:
        part.when_done(one_is_done)
    return whole
