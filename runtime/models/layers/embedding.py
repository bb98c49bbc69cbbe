"""Token ids to hidden states, and hidden states to logits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ....kernels.gemm.interface import Linear
from .norm import Norm


@dataclass(frozen=True)
class Embedding:
    """table: [vocab, hidden]."""

    table: Tensor

    def __call__(self, token_ids: Tensor) -> Tensor:
        """token_ids: int64 [tokens]. Returns [tokens, hidden]. An id outside the vocabulary raises IndexError on the CPU."""
        return self.table.index_select(0, token_ids)


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
