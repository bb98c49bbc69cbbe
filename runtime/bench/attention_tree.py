"""Question: what does a decode over a radix tree gain when rows read together what they share?

The same kernel, told what spans share and not told, alternating, medians. Bounds: every K and V that anybody sees once, at the
rate at which all cores read; and 4 * heads * head_dim * keys seen by all rows, at the rate of a matrix product. Also: bytes
that the kernel asked for over those that are there, and the host's time to find what is shared in a step in which rows only
grow. `--crossover` reads everything together and shows from how many shared keys on that pays; what an engine measures of it at
start (`kernels/attention/calibrate.py`) is printed before.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

from ...kernels.attention.calibrate import calibrate
from ...kernels.attention.costs import DEFAULT_COSTS, SharingCosts
from ...kernels.attention.interface import AttentionIndex, AttentionSpec, Sharing
from ...kernels.attention.native import LEVELS, NativeAttention, bytes_read
from ..executor.sharing import PageSharing
from . import machine
from .attention import COLD_BYTES, Inputs
from .in_engine import as_an_engine

SHAPES = {
    "16/8/128": AttentionSpec(16, 8, 128, 0.0884),  # Qwen3-0.6B
    "14/2/64": AttentionSpec(14, 2, 64, 0.125),  # Qwen2.5-0.5B
}


@dataclass(frozen=True)
class Tree:
    """Rows of a decode. levels: (tokens, rows that share them), from the root on; tails: tokens of each row alone."""

    name: str
    levels: tuple[tuple[int, int], ...]
    tails: tuple[int, ...]


TREES = [
    Tree("32 on 2048, tails 1..128", ((2048, 32),), tuple(range(1, 129, 4))),
    Tree("1024; 4 x 256; 8 x 128 each", ((1024, 32), (256, 8)), (128,) * 32),
    Tree("32 on 2000, tails 1..128", ((2000, 32),), tuple(range(1, 129, 4))),
    Tree("8 on 1000, tails 100", ((1000, 8),), (100,) * 8),
    Tree("control: 32 x 1024, no sharing", (), (1024,) * 32),
    Tree("control: 16 x 300, no sharing", (), (300,) * 16),
]
CROSSOVER = [
    Tree(f"{rows} rows share {keys}", ((keys, rows),), (8,) * rows) for rows in (2, 4, 16) for keys in (16, 32, 64, 128, 256)
]


@dataclass(frozen=True)
class Measured(Inputs):
    """unique: slots that some row sees. seen: keys of all rows."""

    unique: int
    seen: int


def make_inputs(tree: Tree, spec: AttentionSpec, dtype: torch.dtype, *, scattered: bool) -> Measured:
    """A page a token; pages of a node in order, or all in an order drawn at random."""
    rows = len(tree.tails)
    shared = sum(tokens for tokens, _ in tree.levels)
    lengths = np.array(tree.tails, np.int32) + shared
    unique = sum(tokens * (rows // group) for tokens, group in tree.levels) + sum(tree.tails)
    pages = np.random.default_rng(0).permutation(unique) if scattered else np.arange(unique)
    table, free = np.zeros((rows, int(lengths.max()) + 1), np.int32), 0
    at = 0
    for tokens, group in tree.levels:
        for first in range(0, rows, group):
            table[first : first + group, at : at + tokens] = pages[free : free + tokens]
            free += tokens
        at += tokens
    for row, tokens in enumerate(tree.tails):
        table[row, at : at + tokens] = pages[free : free + tokens]
        free += tokens
    column = np.arange(rows, dtype=np.int32)
    order, common = PageSharing(table).of(column, lengths)
    sharing = Sharing(order, common)
    index = AttentionIndex(column, np.ones_like(column), lengths - 1, column, torch.from_numpy(table), 1, sharing)
    shape = (unique, spec.num_kv_heads, spec.head_dim)
    layers = min(24, -(-COLD_BYTES // (2 * int(np.prod(shape)) * dtype.itemsize)))
    pools = [(torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)) for _ in range(layers)]
    q = torch.randn(rows, spec.num_heads, spec.head_dim).to(dtype)
    return Measured(index, q, pools, unique, int(lengths.sum()))


def rounds(attention: NativeAttention, inputs: Measured, seconds: float) -> tuple[list[float], list[float]]:
    """Seconds a layer with and without sharing, alternating, for about `seconds` in all and at least twice."""
    plans = [attention.plan(index) for index in (inputs.index, replace(inputs.index, sharing=None))]
    times: tuple[list[float], list[float]] = ([], [])
    until = time.perf_counter() + seconds
    while len(times[1]) < 3 or time.perf_counter() < until:
        for plan, taken in zip(plans, times, strict=True):
            started = time.perf_counter()
            for k_pool, v_pool in inputs.pools:
                attention.run(plan, k_pool, v_pool, inputs.q)
            taken.append((time.perf_counter() - started) / len(inputs.pools))
    return times[0][1:], times[1][1:]  # the first of each warms up


def host_time(inputs: Measured, steps: int = 50) -> float:
    """Median seconds that a step costs in which every row gets a page."""
    rows, lengths = inputs.index.row, inputs.index.start + 1
    table = np.zeros((len(rows), int(lengths.max()) + steps), np.int32)
    table[:, : inputs.index.page_table.shape[1]] = inputs.index.page_table.numpy()
    sharing = PageSharing(table)
    sharing.of(rows, lengths)
    taken = []
    for step in range(steps):
        pages = (10**6 + step * len(rows) + rows).astype(np.int32)
        started = time.perf_counter()
        sharing.writing(rows, lengths + step, pages)
        taken.append(time.perf_counter() - started)
        table[rows, lengths + step] = pages
        started = time.perf_counter()
        sharing.of(rows, lengths + step + 1)
        taken[-1] += time.perf_counter() - started
    return median(taken)


def measure(tree: Tree, shape: str, dtype: torch.dtype, said: argparse.Namespace) -> dict:
    """One line of the table."""
    spec = SHAPES[shape]
    attention = NativeAttention(spec, said.level, SharingCosts(1, 1) if said.crossover else DEFAULT_COSTS)
    inputs = make_inputs(tree, spec, dtype, scattered=said.scattered)
    index = inputs.index
    alone, together = (
        attention.run(attention.plan(replace(index, sharing=one)), *inputs.pools[0], inputs.q) for one in (None, index.sharing)
    )
    before = bytes_read()
    attention.run(attention.plan(index), *inputs.pools[0], inputs.q)
    asked = bytes_read() - before
    there = inputs.unique * 2 * spec.num_kv_heads * spec.head_dim * dtype.itemsize
    flop = 4 * spec.num_heads * spec.head_dim * inputs.seen
    on, off = rounds(attention, inputs, said.seconds)
    return {
        "case": tree.name,
        "shape": shape,
        "same_bits": torch.equal(alone, together),
        "on_ms": 1e3 * median(on),
        "on_spread_ms": [1e3 * min(on), 1e3 * max(on)],
        "off_ms": 1e3 * median(off),
        "off_spread_ms": [1e3 * min(off), 1e3 * max(off)],
        "ratio": median(off) / median(on),
        "ratio_of_best": min(off) / min(on),
        "bytes_over_unique": asked / there,
        "share_of_bandwidth": there / machine.read_bandwidth(5, 0.5) / median(on),
        "share_of_products": flop / machine.matmul_rate(dtype) / median(on),
        "host_us": 1e6 * host_time(inputs),
    }


def main(argv: list[str]) -> int:
    """Run, print a line a case, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench attention_tree", description=__doc__)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--scattered", action="store_true", help="pages in random order")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each case")
    parser.add_argument("--level", type=int, choices=range(len(LEVELS)), help=f"of {', '.join(LEVELS)}; default: the best")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--crossover", action="store_true", help="few shared keys, to see from how many on it pays")
    return as_an_engine(parser, argv, __name__, run)


