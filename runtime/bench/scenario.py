"""A scenario: one question, its cases with their seeded work and bounds, and the engines that take turns at them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .adapters.base import Adapter, Work
from .bounds import Bounds
from .checkpoints import Shape

Works = tuple[Work, ...]


@dataclass(frozen=True)
class Measured:
    """One run of one engine: a value in the case's unit, and what else is worth keeping."""

    value: float
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One line of the table.

    name: in words. unit: "tokens/s" and "share" are better when larger, "s" when smaller. works: what is asked, the same ids
    for every engine; it also sizes them. measure: runs it once. cache: what the engine may know when a run begins, cold or
    warm. bound: the best value that this machine allows. repeats: runs that count, unless said. warm_up: a run before
    those that count. few: engines that do only the first so many prompts; their seconds are then scaled up, and the report says
    so. without: engines that are left out, each with its reason.
    """

    name: str
    unit: str
    works: Works
    measure: Callable[[Adapter, Works], Awaitable[Measured]]
    cache: str
    bound: Callable[[Bounds], float] | None = None
    repeats: int = 5
    warm_up: bool = True
    few: Mapping[str, int] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)

    @property
    def more_is_better(self) -> bool:
        """Whether larger values are better ones."""
        return self.unit != "s"


@dataclass(frozen=True)
class Setting:
    """What cases are made for. checkpoint: its folder, for those that need its tokenizer. quick: little work, for a test."""

    shape: Shape
    checkpoint: Path
    quick: bool

    @property
    def vocab(self) -> int:
        """Ids are drawn below this and above the control tokens."""
        return self.shape.vocab


@dataclass(frozen=True)
class Scenario:
    """name: of the benchmark. shape: of `checkpoints.SHAPES`, unless said. peers: who takes part beside Ramify, unless said.
    minutes: what a full run on two quiet cores takes, about. cases: makes them."""

    name: str
    shape: str
    peers: tuple[str, ...]
    minutes: float
    cases: Callable[[Setting], list[Case]]
