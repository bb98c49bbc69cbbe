"""`ramify serve` as a process of a benchmark."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..config import child_environment


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[tuple[int, int]]:
    """Its pid and port, once it is ready; ended on leaving. Raises RuntimeError where it does not become ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (sys.executable, "-m", "ramify.runtime.cli", "serve", *arguments, "--port", str(port), "--log-level", "warning")
    process = await asyncio.create_subprocess_exec(
        *command, env=child_environment(), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            if process.returncode is not None:
                raise RuntimeError(f"`ramify serve {' '.join(arguments)}` ended with status {process.returncode}")
            if await status(port) == 200:
                break
            await asyncio.sleep(0.2)
        else:
            raise RuntimeError("the server did not become ready in two minutes")
        yield process.pid, port
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await process.wait()


async def status(port: int) -> int:
    """The status of GET /ready, 0 where nobody listens."""
    try:
        return int((await exchange(port, b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).split(b" ", 2)[1])
    except OSError:
        return 0


async def exchange(port: int, request: bytes) -> bytes:
    """Send, and read to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
