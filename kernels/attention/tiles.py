"""How a step's attention is cut up: on the host, once a step, for all layers.

A *block* is up to `rows` query rows of one span (a row is a position and a head of its KV head's group), an *item* a block and
one tile of 256 positions that it sees. Items of a batch with equal shapes are computed together as a *piece*. Blocks have one
of three sizes, for decodes, short and long spans.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .interface import AttentionIndex, AttentionSpec

TILE = 256
FEW_ITEMS = 8
"""With at most this many items in a batch, sorting them by kind costs more calls than it saves arithmetic."""
SCORES_PER_BATCH = 1 << 21
"""Scores, or values of gathered K (fp32), that are in memory at once: 8 MiB, which stays in the last cache level."""


@dataclass(frozen=True)
class Shapes:
    """Shapes of the products: query rows are padded to a multiple of `row_multiple`, tiles cut to one of `widths`."""

    row_multiple: int = 8
    widths: tuple[int, ...] = (64, 128, 256)


@dataclass(frozen=True)
class Piece:
    """Items whose scores are computed together, each `width` keys of its tile.

    q_index: int64 [items * kv_heads * rows], places of queries in q seen as [tokens * heads, head_dim]. kv_index: int64
    [items * kv_heads * width], places of keys in a pool seen as [slots * kv_heads, head_dim]. mask: bool [items, 1, rows or 1,
    width], True where a key is not seen; None if all are.
    """

    items: int
    width: int
    q_index: Tensor
    kv_index: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class Merge:
    """How items become blocks again: each block's items stand in order of position, other blocks' between them.

    block: int64 [items]; padded: int64 [blocks * most_tiles], the items of each block, filled up with the number of items.
    """

    block: Tensor
    padded: Tensor
    blocks: int
    most_tiles: int


@dataclass(frozen=True)
class Batch:
    """Blocks of equally many query rows, computed in pieces. merge is None where every block sees one tile only."""

    rows: int
    pieces: tuple[Piece, ...]
    merge: Merge | None


@dataclass(frozen=True)
class Plan:
    """Batches of a step; out_index: int64 [tokens * heads], where each (token, head) stands among the batches' rows."""

    batches: tuple[Batch, ...]
    out_index: Tensor
    tokens: int


@dataclass(frozen=True)
class _Items:
    """Items on the host, one entry each: block, tile, lowest and highest position that the block sees."""

    block: np.ndarray
    tile: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    def take(self, chosen: np.ndarray) -> _Items:
        return _Items(self.block[chosen], self.tile[chosen], self.lowest[chosen], self.highest[chosen])


