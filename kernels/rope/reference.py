"""Norm, rotation and KV write in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kv.int8 import quantize
from ..norm.reference import rms_norm


def rotate_and_write(
    qkv: Tensor, turns: Tensor, *, norm: Tensor | None, eps: float, k_pool: Tensor, v_pool: Tensor, slots: Tensor
) -> Tensor:
    """See the interface."""
    kv_heads, head_dim = k_pool.shape[1], turns.shape[1] // 2
    heads = qkv.view(qkv.shape[0], qkv.shape[1] // head_dim, head_dim)
    qk, v = heads[:, :-kv_heads], heads[:, -kv_heads:]
    if norm is not None:
        qk = rms_norm(qk, norm, eps)
    qk = rotate(qk, turns[:, None, :head_dim], turns[:, None, head_dim:])
    k = qk[:, -kv_heads:]
    if k_pool.dtype == torch.int8:
        k, v = quantize(k), quantize(v)
    k_pool.index_copy_(0, slots, k)
    v_pool.index_copy_(0, slots, v)
    return qk[:, :-kv_heads].contiguous()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: [tokens, heads, head_dim]; cos, sin: [tokens, 1, head_dim], the first half of sin negated. Changes nothing.

    x * cos is rounded to the dtype before the other product is added; in bf16 that product is exact. Product and sum are apart,
    because some CPUs would round them once and others twice.
    """
    swapped = torch.roll(x, x.shape[-1] // 2, -1)
    return ((x * cos).float() + swapped.float() * sin.float()).to(x.dtype)
