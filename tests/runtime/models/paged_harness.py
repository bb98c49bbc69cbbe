"""A naive owner of pages for tests: one sequence after another into a pool full of NaN, in any cuts and any company."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ramify.kernels.attention.interface import AttentionIndex
from ramify.runtime.models.decoder import Decoder


class Pools:
    """K and V of all layers; unwritten slots hold NaN."""

    def __init__(self, decoder: Decoder, slots: int):
        spec = decoder.kv_spec
        shape = (spec.num_layers, *spec.pool_shape(slots))
        poison = -1 if spec.dtype == torch.int8 else float("nan")  # a scale of -1, -1 is NaN
        self.k, self.v = (torch.full(shape, poison, dtype=spec.dtype) for _ in range(2))

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        return self.k[number], self.v[number]


@dataclass
class Stream:
    """One sequence: its row of the page table and how many of its tokens are in the pool."""

    row: int
    length: int = 0
    ids: list[int] = field(default_factory=list)


class Paged:
    """Runs spans through a decoder. Pages are handed out in a shuffled order."""

    def __init__(self, decoder: Decoder, *, page_size: int = 1, pages: int = 512, rows: int = 64, longest: int = 1024):
        self.decoder = decoder
        self.page_size = page_size
        self.pools = Pools(decoder, pages * page_size)
        self.free = np.random.default_rng(0).permutation(pages).tolist()
        self.table = torch.full((rows, -(-longest // page_size)), 10**6, dtype=torch.int32)
        self.streams: list[Stream] = []

    def stream(self) -> Stream:
        self.streams.append(Stream(len(self.streams)))
        return self.streams[-1]

    def step(self, spans: list[tuple[Stream, list[int]]], wanted: str = "all") -> list[Tensor]:
        """Adds tokens to streams in one step. Returns, per span, the logits of all its tokens or of the last one."""
        lengths = [len(ids) for _, ids in spans]
        rows = torch.arange(sum(lengths)) if wanted == "all" else torch.tensor(lengths).cumsum(0) - 1
        return list(self.rows(spans, rows).split(lengths if wanted == "all" else 1))

    def rows(self, spans: list[tuple[Stream, list[int]]], wanted: Tensor) -> Tensor:
        """Adds tokens to streams in one step. Returns the logits of these rows, int64 [n] into the step's tokens."""
        starts, lengths, positions, slots = [], [], [], []
        for stream, ids in spans:
            end = stream.length + len(ids)
            for page in range(-(-stream.length // self.page_size), -(-end // self.page_size)):
                self.table[stream.row, page] = self.free.pop()
            place = np.arange(stream.length, end)
            pages = self.table[stream.row].numpy()[place // self.page_size]
            slots.append(pages.astype(np.int64) * self.page_size + place % self.page_size)
            positions.append(place)
            starts.append(stream.length)
            lengths.append(len(ids))
            stream.length = end
            stream.ids += ids
        ends = np.cumsum(lengths)
        index = AttentionIndex(
            query_start=(ends - lengths).astype(np.int32),
            query_length=np.array(lengths, np.int32),
            start=np.array(starts, np.int32),
            row=np.array([stream.row for stream, _ in spans], np.int32),
            page_table=self.table,
            page_size=self.page_size,
        )
        return self.decoder.forward(
            torch.tensor([token for _, ids in spans for token in ids]),
            torch.from_numpy(np.concatenate(positions)),
            kv=self.pools,
            slots=torch.from_numpy(np.concatenate(slots)),
            attention_plan=self.decoder.plan_attention(index),
            logit_rows=wanted,
        )

    def prefill(self, ids: list[int], chunk: int | None = None) -> tuple[Stream, Tensor]:
        """A new sequence in chunks; returns it and the logits of all its tokens, [len(ids), vocab]."""
        stream = self.stream()
        chunk = chunk or len(ids)
        parts = [self.step([(stream, ids[first : first + chunk])])[0] for first in range(0, len(ids), chunk)]
        return stream, torch.cat(parts)

    def greedy(self, prompts: list[list[int]], steps: int) -> list[list[int]]:
        """Prompts in one step, then greedy decoding in one batch."""
        streams = [self.stream() for _ in prompts]
        logits = self.step(list(zip(streams, prompts, strict=True)), "last")
        outputs: list[list[int]] = [[] for _ in prompts]
        for _ in range(steps):
            tokens = [int(row.argmax()) for row in logits]
            for output, token in zip(outputs, tokens, strict=True):
                output.append(token)
            logits = self.step([(stream, [token]) for stream, token in zip(streams, tokens, strict=True)], "last")
        return outputs
