"""The loop that turns the engine: messages in, one step, messages out, and a wait when there is nothing to do.

The same loop runs in the engine process (fed by zmq) and on a thread of the caller's process (fed by `ThreadLink`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from .assemble import assemble
from .config import EngineOptions
from .engine import Engine
from .errors import RamifyError
from .protocol import Failure
from .wire import Answer, Ask, Close, EngineInfo, Fatal, Heartbeat, Inbound, Loading, Outbound, Ready

HEARTBEAT_S = 1.0
DEADLINE_S = 0.05
"""While all requests wait for their grammars: how late a deadline may be noticed."""


class Mailbox(Protocol):
    """Where the loop's messages come from and go to."""

    def receive(self, timeout_s: float | None) -> list[Inbound]:
        """All messages that are there; waits up to timeout_s for the first one (None: for ever, 0: not at all)."""
        ...

    def send(self, messages: list[Outbound]) -> None:
        """Messages to the text side."""
        ...

    def post(self, message: Inbound) -> None:
        """A message from another thread of this process, to be received here as any other."""
        ...


def run(options: EngineOptions, mailbox: Mailbox) -> None:
    """Load an engine and turn it until `Close` arrives. Start-up errors leave as `Fatal`; nothing is raised."""
    try:
        engine, info = assemble(options, lambda phase, share: mailbox.send([Loading(phase, share)]), mailbox.post)
    except RamifyError as error:
        mailbox.send([Fatal(Failure(error.code, error.message, error.param))])
        return
    except Exception as error:  # whatever loading may raise must reach the one who waits for it
        mailbox.send([Fatal(Failure("internal_error", f"The engine could not start: {type(error).__name__}: {error}"))])
        return
    mailbox.send([Ready(info)])
    try:
        _turn(engine, info, mailbox)
    finally:
        engine.close()


def _turn(engine: Engine, info: EngineInfo, mailbox: Mailbox) -> None:
    beaten = time.monotonic()
    while True:
        inbox = mailbox.receive(HEARTBEAT_S if engine.idle else DEADLINE_S if engine.awaits_grammars else 0)
        work = [m for m in inbox if not isinstance(m, Ask | Close)]
        messages = engine.step(work) if work or not engine.idle else []
        asks = [m for m in inbox if isinstance(m, Ask)]
        if asks:
            messages += engine.settle_until(0)  # a control request is a barrier: no step is in flight
            messages += [answer(engine, info, m) for m in asks]
        now = time.monotonic()
        if now - beaten >= HEARTBEAT_S:
            beaten = now
            scheduler = engine.scheduler
            messages.append(Heartbeat(engine.steps, scheduler.rows.num_running, scheduler.num_waiting))
        if messages:
            mailbox.send(messages)
        if any(isinstance(m, Close) for m in inbox):
            return


def answer(engine: Engine, info: EngineInfo, ask: Ask) -> Answer:
    """Answer a control request. No step is in flight meanwhile."""
    cache = engine.scheduler.cache
    if ask.what == "info":
        body: object = info
    elif ask.what == "stats":
        body = {"cache": cache.stats(), "scheduler": engine.scheduler.stats(), "steps": engine.steps}
    elif ask.what == "tree":
        body = cache.tree()
    elif ask.what == "flush":
        body = {"tokens": engine.flush()}
    elif ask.what == "check":
        engine.scheduler.check()
        body = {"ok": True}
    else:
        body = {"error": f"{ask.what!r} is not known"}
    return Answer(ask.token, msgspec.json.encode(body))


class ThreadLink:
    """An engine on a thread of this process: for tests and debugging. Messages pass as objects, unencoded.

    deliver: called on `loop` with each batch of messages.
    """

    def __init__(self, options: EngineOptions, deliver: Callable[[list[Outbound]], None], loop: asyncio.AbstractEventLoop):
        self._deliver, self._loop = deliver, loop
        self._inbox: queue.SimpleQueue[Inbound] = queue.SimpleQueue()
        self._thread = threading.Thread(target=run, args=(options, self), name="ramify-engine", daemon=True)
        self._thread.start()

    def receive(self, timeout_s: float | None) -> list[Inbound]:
        """See Mailbox."""
        messages: list[Inbound] = []
        try:
            messages.append(self._inbox.get(timeout=timeout_s) if timeout_s != 0 else self._inbox.get_nowait())
            while True:
                messages.append(self._inbox.get_nowait())
        except queue.Empty:
            return messages

    def send(self, messages: list[Outbound]) -> None:
        """See Mailbox."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, messages)

    def post(self, message: Inbound) -> None:
        """A message for the engine. Never blocks."""
        self._inbox.put(message)

    async def close(self) -> None:
        """End the thread after its current step."""
        self._inbox.put(Close())
        await asyncio.to_thread(self._thread.join, 10)