@dataclass(frozen=True)
class _Blocks:
    """Query blocks on the host, one entry each.

    row of the page table, first token, first position, number of positions, lowest and highest position that any row sees.
    """

    row: np.ndarray
    token: np.ndarray
    position: np.ndarray
    length: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray

    @property
    def tiles(self) -> np.ndarray:
        return self.highest // TILE - self.lowest // TILE + 1

    def take(self, chosen: np.ndarray | slice) -> _Blocks:
        return _Blocks(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


class TilePlanner:
    """Cuts steps for one spec. scores_per_batch: how many scores may be in memory at once; it changes no result."""

    def __init__(self, spec: AttentionSpec, device: torch.device, shapes: Shapes, scores_per_batch: int = SCORES_PER_BATCH):
        self.spec = spec
        self.device = device
        self.shapes = shapes
        self.group = spec.num_heads // spec.num_kv_heads
        self._scores_per_batch = scores_per_batch
        least = -(-self.group // shapes.row_multiple) * shapes.row_multiple
        self.row_classes = sorted({least, max(64, least), max(256, least)})

    def plan(self, index: AttentionIndex) -> Plan:
        """Everything that is the same in all layers. Every token belongs to exactly one span. Changes no state."""
        length = np.asarray(index.query_length, np.int64)
        tokens = int(length.sum())
        wanted = length * self.group
        out = np.zeros((tokens, self.spec.num_heads), np.int64)
        batches: list[Batch] = []
        written = 0
        for number, rows in enumerate(self.row_classes):
            above = self.row_classes[number - 1] if number else 0
            largest = number == len(self.row_classes) - 1
            spans = np.flatnonzero((wanted > above) & ((wanted <= rows) | largest))
            if spans.size == 0:
                continue
            blocks = self._cut(index, spans, rows // self.group)
            for part in self._fitting(blocks, rows):
                ordered, batch = self._batch(index, part, rows)
                batches.append(batch)
                self._place(out, ordered, rows, written)
                written += part.row.size * self.spec.num_kv_heads * rows
        return Plan(tuple(batches), torch.from_numpy(out.reshape(-1)).to(self.device), tokens)

    def _cut(self, index: AttentionIndex, spans: np.ndarray, positions: int) -> _Blocks:
        """Cuts spans into blocks of at most `positions` query positions."""
        span_length, start = (np.asarray(each, np.int64)[spans] for each in (index.query_length, index.start))
        count = -(-span_length // positions)
        span = np.repeat(np.arange(spans.size), count)
        offset = _ranges(count) * positions
        length = np.minimum(positions, span_length[span] - offset)
        position = start[span] + offset
        highest = position + length - 1 if self.spec.causal else (start + span_length)[span] - 1
        lowest = np.zeros_like(position)
        if self.spec.window is not None:
            lowest = np.maximum(0, position - self.spec.window + 1)
        token = np.asarray(index.query_start, np.int64)[spans][span] + offset
        return _Blocks(np.asarray(index.row, np.int64)[spans][span], token, position, length, lowest, highest)

    def _fitting(self, blocks: _Blocks, rows: int) -> list[_Blocks]:
        """Runs of blocks whose scores fit the budget; a block that alone does not is a run of its own."""
        budget = self._items_at_once(rows)
        runs, first, held = [], 0, 0
        for block, count in enumerate(blocks.tiles.tolist()):
            if held and held + count > budget:
                runs.append(blocks.take(slice(first, block)))
                first, held = block, 0
            held += count
        runs.append(blocks.take(slice(first, blocks.row.size)))
        return runs

    def _items_at_once(self, rows: int) -> int:
        return max(1, self._scores_per_batch // (max(rows, self.spec.head_dim) * self.spec.num_kv_heads * TILE))

    def _batch(self, index: AttentionIndex, blocks: _Blocks, rows: int) -> tuple[_Blocks, Batch]:
        """The batch of some blocks, and the blocks in the order in which their results will stand."""
        tiles = blocks.tiles
        block = np.repeat(np.arange(tiles.size), tiles)
        items = _Items(block, (blocks.lowest // TILE)[block] + _ranges(tiles), blocks.lowest[block], blocks.highest[block])
        kind, width = self._kinds(blocks, items)
        order = np.argsort(kind, kind="stable")
        items, kind, width = items.take(order), kind[order], width[order]
        merge = None
        if tiles.max() > 1:
            merge = self._merge(tiles, items.block)
        else:
            blocks, items = blocks.take(items.block), replace(items, block=block)
        bounds = [0, *(np.flatnonzero(np.diff(kind)) + 1).tolist(), kind.size]
        pieces = []
        for low, high in pairwise(bounds):
            for first in range(low, high, self._items_at_once(rows)):
                chosen = np.arange(first, min(high, first + self._items_at_once(rows)))
                pieces.append(self._piece(index, blocks, items.take(chosen), rows, int(width[low]), masked=bool(kind[low])))
        return blocks, Batch(rows, tuple(pieces), merge)

    def _kinds(self, blocks: _Blocks, items: _Items) -> tuple[np.ndarray, np.ndarray]:
        """Which items are computed together: 0, seen wholly by all rows; 1 and above, with a mask, the narrowest last.

        Along one block's tiles the kind never falls (only its last tile can be narrow, and with a window nothing is of kind 0),
        so that sorting by kind keeps the order of position within a block. Also returns the keys computed of each tile.
        """
        widths = np.array(self.shapes.widths)
        needed = np.minimum(items.highest + 1 - items.tile * TILE, TILE)
        narrow = np.searchsorted(widths, needed)
        if items.tile.size <= FEW_ITEMS:
            narrow[:] = narrow.max()
        seen_by_all = blocks.position[items.block] if self.spec.causal else items.highest
        whole = ((items.tile + 1) * TILE - 1 <= seen_by_all) & (self.spec.window is None) & (items.tile.size > FEW_ITEMS)
        return np.where(whole, 0, len(widths) - narrow), np.where(whole, TILE, widths[narrow])

    def _piece(self, index: AttentionIndex, blocks: _Blocks, items: _Items, rows: int, width: int, *, masked: bool) -> Piece:
        return Piece(
            items=items.tile.size,
            width=width,
            q_index=self._query_places(blocks, items, rows),
            kv_index=self._key_places(index, blocks, items, width),
            mask=self._mask(blocks, items, rows, width) if masked else None,
        )

    def _query_places(self, blocks: _Blocks, items: _Items, rows: int) -> Tensor:
        """Row r of a block is its position r // group and head r % group of the group; rows beyond repeat row 0."""
        row = np.arange(rows)
        row = np.where(row[None, :] < (blocks.length * self.group)[:, None], row[None, :], 0)
        place = (blocks.token[:, None] + row // self.group) * self.spec.num_heads + row % self.group
        place = place[:, None, :] + (np.arange(self.spec.num_kv_heads) * self.group)[None, :, None]
        return torch.from_numpy(place[items.block].reshape(-1)).to(self.device)

    def _key_places(self, index: AttentionIndex, blocks: _Blocks, items: _Items, width: int) -> Tensor:
        """Where the tiles' keys are in the pool; positions that the block does not see repeat one that it does."""
        position = (items.tile * TILE)[:, None] + np.arange(width)
        position = np.clip(position, items.lowest[:, None], items.highest[:, None])
        page = blocks.row[items.block][:, None] * index.page_table.shape[1] + position // index.page_size
        slots = index.page_table.reshape(-1).index_select(0, torch.from_numpy(page.reshape(-1)).to(self.device)).long()
        if index.page_size > 1:
            slots = slots * index.page_size + torch.from_numpy((position % index.page_size).reshape(-1)).to(self.device)
        kv_heads = self.spec.num_kv_heads
        heads = torch.arange(kv_heads, device=self.device).view(1, kv_heads, 1)
        return (slots.view(-1, 1, width) * kv_heads + heads).view(-1)

    def _mask(self, blocks: _Blocks, items: _Items, rows: int, width: int) -> Tensor:
        """bool [items, 1, rows or 1, width]; 1 where all rows of every block see the same keys."""
        key = torch.from_numpy((items.tile * TILE)[:, None] + np.arange(width)).to(self.device)[:, None, :]
        place = np.zeros((blocks.length.size, 1), np.int64)
        if blocks.length.max() > 1:
            place = np.minimum(np.arange(rows)[None, :] // self.group, (blocks.length - 1)[:, None])
        query = torch.from_numpy((blocks.position[:, None] + place)[items.block]).to(self.device)[:, :, None]
        hidden = key > (query if self.spec.causal else torch.from_numpy(items.highest).to(self.device)[:, None, None])
        if self.spec.window is not None:
            hidden = hidden | (key <= query - self.spec.window)
        return hidden[:, None]

    def _merge(self, tiles: np.ndarray, block: np.ndarray) -> Merge:
        """block: of each item, in the order of the items."""
        most = int(tiles.max())
        by_block = np.argsort(block, kind="stable")
        padded = np.full((tiles.size, most), block.size, np.int64)
        padded[block[by_block], _ranges(tiles)] = by_block
        as_tensor = torch.from_numpy
        return Merge(as_tensor(block).to(self.device), as_tensor(padded.reshape(-1)).to(self.device), tiles.size, most)

    def _place(self, out: np.ndarray, blocks: _Blocks, rows: int, written: int) -> None:
        """Fills `out` with where each (token, head) of these blocks will stand; `written` rows stand before them."""
        block = np.repeat(np.arange(blocks.length.size), blocks.length)
        place = _ranges(blocks.length)
        head = np.arange(self.spec.num_heads)
        kv_row = block[:, None] * self.spec.num_kv_heads + head // self.group
        out[blocks.token[block] + place] = written + kv_row * rows + place[:, None] * self.group + head % self.group


def _ranges(counts: np.ndarray) -> np.ndarray:
    """[2, 3] -> [0, 1, 0, 1, 2]."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1]) if counts.size else 0) - np.repeat(ends - counts, counts)