def run(said: argparse.Namespace) -> int:
    """Measure in this process."""
    about = machine.describe()
    print(json.dumps(about))
    columns = f"{'on ms':>8} {'off ms':>8} {'ratio':>6} {'best':>6} {'bytes':>6} {'bandwidth':>9} {'products':>8} {'host us':>8}"
    print(f"{'a layer':40} {columns}")
    table = []
    if said.crossover:
        dtype = getattr(torch, said.dtype)
        for shape, spec in SHAPES.items():
            print(f"{shape:9} {calibrate(spec, dtype, dtype)[1]}")
    for tree in CROSSOVER if said.crossover else TREES:
        for shape in SHAPES:
            if said.only not in f"{shape} {tree.name}":
                continue
            row = measure(tree, shape, getattr(torch, said.dtype), said)
            table.append(row)
            times = f"{row['on_ms']:8.3f} {row['off_ms']:8.3f} {row['ratio']:6.2f} {row['ratio_of_best']:6.2f}"
            shares = f"{row['bytes_over_unique']:6.2f} {row['share_of_bandwidth']:9.0%} {row['share_of_products']:8.0%}"
            print(f"{shape:9} {tree.name:30} {times} {shares} {row['host_us']:8.1f}", flush=True)
    options = {"dtype": said.dtype, "scattered": said.scattered, "threads": said.threads}
    print(json.dumps({"bench": "attention_tree", **about, **options, "cases": table}))
    return 0 if all(row["same_bits"] for row in table) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
