"""What this machine can do, measured in the same minute as the benchmarks: the denominators of every share of the bound."""

from __future__ import annotations

import os
import platform
import time
from statistics import median

import torch


def read_bandwidth(repeats: int = 7, gib: float = 1.0) -> float:
    """Bytes a second, all threads, reading fp32 that no cache holds. Wall clock, median."""
    data = torch.ones(int(gib * 2**28))
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        data.sum()
        rates.append(data.nbytes / (time.perf_counter() - started))
    return median(rates)


def matmul_rate(dtype: torch.dtype, repeats: int = 5, size: int = 2048) -> float:
    """FLOP a second of a square matrix product. Wall clock, median."""
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    torch.mm(a, b)
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(a, b)
        rates.append(2 * size**3 / (time.perf_counter() - started))
    return median(rates)


def describe() -> dict[str, object]:
    """Processor, threads, load and limits, for the head of a report."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = {line.split(":", 1)[1].strip() for line in file if line.startswith("model name")}
    return {
        "cpu": ", ".join(sorted(names)) or platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "read_GBps": round(read_bandwidth() / 1e9, 1),
        "bf16_GFLOPs": round(matmul_rate(torch.bfloat16) / 1e9),
        "fp32_GFLOPs": round(matmul_rate(torch.float32) / 1e9),
    }
