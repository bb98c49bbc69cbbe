"""What the device can do: bytes a second of a copy and FLOP a second of a matrix product, measured in the same process as the
scenarios. They are the denominators of every share of a bound. On a CPU, `bench/machine.py` measures them."""

from __future__ import annotations

from statistics import median

import torch

from .. import machine
from ..bounds import Limits

COPIED = 4 << 30
"""Bytes that the copy reads, and writes: no cache holds them."""
SIZE = 8192
"""Rows and columns of the product's matrices."""


def limits(device: str, *, quick: bool = False) -> Limits:
    """Both rates. On a GPU in a tenth of a second and 8 GiB; bytes count that are read and that are written."""
    if device == "cpu":
        return machine.limits(quick=quick)
    found = Limits(_copy_rate(), _product_rate())
    torch.cuda.empty_cache()
    return found


def name_of(device: str) -> str:
    """What the device calls itself."""
    return machine.processor() if device == "cpu" else torch.cuda.get_device_name()


def _copy_rate() -> float:
    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda").fill_(1)
    target = torch.empty_like(source)
    return 2 * COPIED / _seconds(lambda: target.copy_(source))


def _product_rate() -> float:
    """Of random numbers: a product of zeros is faster."""
    left, right = (torch.randn(SIZE, SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    return 2 * SIZE**3 / _seconds(lambda: torch.mm(left, right, out=out))


def _seconds(work, repeats: int = 10) -> float:
    """Median of some calls by the device's own clock, after three that warm it up."""
    for _ in range(3):
        work()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for begin, end in events:
        begin.record()
        work()
        end.record()
    torch.cuda.synchronize()
    return median(begin.elapsed_time(end) for begin, end in events) / 1e3
