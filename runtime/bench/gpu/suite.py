"""All scenarios of a GPU, each in a process of its own under a time limit: `ramify bench --suite gpu [NAME ...]`.

A kernel's mistake can leave a process without its device; what others found is on disk by then. Arguments behind the names go to
every scenario (`ramify bench --suite gpu g2 --help` shows them).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ...console import heading


@dataclass(frozen=True)
class Scenario:
    """module: of this package. limit_s: seconds after which it is ended, and by when it begins nothing new."""

    module: str
    limit_s: float
    arguments: tuple[str, ...] = ()


SCENARIOS = {
    "g1": Scenario("offline", 75),
    "g1-8b": Scenario("offline", 100, ("--shape", "Qwen3-8B", "--name", "g1-8b")),
    "g1-peer": Scenario("peer", 70),
    "g2": Scenario("steps", 60),
    "g2-8b": Scenario("steps", 60, ("--shape", "Qwen3-8B", "--name", "g2-8b")),
    "g3": Scenario("trees", 60),
    "g4": Scenario("grammars", 60),
    "g5": Scenario("online", 90),
}
DEFAULT = tuple(SCENARIOS)
STARTING_S = 15
"""Of a scenario's time limit, what is left for its start and its end."""


def run_one(name: str, arguments: list[str], limit_s: float) -> str:
    """Run it in a session of its own, which is ended with all that it started. Returns "" or what went wrong."""
    chosen = SCENARIOS[name]
    command = [sys.executable, "-u", "-m", f"{__package__}.{chosen.module}", *chosen.arguments]
    command += ["--seconds", str(max(1.0, limit_s - STARTING_S)), *arguments]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends, too
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait(limit_s)
        return f"ended with status {status}" if status else ""
    except subprocess.TimeoutExpired:
        return f"took more than {limit_s:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(argv: list[str]) -> int:
    """Run those named, or all; 1 where one failed. Their tables and JSON lines are their own output."""
    parser = argparse.ArgumentParser(prog="ramify bench --suite gpu", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--limit", type=float, default=None, metavar="SECONDS", help="of each, in place of its own")
    parser.add_argument("--out", type=Path, default=None, help="a folder for NAME.json")
    said, rest = parser.parse_known_args(argv)
    unknown = [name for name in said.names if name not in SCENARIOS]
    if unknown:
        parser.error(f"there is no scenario {unknown[0]!r}; known: {', '.join(SCENARIOS)}")
    names = said.names or DEFAULT
    if "--quick" in rest:  # a tiny model has one size
        names = [name for name in names if not SCENARIOS[name].arguments] or names
    kept = [] if said.out is None else ["--out", str(said.out)]
    failed = {}
    for name in names:
        heading(name)
        began = time.monotonic()
        why = run_one(name, [*rest, *kept], said.limit or SCENARIOS[name].limit_s)
        if why:
            failed[name] = why
        print(f"{name}: {why or 'done'} after {time.monotonic() - began:.1f} s", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
