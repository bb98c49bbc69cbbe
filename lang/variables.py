"""What a program reads: a variable is a future, a text log is text still being written; both serve threads and coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from copy import copy
from typing import Any

from ..runtime.errors import RamifyError
from ..runtime.protocol import Finished, Scored
from . import background
from .nodes import Line


def give(future: Future[Any], value: Any) -> None:
    """Set a future's result, unless the one who waited has cancelled it meanwhile."""
    with suppress(InvalidStateError):
        future.set_result(value)


class Fault:
    """The failure of one call: its error, the line that asked for it, and whether anyone was told.

    One fault is shared by all that depends on the call, so an error that was raised once is not raised again at the end."""

    def __init__(self, error: BaseException, line: Line | None):
        self.error = _placed(error, line)
        self.seen = False

    def tell(self) -> BaseException:
        """The error to raise now, a copy so that tracebacks of several readers do not mix. Counts as told."""
        self.seen = True
        try:
            return copy(self.error).with_traceback(self.error.__traceback__)
        except Exception:  # an exception of the user's that cannot be copied
            return self.error


def _placed(error: BaseException, line: Line | None) -> BaseException:
    """`error` with the program's line: in the message of our own errors, as a note on others."""
    if line is None or hasattr(error, "program_line"):
        return error
    if isinstance(error, RamifyError):
        error = copy(error)
        error.message = f"{error.message}\n  at {line}"
        error.args = (error.message,)
    else:
        error.add_note(f"at {line}")
    error.program_line = line  # type: ignore[attr-defined]
    return error


class TextLog:
    """Text that grows, then ends. One writer (the background loop), any number of readers in any thread or loop."""

    def __init__(self, start: str = ""):
        self._parts: list[tuple[str, Any]] = [(start, None)] if start else []
        self._text: str | None = None
        self._closed = False
        self._fault: Fault | None = None
        self._waiting: list[tuple[int, Future[None]]] = []
        self._lock = threading.Lock()

    def append(self, text: str, meta: Any = None) -> None:
        """Add text; `meta` goes to readers beside it."""
        if text:
            with self._lock:
                self._parts.append((text, meta))
                self._text = None
            self._wake()

    def close(self, fault: Fault | None = None) -> None:
        """No more will come. With a fault, readers raise it after the text. Closing again changes nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed, self._fault = True, fault
        self._wake()

    def text(self) -> str:
        """All text so far."""
        with self._lock:
            if self._text is None:
                self._text = "".join(part for part, _ in self._parts)
            return self._text

    def read(self, end: Future[None] | None = None) -> Iterator[tuple[str, Any]]:
        """Each piece with its meta, as it comes; blocks in between. Ends when the log is closed, or when `end` is done."""
        position = 0
        while True:
            background.wait(self._after(position, end), "async for ... in state.text_async_iter()")
            for piece in self._from(position):
                position += 1
                yield piece
            if self._ended(position, end):
                return

    async def aread(self, end: Future[None] | None = None) -> AsyncIterator[tuple[str, Any]]:
        """`read` for coroutines, in any loop."""
        position = 0
        while True:
            await asyncio.wrap_future(self._after(position, end))
            for piece in self._from(position):
                position += 1
                yield piece
            if self._ended(position, end):
                return

    def _after(self, position: int, end: Future[None] | None) -> Future[None]:
        """Done when there is more than `position` pieces, or no more to come."""
        future: Future[None] = Future()
        with self._lock:
            if len(self._parts) > position or self._closed:
                future.set_result(None)
                return future
            self._waiting.append((position, future))
        if end is not None:
            end.add_done_callback(lambda _: give(future, None))
        return future

    def _from(self, position: int) -> list[tuple[str, Any]]:
        with self._lock:
            return self._parts[position:]

    def _ended(self, position: int, end: Future[None] | None) -> bool:
        is_last = end is not None and end.done()  # asked first: what comes before the end is in the parts by now
        with self._lock:
            if not (self._closed or is_last) or len(self._parts) > position:
                return False
        if self._fault is not None:
            raise self._fault.tell()
        return True

    def _wake(self) -> None:
        with self._lock:
            count, closed = len(self._parts), self._closed
            ready = [future for position, future in self._waiting if closed or count > position]
            self._waiting = [(p, f) for p, f in self._waiting if not (closed or count > p)]
        for future in ready:
            give(future, None)


class Variable:
    """One variable of a program. answers: the events that ended its call (several where n > 1), for meta and explain."""

    def __init__(self, name: str):
        self.name = name
        self.log = TextLog()
        self.answers: tuple[Finished, ...] | Scored | None = None
        self.meta: Any = None  # a dict; a list of them for n > 1 or a join
        self._future: Future[Any] = Future()
        self.fault: Fault | None = None
        self.is_open = False  # a scope whose end was not appended yet

    @classmethod
    def holding(cls, name: str, value: Any) -> Variable:
        """A variable that has its value already."""
        variable = cls(name)
        variable.set(value)
        return variable

    def set(self, value: Any) -> None:
        """The value is known; readers wake. Setting again changes nothing."""
        if isinstance(value, str) and not self.log.text():
            self.log.append(value)  # a scope, or a value that the program set: never streamed, but it has a text
        give(self._future, value)
        self.log.close()

    def fail(self, fault: Fault) -> None:
        """The value will never be known; readers raise the fault."""
        if not self._future.done():
            self.fault = fault
            give(self._future, None)
        self.log.close(fault)

    @property
    def done(self) -> bool:
        """Whether reading would return, or raise, at once."""
        return self._future.done()

    def value(self) -> Any:
        """The value, waited for. Raises the error of the call that failed."""
        value = background.wait(self._future, f'await s.get("{self.name}")')
        return self._told(value)

    async def avalue(self) -> Any:
        """`value` for coroutines, in any loop."""
        return self._told(await asyncio.shield(asyncio.wrap_future(self._future)))

    def _told(self, value: Any) -> Any:
        if self.fault is not None:
            raise self.fault.tell()
        return value

    def when_done(self, call: Callable[[], None]) -> None:
        """Call `call()` when the value is known or never will be: at once, or in the thread that sets it."""
        self._future.add_done_callback(lambda _: call())
