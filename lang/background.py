"""The one background thread whose asyncio loop carries all I/O of all programs, so that they work in scripts and notebooks.

Started at first use, a daemon; nothing waits for it at exit except what was given to `at_exit`.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from ..runtime.errors import InvalidRequest

T = TypeVar("T")
_lock = threading.Lock()
_current: tuple[int, asyncio.AbstractEventLoop, threading.Thread] | None = None
_END: Any = object()


def loop() -> asyncio.AbstractEventLoop:
    """The background loop, started if it does not run yet (or ran in the parent of this forked process)."""
    global _current
    with _lock:
        if _current is None or _current[0] != os.getpid():
            fresh = asyncio.new_event_loop()
            thread = threading.Thread(target=fresh.run_forever, name="ramify-io", daemon=True)
            thread.start()
            _current = (os.getpid(), fresh, thread)
        return _current[1]


def is_here() -> bool:
    """Whether the caller runs on the background thread, where waiting would stop everything it waits for."""
    return _current is not None and _current[0] == os.getpid() and threading.current_thread() is _current[2]


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the background loop; the future may be waited for in any other thread."""
    return asyncio.run_coroutine_threadsafe(work, loop())


def wait(future: Future[T], instead: str) -> T:
    """Block until `future` is done. Raises InvalidRequest on the background thread; `instead` says what to write there."""
    if not future.done() and is_here():
        raise InvalidRequest(f"This would block the loop that an async program runs on. Write {instead}.", code="would_block")
    return future.result()


def run(work: Coroutine[Any, Any, T], instead: str) -> T:
    """Run a coroutine on the background loop and block for its result. Interrupted, it cancels the coroutine."""
    if is_here():
        work.close()
        raise InvalidRequest(f"This would block the loop that an async program runs on. Write {instead}.", code="would_block")
    future = submit(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def at_exit(close: Callable[[], Coroutine[Any, Any, None]], timeout_s: float = 5.0) -> None:
    """Run `close()` on the background loop when Python exits, for at most `timeout_s` seconds."""
    pid = os.getpid()

    def closing() -> None:
        if os.getpid() == pid and _current is not None and _current[2].is_alive():
            future = submit(close())
            try:
                future.result(timeout_s)
            except Exception:  # at exit nobody is left to tell
                future.cancel()

    atexit.register(closing)


def iterate(items: AsyncGenerator[T, None]) -> Iterator[T]:
    """An asynchronous generator, run on the background loop, for a thread. Left early, it is closed."""
    try:
        while (item := run(_next(items), "async for ... in the method's async twin")) is not _END:
            yield item
    finally:
        submit(_close(items))


async def aiterate(items: AsyncGenerator[T, None]) -> AsyncIterator[T]:
    """An asynchronous generator, run on the background loop, for a coroutine in any loop. Left early, it is closed."""
    try:
        while (item := await asyncio.wrap_future(submit(_next(items)))) is not _END:
            yield item
    finally:
        submit(_close(items))


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items, _END)


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()
