"""Where the decoder's linear layers come from: what was packed at load, by our names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....kernels.gemm.interface import Linear


@dataclass(frozen=True)
class LayerLinears:
    """The four products of a decoder layer: q, k and v in one, the attention's output, gate and up in one, down."""

    qkv: Linear
    o: Linear
    gate_up: Linear
    down: Linear

    @staticmethod
    def of(linears: Mapping[str, Linear], layer: int) -> LayerLinears:
        """Picks layer `layer`'s products. Changes nothing."""
        return LayerLinears(*(linears[f"layers.{layer}.{name}"] for name in ("qkv", "o", "gate_up", "down")))
