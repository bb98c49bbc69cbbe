"""Processor time and memory of this process and all that it started, and of everybody else, from /proc."""

from __future__ import annotations

import os
import time
from collections import defaultdict

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int | str) -> list[str]:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, user and system."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    with open(f"/proc/{pid}/statm", encoding="utf-8") as statm:
        return int(statm.read().split()[1]) * PAGE / 1e6


def family(root: int) -> list[int]:
    """`root` and its descendants that are alive."""
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                children[int(_stat(name)[1])].append(int(name))
            except (OSError, IndexError):
                continue
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left += children[pid]
    return found


def family_cpu_s(root: int) -> float:
    """Processor time of `root` and its descendants, those that ended and were waited for included."""
    total = 0
    for pid in family(root):
        try:
            total += sum(map(int, _stat(pid)[11:15]))
        except OSError:
            continue
    return total / TICKS


def family_pss_mb(root: int) -> float:
    """Memory of `root` and its descendants, shared pages counted once; resident memory where that cannot be read."""
    total = 0.0
    for pid in family(root):
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024 * 1.048576
        except OSError:
            try:
                total += rss_mb(pid)
            except OSError:
                continue
    return total


def machine_busy_s() -> float:
    """Processor time that all cores together spent not idle, time stolen by the host included."""
    with open("/proc/stat", encoding="utf-8") as file:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


class Neighbours:
    """What others take of the processor between two moments."""

    def __init__(self) -> None:
        self._begin = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.monotonic(), machine_busy_s(), family_cpu_s(os.getpid())

    def cores(self) -> float:
        """Cores that programs which are not ours kept busy on average since this was made."""
        then, now = self._begin, self._now()
        wall = max(now[0] - then[0], 1e-3)
        return max(0.0, ((now[1] - then[1]) - (now[2] - then[2])) / wall)
