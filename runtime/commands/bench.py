"""`ramify bench`: the benchmarks of `runtime/bench`, each a module with a docstring that states its question and `main(argv)`.

Those with a `SCENARIO` run beside peers and take common arguments (`bench/runner.py`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from ..console import heading, table
from ..errors import InvalidRequest
from .modules import runnable

REPORT = "report"
"""Writes what the others found, so it is no part of `--all`."""
PACKAGE = __name__.rsplit(".", 2)[0] + ".bench"


def benchmarks() -> dict[str, str]:
    """Name -> the question it answers (its docstring's first line)."""
    return {name: question(line) for name, line in runnable(PACKAGE).items()}


def question(line: str) -> str:
    """A docstring's first line, less the word `Question:`. Pure."""
    rest = line.removeprefix("Question:").strip()
    return rest[:1].upper() + rest[1:]


def measure(name: str, arguments: Sequence[str], *, out: str | None = None) -> int:
    """Run one benchmark's `main`. out: where a scenario leaves its results. Returns its exit status."""
    module = import_module(f"{PACKAGE}.{name}")
    kept = ("--out", out) if out and hasattr(module, "SCENARIO") else ()
    return module.main([*arguments, *kept]) or 0


def run(said: argparse.Namespace) -> int:
    """List, run one, a suite, or all; 0 where none failed. Raises InvalidRequest for an unknown name."""
    if said.suite is not None:
        names = [] if said.name is None else [said.name]
        kept = [] if said.out is None else ["--out", said.out]
        return import_module(f"{PACKAGE}.{said.suite}.suite").main([*names, *said.rest, *kept])
    known = benchmarks()
    if said.all:
        failed = []
        for name in known:
            if name == REPORT:
                continue
            heading(name)
            if measure(name, (), out=said.out):
                failed.append(name)
        return 1 if failed else 0
    if said.name is None:
        table(("benchmark", "question"), list(known.items()), file=sys.stdout)
        return 0
    if said.name not in known:
        raise InvalidRequest(f"There is no benchmark {said.name!r}. Known: {', '.join(known) or 'none'}.")
    return measure(said.name, said.rest, out=said.out)
