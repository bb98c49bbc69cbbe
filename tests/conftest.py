"""What all tests share: the same random examples in every run, and no GPU test where there is no GPU."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Small tensors gain nothing from a thread pool, and two workers with a pool each get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadlines: a busy machine is not a failure. "fixed" draws the same examples each time; `make test-all` takes "random".
_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("fixed", deadline=None, derandomize=True, suppress_health_check=_QUIET)
settings.register_profile("random", deadline=None, print_blob=True, suppress_health_check=_QUIET)
settings.load_profile("fixed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` unless torch sees one; torch is imported only if there is such a test."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU here"))
