"""Question: how long until something happens: `import ramify`, `ramify --help`, the first token of the bundled model?

Ceiling: starting Python itself, measured beside them in the same turn. Each run is a process of its own; the first one of
each kind is thrown away, because it may find cold files. Wall clock, medians and spread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

BARE = [sys.executable, "-c", "pass"]
IMPORT = [sys.executable, "-c", "import ramify; ramify.__version__"]
HELP = [sys.executable, "-m", "ramify.runtime.cli", "--help"]
FIRST_TOKEN = [sys.executable, "-m", "ramify.runtime.cli", "generate", "--stream", "--chat", "--max-tokens", "8", "Hello!"]
LIMITS_S = {"import ramify": 0.15, "ramify --help": 0.3, "first token": 10.0}


def whole_s(command: list[str]) -> float:
    """Seconds from the command to its end."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_byte_s(command: list[str]) -> float:
    """Seconds from the command to the first byte on its stdout."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        took = time.perf_counter() - started
        process.stdout.read()
    if not first or process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode} and without a token")
    return took


def main(argv: list[str]) -> int:
    """Measure and print; the last line is JSON. Seconds. `import ramify` is without the start of Python itself."""
    parser = argparse.ArgumentParser(prog="ramify bench startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="of the short ones (default: 7)")
    parser.add_argument("--token-runs", type=int, default=3, help="of the first token (default: 3)")
    said = parser.parse_args(argv)
    rows: dict[str, list[float]] = {"python": [], "import ramify": [], "ramify --help": [], "first token": []}
    for _ in range(said.runs + 1):
        bare = whole_s(BARE)
        rows["python"].append(bare)
        rows["import ramify"].append(whole_s(IMPORT) - bare)
        rows["ramify --help"].append(whole_s(HELP))
    for _ in range(said.token_runs + 1):
        rows["first token"].append(first_byte_s(FIRST_TOKEN))
    result = {}
    for name, times in rows.items():
        kept = sorted(times[1:])
        result[name] = {"median_s": round(statistics.median(kept), 4), "least_s": round(kept[0], 4), "most_s": round(kept[-1], 4)}
        limit = f", limit {LIMITS_S[name]} s" if name in LIMITS_S else ""
        print(f"{name:14} {statistics.median(kept):7.3f} s  ({kept[0]:.3f} to {kept[-1]:.3f}, {len(kept)} runs{limit})")
    print(json.dumps({"benchmark": "startup", **result}))
    return 0
