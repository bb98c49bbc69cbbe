"""Arrays of a step on their way to the device: many arrays, one copy.

A copy from host to device costs some microseconds whatever it carries, and one from memory that is not pinned also waits for the
host to stage it. So what a step needs is laid out in one pinned buffer and split again on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 16
"""Bytes: as much as one load of a kernel takes."""


def upload(arrays: Sequence[NDArray], device: torch.device) -> list[Tensor]:
    """The arrays on the device, in order, with their dtypes and shapes. On the CPU they share the arrays' memory; elsewhere the
    copy is under way when this returns, and work that is queued later sees it."""
    if device.type == "cpu":
        return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    starts, total = layout([array.nbytes for array in arrays])
    host = torch.empty(total, dtype=torch.uint8, pin_memory=True)
    fill(host.numpy(), arrays, starts)
    return split(host.to(device, non_blocking=True), arrays, starts)


def layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where each of some parts begins, aligned, and the size of all, in bytes. Pure."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return starts, max(end, ALIGNMENT)


def fill(buffer: NDArray[np.uint8], arrays: Sequence[NDArray], starts: Sequence[int]) -> None:
    """Copies each array to its place. Changes the buffer."""
    for array, start in zip(arrays, starts, strict=True):
        if array.nbytes:
            buffer[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def split(buffer: Tensor, arrays: Sequence[NDArray], starts: Sequence[int]) -> list[Tensor]:
    """Views of uint8 [bytes] as these arrays are. Answers only."""
    return [
        buffer[start : start + array.nbytes].view(_DTYPES[array.dtype.name]).view(array.shape)
        for array, start in zip(arrays, starts, strict=True)
    ]


_DTYPES = {
    name: getattr(torch, name) for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
}
