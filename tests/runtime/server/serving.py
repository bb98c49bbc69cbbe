"""`ramify serve` as a child process: started, asked, stopped in order."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
SMALL = ("--kv-tokens", "20000", "--threads", "1")
START_S = 120.0


@dataclass
class RunningServer:
    """One `ramify serve`. log: the file that holds its stderr and stdout. pid: of the HTTP process."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def logged(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def status_of(self, path: str) -> int:
        """The status of a GET, 0 where nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def server_info(self) -> dict[str, object]:
        with urllib.request.urlopen(self.url + "/server_info", timeout=10) as answer:
            return json.load(answer)

    def wait_until_ready(self, timeout_s: float = START_S) -> None:
        end = time.monotonic() + timeout_s
        while self.status_of("/ready") != 200:
            assert self.process.poll() is None, f"The server ended while it started:\n{self.logged()}"
            assert time.monotonic() < end, f"The server is not ready after {timeout_s:g} s:\n{self.logged()}"
            time.sleep(0.05)

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


Starter = Callable[..., RunningServer]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def start_server(log: Path, *flags: str, engine: tuple[str, ...] = SMALL) -> RunningServer:
    """`ramify serve` on a free port, not yet ready. flags: beside the port and `engine`."""
    port = free_port()
    command = [sys.executable, "-m", "ramify.runtime.cli", "serve", "--port", str(port), *engine, *flags]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAMIFY_")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=ROOT, env={**clean, "PYTHONSAFEPATH": "1"}
        )
    return RunningServer(port, process, log)


@contextlib.contextmanager
def serving(log: Path, *flags: str, engine: tuple[str, ...] = SMALL, ready: bool = True) -> Iterator[RunningServer]:
    """A server until the block ends; then it must end in order, with status 0."""
    running = start_server(log, *flags, engine=engine)
    try:
        if ready:
            running.wait_until_ready()
        yield running
    except BaseException:
        running.process.kill()
        running.process.wait()
        raise
    else:
        status = running.stop()
        assert status == 0, f"The server ended with status {status}:\n{running.logged()}"
