"""Question: how near to the memory's rate does attention over pages come, and how much faster than torch is it?

Bounds: a decode reads every K and V of its context once (bytes / the rate at which all cores read); a prefill chunk multiplies
4 * heads * head_dim * keys seen (FLOP / the rate of a matrix product in the same dtype). Every case runs over as many layers'
pools as fill 64 MiB, so that nothing is found in a cache that a model with layers would not find there; ours and torch's
alternate, medians. The process has the environment of an engine process, because OpenMP's way to wait decides everything beside
other programs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from ...kernels.attention.interface import Attention, AttentionIndex, AttentionSpec
from ...kernels.attention.native import LEVELS, NativeAttention
from ...kernels.attention.reference import TorchAttention
from ...kernels.kv.int8 import quantize, row_size
from . import machine
from .in_engine import as_an_engine

SHAPES = {
    "Qwen2.5-0.5B": AttentionSpec(14, 2, 64, 0.125),
    "Llama-3.2-1B": AttentionSpec(32, 8, 64, 0.125),
}
COLD_BYTES = 64 << 20


@dataclass(frozen=True)
class Case:
    """`rows` sequences, each with a span of `length` tokens after `context` others."""

    shape: str
    rows: int
    context: int
    length: int

    @property
    def name(self) -> str:
        kind = f"decode {self.rows:2} x {self.context}" if self.length == 1 else f"prefill {self.length} at {self.context}"
        return f"{self.shape:13} {kind}"

    def kv_bytes(self, kv_dtype: torch.dtype) -> int:
        """Of one layer."""
        spec = SHAPES[self.shape]
        return self.rows * (self.context + self.length) * 2 * spec.num_kv_heads * row_size(spec.head_dim, kv_dtype)

    def flop(self) -> float:
        """Of one layer: two products, a multiplication and an addition each, over the keys that each token sees."""
        spec = SHAPES[self.shape]
        seen = self.rows * (self.context * self.length + self.length * (self.length + 1) / 2)
        return 4.0 * spec.num_heads * spec.head_dim * seen


CASES = [
    *(Case(shape, rows, context, 1) for shape in SHAPES for context in (1024, 8192) for rows in (1, 16, 64)),
    *(Case(shape, 1, 2048, 512) for shape in SHAPES),
]


@dataclass(frozen=True)
class Inputs:
    """A step: where everything lies, queries, and the pools of several layers."""

    index: AttentionIndex
    q: Tensor
    pools: list[tuple[Tensor, Tensor]]


def random_pool(slots: int, spec: AttentionSpec, kv_dtype: torch.dtype) -> Tensor:
    """A pool of random numbers."""
    made = torch.randn(slots, spec.num_kv_heads, spec.head_dim)
    return quantize(made) if kv_dtype == torch.int8 else made.to(kv_dtype)


def make_inputs(case: Case, dtype: torch.dtype, kv_dtype: torch.dtype, *, page_size: int, scattered: bool) -> Inputs:
    """Pages in order, or in an order drawn at random."""
    spec = SHAPES[case.shape]
    pages_a_row = -(-(case.context + case.length) // page_size)
    count = case.rows * pages_a_row
    pages = np.random.default_rng(0).permutation(count) if scattered else np.arange(count)
    column = np.arange(case.rows, dtype=np.int32)
    index = AttentionIndex(
        query_start=column * case.length,
        query_length=np.full_like(column, case.length),
        start=np.full_like(column, case.context),
        row=column,
        page_table=torch.from_numpy(pages.reshape(case.rows, -1).astype(np.int32)),
        page_size=page_size,
    )
    layers = min(24, -(-COLD_BYTES // case.kv_bytes(kv_dtype)))
    slots = count * page_size
    pools = [(random_pool(slots, spec, kv_dtype), random_pool(slots, spec, kv_dtype)) for _ in range(layers)]
    return Inputs(index, torch.randn(case.rows * case.length, spec.num_heads, spec.head_dim).to(dtype), pools)


def rounds(attentions: list[Attention], inputs: Inputs, seconds: float) -> list[list[float]]:
    """Seconds a layer of each attention, alternating, for about `seconds` in all and at least twice."""
    plans = [attention.plan(inputs.index) for attention in attentions]
    times: list[list[float]] = [[] for _ in attentions]
    until = time.perf_counter() + seconds
    while len(times[-1]) < 3 or time.perf_counter() < until:
        for attention, plan, taken in zip(attentions, plans, times, strict=True):
            started = time.perf_counter()
            for k_pool, v_pool in inputs.pools:
                attention.run(plan, k_pool, v_pool, inputs.q)
            taken.append((time.perf_counter() - started) / len(inputs.pools))
    return [taken[1:] for taken in times]  # the first warms up


def plan_time(attention: Attention, index: AttentionIndex, repeats: int = 200) -> float:
    """Median seconds of one plan."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        attention.plan(index)
        taken.append(time.perf_counter() - started)
    return median(taken)


