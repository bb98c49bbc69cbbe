"""Hidden states to logits. (Token ids to hidden states is `kernels.gemm.interface.Rows`.)"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ....kernels.gemm.interface import Linear
from .norm import Norm


@dataclass(frozen=True)
class Head:
    """The final norm and the product with the vocabulary."""

    norm: Norm
    linear: Linear

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: [n, hidden] after `norm`. Returns fp32 [n, vocab]; n may be 0."""
        if hidden.shape[0] == 0:
            return hidden.new_empty((0, self.linear.out_features)).float()
        return self.linear(hidden).float()
