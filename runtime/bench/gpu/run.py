"""Tests and scenarios on a machine with a GPU, in one call: `python3 runtime/bench/gpu/run.py [PHASE ...]` (`make gpu`).

A script that needs the standard library alone: the machine may have no Ramify installed. It installs the wheels of
`make gpu-carry` into a folder of its own, makes the repository importable, and runs each phase in a process under a time limit; a
phase that fails keeps no other from running. results.json and log.txt in the folder for results are written anew after each one.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LIMITS = {
    "tests": 240,
    "g1": 75,
    "g1-8b": 100,
    "g1-peer": 70,
    "g2": 60,
    "g2-8b": 60,
    "g3": 60,
    "g4": 60,
    "g5": 90,
}
"""Phase -> seconds after which it is ended."""
DEFAULT = ("tests", "g1", "g2", "g3", "g4")
ENDING_S = 4
"""Before its limit a scenario is ended by the suite, which also ends what it has started."""
TOTAL_S = 570
"""Of the whole call: what does not fit any more is left out."""
LEAST_S = 10
"""A phase that has less is left out."""
TESTED = ("tests/kernels/triton", "tests/gpu")
SHOWN = 10_000
"""Characters of the ends of the phases' outputs that the summary repeats, all together."""
PLUGINS = ("pytest_timeout", "pytest_asyncio.plugin", "xdist.plugin", "_hypothesis_pytestplugin")
"""Of pytest, by name: such a machine may have others, which are not loaded."""


