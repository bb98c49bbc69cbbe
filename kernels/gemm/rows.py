"""Rows of a weight by their number: out of a plain table, or out of the memory of a packed linear layer.

A model whose head is its embedding needs the same weight as a product and as a table. oneDNN's packed layout is a permutation:

    [blocks of 64 rows][groups of columns that fill 4 bytes][64 rows][columns of the group]

so a row is read where it lies, and the weight is held once. The layout is not documented: it is tried on the rows themselves.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .interface import Rows

LANES = 64
_TRIED = 4096


def check_ids(ids: Tensor, rows: int) -> None:
    """Raises IndexError for an id that has no row. On the CPU; with few ids, a list is many times faster than tensors."""
    listed = ids.tolist()
    if listed and not 0 <= min(listed) <= max(listed) < rows:
        raise IndexError(f"row out of range: the weight has {rows} rows")


class TableRows:
    """The oracle: rows of a plain table, [rows, columns]."""

    def __init__(self, table: Tensor):
        self._table = table

    def __call__(self, ids: Tensor) -> Tensor:
        return self._table.index_select(0, ids)


class PackedRows:
    """Rows of a weight that oneDNN has packed, read as groups of columns, int32 each."""

    def __init__(self, memory: Tensor, shape: tuple[int, int], dtype: torch.dtype, owner: object = None):
        """memory: int32 [blocks of 64 rows, groups of columns, 64 rows]; owner: what keeps it. shape, dtype: the weight's."""
        self._owner = owner
        self._rows, self._columns = shape
        self._dtype = dtype
        self.memory = memory
        self._groups = memory.transpose(1, 2)

    def __call__(self, ids: Tensor) -> Tensor:
        check_ids(ids, self._rows)
        return self._groups[ids // LANES, ids % LANES].view(self._dtype)[:, : self._columns]


def packed_rows(packed: Tensor, weight: Tensor) -> Rows | None:
    """Reads the rows of `weight` out of its packed form, bit for bit; None where they do not lie as we know it.

    4,096 rows from the first to the last are compared. Changes nothing.
    """
    return _checked(packed, weight, _TRIED)


def packed_memory(packed: Tensor, weight: Tensor) -> Tensor | None:
    """The packed form of `weight` as int32 [blocks of 64 rows, groups of columns, 64 rows]: a view, valid while `packed` lives.

    None where the rows do not lie so: 64 of them are compared. Changes nothing.
    """
    rows = _checked(packed, weight, LANES)
    return rows.memory if rows is not None else None


def rows_in(memory: Tensor, weight: Tensor) -> Rows | None:
    """As `packed_rows`, out of memory that lies as `packed_memory` says and keeps itself."""
    return _holding(PackedRows(memory, (weight.shape[0], weight.shape[1]), weight.dtype), weight, _TRIED)


def _checked(packed: Tensor, weight: Tensor, tried: int) -> PackedRows | None:
    if not (hasattr(torch.ops.mkldnn, "data_ptr") and hasattr(torch.ops.mkldnn, "_nbytes")):
        return None
    size = torch.ops.mkldnn._nbytes(packed)
    padded_rows = -(-weight.shape[0] // LANES) * LANES
    if size % (4 * padded_rows) or size // padded_rows < weight.shape[1] * weight.element_size():
        return None
    memory = (ctypes.c_char * size).from_address(torch.ops.mkldnn.data_ptr(packed))
    groups = torch.frombuffer(memory, dtype=torch.int32).view(padded_rows // LANES, -1, LANES)
    return _holding(PackedRows(groups, (weight.shape[0], weight.shape[1]), weight.dtype, packed), weight, tried)


def _holding(rows: PackedRows, weight: Tensor, tried: int) -> PackedRows | None:
    """The rows themselves if they are those of the weight: `tried` of them are compared."""
    ids = torch.linspace(0, weight.shape[0] - 1, min(weight.shape[0], tried), dtype=torch.float64).long()
    bits = torch.int16 if weight.dtype == torch.bfloat16 else torch.int32
    return rows if torch.equal(rows(ids).view(bits), weight.index_select(0, ids).view(bits)) else None
