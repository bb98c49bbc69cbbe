"""`ramify bench`: the benchmarks of `runtime/bench`, each a module with a docstring that states its question and `main(argv)`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from ..console import heading, table
from ..errors import InvalidRequest
from .modules import runnable

PACKAGE = __name__.rsplit(".", 2)[0] + ".bench"


def benchmarks() -> dict[str, str]:
    """Name -> the question it answers (its docstring's first line)."""
    return {name: question(line) for name, line in runnable(PACKAGE).items()}


def question(line: str) -> str:
    """A docstring's first line, less the word `Question:`. Pure."""
    rest = line.removeprefix("Question:").strip()
    return rest[:1].upper() + rest[1:]


def measure(name: str, arguments: Sequence[str]) -> int:
    """Run one benchmark's `main`. Returns its exit status."""
    return import_module(f"{PACKAGE}.{name}").main(list(arguments)) or 0


def run(said: argparse.Namespace) -> int:
    """List, run one, or run all; 0 where none failed. Raises InvalidRequest for an unknown name."""
    known = benchmarks()
    if said.all:
        failed = []
        for name in known:
            heading(name)
            if measure(name, ()):
                failed.append(name)
        return 1 if failed else 0
    if said.name is None:
        table(("benchmark", "question"), list(known.items()), file=sys.stdout)
        return 0
    if said.name not in known:
        raise InvalidRequest(f"There is no benchmark {said.name!r}. Known: {', '.join(known) or 'none'}.")
    return measure(said.name, said.rest)
