"""Question: what do int8 and int4 weights, and K and V in int8, change in what the bundled model says, against bf16?

Held-out documents of the kind that the model was trained on, the same ones for the same seed. Of the tokens of their answers
(what is asked, nobody can foresee): perplexity; how often the most likely next token is that of bf16, so that a greedy answer
goes on the same way; the divergence of the distributions, KL(bf16 || other) in nats a token. The bound is bf16 itself.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ...kernels.attention.interface import AttentionIndex
from ...kernels.native import load
from ..bundled import MODEL_DIR
from ..bundled.batches import encode
from ..bundled.corpus import document
from ..bundled.words import Draw
from ..config import kernel_cache
from ..models.decoder import Decoder
from ..models.weights import load_decoder
from . import machine

LONGEST = 1024
KINDS = ("bfloat16", "int8", "int4")
KV = " KV int8"
"""Behind a kind: with K and V in int8 beside these weights."""


@dataclass(frozen=True)
class Text:
    """ids: int64 [tokens]. answers: bool [tokens - 1]: the next token is part of an answer."""

    ids: Tensor
    answers: Tensor


class Cache:
    """K and V of one sequence, a page a token: what a decoder needs to compute a text at once."""

    def __init__(self, decoder: Decoder, tokens: int):
        spec = decoder.kv_spec
        shape = spec.pool_shape(tokens)
        self._pools = [(torch.zeros(shape, dtype=spec.dtype), torch.zeros(shape, dtype=spec.dtype))] * spec.num_layers

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        """See `LayeredKV`. Layers follow one another, so one pool is enough."""
        return self._pools[number]


def texts(tokenizer: Tokenizer, count: int, seed: int) -> list[Text]:
    """`count` documents with names, numbers and sentences that training has never seen."""
    draw = Draw(random.Random(f"quantization-{seed}"), unseen=True)
    rows = encode(tokenizer, [document(draw) for _ in range(count)], LONGEST)
    return [Text(torch.tensor(ids), torch.tensor(weights[1:]) > 0) for ids, weights in rows if len(ids) > 1]


def log_probabilities(decoder: Decoder, ids: Tensor) -> Tensor:
    """Of every token after each of `ids` but the last: fp32 [tokens - 1, vocab]."""
    count = len(ids)
    one, every = np.array([0], np.int32), torch.arange(count)
    index = AttentionIndex(
        query_start=one,
        query_length=np.array([count], np.int32),
        start=one,
        row=one,
        page_table=every[None].to(torch.int32),
        page_size=1,
    )
    logits = decoder.forward(
        ids,
        every,
        kv=Cache(decoder, count),
        slots=every,
        attention_plan=decoder.plan_attention(index),
        logit_rows=every[:-1],
    )
    return logits.log_softmax(-1)


def compare(decoder: Decoder, plain: Decoder, over: list[Text]) -> dict[str, float]:
    """Perplexity of `decoder` on the answers, and how near it is to `plain`."""
    loss, same, divergence, tokens = 0.0, 0, 0.0, 0
    for text in over:
        ours, theirs = (log_probabilities(one, text.ids)[text.answers] for one in (decoder, plain))
        loss -= float(ours.gather(1, text.ids[1:][text.answers, None]).sum())
        same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        divergence += float((theirs.exp() * (theirs - ours)).sum())
        tokens += len(ours)
    return {
        "perplexity": math.exp(loss / tokens),
        "same_next_token": same / tokens,
        "kl_nats": divergence / tokens,
        "tokens": tokens,
    }


def main(argv: list[str]) -> int:
    """Run, print a line a kind, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench quantization", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_DIR, help="a checkpoint that `runtime.bundled.make` wrote")
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args(argv)
    over = texts(Tokenizer.from_file(str(said.model / "tokenizer.json")), said.documents, said.seed)
    native = load(kernel_cache())
    plain = load_decoder(said.model, device="cpu", dtype=torch.bfloat16, native=native)
    figures: dict[str, dict[str, float]] = {}
    print(f"{'weights':16} {'perplexity':>10} {'same next token':>16} {'KL, nats':>9} {'s':>6}")
    for kind in (*KINDS, *(f"{kind}{KV}" for kind in KINDS)):
        started = time.perf_counter()
        weights = kind.removesuffix(KV)
        decoder = load_decoder(
            said.model,
            device="cpu",
            dtype=torch.bfloat16,
            native=native,
            quantization=None if weights == "bfloat16" else weights,
            kv_dtype=torch.int8 if kind.endswith(KV) else None,
        )
        with torch.inference_mode():
            found = figures[kind] = compare(decoder, plain, over)
        print(
            f"{kind:16} {found['perplexity']:10.4f} {found['same_next_token']:16.2%} "
            f"{found['kl_nats']:9.5f} {time.perf_counter() - started:6.1f}",
            flush=True,
        )
    print(json.dumps({"bench": "quantization", "documents": said.documents, **machine.describe(), "kinds": figures}))
    return 0
