"""One run of one program: what all its states have in common."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .backend import Backend
from .nodes import Logprobs
from .variables import Fault

if TYPE_CHECKING:
    from .interpreter import Interpreter

_programs = itertools.count(1)


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
