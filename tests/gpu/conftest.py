"""Tests of whole models and engines on an NVIDIA GPU: `pytest tests/gpu -m gpu` (`make gpu` runs them with the kernels' tests).

Each test takes a device: `cuda`, marked `gpu`, and `cpu`, marked `slow`, which shows on any machine that the test is right.
"""

from __future__ import annotations

import pytest
import torch

DEVICES = [pytest.param("cuda", marks=pytest.mark.gpu), pytest.param("cpu", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Where the model runs. fp32 there is fp32: no TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    return request.param