def prepare(carry: Path, work: Path, python: str, *, wheels: bool) -> tuple[dict[str, str], Path]:
    """Wheels installed, an import link, tokenizers where checkpoints are made. Returns the environment's additions and the
    folder of checkpoints. wheels: False where the Python has what it needs. Raises CalledProcessError where pip fails."""
    site, links, checkpoints = work / "site", work / "links", work / "checkpoints"
    links.mkdir(parents=True, exist_ok=True)
    checkpoints.mkdir(exist_ok=True)
    link = links / "ramify"
    if not link.is_symlink():
        link.symlink_to(ROOT)
    paths = [str(links)]
    if wheels:
        pip = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir"]
        pip += ["--disable-pip-version-check", "--root-user-action=ignore", "--upgrade", "--target", str(site)]
        subprocess.run([*pip, *sorted(map(str, carry.glob("wheels/*.whl")))], check=True)
        paths.insert(0, str(site))
        for library in carry.glob("prebuilt/*.so"):  # taken only where the sources are the same
            (ROOT / "kernels" / "prebuilt").mkdir(exist_ok=True)
            shutil.copyfile(library, ROOT / "kernels" / "prebuilt" / library.name)
    for file in carry.glob("tokenizer-*.json"):
        shutil.copyfile(file, checkpoints / file.name)
    environment = {
        "PYTHONPATH": ":".join(paths),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    return environment, checkpoints


def device_of(python: str) -> str:
    """The name of the GPU that torch sees, "" where it sees none."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()


def tests(said: argparse.Namespace) -> list[str]:
    """Arguments of Python that run the tests. Answers only."""
    tested = [name for name in said.tests or TESTED if (ROOT / name.partition("::")[0]).exists()]
    plugins = [word for name in PLUGINS for word in ("-p", name)]
    several = ["-n", str(said.workers), "--dist", "loadfile"] if said.workers > 1 else []
    plain = ["-q", "--no-header", "-p", "no:cacheprovider", "--timeout", "150", "--durations", "8", "-m", said.mark]
    return ["-m", "pytest", *plugins, *plain, *several, *shlex.split(said.pytest), *tested]


def scenario(phase: str, said: argparse.Namespace, limit_s: float, *, quick: bool) -> list[str]:
    """Arguments of Python that run a scenario, which ends itself before it is ended. Pure."""
    suite = ["-m", "ramify.runtime.cli", "bench", "--suite", "gpu", phase, "--limit", f"{limit_s - ENDING_S:.0f}"]
    return suite + ["--quick"] * quick + (["--engine", said.engine] if said.engine else [])


def run(command: list[str], environment: dict[str, str], log: Path, limit_s: float) -> str:
    """Run it from the root, in a session of its own that is ended with all it started. Returns "" or what went wrong."""
    env = ["env", *(f"{name}={value}" for name, value in environment.items())]
    with log.open("wb") as out:
        process = subprocess.Popen([*env, *command], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(limit_s)
            return f"status {status}" if status else ""
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(0.5)
            return f"more than {limit_s:.0f} s"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def gather(work: Path, out: Path, phases: dict[str, dict[str, object]]) -> None:
    """All results in one file, all logs in another: few files come back from such a machine."""
    found = {file.stem: json.loads(file.read_text()) for file in sorted((work / "results").glob("*.json"))}
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps({"phases": phases, "results": found}, indent=1) + "\n")
    with (out / "log.txt").open("w") as log:
        for phase in phases:
            log.write(f"\n######## {phase}\n" + (work / f"{phase}.log").read_text(errors="replace"))


def ending(text: str, most: int) -> str:
    """The end of an output, whole lines, without the lines of JSON. Pure."""
    lines = [line for line in text.splitlines() if not line.startswith("{")]
    kept: list[str] = []
    for line in reversed(lines):
        most -= len(line) + 1
        if most < 0:
            break
        kept.append(line[:240])
    return "\n".join(reversed(kept))


def main(argv: list[str]) -> int:
    """Run the phases; 1 where one failed."""
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__)
    parser.add_argument("phases", nargs="*", metavar="PHASE", help=f"of {', '.join(LIMITS)} (default: {' '.join(DEFAULT)})")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", help="a folder for results (default: build/gpu)")
    parser.add_argument("--carry", type=Path, default=ROOT / "build" / "gpu-carry", help="from `make gpu-carry`")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ramify-gpu", help="what may be thrown away")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--no-wheels", action="store_true", help="this Python has all that is needed")
    parser.add_argument("--quick", action="store_true", help="scenarios with a tiny model and little work, also on a CPU")
    parser.add_argument("--engine", default="", metavar="NAME=VALUE,...", help="options of the scenarios' engine")
    parser.add_argument("--tests", nargs="+", metavar="PATH", help=f"in place of {' '.join(TESTED)}")
    parser.add_argument("--mark", default="not slow", help="which tests, as pytest's -m (default: not slow)")
    parser.add_argument("--workers", type=int, default=1, help="processes that run tests side by side (default: 1)")
    parser.add_argument("--pytest", default="", metavar="WORDS", help="more arguments of pytest")
    parser.add_argument("--limit", action="append", default=[], metavar="PHASE=SECONDS", help="in place of a phase's own")
    parser.add_argument("--total", type=float, default=TOTAL_S, metavar="SECONDS", help=f"of the whole call (default: {TOTAL_S})")
    said = parser.parse_args(argv)
    phases = said.phases or list(DEFAULT)
    unknown = [name for name in phases if name not in LIMITS]
    if unknown:
        parser.error(f"there is no phase {unknown[0]!r}; known: {', '.join(LIMITS)}")
    done = perform(said, phases)
    for phase in phases:
        text = (said.work / f"{phase}.log").read_text(errors="replace")
        print(f"\n######## {phase}: {done[phase]['failed'] or 'done'}\n{ending(text, SHOWN // len(phases))}")
    return int(any(one["failed"] for one in done.values()))


def perform(said: argparse.Namespace, phases: Sequence[str]) -> dict[str, dict[str, object]]:
    """Prepare, then one phase after the other, each with its log and its results. What became of each."""
    limits = LIMITS | {name: float(seconds) for name, seconds in (word.split("=") for word in said.limit)}
    began = time.monotonic()
    results = said.work / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    environment, checkpoints = prepare(said.carry, said.work, said.python, wheels=not said.no_wheels)
    device = device_of(said.python)
    print(f"prepared after {time.monotonic() - began:.1f} s; {device or 'no GPU, so everything is quick'}", flush=True)
    done: dict[str, dict[str, object]] = {}
    for phase in phases:
        limit_s = min(limits[phase], began + said.total - time.monotonic())
        log, started = said.work / f"{phase}.log", time.monotonic()
        command = tests(said) if phase == "tests" else scenario(phase, said, limit_s, quick=said.quick or not device)
        if phase != "tests":
            command += ["--out", str(results), "--folder", str(checkpoints)]
        if limit_s > LEAST_S:
            why = run([said.python, *command], environment, log, limit_s)
        else:
            why = "no time was left"
            log.write_text(f"{why}\n")
        done[phase] = {"failed": why, "seconds": round(time.monotonic() - started, 1)}
        print(f"{phase}: {why or 'done'} after {done[phase]['seconds']} s", flush=True)
        gather(said.work, said.out, done)
    return done


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
