"""From documents to batches: tokens with weights, sorted by length so that little is padding."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import torch
from tokenizers import Tokenizer

from .corpus import Document
from .train import Batch


def encode(tokenizer: Tokenizer, documents: list[Document], longest: int) -> list[tuple[list[int], list[float]]]:
    """Token ids and weights of every document, cut at `longest` tokens. A token has the weight of its last character."""
    encodings = tokenizer.encode_batch(["".join(text for text, _ in d) for d in documents], add_special_tokens=False)
    rows = []
    for document, encoding in zip(documents, encodings, strict=True):
        ends, weights = [], []
        for text, weight in document:
            ends.append((ends[-1] if ends else 0) + len(text))
            weights.append(weight)
        piece, row = 0, []
        for _, end in encoding.offsets:
            while end > ends[piece]:
                piece += 1
            row.append(weights[piece])
        rows.append((encoding.ids[:longest], row[:longest]))
    return rows


def batches(source: Callable[[], Document], tokenizer: Tokenizer, *, seed: int, pad_id: int, tokens: int = 2048,
            per_step: int = 4, pool: int = 1024, longest: int = 1024, multiple: int = 32) -> Iterator[list[Batch]]:
    """Endless optimiser steps of `per_step` batches of about `tokens` tokens each.

    A pool of documents is encoded and sorted by length; its batches are used in random order. Rows start at position 0,
    as prompts do, and are padded to the longest of their batch, rounded up to `multiple`.
    """
    rng = random.Random(f"batches-{seed}")
    waiting: list[Batch] = []
    while True:
        rows = sorted(encode(tokenizer, [source() for _ in range(pool)], longest), key=lambda row: -len(row[0]))
        start = 0
        while start < len(rows):
            length = -(-len(rows[start][0]) // multiple) * multiple
            count = max(1, tokens // length)
            waiting.append(padded(rows[start:start + count], length, pad_id))
            start += count
        rng.shuffle(waiting)
        while len(waiting) >= per_step:
            yield [waiting.pop() for _ in range(per_step)]


def padded(rows: list[tuple[list[int], list[float]]], length: int, pad_id: int) -> Batch:
    """Rows on the left, padding of weight 0 on the right; with causal attention nothing else is needed."""
    ids = torch.full((len(rows), length), pad_id)
    weights = torch.zeros(len(rows), length)
    for i, (row, weight) in enumerate(rows):
        ids[i, :len(row)] = torch.tensor(row)
        weights[i, :len(row)] = torch.tensor(weight)
    return Batch(ids, weights)
