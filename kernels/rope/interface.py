"""Rotary position embedding (Su et al., 2021) in the half-split layout of Llama."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class ApplyRope(Protocol):
    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: [tokens, heads, head_dim]; cos, sin: [tokens, 1, head_dim], looked up by position, with the first half of sin
        negated. Returns x rotated: element i of the first half pairs with element i of the second. Changes nothing.
        """
        ...
