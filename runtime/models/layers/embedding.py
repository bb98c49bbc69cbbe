"""Hidden states to logits. (Token ids to hidden states is `kernels.gemm.interface.Rows`.)"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ....kernels.gemm.interface import Linear


@dataclass(frozen=True)
class Head:
    """The product with the vocabulary."""

    linear: Linear

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: [n, hidden] after the final norm. Returns [n, vocab] in the same dtype; n may be 0."""
        if hidden.shape[0] == 0:
            return hidden.new_empty((0, self.linear.out_features))
        return self.linear(hidden)
