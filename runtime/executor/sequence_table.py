"""The executor's own state of each row of the batch: pages, last token, sampling parameters, counts for penalties.

Other parts hold an index into it (a row). What the forward pass reads on the device lies there (page table, last tokens,
counts); sampling parameters are host columns, from which each step takes what its wanted rows need in one gather: so the
host knows without asking the device whether a step needs masks, filters or penalties at all.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from ...kernels.sampling.philox import ROUNDS, round_keys
from ...kernels.upload import upload
from ..plan import Int32, RowEntry
from .penalties import PenaltyCounts
from .sharing import PageSharing

GREEDY_BELOW = 1e-6
"""Temperatures below this are greedy."""

Int64 = NDArray[np.int64]


class SequenceTable:
    """State per row. page_table: int32 [max_rows, max_pages] on the device; last_tokens: int64 [max_rows] on the device.
    sharing: which rows begin with the same pages; None where nobody wants to know.

    Host columns, one entry a row: temperature, top_p, min_p (float32), top_k, min_new_tokens (int32), sample_index
    (uint32), keys (uint64 [ROUNDS, 2], of the row's seed), filtered (top_k, top_p or min_p is on), edited (a bias or a
    penalty changes the logits in every step).
    """

    def __init__(self, *, max_rows: int, max_pages: int, vocab: int, device: torch.device, tree_attention: bool = True):
        self.max_rows, self.max_pages, self.vocab, self.device = max_rows, max_pages, vocab, device
        self.host_pages = np.zeros((max_rows, max_pages), np.int32)
        pages = torch.from_numpy(self.host_pages)
        self.page_table = pages if device.type == "cpu" else pages.to(device)
        self.sharing = PageSharing(self.host_pages) if tree_attention else None
        self.last_tokens = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.temperature = np.zeros(max_rows, np.float32)
        self.top_p = np.ones(max_rows, np.float32)
        self.min_p = np.zeros(max_rows, np.float32)
        self.top_k = np.zeros(max_rows, np.int32)
        self.min_new_tokens = np.zeros(max_rows, np.int32)
        self.sample_index = np.zeros(max_rows, np.uint32)
        self.keys = np.zeros((max_rows, ROUNDS, 2), np.uint64)
        self.filtered = np.zeros(max_rows, np.bool_)
        self.edited = np.zeros(max_rows, np.bool_)
        self.bias: dict[int, tuple[Int64, NDArray[np.float32]]] = {}
        self.stop_ids: dict[int, Int64] = {}
        self.penalties = PenaltyCounts(vocab=vocab, device=device)

    def enter(self, entries: Iterable[RowEntry]) -> None:
        """Rows begin anew with these parameters; whatever their predecessors left is forgotten. Ids outside of the vocabulary
        are dropped from bias and stop ids: they are never drawn. Changes state."""
        for entry in entries:
            row = entry.row
            greedy = entry.temperature < GREEDY_BELOW
            self.temperature[row] = 0.0 if greedy else entry.temperature
            self.top_p[row], self.min_p[row], self.top_k[row] = entry.top_p, entry.min_p, max(entry.top_k, 0)
            self.filtered[row] = not greedy and (entry.top_k > 0 or entry.top_p < 1 or entry.min_p > 0)
            self.sample_index[row] = entry.sample_index
            self.keys[row] = round_keys(entry.seed)
            self.bias.pop(row, None)
            bias = {token: value for token, value in entry.logit_bias if 0 <= token < self.vocab}
            if bias:
                self.bias[row] = np.array(list(bias), np.int64), np.array(list(bias.values()), np.float32)
            self.stop_ids[row] = np.array([token for token in entry.stop_ids if 0 <= token < self.vocab], np.int64)
            self.min_new_tokens[row] = entry.min_new_tokens
            self.penalties.enter(entry)
            self.edited[row] = row in self.bias or row in self.penalties

    def write_pages(self, rows: Int32, indices: Int32, pages: Int32) -> None:
        """page_table[rows, indices] = pages. Changes the host's and the device's copy."""
        if not len(rows):
            return
        if self.sharing is not None:
            self.sharing.writing(rows, indices, pages)
        self.host_pages[rows, indices] = pages
        if self.device.type != "cpu":
            where, moved = upload([rows.astype(np.int64) * self.host_pages.shape[1] + indices, pages], self.device)
            self.page_table.view(-1).index_copy_(0, where, moved)
