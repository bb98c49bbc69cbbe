"""The dense decoder: token ids and pages in, logits of the wanted rows out. All families of `spec.py` run through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...kernels.activation.interface import SiluMul
from ...kernels.attention.interface import AttentionIndex, AttentionSpec, GraphAttention
from ...kernels.gemm.interface import Linear, Rows
from ...kernels.kv.int8 import row_size, row_width
from ...kernels.layers.interface import LayeredKV, LayerParts, StackParts
from ...kernels.table import Kernels
from .config import ModelConfig
from .layers.attention import PagedAttention
from .layers.embedding import Head
from .layers.linear import LayerLinears
from .layers.norm import Norm
from .layers.rope import RopeTable


@dataclass(frozen=True)
class KVSpec:
    """What the model keeps of a token: K and V, each [num_kv_heads, head_dim] of `dtype`, in each layer; in int8 with a scale
    behind each vector (`kernels/kv/int8.py`)."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype

    @property
    def bytes_per_token(self) -> int:
        """Bytes of K and V in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * row_size(self.head_dim, self.dtype)

    def pool_shape(self, slots: int) -> tuple[int, int, int]:
        """Of the pool of K, or of V, of one layer."""
        return slots, self.num_kv_heads, row_width(self.head_dim, self.dtype)


@dataclass(frozen=True)
class Layer:
    """Attention and feed-forward, each with the norm that follows: `next_norm` belongs to the layer above, or ends the model.

    x is the residual stream, y what its norm makes of it; both [tokens, hidden].
    """

    attention: PagedAttention
    mlp_norm: Norm
    linears: LayerLinears
    silu_mul: SiluMul
    next_norm: Norm

    def attend(self, y: Tensor, pools: tuple[Tensor, Tensor], slots: Tensor, plans: Any, turns: Tensor) -> Tensor:
        """Returns the heads' outputs, [tokens, heads * head_dim]. Writes K and V."""
        return self.attention(self.linears.qkv(y), pools, slots, plans[self.attention.spec_number], turns)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """attended: [rows, heads * head_dim], of the rows of x. Adds the layer to x, in place. Returns the y that follows."""
        y = self.mlp_norm.after(x, self.linears.o(attended))
        return self.next_norm.after(x, self.linears.down(self.silu_mul(self.linears.gate_up(y))))

    @property
    def parts(self) -> LayerParts:
        """What the layer is made of, for an implementation that runs all layers in one call."""
        of, norms = self.linears, (self.mlp_norm.weight, self.next_norm.weight, self.attention.norm)
        return LayerParts(of.qkv, of.o, of.gate_up, of.down, *norms, self.attention.kernel)


