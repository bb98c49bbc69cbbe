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


def copies(rng: random.Random, vocabulary: int) -> tuple[list[int], list[float]]:
    """Random tokens, then spans of them again; the first token of a span says which one, the others count.

    Text trains copying on the tokens that it is made of; names that it never has are made of rarer ones.
    """
    line = [rng.randrange(vocabulary) for _ in range(rng.randint(16, 96))]
    ids, weights = list(line), [0.0] * len(line)
    for _ in range(rng.randint(4, 16)):
        start = rng.randrange(len(line) - 2)
        span = line[start:start + rng.randint(2, 8)]
        ids += span
        weights += [0.0, *[1.0] * (len(span) - 1)]
    return ids, weights


def batches(source: Callable[[], Document], tokenizer: Tokenizer, *, seed: int, pad_id: int, tokens: int = 2048,
            per_step: int = 4, pool: int = 1024, longest: int = 1024, multiple: int = 32, copies_after: int = 1200,
            copies_of_pool: int = 80) -> Iterator[list[Batch]]:
    """Endless optimiser steps of `per_step` batches of about `tokens` tokens each.

    A pool of documents is encoded and sorted by length; its batches are used in random order. Rows start at position 0,
    as prompts do, and are padded to the longest of their batch, rounded up to `multiple`. From step `copies_after` on, when
    the text is nearly learned, a pool also holds `copies_of_pool` rows of `copies`.
    """
    rng = random.Random(f"batches-{seed}")
    drawn = random.Random(f"copies-{seed}")
    vocabulary = min(tokenizer.get_added_tokens_decoder(), default=tokenizer.get_vocab_size())
    waiting: list[Batch] = []
    steps = 0
    while True:
        rows = encode(tokenizer, [source() for _ in range(pool)], longest)
        if steps >= copies_after:
            rows += [copies(drawn, vocabulary) for _ in range(copies_of_pool)]
        rows.sort(key=lambda row: -len(row[0]))
        start = 0
        while start < len(rows):
            length = -(-len(rows[start][0]) // multiple) * multiple
            count = max(1, tokens // length)
            waiting.append(padded(rows[start:start + count], length, pad_id))
            start += count
        rng.shuffle(waiting)
        while len(waiting) >= per_step:
            yield [waiting.pop() for _ in range(per_step)]
            steps += 1


def padded(rows: list[tuple[list[int], list[float]]], length: int, pad_id: int) -> Batch:
    """Rows on the left, padding of weight 0 on the right; with causal attention nothing else is needed."""
    ids = torch.full((len(rows), length), pad_id)
    weights = torch.zeros(len(rows), length)
    for i, (row, weight) in enumerate(rows):
        ids[i, :len(row)] = torch.tensor(row)
        weights[i, :len(row)] = torch.tensor(weight)
    return Batch(ids, weights)
