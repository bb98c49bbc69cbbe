"""A progress bar on the terminal, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(total: int, label: str, shown: bool) -> Iterator[Callable[[], None]]:
    """Gives a function that counts one more of `total`; it may be called from any thread. Writes to stderr if `shown`."""
    if not shown:
        yield lambda: None
        return
    from rich.console import Console  # not needed by those who show nothing
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)
