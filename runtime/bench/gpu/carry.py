"""Makes the folder of what a machine with a GPU needs and cannot fetch: `python -m ramify.runtime.bench.gpu.carry FOLDER`
(`make gpu-carry`).

Such a machine is taken to have Python 3.12 on x86-64 Linux, torch, Triton, transformers and pytest, and no way to a package
registry. Into the folder go the wheels of what it lacks, in the versions of constraints.txt, the trained tokenizers of the
benchmarks' models (`checkpoints.tokenizer_file`), whose training takes a minute, and the C++ kernels compiled ahead of time, by
which results are checked there.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ....kernels import native
from ..checkpoints import LARGE_VOCABULARY, TOKENIZER_SIZE, tokenizer_file

ROOT = Path(__file__).parents[3]
PYTHON = "3.12"
MOST_BYTES = 40 << 20
"""That the folder may hold: what travels to such a machine is limited."""
RUNNING = (
    "aiohappyeyeballs aiohttp aiosignal apache-tvm-ffi frozenlist google-re2 jsonschema_rs llguidance msgspec multidict "
    "propcache pyzmq xgrammar yarl annotated-types pydantic pydantic_core typing_extensions typing-inspection"
).split()
"""Of ramify[serve] and what it needs in turn, less torch and what comes with it. aiohttp may be there, but older."""
TESTING = (
    "execnet hypothesis hypothesis-jsonschema iniconfig jsonschema jsonschema-specifications pluggy pytest pytest-asyncio "
    "pytest-timeout pytest-xdist referencing rpds-py sortedcontainers"
).split()
PLATFORMS = ("2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
"""Versions of glibc that wheels name, each of which pip must be told."""


def requirements(constraints: str, names: Sequence[str]) -> list[str]:
    """`name==version` of each name, as constraints.txt pins it. Raises LookupError for a name it lacks. Pure."""
    lines = [line.strip() for line in constraints.splitlines() if "==" in line and not line.startswith("#")]
    pinned = {plain(line.partition("==")[0]): line for line in lines}
    missing = [name for name in names if plain(name) not in pinned]
    if missing:
        raise LookupError(f"constraints.txt does not pin {', '.join(missing)}.")
    return [pinned[plain(name)] for name in names]


def plain(name: str) -> str:
    """A package's name as registries compare it. Pure."""
    return re.sub(r"[-_.]+", "-", name).lower()


def download(wheels: list[str], folder: Path) -> None:
    """Fetch exactly these, from whatever index pip is set up for, for the machine that is meant. Raises CalledProcessError."""
    meant = ["--python-version", PYTHON, "--implementation", "cp"]
    for version in PLATFORMS:
        meant += ["--platform", f"manylinux_{version}_x86_64"]
    meant += ["--platform", "manylinux2014_x86_64", "--platform", "manylinux1_x86_64"]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
    subprocess.run([*pip, "--no-deps", "--only-binary=:all:", *meant, "-d", str(folder), *wheels], check=True)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main(argv: list[str]) -> int:
    """Make the folder anew; 1 where it grew too large."""
    parser = argparse.ArgumentParser(prog="make gpu-carry", description=__doc__)
    parser.add_argument("place", type=Path, nargs="?", default=Path("build/gpu-carry"))
    kept = Path(tempfile.gettempdir()) / "ramify-bench"
    parser.add_argument("--folder", type=Path, default=kept, help="of checkpoints, where trained tokenizers are kept")
    said = parser.parse_args(argv)
    wanted = requirements((ROOT / "constraints.txt").read_text(encoding="utf-8"), RUNNING + TESTING)
    unfinished = said.place.with_name(f"{said.place.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    print(f"{len(wanted)} wheels for Python {PYTHON}", flush=True)
    download(wanted, unfinished / "wheels")
    said.folder.mkdir(parents=True, exist_ok=True)
    for tokens in (TOKENIZER_SIZE, LARGE_VOCABULARY):
        print(f"the tokenizer of {tokens} tokens", flush=True)
        trained = tokenizer_file(tokens, said.folder)
        shutil.copyfile(trained, unfinished / trained.name)
    print("the C++ kernels", flush=True)
    if native.main() == 0:
        shutil.copytree(native.AHEAD, unfinished / "prebuilt")
        shutil.rmtree(native.AHEAD)
    shutil.rmtree(said.place, ignore_errors=True)
    unfinished.rename(said.place)
    size = size_of(said.place)
    print(f"{said.place}: {size / 2**20:.1f} MiB, at most {MOST_BYTES >> 20}")
    return int(size > MOST_BYTES)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
