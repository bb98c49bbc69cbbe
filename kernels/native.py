"""The C++ of `kernels/cpp`, loaded as torch.ops.ramify: compiled on first use into a cache folder, or ahead of time into a wheel.

One binary serves every CPU of an architecture (it chooses its instructions when it runs) and every torch from 2.10 on. Where
there is neither binary nor compiler the references are used. `python -m ramify.kernels.native` compiles ahead of time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

SOURCES = Path(__file__).resolve().parent / "cpp"
AHEAD = SOURCES.with_name("prebuilt")
"""Where a wheel has its binary."""
LEVELS = 4
"""Sets of instructions; a unit named *_level.cpp is compiled once for each, with RAMIFY_LEVEL=0, 1, ..."""
COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-pthread", "-fvisibility=hidden", "-fno-strict-aliasing", "-w"),
    "-ffp-contract=off",  # a product and a sum are fused where the source says so, and nowhere else
    "-DTORCH_TARGET_VERSION=0x020a000000000000",  # the stable ABI of torch 2.10
)
COMPILE_TIMEOUT_S = 300


@dataclass(frozen=True)
class Native:
    """Whether torch.ops.ramify is there, and why or where from: a line for people."""

    available: bool
    reason: str


class BuildError(Exception):
    """There is no binary, for the reason given."""


def find_compiler(path: str | None = None) -> str | None:
    """The system's C++ compiler. path: folders to search, by default those of the environment."""
    return next((found for name in COMPILERS if (found := shutil.which(name, path=path))), None)


NONE = Native(False, "not asked for")
"""For who wants the references."""


def load(folder: Path, compiling: Callable[[], None] = lambda: None) -> Native:
    """Loads the operations, once a process; compiles them if `folder` has no binary, after a call of `compiling`.

    Raises nothing: where they cannot be had, the reason says why.
    """
    global _loaded
    if _loaded is None:
        try:
            ahead = AHEAD / f"ramify-{_key()}.so"
            library = ahead if ahead.is_file() else build(folder, find_compiler(), compiling)
            torch.ops.load_library(library)
        except (BuildError, OSError, RuntimeError) as error:
            return Native(False, str(error))
        _loaded = Native(True, str(library))
    return _loaded


_loaded: Native | None = None  # an operation can be registered once a process


def build(folder: Path, compiler: str | None, compiling: Callable[[], None] = lambda: None) -> Path:
    """The binary of these sources for this torch in `folder`, compiled if it is not there; other processes wait for it.

    Raises BuildError where there is no compiler or it fails, OSError where the folder cannot be written.
    """
    if compiler is None:
        raise BuildError(f"there is no C++ compiler ({', '.join(COMPILERS)})")
    library = folder / f"ramify-{_key(torch.__version__, compiler, str(os.stat(compiler).st_mtime_ns))}.so"
    if library.is_file():
        return library
    compiling()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.is_file():
            _compile(compiler, library)
    return library


def _compile(compiler: str, library: Path) -> None:
    """Writes `library` whole or not at all; units are compiled side by side. Raises BuildError with the first complaint."""
    root = Path(torch.__file__).resolve().parent
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        folder = Path(scratch)
        commands = [
            [compiler, *FLAGS, *defines, f"-I{root / 'include'}", "-c", str(source), "-o", str(folder / f"{number}.o")]
            for number, (source, defines) in enumerate(_units())
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        objects = [command[-1] for command in commands]
        made = folder / library.name
        _run([compiler, *FLAGS, "-shared", *objects, "-o", str(made), f"-L{root / 'lib'}", "-ltorch_cpu"])
        os.replace(made, library)


def _units() -> list[tuple[Path, list[str]]]:
    """What is compiled: a source and its macros. The largest come first, so that no core waits for one at the end."""
    units: list[tuple[Path, list[str]]] = []
    for source in sorted(SOURCES.glob("*.cpp"), key=lambda path: not path.stem.endswith("_level")):
        levels = reversed(range(LEVELS)) if source.stem.endswith("_level") else ()
        units += [(source, [f"-DRAMIFY_LEVEL={level}"]) for level in levels] or [(source, [])]
    return units


def _run(command: list[str]) -> None:
    """Raises BuildError with the compiler's first complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took more than {COMPILE_TIMEOUT_S} s") from error
    if done.returncode != 0:
        lines = done.stderr.splitlines()
        complaint = next((line for line in lines if "error" in line), lines[0] if lines else f"status {done.returncode}")
        raise BuildError(f"{command[0]} failed: {complaint}")


def _key(*more: str) -> str:
    """Names a binary: another source, flag or architecture makes another, or whatever `more` says."""
    digest = hashlib.sha256()
    for part in (*FLAGS, platform.machine(), *more):
        digest.update(part.encode() + b"\0")
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:20]


def main() -> int:
    """Compiles ahead of time, into the package itself. Prints where to; returns 1, with the reason on stderr, where it cannot."""
    compiler, library = find_compiler(), AHEAD / f"ramify-{_key()}.so"
    try:
        if compiler is None:
            raise BuildError(f"there is no C++ compiler ({', '.join(COMPILERS)})")
        shutil.rmtree(AHEAD, ignore_errors=True)
        AHEAD.mkdir(parents=True)
        _compile(compiler, library)
    except (BuildError, OSError) as error:
        print(f"The CPU kernels were not compiled: {error}", file=sys.stderr)
        return 1
    print(library)
    return 0


if __name__ == "__main__":
    sys.exit(main())
