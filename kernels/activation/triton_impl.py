"""Gated activations in Triton, rounded where the reference rounds."""

# pyright: reportCallIssue=false
# A launch takes options beside the kernel's parameters.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024
"""Elements of a program: 16 bytes of bf16 for each thread of four warps."""


class TritonSiluMul:
    """On CUDA, in fp32 and bf16. Every element by itself, so a row's bits depend on nothing else."""

    def __call__(self, gate_up: Tensor) -> Tensor:
        """See the interface."""
        tokens, size = gate_up.shape[0], gate_up.shape[1] // 2
        out = torch.empty((tokens, size), dtype=gate_up.dtype, device=gate_up.device)
        if tokens:
            grid = (tokens, triton.cdiv(size, _BLOCK))
            _silu_mul[grid](gate_up, out, size, gate_up.stride(0), BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=False)
        return out


@triton.jit
def _silu_mul(gate_up, out, size, stride, BLOCK: tl.constexpr):
    """A program takes BLOCK elements of a token."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = column < size
    gate = tl.load(gate_up + token * stride + column, mask=there, other=0.0)
    up = tl.load(gate_up + token * stride + size + column, mask=there, other=0.0)
    wide = gate.to(tl.float32)
    activated = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype)
    tl.store(out + token * size + column, (activated.to(tl.float32) * up.to(tl.float32)).to(gate.dtype), mask=there)
