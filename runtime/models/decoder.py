"""The dense decoder: token ids and pages in, logits of the wanted rows out. All families of `spec.py` run through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ...kernels.activation.interface import SiluMul
from ...kernels.attention.interface import AttentionIndex, AttentionSpec
from ...kernels.gemm.interface import Linear, Rows
from ...kernels.table import Kernels
from .config import ModelConfig
from .layers.attention import PagedAttention
from .layers.embedding import Head
from .layers.linear import LayerLinears
from .layers.norm import Norm, no_norm
from .layers.rope import RopeTable


@dataclass(frozen=True)
class KVSpec:
    """What the model keeps of a token: K and V, each [num_kv_heads, head_dim] of `dtype`, in each layer."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype

    @property
    def bytes_per_token(self) -> int:
        """Bytes of K and V in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype.itemsize


class LayeredKV(Protocol):
    """Whoever owns the K and V bytes."""

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        """The K and V pools of a layer, each [slots, num_kv_heads, head_dim], contiguous."""
        ...


@dataclass(frozen=True)
class Layer:
    """Attention and feed-forward with their norms; both add to the residual stream."""

    attention_norm: Norm
    attention: PagedAttention
    mlp_norm: Norm
    linears: LayerLinears
    silu_mul: SiluMul

    def attend(self, x: Tensor, pools: tuple[Tensor, Tensor], slots: Tensor, plans: Any, cos: Tensor, sin: Tensor) -> Tensor:
        """x: [tokens, hidden]. Returns the heads' outputs, [tokens, heads * head_dim]. Writes K and V."""
        qkv = self.linears.qkv(self.attention_norm(x))
        return self.attention(qkv, pools, slots, plans[self.attention.spec_number], cos, sin)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """x: [rows, hidden], attended: [rows, heads * head_dim]. Returns the layer's output. Changes nothing."""
        x = self.linears.o(attended).add_(x)
        return self.linears.down(self.silu_mul(self.linears.gate_up(self.mlp_norm(x)))).add_(x)


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
        self.kv_spec = KVSpec(config.num_layers, config.num_kv_heads, config.head_dim, kernels.dtype)
        specs = [_attention_spec(config, window) for window in config.windows]
        distinct = list(dict.fromkeys(specs))
        self._attentions = [kernels.attention(spec) for spec in distinct]
        self._embedding = embedding
        self._layers = [
            _layer(config, kernels, tensors, linears, number, distinct.index(spec)) for number, spec in enumerate(specs)
        ]
        self._head = Head(Norm(tensors["norm"], config.norm_eps, kernels.rms_norm), linears["lm_head"])
        self._rope = RopeTable(config.rope, config.head_dim, max_positions, kernels.device, kernels.dtype)

    @torch.inference_mode()
    def plan_attention(self, index: AttentionIndex) -> tuple[Any, ...]:
        """What attention needs in every layer of a step, once a step. Changes nothing."""
        return tuple(attention.plan(index) for attention in self._attentions)

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

        logit_rows: int64 [n] into the tokens, in any order, repeats allowed, may be empty. Returns fp32 logits [n, vocab].
        Writes K and V of all tokens into `kv`. A row's logits do not depend on the other rows of the step.
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
        cos, sin = self._rope(positions)
        *earlier, last = enumerate(self._layers)
        for number, layer in earlier:
            x = layer.finish(x, layer.attend(x, kv.layer(number), slots, attention_plan, cos, sin))
        number, layer = last
        attended = layer.attend(x, kv.layer(number), slots, attention_plan, cos, sin)
        if logit_rows.shape[0] == 0:
            return x[:0]
        # Nothing but the wanted rows is needed after the last layer has written its K and V.
        return self._head.norm(layer.finish(x.index_select(0, logit_rows), attended.index_select(0, logit_rows)))


def _attention_spec(config: ModelConfig, window: int | None) -> AttentionSpec:
    return AttentionSpec(config.num_heads, config.num_kv_heads, config.head_dim, config.head_dim**-0.5, window=window)


def _layer(
    config: ModelConfig,
    kernels: Kernels,
    tensors: Mapping[str, Tensor],
    linears: Mapping[str, Linear],
    number: int,
    spec_number: int,
) -> Layer:
    def norm(name: str) -> Norm:
        return Norm(tensors[f"layers.{number}.{name}"], config.norm_eps, kernels.rms_norm)

    attention = PagedAttention(
        kernel=kernels.attention(_attention_spec(config, config.windows[number])),
        spec_number=spec_number,
        qk_norm=_qk_norm(config, kernels, tensors, number) if config.family.qk_norm else no_norm,
        rope=kernels.apply_rope,
        write=kernels.kv_write,
    )
    return Layer(norm("attention_norm"), attention, norm("mlp_norm"), LayerLinears.of(linears, number), kernels.silu_mul)


def _qk_norm(config: ModelConfig, kernels: Kernels, tensors: Mapping[str, Tensor], number: int) -> Callable[[Tensor], Tensor]:
    """One norm over q and k together: the weight has a row for each of their heads."""
    q = tensors[f"layers.{number}.q_norm"].expand(config.num_heads, -1)
    k = tensors[f"layers.{number}.k_norm"].expand(config.num_kv_heads, -1)
    return Norm(torch.cat((q, k)), config.norm_eps, kernels.rms_norm)
