"""Which product shapes keep a row's bits on this machine: tried once per attention spec, at load.

Matrix libraries choose their inner loops by the shapes of a product, and some of these loops add in another order. So the
real attention is run on a made-up sequence in several company: whole, alone, in chunks, in a crowd.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..kv.int8 import quantize
from .interface import Attention, AttentionIndex, AttentionSpec
from .reference import TorchAttention
from .tiles import Shapes

CANDIDATES = (Shapes(4), Shapes(8), Shapes(16), Shapes(8, (128, 256)), Shapes(8, (256,)), Shapes(16, (256,)))
"""Cheapest first."""
POSITIONS = 531
_PROBES = (0, 1, 2, 37, 63, 64, 127, 128, 129, 200, 255, 256, 300, 511, 512, 530)


def choose_shapes(
    spec: AttentionSpec, device: torch.device, dtype: torch.dtype, kv_dtype: torch.dtype | None = None
) -> tuple[Shapes, bool]:
    """The first candidate under which a row's bits never change, and True; the last candidate and False if there is none.

    dtype: of q; kv_dtype: of the pools, by default as q.
    """
    for shapes in CANDIDATES:
        if holds(TorchAttention(spec, device, shapes), device, dtype, kv_dtype):
            return shapes, True
    return CANDIDATES[-1], False


def holds(attention: Attention, device: torch.device, dtype: torch.dtype, kv_dtype: torch.dtype | None = None) -> bool:
    """True if every probed row has the same bits alone, in chunks of 7 and 64, in a crowd, and in the whole sequence."""
    spec = attention.spec
    generator = torch.Generator().manual_seed(0)
    shape = (POSITIONS, spec.num_kv_heads, spec.head_dim)
    k, v = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2))
    if kv_dtype == torch.int8:
        k, v = quantize(k), quantize(v)
    q = torch.randn((POSITIONS, spec.num_heads, spec.head_dim), generator=generator).to(device, dtype)

    def attend(spans: list[tuple[int, int]]) -> Tensor:
        start, length = (np.array(column, np.int32) for column in zip(*spans, strict=True))
        index = AttentionIndex(
            query_start=(np.cumsum(length) - length).astype(np.int32),
            query_length=length,
            start=start,
            row=np.zeros_like(start),
            page_table=torch.arange(POSITIONS, device=device).view(1, -1),
            page_size=1,
        )
        rows = torch.cat([q[begin : begin + count] for begin, count in spans])
        return attention.run(attention.plan(index), k, v, rows)

    if not spec.causal:
        return torch.equal(attend([(0, POSITIONS)] * 3)[:POSITIONS], attend([(0, POSITIONS)]))
    whole = attend([(0, POSITIONS)])
    probes = [(p, 1) for p in _PROBES]
    crowds = [probes, probes[:5], probes * 3, *([probe] for probe in probes)]
    crowds += [[(p, 7) for p in (0, 60, 250, 508)], [(p, 64) for p in (0, 100, 200, 467)], [(3, 2), (250, 9), (10, 300), (40, 1)]]
    for crowd in crowds:
        expected = torch.cat([whole[begin : begin + count] for begin, count in crowd])
        if not torch.equal(attend(crowd), expected):
            return False
    return True
