"""Random programs against a naive model that runs them one step after the other: same texts, same errors, no waiting for ever."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ramify as sgl
from ramify.lang.backends.scripted import Scripted
from ramify.runtime.errors import EngineError

pytestmark = pytest.mark.timeout(120)


class Boom(EngineError):
    """What the model fails with."""


def answer(prompt: str) -> str:
    """A word that depends on all of the prompt; fails on one prompt in eight."""
    number = zlib.crc32(prompt.encode())
    if number % 8 == 0:
        raise Boom("boom")
    return f"<{number % 100}>"


async def late_answer(prompt: str) -> str:
    """The same, but calls overtake each other."""
    for _ in range(zlib.crc32(prompt.encode()) % 5):
        await asyncio.sleep(0)
    return answer(prompt)


@dataclass
class Naive:
    """What a state should have become: its text, its variables in order, whether it has failed."""

    text: str = ""
    start: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    failed: bool = False

    def gen(self, name: str) -> None:
        if not self.failed:
            try:
                self.values[name] = answer(self.text)
                self.text += self.values[name]
            except Boom:
                self.failed = True
        if self.failed:
            self.values[name] = Boom

    def write(self, text: str) -> None:
        if not self.failed:
            self.text += text

    def fork(self, number: int) -> list[Naive]:
        return [Naive(self.text, len(self.text), dict(self.values), self.failed) for _ in range(number)]

    def append(self, children: list[Naive]) -> None:
        self.failed = self.failed or any(child.failed for child in children)
        for child in children:
            self.write(child.text[child.start :])

    def gather(self, children: list[Naive], inherited: set[str]) -> None:
        for name in {name: None for child in children for name in child.values if name not in inherited}:
            parts = [child.values[name] for child in children if name in child.values]
            self.values[name] = Boom if Boom in parts else parts


def steps(depth: int) -> st.SearchStrategy:
    leaf = st.one_of(
        st.tuples(st.just("text"), st.sampled_from(["a", "bc ", "\n"])),
        st.tuples(st.just("gen"), st.sampled_from(["x", "y", "z"])),
        st.tuples(st.just("read"), st.just(None)),
    )
    if depth == 0:
        return st.lists(leaf, max_size=4)
    branches = st.lists(steps(depth - 1), min_size=1, max_size=3)
    fork = st.tuples(st.sampled_from(["gather", "append", "leave"]), branches)
    return st.lists(st.one_of(leaf, fork), max_size=4)


def run_naive(state: Naive, program: list[Any]) -> None:
    for kind, what in program:
        if kind == "text":
            state.write(what)
        elif kind == "gen":
            state.gen(what)
        elif kind != "read":
            inherited, children = set(state.values), state.fork(len(what))
            for child, part in zip(children, what, strict=True):
                run_naive(child, part)
            if kind == "append":
                state.append(children)
            elif kind == "gather":
                state.gather(children, inherited)


def run_real(s: sgl.ProgramState, program: list[Any]) -> None:
    for kind, what in program:
        if kind == "text":
            s += what
        elif kind == "gen":
            s += sgl.gen(what)
        elif kind == "read":
            s.error()  # waits, and takes note of the failure so that the run does not raise it
        else:
            forks = s.fork(len(what))
            for child, part in zip(forks, what, strict=True):
                run_real(child, part)
            for child in forks:
                child.error()
            if kind != "leave":
                forks.join({"append": "concate_and_append", "gather": "gather_variable"}[kind])


def value_of(state: sgl.ProgramState, name: str) -> Any:
    try:
        return state[name]
    except Boom:
        return Boom


@settings(max_examples=150)
@given(steps(2), st.booleans())
def test_a_program_does_what_a_naive_interpreter_does(program, is_late):
    expected = Naive()
    run_naive(expected, program)

    @sgl.function
    def real(s):
        run_real(s, program)
        s.error()

    state = real.run(backend=Scripted(late_answer if is_late else answer))
    assert (state.error() is not None) == expected.failed
    if not expected.failed:
        assert state.text() == expected.text
    assert {name: value_of(state, name) for name in expected.values} == expected.values
