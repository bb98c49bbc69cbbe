"""Attention over pages in torch: KV is reduced in tiles cut at absolute multiples of 256 positions.

All items of a piece (see `tiles.py`) go through one batched product for the scores, one softmax within the tile and one batched
product with V; where a block sees several tiles its partial results are merged in order of position:

    out = sum over tiles t of  u_t * out_t,    u_t = w_t / sum of w,    w_t = exp(m_t - max of m) * l_t

with m_t and l_t the tile's maximum and its sum of exponentials. A tile in which a row sees nothing has weight exactly 0.

Why a row's bits do not depend on its company: tiles are absolute, products have one of a few fixed shapes (`Shapes`, chosen by
`selftest.py` so that a row comes out of each of them with the same bits), and merging is sequential. Keys beyond a span's
context are never read: such places repeat a position that the span does see and are masked, so stale pages may hold NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..kv.int8 import read
from .interface import AttentionIndex, AttentionSpec
from .tiles import SCORES_PER_BATCH, Batch, Merge, Piece, Plan, Shapes, TilePlanner

MASKED = -1e30
"""Score of a masked key: finite, so that a tile in which a row sees nothing stays finite too, with weight exp(-1e30) = 0."""


class TorchAttention:
    """The oracle, and the implementation where no native one is built. Runs on any device."""

    def __init__(
        self, spec: AttentionSpec, device: torch.device, shapes: Shapes | None = None, scores_per_batch: int = SCORES_PER_BATCH
    ):
        """scores_per_batch: how many scores may be in memory at once; it bounds memory and changes no result."""
        self.spec = spec
        self._planner = TilePlanner(spec, device, shapes or Shapes(), scores_per_batch)

    def plan(self, index: AttentionIndex) -> Plan:
        """Everything that is the same in all layers. Every token belongs to exactly one span. Changes no state."""
        return self._planner.plan(index)

    def run(self, plan: Plan, k_pool: Tensor, v_pool: Tensor, q: Tensor) -> Tensor:
        """See the interface. The arithmetic is fp32 whatever the dtype of q and of the pools."""
        head_dim = self.spec.head_dim
        queries = q.reshape(-1, head_dim)
        keys = k_pool.view(-1, k_pool.shape[-1])
        values = v_pool.view(-1, v_pool.shape[-1])
        results = [self._run_batch(batch, queries, keys, values) for batch in plan.batches]
        rows = results[0] if len(results) == 1 else torch.cat(results)
        return rows.index_select(0, plan.out_index).view(plan.tokens, self.spec.num_heads, head_dim).to(q.dtype)

    def _run_batch(self, batch: Batch, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Returns fp32 [blocks * kv_heads * rows, head_dim]."""
        parts = [self._run_piece(batch, piece, queries, keys, values) for piece in batch.pieces]
        out, top, share = parts[0] if len(parts) == 1 else (torch.cat(each) for each in zip(*parts, strict=True))
        if batch.merge is not None:
            out = merge_tiles(batch.merge, out, top, share)
        return out.view(-1, self.spec.head_dim)

    def _run_piece(self, batch: Batch, piece: Piece, queries: Tensor, keys: Tensor, values: Tensor):
        """Attention within each tile: out [items, kv_heads, rows, head_dim]; largest score and its softmax, [..., rows, 1].

        The latter two are what merging needs; where nothing is merged they are left out (empty views of out).
        """
        heads, head_dim = self.spec.num_kv_heads, self.spec.head_dim
        q = queries.index_select(0, piece.q_index).float().mul_(self.spec.scale).view(-1, batch.rows, head_dim)
        k = read(keys.index_select(0, piece.kv_index)).view(-1, piece.width, head_dim)
        scores = torch.bmm(q, k.transpose(1, 2)).view(piece.items, heads, batch.rows, piece.width)
        if self.spec.soft_cap is not None:
            scores.div_(self.spec.soft_cap).tanh_().mul_(self.spec.soft_cap)
        if piece.mask is not None:
            scores.masked_fill_(piece.mask, MASKED)
        weights = torch.softmax(scores, -1)
        v = read(values.index_select(0, piece.kv_index)).view(-1, piece.width, head_dim)
        out = torch.bmm(weights.view(-1, batch.rows, piece.width), v).view(piece.items, heads, batch.rows, head_dim)
        if batch.merge is None:
            return out, out[..., :0], out[..., :0]
        return out, scores.amax(-1, keepdim=True), weights.amax(-1, keepdim=True)


def merge_tiles(merge: Merge, out: Tensor, top: Tensor, share: Tensor) -> Tensor:
    """Merges partial results of tiles, in order of position within each block.

    out: fp32 [items, kv_heads, rows, head_dim], softmax within the tile times V; top: [items, kv_heads, rows, 1], its largest
    score; share: the softmax of that score, 1 / l. Returns [blocks, kv_heads, rows, head_dim]. A row with one live tile gets
    that tile's result unchanged, because its weight is l / l = 1 and all others are 0.
    """
    lowest = torch.full_like(top[:1], MASKED)
    padded = torch.cat((top, lowest)).index_select(0, merge.padded)
    most = padded.view(merge.blocks, merge.most_tiles, *top.shape[1:]).amax(1)
    weight = (top - most.index_select(0, merge.block)).exp_().div_(share)
    total = torch.zeros_like(most).index_add_(0, merge.block, weight)
    weight.div_(total.index_select(0, merge.block))
    result = torch.zeros((merge.blocks, *out.shape[1:]), dtype=out.dtype, device=out.device)
    return result.index_add_(0, merge.block, out * weight)
