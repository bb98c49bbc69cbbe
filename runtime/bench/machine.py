"""What this machine can do and what else it does, measured in the same run as the benchmarks: the denominators of every share
of the bound, and the neighbours' part of the processor."""

from __future__ import annotations

import os
import platform
import time
from statistics import median

import torch
from torch.nn.functional import linear

from .bounds import Limits


def cores() -> int:
    """Of those that this process may use."""
    return len(os.sched_getaffinity(0))


def read_bandwidth(repeats: int = 7, gib: float = 1.0) -> float:
    """Bytes a second, all threads, reading fp32 that no cache holds. Wall clock, median."""
    data = torch.ones(int(gib * 2**28))
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        data.sum()
        rates.append(data.nbytes / (time.perf_counter() - started))
    return median(rates)


def matmul_rate(dtype: torch.dtype, repeats: int = 5, rows: int = 1024, size: int = 2048) -> float:
    """FLOP a second of `rows` rows through a square layer, as a model does it. Wall clock, median."""
    x, weight = torch.randn(rows, size).to(dtype), torch.randn(size, size).to(dtype)
    linear(x, weight)
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        linear(x, weight)
        rates.append(2 * rows * size * size / (time.perf_counter() - started))
    return median(rates)


def limits(*, quick: bool = False) -> Limits:
    """Both rates on all cores, in about two seconds (a quarter of one if quick)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        return Limits(read_bandwidth(3, 0.125) if quick else read_bandwidth(), matmul_rate(torch.bfloat16))
    finally:
        torch.set_num_threads(threads)


def processor() -> str:
    """Its name."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = {line.split(":", 1)[1].strip() for line in file if line.startswith("model name")}
    return ", ".join(sorted(names)) or platform.processor()


def describe() -> dict[str, object]:
    """Processor, threads, load and limits, for the head of a report."""
    return {
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "read_GBps": round(read_bandwidth() / 1e9, 1),
        "bf16_GFLOPs": round(matmul_rate(torch.bfloat16) / 1e9),
        "fp32_GFLOPs": round(matmul_rate(torch.float32) / 1e9),
    }
