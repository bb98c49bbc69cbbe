"""Tests of the Triton kernels. They run on an NVIDIA GPU, or on the CPU in Triton's interpreter, which has to be switched on
before triton is imported: `TRITON_INTERPRET=1 pytest tests/kernels/triton`. `tests/kernels/test_triton_interpreted.py` does that
in a process of its own, so in a run of all tests without a GPU these skip here and run there.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CUDA = torch.cuda.is_available() and not INTERPRETED

found = find_spec("triton")
if found is None or found.origin is None:  # this folder, as a package without files, is not it
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def _somewhere_to_run() -> None:
    if not (CUDA or INTERPRETED):
        pytest.skip("no NVIDIA GPU here, and Triton's interpreter is not switched on")


@pytest.fixture
def device() -> torch.device:
    """Where the kernels run."""
    return torch.device("cuda" if CUDA else "cpu")


@pytest.fixture
def big() -> bool:
    """Whether large shapes are affordable: the interpreter takes milliseconds for what a GPU does in nanoseconds."""
    return CUDA
