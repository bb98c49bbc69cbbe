"""Norm, rotation and KV write in Triton: one launch, each head read once and written to where it belongs."""

# pyright: reportCallIssue=false
# A launch takes options beside the kernel's parameters.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PAIRS = 512
"""Of elements that are turned together, in a program."""


class TritonRotateAndWrite:
    """On CUDA, in fp32 and bf16; not for pools in int8. Rounded where the reference rounds."""

    def __call__(
        self, qkv: Tensor, turns: Tensor, *, norm: Tensor | None, eps: float, k_pool: Tensor, v_pool: Tensor, slots: Tensor
    ) -> Tensor:
        """See the interface. A token with a negative slot is written nowhere."""
        tokens, kv_heads, head_dim = qkv.shape[0], k_pool.shape[1], turns.shape[1] // 2
        heads = qkv.shape[1] // head_dim - 2 * kv_heads
        q = torch.empty((tokens, heads, head_dim), dtype=qkv.dtype, device=qkv.device)
        if tokens == 0:
            return q
        half = triton.next_power_of_2(head_dim // 2)
        together = max(1, _PAIRS // half)
        _rotate_and_write[(tokens, triton.cdiv(heads + 2 * kv_heads, together))](
            qkv,
            turns,
            qkv if norm is None else norm,
            slots,
            q,
            k_pool,
            v_pool,
            qkv.stride(0),
            turns.stride(0),
            eps,
            NORM=norm is not None,
            HEADS=heads,
            KV_HEADS=kv_heads,
            HEAD_DIM=head_dim,
            TOGETHER=together,
            HALF=half,
            num_warps=2,
            enable_fp_fusion=False,  # a product is rounded before the other is added, as in the reference
        )
        return q


@triton.jit
def _rotate_and_write(
    qkv,
    turns,
    norm,
    slots,
    q,
    k_pool,
    v_pool,
    qkv_stride,
    turns_stride,
    eps,
    NORM: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    TOGETHER: tl.constexpr,
    HALF: tl.constexpr,
):
    """A program takes TOGETHER heads of a token, their lower and upper halves apart. HEAD_DIM / 2 <= HALF, a power of two."""
    token = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * TOGETHER + tl.arange(0, TOGETHER))[:, None]
    pair = tl.arange(0, HALF)[None, :]
    upper: tl.constexpr = HEAD_DIM // 2
    there = (head < HEADS + 2 * KV_HEADS) & (pair < upper)
    turned = head < HEADS + KV_HEADS
    at = head * HEAD_DIM + pair
    low = tl.load(qkv + token * qkv_stride + at, mask=there, other=0.0)
    high = tl.load(qkv + token * qkv_stride + at + upper, mask=there, other=0.0)
    dtype = low.dtype
    a, b = low.to(tl.float32), high.to(tl.float32)
    if NORM:
        scale = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / HEAD_DIM + eps)[:, None]
        normed = there & turned
        a = (a * scale).to(dtype).to(tl.float32) * tl.load(norm + at, mask=normed, other=0.0).to(tl.float32)
        b = (b * scale).to(dtype).to(tl.float32) * tl.load(norm + at + upper, mask=normed, other=0.0).to(tl.float32)
        a, b = a.to(dtype).to(tl.float32), b.to(dtype).to(tl.float32)
    real = (head >= 0) & (pair < upper)
    angle = turns + token * turns_stride + (head * 0 + pair)  # for each head again, so that no thread has to ask another
    a_cos = (a * tl.load(angle, mask=real, other=0.0).to(tl.float32)).to(dtype).to(tl.float32)
    b_cos = (b * tl.load(angle + upper, mask=real, other=0.0).to(tl.float32)).to(dtype).to(tl.float32)
    a_new = a_cos + b * tl.load(angle + HEAD_DIM, mask=real, other=0.0).to(tl.float32)
    b_new = b_cos + a * tl.load(angle + HEAD_DIM + upper, mask=real, other=0.0).to(tl.float32)
    low = tl.where(turned, a_new.to(dtype), low)
    high = tl.where(turned, b_new.to(dtype), high)

    is_q = there & (head < HEADS)
    q_at = q + token * (HEADS * HEAD_DIM) + at
    tl.store(q_at, low, mask=is_q)
    tl.store(q_at + upper, high, mask=is_q)
    slot = tl.load(slots + token)
    written = there & (head * 0 + slot >= 0)
    is_k = written & turned & (head >= HEADS)
    k_at = k_pool + slot * (KV_HEADS * HEAD_DIM) + at - HEADS * HEAD_DIM
    tl.store(k_at, low, mask=is_k)
    tl.store(k_at + upper, high, mask=is_k)
    is_v = written & (head >= HEADS + KV_HEADS)
    v_at = v_pool + slot * (KV_HEADS * HEAD_DIM) + at - (HEADS + KV_HEADS) * HEAD_DIM
    tl.store(v_at, low, mask=is_v)
    tl.store(v_at + upper, high, mask=is_v)
