"""Gated activations of the feed-forward part."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class SiluMul(Protocol):
    def __call__(self, gate_up: Tensor) -> Tensor:
        """gate_up: [tokens, 2 * size], gate first. Returns silu(gate) * up: [tokens, size]. Changes nothing."""
        ...