class Decoder:
    """A model on one device. Holds weights only: what belongs to a sequence lives in the KV pool that each call is given."""

    def __init__(
        self,
        config: ModelConfig,
        kernels: Kernels,
        *,
        embedding: Rows,
        tensors: Mapping[str, Tensor],
        linears: Mapping[str, Linear],
        max_positions: int,
    ):
        """embedding: a row a token id. tensors and linears: everything else that `spec.parameters` lists, by target."""
        self.config = config
        self.kernels = kernels
        self.device = kernels.device
        self.dtype = kernels.dtype
        self.kv_spec = KVSpec(config.num_layers, config.num_kv_heads, config.head_dim, kernels.kv_dtype)
        specs = [_attention_spec(config, window) for window in config.windows]
        distinct = list(dict.fromkeys(specs))
        self._attentions = [kernels.attention(spec) for spec in distinct]
        self._embedding = embedding
        norms = [_norm(config, kernels, tensors[f"layers.{number}.attention_norm"]) for number in range(config.num_layers)]
        norms.append(_norm(config, kernels, tensors["norm"]))
        self._first_norm = norms[0]
        self._layers = [
            _layer(config, kernels, tensors, linears, number, distinct.index(spec), norms[number + 1])
            for number, spec in enumerate(specs)
        ]
        self._head = Head(linears["lm_head"])
        self._rope = RopeTable(config.rope, config.head_dim, max_positions, kernels.device, kernels.dtype)
        parts = tuple(layer.parts for layer in self._layers)
        self.stack = kernels.layers(StackParts(self._first_norm.weight, config.norm_eps, self._rope.table, parts))

    @torch.inference_mode()
    def plan_attention(self, index: AttentionIndex) -> tuple[Any, ...]:
        """What attention needs in every layer of a step, once a step. Changes nothing."""
        return tuple(attention.plan(index) for attention in self._attentions)

    def graph_attentions(self) -> list[GraphAttention]:
        """The attentions in the order of their plans. Raises TypeError where one cannot be recorded."""
        found = [attention for attention in self._attentions if isinstance(attention, GraphAttention)]
        if len(found) < len(self._attentions):
            raise TypeError("This attention plans on the device, so its steps cannot be recorded.")
        return found

    @torch.inference_mode()
    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        *,
        kv: LayeredKV,
        slots: Tensor,
        attention_plan: tuple[Any, ...],
        logit_rows: Tensor,
    ) -> Tensor:
        """One step. token_ids, positions (rotary), slots: int64 [tokens] on the device; slots all different.

        logit_rows: int64 [n] into the tokens, in any order, repeats allowed, may be empty. Returns logits [n, vocab] in the
        model's dtype. Writes K and V of all tokens into `kv`. A row's logits do not depend on the other rows of the step.
        """
        hidden = self.hidden(token_ids, positions, kv=kv, slots=slots, attention_plan=attention_plan, logit_rows=logit_rows)
        return self._head.logits(hidden)

    @torch.inference_mode()
    def hidden(
        self,
        token_ids: Tensor,
        positions: Tensor,
        *,
        kv: LayeredKV,
        slots: Tensor,
        attention_plan: tuple[Any, ...],
        logit_rows: Tensor,
    ) -> Tensor:
        """As `forward`, but returns the hidden states after the final norm: [n, hidden] in the model's dtype."""
        x = self._embedding(token_ids)
        if self.stack is not None and self.stack.takes(x.shape[0], logit_rows.shape[0], kv):
            return self.stack.run(x, positions, slots=slots, plan=attention_plan[0], kv=kv, logit_rows=logit_rows)
        y, turns = self._first_norm(x), self._rope(positions)
        *earlier, last = enumerate(self._layers)
        for number, layer in earlier:
            y = layer.finish(x, layer.attend(y, kv.layer(number), slots, attention_plan, turns))
        number, layer = last
        attended = layer.attend(y, kv.layer(number), slots, attention_plan, turns)
        if logit_rows.shape[0] == 0:
            return x[:0]
        # Nothing but the wanted rows is needed after the last layer has written its K and V.
        return layer.finish(x.index_select(0, logit_rows), attended.index_select(0, logit_rows))


def _attention_spec(config: ModelConfig, window: int | None) -> AttentionSpec:
    return AttentionSpec(config.num_heads, config.num_kv_heads, config.head_dim, config.head_dim**-0.5, window=window)


def _norm(config: ModelConfig, kernels: Kernels, weight: Tensor) -> Norm:
    return Norm(weight, config.norm_eps, kernels.rms_norm)


def _layer(
    config: ModelConfig,
    kernels: Kernels,
    tensors: Mapping[str, Tensor],
    linears: Mapping[str, Linear],
    number: int,
    spec_number: int,
    next_norm: Norm,
) -> Layer:
    attention = PagedAttention(
        kernel=kernels.attention(_attention_spec(config, config.windows[number])),
        spec_number=spec_number,
        norm=_qk_norm(config, tensors, number) if config.family.qk_norm else None,
        eps=config.norm_eps,
        rotate_and_write=kernels.rotate_and_write,
    )
    mlp_norm = _norm(config, kernels, tensors[f"layers.{number}.mlp_norm"])
    return Layer(attention, mlp_norm, LayerLinears.of(linears, number), kernels.silu_mul, next_norm)


def _qk_norm(config: ModelConfig, tensors: Mapping[str, Tensor], number: int) -> Tensor:
    """One norm over q and k together: a row of weights for each of their heads."""
    q = tensors[f"layers.{number}.q_norm"].expand(config.num_heads, -1)
    k = tensors[f"layers.{number}.k_norm"].expand(config.num_kv_heads, -1)
    return torch.cat((q, k))
