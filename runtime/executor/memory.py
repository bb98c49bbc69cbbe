"""What the machine offers and what the model asks of it: the facts from which `config.resolve` decides.

On Linux, memory and cores are those of this process: what its control group and its affinity leave of the machine's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from ...kernels.gemm.formats import FORMATS
from ..config import Hardware, ModelFacts
from ..errors import InvalidRequest
from ..models.config import ModelConfig
from ..models.spec import Parameter, parameters


@dataclass(frozen=True, slots=True)
class Kernel:
    """Where the kernel tells about itself (Linux; elsewhere these folders do not exist)."""

    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")


_HERE = Kernel()


def probe(device: str = "auto") -> Hardware:
    """The machine as it is now. device: auto (cuda if there is one) | cpu | cuda. Raises InvalidRequest if there is none."""
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise InvalidRequest("device is cuda, but torch sees no CUDA device. Use cpu or auto.", param="device")
    if device == "cuda" or (device == "auto" and has_cuda):
        free, _ = torch.cuda.mem_get_info()
        return Hardware(device="cuda", memory_free=free, cores=cpu_cores(), bf16=torch.cuda.is_bf16_supported())
    return Hardware(device="cpu", memory_free=free_memory(), cores=cpu_cores(), bf16=cpu_has_bf16())


def model_facts(config: ModelConfig) -> ModelFacts:
    """Sizes that decide the configuration."""
    return ModelFacts(
        context_length=config.max_positions,
        kv_values_token=2 * config.num_layers * config.num_kv_heads * config.head_dim,
        weight_values=count_weights(config),
        head_dim=config.head_dim,
    )


def count_weights(config: ModelConfig) -> int:
    """Elements of all weights, tied ones once."""
    return sum(_sizes(config, lambda entry: True).values())


def weight_bytes(config: ModelConfig, dtype: torch.dtype, quantization: str | None) -> int:
    """Bytes of all weights, tied ones once, where linear layers are quantised (see `EngineOptions`) and the rest is `dtype`."""
    if quantization is None:
        return count_weights(config) * dtype.itemsize
    linear = sum(_sizes(config, lambda entry: entry.linear).values())
    bits = 8 if quantization == "fp8" else FORMATS[quantization].bits_a_weight
    return int(linear * bits / 8) + (count_weights(config) - linear) * dtype.itemsize


def _sizes(config: ModelConfig, wanted: Callable[[Parameter], bool]) -> dict[str, int]:
    """Elements by name in the checkpoint."""
    entries = [entry for entry in parameters(config) if wanted(entry)]
    return {part.name: prod(part.shape) for entry in entries for part in (*entry.weights, *entry.biases)}


def cpu_has_bf16(kernel: Kernel = _HERE) -> bool:
    """Whether the CPU multiplies bfloat16 natively (AVX512-BF16 or AMX, as Linux names them); else fp32 is faster."""
    for line in _lines(kernel.proc / "cpuinfo"):
        name, _, flags = line.partition(":")
        if name.strip() == "flags":
            return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags.split())
    return False


def cpu_cores(kernel: Kernel = _HERE) -> int:
    """Cores that this process may use: its affinity, and its control group's quota, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _cgroup_folders(kernel, ""):
        cores = min(cores, _quota(" ".join(_lines(folder / "cpu.max"))))
    for folder in _cgroup_folders(kernel, "cpu"):
        cores = min(cores, _quota(" ".join(_lines(folder / "cpu.cfs_quota_us") + _lines(folder / "cpu.cfs_period_us"))))
    return cores


def _quota(said: str) -> int:
    """Cores of 'quota period' in microseconds; a huge number where the quota is absent, 'max' or -1."""
    words = said.split()
    if len(words) < 2 or not words[0].isdigit():
        return sys.maxsize
    return max(1, -(-int(words[0]) // int(words[1])))


def free_memory(kernel: Kernel = _HERE) -> int:
    """Bytes that this process may still take without swapping."""
    free = _system_free(kernel)
    for folder in _cgroup_folders(kernel, ""):
        free = min(free, _left(folder / "memory.max", folder / "memory.current", folder / "memory.stat", "inactive_file"))
    for folder in _cgroup_folders(kernel, "memory"):
        limit, usage = folder / "memory.limit_in_bytes", folder / "memory.usage_in_bytes"
        free = min(free, _left(limit, usage, folder / "memory.stat", "total_inactive_file"))
    return max(free, 0)


def _system_free(kernel: Kernel) -> int:
    """The whole system's: MemAvailable on Linux, free and inactive pages on macOS, else half of what is installed."""
    for line in _lines(kernel.proc / "meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    page = os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "darwin":
        report = subprocess.run(["vm_stat"], capture_output=True, text=True, check=False).stdout.splitlines()
        counts = [line.split(":")[1] for line in report if line.startswith(("Pages free", "Pages inactive", "Pages speculative"))]
        if counts:
            return page * sum(int(count.strip(" .")) for count in counts)
    return page * os.sysconf("SC_PHYS_PAGES") // 2


def _left(limit: Path, usage: Path, stat: Path, reclaimable: str) -> int:
    """limit - (usage - cache that the kernel gives back when asked); a huge number where there is no limit."""
    said, used = _lines(limit), _lines(usage)
    if not said or not used or not said[0].isdigit():
        return sys.maxsize
    cache = [int(line.split()[1]) for line in _lines(stat) if line.startswith(reclaimable + " ")]
    return int(said[0]) - int(used[0]) + sum(cache)


def _cgroup_folders(kernel: Kernel, controller: str) -> list[Path]:
    """Folders of this process's control group and of those above it: version 2 ('') or a controller of version 1."""
    root = kernel.cgroups / controller
    for line in _lines(kernel.proc / "self" / "cgroup"):
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            own = Path(path.lstrip("/"))
            # Inside a container the path may be the host's and not exist here; its own group is then the root itself.
            return [root / part for part in [own, *own.parents] if (root / part).is_dir()]
    return []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed instead of giving it back to the system. Changes this process; glibc only.

    A step allocates the same megabytes again and again; given back each time, every page of them faults again, which more than
    doubled the time of a decode step at 40 rows.
    """
    if sys.platform != "linux":
        return
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)
