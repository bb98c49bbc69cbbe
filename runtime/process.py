"""The engine process: its entry (`python -m ramify.runtime.process`), and the parent's side that starts and watches it.

Two zmq ipc sockets in a private folder: requests to the engine, messages back. A crashed engine is started again
(after 1, 2, 4 s ...; five times in ten minutes, then the engine gives up) and its requests are run again (`streams.Pending`).
The child ends with its parent: the kernel signals it, and its standard input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from .config import EngineOptions, child_environment
from .protocol import Failure
from .wire import Close, Configure, Fatal, Inbound, Outbound, Ready, decode_inbound, decode_outbound, encode

MOST_CRASHES = 5
CRASH_WINDOW_S = 600.0


def back_off_s(crashes: int) -> float:
    """Seconds to wait before start number `crashes` + 1: 1, 2, 4 ... Pure."""
    return float(2 ** max(0, crashes - 1))


class ProcessLink:
    """The parent's side: starts the engine process, carries messages, starts it again when it is lost.

    deliver: called with messages. lost: called when the process died; returns what to send to the next one.
    """

    def __init__(
        self,
        options: EngineOptions,
        deliver: Callable[[list[Outbound]], None],
        lost: Callable[[str], list[Inbound]],
        loop: asyncio.AbstractEventLoop,
    ):
        self._options, self._deliver, self._lost = options, deliver, lost
        self._folder = Path(tempfile.mkdtemp(prefix="ramify-"))
        self._context = zmq.asyncio.Context()
        self._outbox: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._turns = False
        self.pid: int | None = None
        self._task = loop.create_task(self._supervise(), name="ramify-engine-supervisor")

    def post(self, message: Inbound) -> None:
        """A message for the engine. Never blocks; kept while the engine is being restarted.

        Encoded here, so that what cannot be (an integer beyond 64 bits: OverflowError) fails for who asked, and for nobody else.
        """
        self._outbox.append(encode(message))
        self._wake.set()

    async def close(self) -> None:
        """End the process, remove its folder. Waits at most a few seconds, and not at all while there is nobody to listen."""
        self._closing = True
        self.post(Close())
        if self._turns:
            with contextlib.suppress(asyncio.TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(self._task), 10)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._context.destroy(linger=0)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _supervise(self) -> None:
        crashes: deque[float] = deque()
        started = 0
        while True:
            started += 1
            try:
                reason, was_ready = await self._one_life(started)
            except (OSError, zmq.ZMQError) as error:  # no room for a process or for its sockets
                reason, was_ready = str(error), False
            if self._closing or reason is None:
                return
            now = time.monotonic()
            crashes.append(now)
            while crashes and now - crashes[0] > CRASH_WINDOW_S:
                crashes.popleft()
            if not was_ready or len(crashes) > MOST_CRASHES:
                text = f"The engine process was lost ({reason}), crash {len(crashes)} in ten minutes; it is not started again."
                self._deliver([Fatal(Failure("engine_unavailable", text))])
                return
            self._outbox = deque(encode(message) for message in self._lost(reason))
            await asyncio.sleep(back_off_s(len(crashes)))

    async def _one_life(self, number: int) -> tuple[str | None, bool]:
        """Run one engine process to its end. Returns why it ended (None: it could not start and said why), and whether it
        ever was ready."""
        inward, outward = (self._context.socket(kind) for kind in (zmq.PUSH, zmq.PULL))
        for socket in (inward, outward):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
        base = f"ipc://{self._folder}/{number}"
        inward.bind(base + ".in")
        outward.bind(base + ".out")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ramify.runtime.process", base, stdin=asyncio.subprocess.PIPE, env=child_environment()
        )
        self.pid = process.pid
        inward.send(encode(Configure(self._options)))
        state = {"ready": False, "fatal": False}
        tasks = [
            asyncio.create_task(self._forward(inward)),
            asyncio.create_task(self._backward(outward, state)),
        ]
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._drain(outward, state)
            inward.close()
            outward.close()
            self.pid, self._turns = None, False
        if state["fatal"]:
            return None, state["ready"]
        return describe_exit(code), state["ready"]

    async def _forward(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            while self._outbox:
                await socket.send(self._outbox.popleft())
            self._wake.clear()
            await self._wake.wait()

    async def _backward(self, socket: zmq.asyncio.Socket, state: dict[str, bool]) -> None:
        while True:
            self._hand_over(await socket.recv(), state)

    async def _drain(self, socket: zmq.asyncio.Socket, state: dict[str, bool]) -> None:
        """What the process had said before it ended."""
        with contextlib.suppress(zmq.ZMQError):
            while await socket.poll(0):
                self._hand_over(await socket.recv(), state)

    def _hand_over(self, frame: bytes, state: dict[str, bool]) -> None:
        try:
            messages = decode_outbound(frame)
        except msgspec.DecodeError:
            return  # not from our engine: no frame of ours fails to decode
        state["ready"] |= any(isinstance(m, Ready) for m in messages)
        state["fatal"] |= any(isinstance(m, Fatal) for m in messages)
        self._turns |= state["ready"]
        try:
            self._deliver(messages)
        except Exception as error:  # whatever a frame says, the next one is read
            said = {"message": "A frame of the engine could not be used.", "exception": error}
            asyncio.get_running_loop().call_exception_handler(said)


def describe_exit(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"exit status {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


# ------------------------------------------------------------------------------------------------------------ the child


class SocketMailbox:
    """The engine process's side of the two sockets. Frames that are not messages are dropped and counted."""

    def __init__(self, base: str):
        self._context = zmq.Context()
        self._in = self._context.socket(zmq.PULL)
        self._out = self._context.socket(zmq.PUSH)
        for socket in (self._in, self._out):
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.LINGER, 2000)
        self._in.connect(base + ".in")
        self._out.connect(base + ".out")
        self._posted: deque[Inbound] = deque()
        self._woken, self._wake = os.pipe()  # as long as the process: a thread may post until its end
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._poller = zmq.Poller()
        for source in (self._in, self._woken):
            self._poller.register(source, zmq.POLLIN)
        self.rejected = 0
        self.early: list[Inbound] = []
        """Messages that came with the configuration, to be received first."""

    def receive(self, timeout_s: float | None) -> list[Inbound]:
        """See `loop.Mailbox`."""
        messages, self.early = self.early, []
        if not messages and timeout_s != 0:
            ready = dict(self._poller.poll(None if timeout_s is None else int(timeout_s * 1000)))
            if self._woken in ready:
                os.read(self._woken, 4096)
        while self._posted:
            messages.append(self._posted.popleft())
        while self._in.poll(0):
            try:
                messages.append(decode_inbound(self._in.recv(zmq.NOBLOCK)))
            except msgspec.DecodeError:
                self.rejected += 1
        return messages

    def post(self, message: Inbound) -> None:
        """See `loop.Mailbox`."""
        self._posted.append(message)
        with contextlib.suppress(BlockingIOError):  # the pipe is full: it wakes anyway
            os.write(self._wake, b"\0")

    def send(self, messages: list[Outbound]) -> None:
        """See `loop.Mailbox`."""
        self._out.send(encode(messages))

    def close(self) -> None:
        """Send what is left, then let go."""
        self._in.close(0)
        self._out.close()
        self._context.term()


def _end_with_parent() -> None:
    """Die when the parent does: by the kernel's signal on Linux, and by the end of standard input everywhere."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)

    def watch() -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 4096):
                pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="ramify-parent-watch").start()


def main(arguments: list[str]) -> int:
    """Serve one engine over the sockets at `arguments[0]` until told to close."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes us
    _end_with_parent()
    mailbox = SocketMailbox(arguments[0])
    first = mailbox.receive(60)
    if not first or not isinstance(first[0], Configure):
        return 2
    from . import loop

    mailbox.early = first[1:]
    loop.run(first[0].options, mailbox)
    mailbox.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
