"""All layers in one call of C++ (`kernels/cpp/layers.cpp`): no Python, no dispatch and no new tensor between the operations.

Each operation is the one that the single operators call, so a step has the same bits on both ways.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..attention.native import NativeAttention, Plan
from ..gemm.interface import Linear
from ..gemm.product import Bf16Product, HasProduct
from .interface import LayeredKV, LayerParts, StackParts


def refusal(parts: StackParts) -> str | None:
    """Why these layers cannot run in one call; None if they can."""
    if not parts.layers:
        return "there are none"
    for layer in parts.layers:
        if not isinstance(layer.attention, NativeAttention):
            return "attention is not in C++"
        if not all(isinstance(linear, HasProduct) for linear in _linears(layer)):
            return "some linear layer is not in C++"
    specs = [(_attention(layer).level, _attention(layer).spec) for layer in parts.layers]
    if len({(level, spec.num_heads, spec.num_kv_heads, spec.head_dim) for level, spec in specs}) > 1:
        return "layers differ in their heads or sets of instructions"
    return None


class BoundPools:
    """Where K and V of all layers lie, told to the C++ once. Keeps nothing: their owner must live when it is used."""

    def __init__(self, stack: int, layers: Sequence[tuple[Tensor, Tensor]]):
        self.number: int = torch.ops.ramify.layers_bind_pools(stack, [pool for layer in layers for pool in layer])
        weakref.finalize(self, torch.ops.ramify.layers_free_pools, self.number)


class NativeStack:
    """On the CPU, in fp32 and bf16. `kernels.native.load` must have succeeded before.

    most_rows: above which a linear layer is not in C++; None: never. Keeps the parts, whose memory it reads.
    """

    def __init__(self, parts: StackParts, level: int):
        """level: of the operations between the linears, one that this CPU has. Raises ValueError for parts that are refused."""
        reason = refusal(parts)
        if reason is not None:
            raise ValueError(f"Layers cannot run in one call: {reason}.")
        attentions = [_attention(layer) for layer in parts.layers]
        spec, ops = attentions[0].spec, torch.ops.ramify
        self._parts = parts
        self._run = ops.layers_run.default
        self._hidden, self._dtype = parts.first_norm.shape[0], parts.first_norm.dtype
        shape = (spec.num_heads, spec.num_kv_heads, spec.head_dim)
        self.number: int = ops.layers_make(parts.first_norm, parts.rope, *shape, parts.eps, level, attentions[0].level)
        self._last: tuple[Callable[[], LayeredKV | None], BoundPools | None] = (lambda: None), None
        weakref.finalize(self, ops.layers_free, self.number)
        limits = [self._add(layer, attention) for layer, attention in zip(parts.layers, attentions, strict=True)]
        self.most_rows = min((most for limit in limits for most in limit if most is not None), default=None)

    def takes(self, tokens: int, logit_rows: int, kv: LayeredKV) -> bool:
        """See the interface."""
        few = self.most_rows is None or max(tokens, logit_rows) <= self.most_rows
        return few and self._bound(kv) is not None

    def run(self, x: Tensor, positions: Tensor, *, slots: Tensor, plan: Plan, kv: LayeredKV, logit_rows: Tensor) -> Tensor:
        """See the interface. Raises RuntimeError for a position, slot, row or page that does not exist."""
        pools = self._bound(kv)
        assert pools is not None, "pools of a kind that was not taken"
        out = torch.empty((logit_rows.shape[0], self._hidden), dtype=self._dtype)
        of_plan = (plan.page_table, plan.page_size, plan.spans, plan.sharing)
        self._run(self.number, pools.number, x.contiguous(), positions, slots, *of_plan, logit_rows, out)
        return out

    def _bound(self, kv: LayeredKV) -> BoundPools | None:
        """The owner's pools; the last owner is remembered. None for pools that hold K and V neither in our dtype nor in int8."""
        owner, pools = self._last
        if owner() is not kv:
            layers = [kv.layer(number) for number in range(len(self._parts.layers))]
            dtypes = {pool.dtype for layer in layers for pool in layer}
            known = dtypes in ({self._dtype}, {torch.int8})
            pools = BoundPools(self.number, layers) if known else None
            self._last = weakref.ref(kv), pools
        return pools

    def _add(self, layer: LayerParts, attention: NativeAttention) -> list[int | None]:
        """Returns each linear's limit of rows."""
        spec, ops = attention.spec, torch.ops.ramify
        costs = attention.costs.piece_bytes, attention.costs.joining_bytes
        number = ops.layers_add_spec(self.number, spec.scale, spec.window or 0, spec.soft_cap or 0.0, spec.causal, *costs)
        products, limits = zip(*(self._add_product(linear) for linear in _linears(layer)), strict=True)
        ops.layers_add(self.number, list(products), layer.mlp_norm, layer.next_norm, layer.qk_norm, number)
        return list(limits)

    def _add_product(self, linear: Linear) -> tuple[int, int | None]:
        assert isinstance(linear, HasProduct)
        product, ops = linear.product(), torch.ops.ramify
        if isinstance(product, Bf16Product):
            of = (product.packed, product.bias, product.columns, product.outputs, product.chain)
            return ops.layers_add_bf16(self.number, *of), product.most_rows
        of = (product.blocks, product.bias, product.columns, product.outputs, product.bits, product.group, product.level)
        return ops.layers_add_quantized(self.number, *of), product.most_rows


def _linears(layer: LayerParts) -> tuple[Linear, ...]:
    return layer.qkv, layer.o, layer.gate_up, layer.down


def _attention(layer: LayerParts) -> NativeAttention:
    assert isinstance(layer.attention, NativeAttention)
    return layer.attention
