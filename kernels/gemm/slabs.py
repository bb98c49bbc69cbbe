"""Memory for weights on huge pages. A weight is read from end to end in every step: with pages of 4 KiB the processor looks up
an address for every sixteen pairs of columns, and loses up to an eighth of its rate."""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import torch
from torch import Tensor

_HUGE = 2 << 20
_SLAB = 32 << 20
"""Bytes of address space that are taken at once; memory is taken as it is written."""
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def available() -> bool:
    """True where this system gives huge pages to who asks for them."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return False
    try:
        return "[never]" not in _SETTING.read_text(encoding="ascii")
    except OSError:
        return False


class Slabs:
    """Tables side by side in large pieces of memory. A piece is given back when the last table in it is gone.

    Where there are no huge pages, tables lie in memory as it comes.
    """

    def __init__(self) -> None:
        self._rest = torch.empty(0, dtype=torch.uint8)

    def empty(self, *shape: int) -> Tensor:
        """int32 of that shape, not filled, from a cache line's beginning. Raises OSError without memory. Changes the slabs."""
        size = 4 * math.prod(shape)
        if size > len(self._rest):
            self._rest = _slab(max(size, _SLAB)) if available() else torch.empty(size, dtype=torch.uint8)
        place, self._rest = self._rest[:size], self._rest[-(-size // 64) * 64 :]
        return place.view(torch.int32).view(shape)


def _slab(size: int) -> Tensor:
    """uint8 [at least size], zeros, from a huge page's beginning."""
    memory = mmap.mmap(-1, size + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)  # keeps the memory
    return whole[-whole.data_ptr() % _HUGE :]
