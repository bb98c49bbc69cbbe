"""Many arrays, one copy: what comes out is what went in."""

from __future__ import annotations

import numpy as np
import torch

from ramify.kernels.upload import fill, layout, split, upload

ARRAYS = [
    np.arange(5, dtype=np.int32),
    np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::2],
    np.array([True, False, True]),
    np.empty(0, np.float32),
    np.linspace(0, 1, 7, dtype=np.float32),
]


def test_arrays_of_any_dtype_and_shape_pass_through_one_buffer() -> None:
    starts, total = layout([array.nbytes for array in ARRAYS])
    buffer = np.zeros(total, np.uint8)
    fill(buffer, ARRAYS, starts)
    for array, tensor in zip(ARRAYS, split(torch.from_numpy(buffer), ARRAYS, starts), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), array)
        assert tensor.numpy().dtype == array.dtype and not tensor.data_ptr() % 16


def test_on_the_cpu_nothing_is_copied() -> None:
    (tensor,) = upload([ARRAYS[0]], torch.device("cpu"))
    assert tensor.data_ptr() == ARRAYS[0].ctypes.data
