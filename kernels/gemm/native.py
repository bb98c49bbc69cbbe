"""Linear layers by oneDNN on a weight that was reordered once into the layout that its inner loops read."""

from __future__ import annotations

import torch
from torch import Tensor

from .interface import Rows
from .rows import packed_memory, packed_rows


def available(dtype: torch.dtype) -> bool:
    """True where this torch build has oneDNN's packed linears and this CPU computes `dtype` with them."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


class PackedLinear:
    """y = x W^T + b in fp32 or bf16 on the CPU. The packed weight is as large as the raw one, which is not kept.

    memory: the packed weight as `rows` describes it, a view; None where it does not lie so. By itself oneDNN is not invariant:
    with more than 1,024 columns, one row is summed in chains of 512 columns and more rows in chains of 1,024.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        self.out_features, self.in_features = weight.shape
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = bias
        self.memory = packed_memory(self.packed, weight)
        self._linear = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        return self._linear(x, self.packed, self.bias, "none", [], "")

    def rows_of(self, weight: Tensor) -> Rows | None:
        """See `Linear.rows_of`."""
        return packed_rows(self.packed, weight)
