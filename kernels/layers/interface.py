"""All layers of a decoder as one operation, for the steps that it takes; the others are computed operation by operation.

It has the bits of `runtime/models/decoder.py`'s own loop, which is its oracle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..attention.interface import Attention
from ..gemm.interface import Linear


@dataclass(frozen=True)
class LayerParts:
    """One layer. mlp_norm, next_norm: weights [hidden]; next_norm is that of the layer above, or ends the model.

    qk_norm: weights of the norm of each head of q and k, [heads + kv_heads, head_dim], or None: they are not normed.
    """

    qkv: Linear
    o: Linear
    gate_up: Linear
    down: Linear
    mlp_norm: Tensor
    next_norm: Tensor
    qk_norm: Tensor | None
    attention: Attention


@dataclass(frozen=True)
class StackParts:
    """first_norm: weights [hidden]. eps: of all norms. rope: [positions, 2 * head_dim], see `rope.interface`."""

    first_norm: Tensor
    eps: float
    rope: Tensor
    layers: tuple[LayerParts, ...]


class LayeredKV(Protocol):
    """Whoever owns the K and V bytes."""

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        """The K and V pools of a layer, each [slots, num_kv_heads, head_dim], contiguous; in int8 as `kv/int8.py` says.

        The same memory in every call, for as long as the owner lives.
        """
        ...


class Stack(Protocol):
    """All layers of one model, and the norms before and after them."""

    def takes(self, tokens: int, logit_rows: int, kv: LayeredKV) -> bool:
        """Whether `run` knows such a step, and pools of this kind. Answers only."""
        ...

    def run(self, x: Tensor, positions: Tensor, *, slots: Tensor, plan: Any, kv: LayeredKV, logit_rows: Tensor) -> Tensor:
        """x: the embeddings, [tokens, hidden], which are overwritten. positions (rotary), slots: int64 [tokens], contiguous.

        slots are all different. plan: of any of the layers' attentions. logit_rows: int64 [n] into the tokens, in any order,
        repeats allowed, may be empty. Returns the hidden states of these rows after the last norm, [n, hidden]. Writes K and V
        of all tokens. Only for a step that it takes.
        """
        ...


class MakeStack(Protocol):
    def __call__(self, parts: StackParts) -> Stack | None:
        """None where some part is computed in another way, or there is nothing to gain."""
        ...
