"""The plan of a program: what it will append, found by a dry run in which no model is called.

The function's own code runs. Arguments that are not given, and variables that a call would make, stand in as `{name}`; where
the code needs a real value (a number to count to, say) the plan ends and says why.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from ..runtime.protocol import Prompt
from . import background
from .chat import Transcript
from .nodes import Constant, Expr, Gen, Line, RoleBegin, RoleEnd, ScopeBegin, Select
from .state import ProgramState
from .variables import Fault, TextLog, Variable

# Private-use characters around a name: they survive every way of putting a string into another one.
OPEN, CLOSE = "\ue0f0", "\ue0f1"


def placeholder(name: str) -> str:
    """A string that stands for the unknown value of `name`."""
    return f"{OPEN}{name}{CLOSE}"


def readable(text: str) -> str:
    """Placeholders as `{name}`."""
    return text.replace(OPEN, "{").replace(CLOSE, "}")


@dataclass(frozen=True)
class Forked:
    """Here the state is forked; each branch has a plan of its own."""

    branches: tuple[Tracer, ...]


@dataclass(frozen=True)
class Joined:
    """Here what the branches wrote is appended."""


class Tracer:
    """Notes what a state is given. Takes the interpreter's place in a dry run."""

    def __init__(self, parent: Tracer | None = None):
        self.noted: list[Expr | Forked | Joined] = []
        self.log = TextLog()
        self.fault: Fault | None = None
        self.variables: dict[str, Variable] = dict(parent.variables) if parent else {}
        self.inherited = frozenset(self.variables)

    @property
    def transcript(self) -> Transcript:
        """What was noted so far, with placeholders for what calls would write."""
        transcript = Transcript()
        for leaf in self.noted:
            if isinstance(leaf, Constant):
                transcript.text(readable(leaf.text))
            elif isinstance(leaf, RoleBegin):
                transcript.begin(leaf.role, leaf.call_id)
            elif isinstance(leaf, RoleEnd):
                transcript.end()
            elif isinstance(leaf, (Gen, Select)):
                transcript.text("{" + (leaf.name or "") + "}")
        return transcript

    def submit(self, leaf: Expr, line: Line) -> None:
        """Note one leaf; what it would set is a placeholder at once."""
        self.noted.append(leaf)
        if isinstance(leaf, (Gen, Select, ScopeBegin)) and leaf.name:
            self.declare(Variable.holding(leaf.name, placeholder(leaf.name)))
        if isinstance(leaf, (Gen, Select)):
            self.log.append(placeholder(leaf.name or ""))
        elif isinstance(leaf, Constant):
            self.log.append(leaf.text)

    def declare(self, variable: Variable) -> Variable:
        """Make a variable known."""
        self.variables[variable.name] = variable
        return variable

    def find(self, name: str, *, later: bool = False) -> Future[Variable | None]:
        """The variable of that name or None, at once."""
        return _done(self.variables.get(name))

    def fork(self, number: int, line: Line) -> list[Tracer]:
        """Branches, each with a plan of its own."""
        branches = [Tracer(self) for _ in range(number)]
        self.noted.append(Forked(tuple(branches)))
        return branches

    def append(self, children: Any, line: Line) -> None:
        """Note a join."""
        self.noted.append(Joined())

    def drained(self, *, whole: bool = False) -> Future[None]:
        """Nothing is ever waiting."""
        return _done(None)


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


@dataclass(frozen=True)
class Step:
    """One line of a plan. depth: 0 in the program's own state, 1 in a fork of it, and so on. leaf: None where it forks."""

    depth: int
    text: str
    leaf: Expr | None


@dataclass(frozen=True)
class Plan:
    """What a program appends, in order. stopped: why the dry run ended before the program did, or None."""

    name: str
    arguments: tuple[str, ...]
    steps: tuple[Step, ...]
    stopped: str | None

    @property
    def calls(self) -> tuple[Gen | Select, ...]:
        """The calls of the model, in order."""
        return tuple(step.leaf for step in self.steps if isinstance(step.leaf, (Gen, Select)))

    def prefix(self) -> Prompt:
        """The prompt that every run begins with, whatever its arguments: up to the first placeholder, call or fork."""
        transcript, empty = Transcript(), True
        for step in self.steps:
            if isinstance(step.leaf, Constant):
                constant, _, unknown = step.leaf.text.partition(OPEN)
                transcript.text(constant)
                empty = empty and not constant
                if unknown:
                    break
            elif isinstance(step.leaf, RoleBegin):
                transcript.begin(step.leaf.role)
            elif isinstance(step.leaf, RoleEnd):
                transcript.end()
            else:
                break
        if empty:
            return ()
        if transcript.role != "assistant" and not transcript.open_text:
            transcript = replace(transcript, role=None)  # an empty turn says nothing yet; an assistant's has its header
        return transcript.prompt()

    def __str__(self) -> str:
        lines = [f"{self.name}({', '.join(self.arguments)})"]
        lines += [f"{number:3d} {'    ' * step.depth}{step.text}" for number, step in enumerate(self.steps, 1)]
        if self.stopped:
            lines.append(f"    ... {self.stopped}")
        return "\n".join(lines)


def trace(func: Callable[..., Any], arguments: Sequence[str], given: Mapping[str, Any]) -> Plan:
    """Run `func` without a model and note what it appends. Arguments without a value or default are placeholders."""
    tracer, stopped = Tracer(), None
    required = [p.name for p in inspect.signature(func).parameters.values() if p.default is p.empty and p.name in arguments]
    kwargs = {name: placeholder(name) for name in required} | dict(given)
    try:
        result = func(ProgramState(tracer), **kwargs)
        if inspect.iscoroutine(result):
            background.run(result, "program.trace() outside of an async program")
    except Exception as error:
        stopped = f"unknown from here on, because the code needs a real value ({type(error).__name__}: {readable(str(error))})"
    return Plan(func.__qualname__, tuple(arguments), tuple(_steps(tracer, 0)), stopped)


def _steps(tracer: Tracer, depth: int) -> Iterator[Step]:
    """A tracer's notes as steps, neighbouring texts joined."""
    text = ""
    for leaf in [*tracer.noted, None]:
        if isinstance(leaf, Constant):
            text += leaf.text
            continue
        if text:
            yield Step(depth, readable(f"text {text!r}".replace("\\ue0f0", OPEN).replace("\\ue0f1", CLOSE)), Constant(text))
            text = ""
        if isinstance(leaf, Forked):
            yield Step(depth, f"fork into {len(leaf.branches)}", None)
            for number, branch in enumerate(leaf.branches):
                yield Step(depth, f"  branch {number}", None)
                yield from _steps(branch, depth + 1)
        elif isinstance(leaf, Joined):
            yield Step(depth, "append the branches", None)
        elif leaf is not None:
            yield Step(depth, readable(str(leaf)), leaf)

