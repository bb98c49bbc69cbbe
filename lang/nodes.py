"""Expressions of a program: frozen values, made by `api.py`, executed by `interpreter.py`.

`"Q: " + gen("a") + "\\n"` is a `Concat` of three leaves. An expression holds no state and belongs to no run, so it can be
built once and appended many times, to many states. Nothing here imports more than the standard library and the contracts.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from os.path import dirname
from types import FrameType
from typing import Any

from ..constrained.spec import Constraint
from ..runtime.errors import InvalidRequest
from ..runtime.protocol import AnswerRead
from .choices import ChoicesMethod
from .tools import ToolUse
from .typed import Typed


class Expr:
    """Base of all expressions. `+` joins expressions, strings and numbers into a `Concat`."""

    __slots__ = ()

    def __add__(self, other: object) -> Concat:
        return Concat((*leaves(self), *leaves(as_expr(other))))

    def __radd__(self, other: object) -> Concat:
        return Concat((*leaves(as_expr(other)), *leaves(self)))


@dataclass(frozen=True)
class Constant(Expr):
    """Text that the program wrote."""

    text: str

    def __str__(self) -> str:
        return f"text {self.text!r}"


@dataclass(frozen=True)
class RoleBegin(Expr):
    """Opens a turn of `role`; turns do not nest. call_id: the call that a tool's turn answers."""

    role: str
    call_id: str | None = None

    def __str__(self) -> str:
        return f"begin {self.role}"


@dataclass(frozen=True)
class RoleEnd(Expr):
    """Closes the open turn, which must be one of `role`."""

    role: str

    def __str__(self) -> str:
        return f"end {self.role}"


@dataclass(frozen=True)
class Logprobs:
    """Which log-probabilities a call asked for, in SGLang's words; None means: as the run says."""

    return_logprob: bool | None = None
    logprob_start_len: int | None = None
    top_logprobs_num: int | None = None
    return_text_in_logprobs: bool | None = None


@dataclass(frozen=True)
class Gen(Expr):
    """A call that generates. sampling: only the fields of `SamplingParams` that were said; the run's defaults fill the rest.
    typed: how the text becomes the variable's value, None keeps the text. tools: what the model may call; the value is then
    a `ToolAnswer`."""

    name: str | None
    sampling: tuple[tuple[str, Any], ...] = ()
    constraint: Constraint | None = None
    typed: Typed | None = None
    logprobs: Logprobs = field(default_factory=Logprobs)
    tools: ToolUse | None = None

    def __str__(self) -> str:
        said = [repr(self.name)] if self.name else []
        said += [f"{key}={value!r}" for key, value in self.sampling]
        if self.typed is not None:
            said.append(f"type={self.typed.label}")
        elif self.constraint is not None:
            said.append(type(self.constraint).__name__)
        if self.tools is not None:
            said.append(f"tools=[{', '.join(tool.name for tool in self.tools.tools)}]")
        return f"gen({', '.join(said)})"


@dataclass(frozen=True)
class Answered(Expr):
    """An answer with calls that a branch was given, when the branch is appended to another state."""

    text: str
    read: AnswerRead

    def __str__(self) -> str:
        return f"answer {self.text!r}"


@dataclass(frozen=True)
class Select(Expr):
    """A call that picks one of `choices`. At temperature 0 by `method`, above it by sampling under a constraint."""

    name: str | None
    choices: tuple[str, ...]
    temperature: float
    method: ChoicesMethod

    def __str__(self) -> str:
        return f"select({self.name!r}, {list(self.choices)!r})"


@dataclass(frozen=True)
class ScopeBegin(Expr):
    """From here on text belongs to the variable `name`."""

    name: str

    def __str__(self) -> str:
        return f"begin scope {self.name!r}"


@dataclass(frozen=True)
class ScopeEnd(Expr):
    """The variable `name` is the text since its `ScopeBegin`."""

    name: str

    def __str__(self) -> str:
        return f"end scope {self.name!r}"


@dataclass(frozen=True)
class Concat(Expr):
    """Leaves in order. Always flat: no item is itself a Concat."""

    items: tuple[Expr, ...] = ()

    def __str__(self) -> str:
        return " + ".join(map(str, self.items))


def as_expr(value: object) -> Expr:
    """What was appended, as an expression: strings and numbers become text. Raises TypeError for anything else."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, str):
        return Constant(value)
    if isinstance(value, (int, float)):
        return Constant(str(value))
    raise TypeError(
        f"{type(value).__name__} cannot be appended to a program's state. "
        "Append text, a number, or an expression such as gen(...), select(...), user(...)."
    )


def leaves(expr: Expr) -> Iterator[Expr]:
    """The leaves of an expression, in order."""
    if isinstance(expr, Concat):
        yield from expr.items
    else:
        yield expr


def role_after(role: str | None, leaf: Expr) -> str | None:
    """The open role after `leaf` was appended where `role` was open. Raises InvalidRequest where roles do not fit together."""
    if isinstance(leaf, RoleBegin):
        if role is not None:
            raise InvalidRequest(f"A {leaf.role} turn begins inside the open {role} turn. End it first; turns do not nest.")
        return leaf.role
    if isinstance(leaf, RoleEnd):
        if role != leaf.role:
            what = f"the open turn is one of {role}" if role else "no turn is open"
            raise InvalidRequest(f"A {leaf.role} turn ends, but {what}. Begin it with {leaf.role}_begin().")
        return None
    return role


@dataclass(frozen=True)
class Line:
    """Where in the program something was appended."""

    file: str
    number: int
    function: str

    def __str__(self) -> str:
        from linecache import getline  # reads the file, so only when an error is shown

        source = getline(self.file, self.number).strip()
        return f"{self.file}:{self.number}, in {self.function}" + (f": {source}" if source else "")


_OURS = dirname(__file__)
_SKIP = {_OURS, dirname(contextlib.__file__)}


def caller() -> Line:
    """The nearest line on the stack that is neither the DSL's own nor contextlib's (roles are context managers)."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        folder = dirname(frame.f_code.co_filename)
        if folder not in _SKIP:
            return Line(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back
    return Line("<unknown>", 0, "?")
