"""Rotary frequencies and the table of their cosines and sines by position."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..config import RopeConfig


class RopeTable:
    """cos and sin of all positions, computed once, so that a position's bits are the same in every step.

    table: [max_positions, 2 * head_dim] in the model's dtype, the `turns` of each position (`kernels.rope.interface`).
    """

    def __init__(self, rope: RopeConfig, head_dim: int, max_positions: int, device: torch.device, dtype: torch.dtype):
        frequencies, scale = inverse_frequencies(rope, head_dim)
        angles = torch.arange(max_positions, dtype=torch.float32)[:, None] * frequencies
        cos, sin = angles.cos().mul_(scale), angles.sin_().mul_(scale)
        self.table = torch.cat((cos, cos, -sin, sin), -1).to(device, dtype)

    def __call__(self, positions: Tensor) -> Tensor:
        """positions: int64 [tokens]. Returns cos and sin, [tokens, 2 * head_dim], the first half of sin negated."""
        return self.table.index_select(0, positions)


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> tuple[Tensor, float]:
    """fp32 [head_dim / 2], and the factor of cos and sin (1 except for yarn)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    plain = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        return plain / rope.options["factor"], 1.0
    if rope.kind == "llama3":
        return _llama3(plain, rope.options), 1.0
    if rope.kind == "yarn":
        return _yarn(plain, rope, head_dim)
    return plain, 1.0


def _llama3(plain: Tensor, options: Mapping[str, float]) -> Tensor:
    """Long waves are slowed by `factor`, short ones kept, those between interpolated. Source: Llama 3.1's reference code."""
    waves = 2 * math.pi / plain
    context, low, high = options["original_max_position_embeddings"], options["low_freq_factor"], options["high_freq_factor"]
    share = (context / waves - low) / (high - low)
    between = (1 - share) * plain / options["factor"] + share * plain
    slowed = torch.where(waves > context / low, plain / options["factor"], between)
    return torch.where(waves < context / high, plain, slowed)


def _yarn(plain: Tensor, rope: RopeConfig, head_dim: int) -> tuple[Tensor, float]:
    """Source: YaRN (Peng et al., 2023), section 3, with the options' names and defaults of transformers."""
    options, factor = rope.options, rope.options["factor"]
    context = options["original_max_position_embeddings"]

    def dimension(rotations: float) -> float:
        return head_dim * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(options.get("beta_fast") or 32), dimension(options.get("beta_slow") or 1)
    if options.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = (torch.arange(head_dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)
    kept = 1 - ramp.clamp(0, 1)
    return plain / factor * (1 - kept) + plain * kept, _yarn_scale(options, factor)


def _yarn_scale(options: Mapping[str, float], factor: float) -> float:
    if options.get("attention_factor") is not None:
        return float(options["attention_factor"])

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if options.get("mscale") and options.get("mscale_all_dim"):
        return scale(options["mscale"]) / scale(options["mscale_all_dim"])
    return scale(1.0)
