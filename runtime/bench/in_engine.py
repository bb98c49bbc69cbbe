"""How a benchmark of kernels runs: as an engine process does, with its environment, its threads and the C++ kernels loaded."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import torch

from ...kernels import native
from ..config import child_environment, kernel_cache


def as_an_engine(
    parser: argparse.ArgumentParser, argv: Sequence[str], module: str, run: Callable[[argparse.Namespace], int]
) -> int:
    """Calls `run` with the arguments, in a new process that runs `module` unless `--here` is among them. Returns its status,
    or 1, having said why, where there are no C++ kernels. Adds --threads and --here to the parser; sets torch's threads."""
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--here", action="store_true", help="in this process, whatever its environment")
    said = parser.parse_args(argv)
    if not said.here:
        return subprocess.run([sys.executable, "-m", module, *argv, "--here"], env=child_environment(), check=False).returncode
    loaded = native.load(kernel_cache())
    print(loaded.reason)
    if not loaded.available:
        return 1
    torch.set_num_threads(said.threads)
    return run(said)
