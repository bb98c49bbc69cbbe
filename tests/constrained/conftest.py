"""One engine over a tiny vocabulary for all tests of this room (`grammar_bench.py`)."""

from __future__ import annotations

import pytest
from grammar_bench import Bench, byte_bench


@pytest.fixture(scope="session")
def bench() -> Bench:
    """All single bytes, an end token (256), a hole, and some longer tokens; logits padded to 290."""
    return byte_bench()
