"""A server as users start it, for tests that harm it: everything that it starts or leaves behind can be counted."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WAIT_S = 240.0
"""For what must come, on a machine that has much else to do."""


class Served:
    """`ramify serve` with the bundled model. tmp: the only folder in which it may put anything. log: its stdout and stderr."""

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever happened, it runs no longer."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def __init__(self, root: Path, *flags: str, limit_files: int | None = None, kv_tokens: int = 20_000):
        self.tmp, self.log = root / "tmp", root / "log"
        self.tmp.mkdir(parents=True)
        self.port = free_port()
        command = [sys.executable, "-m", "ramify.runtime.cli", "serve", *flags, "--port", str(self.port)]
        command += ["--kv-tokens", str(kv_tokens), "--threads", "1"]
        if limit_files is not None:
            command = ["sh", "-c", f'ulimit -n {limit_files} && exec "$@"', "sh", *command]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAMIFY_")}
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**clean, "TMPDIR": str(self.tmp), "PYTHONSAFEPATH": "1"},
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def logged(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def last_words(self) -> str:
        return self.logged()[-4000:]

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a GET; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=WAIT_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return 0, None

    def info(self) -> dict[str, Any]:
        status, said = self.get("/server_info")
        assert status == 200, said
        return said

    def engine_pid(self) -> int:
        return self.info()["pid"]

    def ready(self) -> Served:
        """Wait until it serves."""
        self.until(lambda: self.get("/ready")[0] == 200, "ready")
        return self

    def until(self, holds: Any, what: str, *, every_s: float = 0.02, timeout_s: float = WAIT_S) -> None:
        """Wait for something to hold while the server runs."""
        end = time.monotonic() + timeout_s
        while not holds():
            assert self.process.poll() is None, f"The server ended with {self.process.returncode}:\n{self.last_words()}"
            assert time.monotonic() < end, f"Not {what} after {timeout_s:g} s:\n{self.last_words()}"
            time.sleep(every_s)

    def is_idle(self) -> bool:
        """Whether nobody holds or waits for anything."""
        said = self.info()
        cache, scheduler = said["cache"], said["scheduler"]
        held = (cache["leases"], cache["private"], cache["draining"], said["requests"])
        counts = (scheduler["requests"], scheduler["running"], scheduler["waiting"])
        return not any(held) and not any(counts) and cache["free"] + cache["cached"] == cache["total"]

    def children(self) -> set[int]:
        """All processes below this one, as they are now."""
        return descendants(self.process.pid)

    def end(self, number: int = signal.SIGTERM, timeout_s: float = WAIT_S) -> int:
        """Send a signal and wait for the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)


@contextlib.contextmanager
def served(root: Path, *flags: str, status: int | None = 0, **more: Any) -> Iterator[Served]:
    """A server that is ready; afterwards it must end with `status` (None: the block has ended it), and leave nothing behind."""
    with Served(root, *flags, **more) as running:
        children = running.ready().children()
        yield running
        children |= running.children()
        found = running.end() if status is not None else running.process.wait(WAIT_S)
        assert status is None or found == status, f"exit status {found}:\n{running.last_words()}"
    assert_nothing_left(running, children)


def assert_nothing_left(running: Served, children: set[int]) -> None:
    """No process, no folder and no listener of a server that has ended."""
    end = time.monotonic() + 10
    while (left := {pid for pid in children if is_alive(pid)}) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left, f"{left} are still there"
    assert list(running.tmp.iterdir()) == [], "something stayed in the folder for temporary files"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", running.port)) != 0, "somebody still listens"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> set[int]:
    """Processes below one, from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, level = set(), {pid}
    while level := {child for child, parent in parents.items() if parent in level} - found:
        found |= level
    return found


def rss_bytes(pid: int) -> int:
    """Memory that is resident now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def num_files(pid: int) -> int:
    """Open descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
