"""Question: what does a decode step gain where all layers are one call, and how near to the memory's rate does it come?

One decoder, its layers in one call and operation by operation in turn, on the same rows and the same KV; the results must have
the same bits. Bound: the bytes of the layers' weights and of the K and V that the rows read, at the rate at which all cores read.
Least and median times. The process has the environment of an engine process.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels import native
from ...kernels.attention.interface import AttentionIndex
from ...kernels.gemm.formats import FORMATS
from ..bundled import MODEL_DIR
from ..config import kernel_cache
from ..models.config import ModelConfig
from ..models.decoder import Decoder
from ..models.weights import load_decoder
from . import machine
from .in_engine import as_an_engine


class Step:
    """A decode step of some rows, each with `context` tokens in random slots of its own."""

    def __init__(self, decoder: Decoder, rows: int, context: int):
        spec, slots = decoder.kv_spec, rows * (context + 1)
        shape = (slots, spec.num_kv_heads, spec.head_dim)
        self._pools = [tuple(torch.randn(shape).to(spec.dtype) for _ in "kv") for _ in range(spec.num_layers)]
        table = torch.randperm(slots).to(torch.int32).view(rows, -1)
        of_rows = np.arange(rows, dtype=np.int32)
        lengths, starts = np.ones(rows, np.int32), np.full(rows, context, np.int32)
        self._index = AttentionIndex(of_rows, lengths, starts, of_rows, table, page_size=1)
        self._ids, self._rows = torch.randint(decoder.config.vocab_size, (rows,)), torch.arange(rows)
        self._positions, self._slots = torch.full((rows,), context), table[:, -1].long().contiguous()

    def layer(self, number: int) -> Any:
        """See `LayeredKV`."""
        return self._pools[number]

    def run(self, decoder: Decoder) -> tuple[Tensor, float]:
        """The hidden states, and seconds from the plan to them."""
        began = time.perf_counter()
        plan = decoder.plan_attention(self._index)
        where: dict[str, Any] = {"kv": self, "slots": self._slots, "attention_plan": plan, "logit_rows": self._rows}
        hidden = decoder.hidden(self._ids, self._positions, **where)
        return hidden, time.perf_counter() - began


def bytes_of(config: ModelConfig, quantization: str | None, rows: int, context: int) -> float:
    """Read in a step, without embedding and head, from which no layer reads."""
    kv_width = 2 * config.num_kv_heads * config.head_dim
    heads = 2 * config.num_heads * config.head_dim + kv_width
    weights = config.num_layers * config.hidden_size * (heads + 3 * config.intermediate_size)
    bits = FORMATS[quantization].bits_a_weight if quantization else 16
    return weights * bits / 8 + 2 * config.num_layers * kv_width * rows * (context + 1)


def main(argv: list[str]) -> int:
    """Run, print a line a case, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench layers", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_DIR, help="folder of a checkpoint (default: the bundled model)")
    parser.add_argument("--quantization", choices=tuple(FORMATS), help="of the weights; default: bf16")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 12])
    parser.add_argument("--context", type=int, nargs="+", default=[128, 2048])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each case")
    return as_an_engine(parser, argv, __name__, run)


def run(said: argparse.Namespace) -> int:
    """Measure in this process."""
    about = machine.describe()
    print(json.dumps(about))
    loaded = native.load(kernel_cache())
    whole = load_decoder(said.model, device="cpu", dtype=torch.bfloat16, quantization=said.quantization, native=loaded)
    print(whole.kernels.reasons[-1])
    if whole.stack is None:
        return 1
    apart = copy.copy(whole)
    apart.stack = None
    print(f"{'rows':>5} {'context':>8} {'one call us':>18} {'apart us':>18} {'ratio':>6} {'bound us':>9} {'share':>6}")
    table = []
    for rows in said.rows:
        for context in said.context:
            step = Step(whole, rows, context)
            one, other = times([lambda s=step: s.run(whole), lambda s=step: s.run(apart)], said.seconds)
            bound = bytes_of(whole.config, said.quantization, rows, context) / machine.read_bandwidth(3, 0.25)
            found = {"one_call_us": [1e6 * t for t in one], "apart_us": [1e6 * t for t in other], "bound_us": 1e6 * bound}
            table.append({"rows": rows, "context": context, **found})
            spent = " ".join(f"{1e6 * least:9.0f} {1e6 * mid:8.0f}" for least, mid in (one, other))
            print(f"{rows:5} {context:8} {spent} {other[1] / one[1]:6.2f} {1e6 * bound:9.0f} {bound / one[1]:6.0%}", flush=True)
    print(json.dumps({"bench": "layers", **about, "quantization": said.quantization, "cases": table}))
    return 0


def times(calls: list[Callable[[], tuple[Tensor, float]]], seconds: float) -> list[tuple[float, float]]:
    """Least and median seconds of each, alternating. Their results must have the same bits."""
    taken: list[list[float]] = [[] for _ in calls]
    until = time.perf_counter() + seconds
    while len(taken[0]) < 12 or time.perf_counter() < until:
        results = [call() for call in calls]
        assert all(torch.equal(hidden, results[0][0]) for hidden, _ in results), "the two ways do not have the same bits"
        for one, (_, spent) in zip(taken, results, strict=True):
            one.append(spent)
    return [(min(one[2:]), median(one[2:])) for one in taken]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
