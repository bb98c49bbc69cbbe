"""What the machine offers, read from folders that look like Linux's."""

from pathlib import Path

import pytest

from ramify.runtime.errors import InvalidRequest
from ramify.runtime.executor.memory import Kernel, cpu_cores, cpu_has_bf16, free_memory, probe

GB = 1 << 30


def _kernel(folder: Path, files: dict[str, str]) -> Kernel:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Kernel(proc=folder / "proc", cgroups=folder / "cgroup")


MEMINFO = f"MemTotal: {32 << 20} kB\nMemFree: 100 kB\nMemAvailable: {16 << 20} kB\n"


def test_free_memory_is_what_linux_calls_available(tmp_path: Path) -> None:
    assert free_memory(_kernel(tmp_path, {"proc/meminfo": MEMINFO})) == 16 * GB


def test_the_tightest_control_group_on_the_way_up_decides(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/outer/inner\n",
        "cgroup/outer/inner/memory.max": "max\n",
        "cgroup/outer/inner/memory.current": f"{GB}\n",
        "cgroup/outer/memory.max": f"{4 * GB}\n",
        "cgroup/outer/memory.current": f"{3 * GB}\n",
        "cgroup/outer/memory.stat": f"anon 5\ninactive_file {GB}\n",
        "cgroup/outer/cpu.max": "150000 100000\n",
    }
    kernel = _kernel(tmp_path, files)
    assert free_memory(kernel) == 2 * GB  # the page cache is given back when asked
    assert 1 <= cpu_cores(kernel) <= 2


def test_control_groups_of_version_1_and_paths_of_another_namespace_count(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
        "cgroup/memory/memory.limit_in_bytes": f"{2 * GB}\n",
        "cgroup/memory/memory.usage_in_bytes": f"{GB}\n",
        "cgroup/cpu/cpu.cfs_quota_us": "100000\n",
        "cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    kernel = _kernel(tmp_path, files)
    assert free_memory(kernel) == GB
    assert cpu_cores(kernel) == 1


def test_bf16_is_native_where_the_cpu_has_the_instructions(tmp_path: Path) -> None:
    for number, (flags, native) in enumerate(
        [("avx2 avx512f", False), ("avx512f avx512_bf16", True), ("amx_tile amx_bf16", True)]
    ):
        kernel = _kernel(tmp_path / str(number), {"proc/cpuinfo": f"processor\t: 0\nflags\t\t: fpu {flags}\n"})
        assert cpu_has_bf16(kernel) is native
    assert not cpu_has_bf16(Kernel(proc=tmp_path / "absent"))


def test_this_machine_is_probed() -> None:
    here = probe("cpu")
    assert here.device == "cpu" and here.memory_free > 0 and here.cores >= 1


def test_a_cuda_device_that_is_not_there_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(InvalidRequest, match="no CUDA device"):
        probe("cuda")
