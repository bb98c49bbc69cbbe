"""Linear layers by torch's own product, without packing."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .interface import Rows
from .rows import TableRows


class TorchLinear:
    """The oracle, and the choice where packing is not available. Keeps the weight itself."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        self.out_features, self.in_features = weight.shape
        self.weight = weight
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def rows_of(self, weight: Tensor) -> Rows:
        """See `Linear.rows_of`."""
        return TableRows(self.weight)
