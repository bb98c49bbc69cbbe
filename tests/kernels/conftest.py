"""`--sanitize`: the kernels in a build that finds reads and writes out of bounds and undefined behaviour (`make sanitize`)."""

from __future__ import annotations

import pytest

from ramify.kernels import native

SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sanitize", action="store_true", help="the C++ kernels with AddressSanitizer, which must be preloaded")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test file is imported, which is when the kernels are loaded. Another flag makes another binary."""
    if config.getoption("--sanitize", default=False):
        native.FLAGS = (*native.FLAGS, *SANITIZED)
