"""What the commands print: tables, panels and progress on a terminal, the same words as plain lines elsewhere.

Results go to stdout, everything about them (start-up, progress, counts) to stderr, so that a pipe gets the results alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Row = Sequence[object]


def say(text: str = "", *, file: TextIO | None = None) -> None:
    """One line, at once. file: default stderr."""
    print(text, file=file or sys.stderr, flush=True)


def columns(rows: Iterable[Row], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Rows as aligned plain lines; columns in `right` are right-aligned. Pure."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    pad = [str.rjust if i in right else str.ljust for i in range(len(widths))]
    return ["  ".join(p(cell, w) for p, cell, w in zip(pad, row, widths, strict=True)).rstrip() for row in cells]


def table(headers: Sequence[str], rows: Sequence[Row], *, right: Iterable[int] = (), file: TextIO | None = None) -> None:
    """A table on `file` (default stderr). right: numbers of the right-aligned columns."""
    out: TextIO = file or sys.stderr
    numbers = frozenset(right)
    if not out.isatty():
        for line in columns([headers, *rows], right=numbers):
            say(line, file=out)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, header_style="dim")
    for number, header in enumerate(headers):
        drawn.add_column(header, justify="right" if number in numbers else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(str(cell)) for cell in row))
    Console(file=out).print(drawn)


def panel(title: str, rows: Sequence[tuple[str, object]], *, file: TextIO | None = None) -> None:
    """Names and values, in a frame on a terminal; a name of "" continues the line above."""
    out: TextIO = file or sys.stderr
    if not out.isatty():
        for line in [title, *("  " + one for one in columns(rows))]:
            say(line, file=out)
        return
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, Text(str(value)))
    Console(file=out).print(Panel(grid, title=f"[bold]{title}", title_align="left", border_style="cyan", expand=False))


def heading(text: str, *, file: TextIO | None = None) -> None:
    """A line that begins a part of the output."""
    out: TextIO = file or sys.stdout
    if not out.isatty():
        say(f"\n== {text} ==", file=out)
        return
    from rich.console import Console
    from rich.rule import Rule

    Console(file=out).print()
    Console(file=out).print(Rule(f"[bold]{text}", align="left", style="cyan"))


class Phases:
    """Shows the phases of a long start: `show(phase, share)` with share from 0 to 1. One bar per phase on a terminal, else
    one line when a phase begins."""

    def __init__(self, progress: Progress | None):
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._seen: set[str] = set()

    def show(self, phase: str, share: float) -> None:
        """Phase `phase` is done to `share`. Changes what is on the screen."""
        if self._progress is None:
            if phase not in self._seen:
                say(f"{phase} ...")
            self._seen.add(phase)
            return
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=1.0)
        self._progress.update(self._tasks[phase], completed=share)


@contextmanager
def phases() -> Iterator[Phases]:
    """Progress of a long start, on stderr; the bars go away at the end."""
    if not sys.stderr.isatty():
        yield Phases(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    parts = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True) as progress:
        yield Phases(progress)


def amount(count: int | float, unit: str = "") -> str:
    """A large number as people read it: 5.2 M, 14.9 k."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(count) >= size:
            return f"{count / (1e3 if letter == 'k' else size):.1f} {letter}{unit}"
    return f"{count:,}{' ' + unit if unit else ''}"


def gib(num_bytes: int) -> str:
    """Bytes in GiB, or in MiB below a tenth of one."""
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 0.1 * 2**30 else f"{num_bytes / 2**20:.1f} MiB"
