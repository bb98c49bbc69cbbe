"""The Triton kernels' tests in Triton's interpreter, which needs a process of its own (`tests/kernels/triton/conftest.py`)."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PLACES = ("kernels/triton", "runtime/executor/test_step_graphs.py")
found = find_spec("triton")


@pytest.mark.skipif(found is None or found.origin is None, reason="triton is not installed")
@pytest.mark.parametrize("place", PLACES)
def test_what_runs_on_triton_does_in_the_interpreter_what_its_tests_say(place: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", str(TESTS / place)]
    result = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    report = result.stdout + result.stderr
    assert result.returncode == 0, report
    assert " passed" in report, report
