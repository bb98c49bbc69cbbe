"""A server of one's own: `Runtime` starts `ramify serve` as a child process, speaks to it, and ends it.

Beside an Engine it has an address, so that other programs and OpenAI's client can use the same model and the same cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ...runtime.config import EngineOptions, child_environment
from ...runtime.errors import EngineError, InvalidRequest, RamifyError
from .. import background
from .caller import Caller
from .endpoint import RuntimeEndpoint
from .engine import check_serve_extra

POLL_S = 0.05
TAIL_LINES = 40
ORDERLY_S, ABRUPT_S = 5.0, 5.0  # until requests in flight are broken off; until the process is
TRIES = 3  # ports, where the one that was free is taken before the child has it


class Runtime(Caller):
    """A server that runs here: `with Runtime("path/or/hub-id") as runtime:` or `set_default_backend(Runtime())`.

    model_path: checkpoint folder or hub id; None is the bundled model (model is another name for it). port: None takes a
    free one. options: the flags of `ramify serve` with underscores (`kv_tokens=8192`, `log_level="warning"`); True and False
    are --flag and --no-flag, a list is a flag that is repeated. api_key: one that the server then asks of everybody.
    launch_timeout_s: how long it may take until it serves.

    url: its address. endpoint, backend: the RuntimeEndpoint that speaks to it. The server ends with `shutdown`, and with this
    process in any case. Raises RamifyError with what the server said where it does not start.
    """

    def __init__(
        self,
        model_path: str | None = None,
        *,
        model: str | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        api_key: str | None = None,
        launch_timeout_s: float = 600.0,
        **options: Any,
    ):
        if model is not None and model_path is not None:
            raise InvalidRequest("model and model_path are two names of one argument. Give one.", param="model_path")
        check_serve_extra()
        if port is not None and not is_free(host, port):
            raise InvalidRequest(f"Port {port} of {host} is in use. Give another one, or none.", code="port_in_use", param="port")
        flags = flags_of(options)
        for tried in range(1, TRIES + 1):
            number = free_port(host) if port is None else port
            self.url = f"http://{reachable(host)}:{number}"
            where = ("--host", host, "--port", str(number))
            command = serve_command(model_path if model is None else model, *where, *flags)
            self._process = ServerProcess(command, self.url, {"RAMIFY_API_KEY": api_key} if api_key else {})
            try:
                background.run(self._process.start(launch_timeout_s), "Runtime(...) outside of the async program")
                break
            except RamifyError:
                if port is not None or tried == TRIES or is_free(host, number):
                    raise
        self.port = number
        self.endpoint = self.backend = RuntimeEndpoint(self.url, api_key)

    @property
    def pid(self) -> int | None:
        """The server's process, None once it has ended."""
        return self._process.pid

    def shutdown(self) -> None:
        """Stop the server: what is in flight has a few seconds to end. Again, it changes nothing."""
        super().shutdown()
        background.run(self._process.stop(), "runtime.shutdown() outside of the async program")


class ServerProcess:
    """A child that serves HTTP. Lives on the background loop, whose thread lasts as long as this process: the kernel tells
    the child when the thread that started it ends."""

    def __init__(self, command: Sequence[str], url: str, environment: Mapping[str, str]):
        self._command, self._url = tuple(command), url
        self._environment = {**child_environment(), **environment}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    async def start(self, timeout_s: float) -> None:
        """Start it and wait until GET /ready answers 200. Raises InvalidRequest or EngineError with what it said if it ends
        before that, or takes longer than timeout_s; then nothing is left of it."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=asyncio.subprocess.DEVNULL, stderr=pipe, env=self._environment
        )
        self._reader = asyncio.create_task(self._read_errors())
        background.at_exit(self.stop, ORDERLY_S + ABRUPT_S)
        try:
            await self._until_ready(timeout_s)
        except BaseException:
            await self.stop(orderly=False)
            raise

    async def _until_ready(self, timeout_s: float) -> None:
        import aiohttp

        assert self._process is not None and self._reader is not None
        until = time.monotonic() + timeout_s
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            while True:
                if self._process.returncode is not None:
                    await self._reader
                    raise start_error(self._process.returncode, list(self._tail))
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(self._url + "/ready") as answer:
                        if answer.status == 200 and self._process.returncode is None:
                            return
                if time.monotonic() > until:
                    said = "\n".join(self._tail) or "It has said nothing."
                    raise EngineError(f"The server was not ready after {timeout_s:g} s. Raise launch_timeout_s.\n{said}")
                await asyncio.sleep(POLL_S)

    async def _read_errors(self) -> None:
        """Its standard error, of which the end is kept."""
        assert self._process is not None and self._process.stderr is not None
        text = b""
        while chunk := await self._process.stderr.read(1 << 16):
            *lines, text = (text + chunk).split(b"\n")
            self._tail.extend(line.decode("utf-8", "replace") for line in lines)
            text = text[-4096:]
        if text:
            self._tail.append(text.decode("utf-8", "replace"))

    async def stop(self, *, orderly: bool = True) -> None:
        """End it: by SIGTERM, then by closing its standard input (the second signal), then by force. Again: nothing."""
        process = self._process
        if process is None or self._reader is None or process.stdin is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if orderly and process.returncode is None:
                process.send_signal(signal.SIGTERM)
                await _ended(process, ORDERLY_S)
            process.stdin.close()
            if orderly and process.returncode is None:
                await _ended(process, ABRUPT_S)
            if process.returncode is None:
                process.kill()
        await process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


async def _ended(process: asyncio.subprocess.Process, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), seconds)


# --------------------------------------------------------------------------------------------------------------- pure


def serve_command(model: str | None, *flags: str) -> list[str]:
    """The command line of the child."""
    command = [sys.executable, "-m", "ramify.runtime.cli", "serve", *([] if model is None else [model])]
    return [*command, "--end-with-parent", *flags]


def flags_of(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line. What an engine does by itself is not said; None is the default."""
    words = []
    defaults = {field: getattr(EngineOptions(), field) for field in EngineOptions.__struct_fields__}
    for name, value in options.items():
        flag = name.replace("_", "-")
        if value is None or (name in defaults and value == defaults[name]):
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            for one in value if isinstance(value, list | tuple) else (value,):
                words.append(f"--{flag}={one}")  # one word, so that a value may begin with a dash
    return words


def start_error(status: int, said: list[str]) -> RamifyError:
    """Why a server has not started: its own line where the user can do something about it (exit status 2), else all it said."""
    prefix = "ramify serve: "
    own = [line.removeprefix(prefix) for line in said if line.startswith(prefix)]
    if status == 2:
        return InvalidRequest("\n".join(own[-1:] or said[-3:]) or "The server refused its arguments.", code="not_started")
    told = "\n".join(own[-1:] or said) or "It said nothing."
    return EngineError(f"The server ended with status {status} before it was ready.\n{told}")


def reachable(host: str) -> str:
    """An address by which a server that listens at `host` can be reached from here."""
    named = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{named}]" if ":" in named else named


# ------------------------------------------------------------------------------------------------------------- sockets


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host: str) -> int:
    """A port that nobody has; somebody else may take it before it is used."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