def measure(case: Case, make: list[Callable[[AttentionSpec], Attention]], said: argparse.Namespace) -> dict:
    """One line of the table: milliseconds a layer of ours and of torch, rates and shares of the bound."""
    dtype = getattr(torch, said.dtype)
    kv_dtype = getattr(torch, said.kv_dtype or said.dtype)
    attentions = [one(SHAPES[case.shape]) for one in make]
    inputs = make_inputs(case, dtype, kv_dtype, page_size=said.page_size, scattered=said.scattered)
    times = rounds(attentions, inputs, said.seconds)
    ours = median(times[0])
    figures = {
        "case": case.name,
        "native_ms": 1e3 * ours,
        "spread_ms": [1e3 * min(times[0]), 1e3 * max(times[0])],
        "torch_ms": 1e3 * median(times[1]) if len(times) > 1 else None,
        "GBps": case.kv_bytes(kv_dtype) / ours / 1e9,
        "GFLOPs": case.flop() / ours / 1e9,
        "plan_us": 1e6 * plan_time(attentions[0], inputs.index),
    }
    if case.length == 1:
        figures["share"] = figures["GBps"] * 1e9 / machine.read_bandwidth(5, 0.5)
    else:
        figures["share"] = figures["GFLOPs"] * 1e9 / machine.matmul_rate(dtype)
    return figures


def main(argv: list[str]) -> int:
    """Run, print a line a case, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench attention", description=__doc__)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--kv-dtype", choices=("bfloat16", "float32", "int8"), help="of the pools (default: as --dtype)")
    parser.add_argument("--page-size", type=int, default=1)
    parser.add_argument("--scattered", action="store_true", help="pages in random order")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each case")
    parser.add_argument("--level", type=int, choices=range(len(LEVELS)), help=f"of {', '.join(LEVELS)}; default: the best")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--alone", action="store_true", help="without torch")
    return as_an_engine(parser, argv, __name__, run)


def run(said: argparse.Namespace) -> int:
    """Measure in this process."""
    make: list[Callable[[AttentionSpec], Attention]] = [lambda spec: NativeAttention(spec, said.level)]
    if not said.alone:
        make.append(lambda spec: TorchAttention(spec, torch.device("cpu")))
    about = machine.describe()
    print(json.dumps(about))
    print(f"{'a layer':34} {'ours ms':>9} {'torch ms':>9} {'ratio':>6} {'GB/s':>6} {'GFLOP/s':>8} {'share':>6} {'plan us':>8}")
    table = []
    for case in CASES:
        if said.only not in case.name:
            continue
        row = measure(case, make, said)
        table.append(row)
        against = f"{row['torch_ms']:9.3f} {row['torch_ms'] / row['native_ms']:6.1f}" if row["torch_ms"] else f"{'':16}"
        rates = f"{row['GBps']:6.1f} {row['GFLOPs']:8.1f} {row['share']:6.0%} {row['plan_us']:8.1f}"
        print(f"{case.name:34} {row['native_ms']:9.3f} {against} {rates}", flush=True)
    dtypes = {"dtype": said.dtype, "kv_dtype": said.kv_dtype or said.dtype}
    options = {**dtypes, "page_size": said.page_size, "scattered": said.scattered, "threads": said.threads}
    print(json.dumps({"bench": "attention", **about, **options, "cases": table}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
