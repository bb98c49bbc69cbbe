"""Question: what do the operations between a layer's linears cost, in C++ and in torch?

A layer is two norms with their additions, norm of q and k (where the family has it) with rope and KV write, and the gated
activation. Bound: every input read and every output written once, at the rate at which all cores read; few rows lie in caches,
where that is no bound, and what remains is the cost of the calls. Ours and torch's alternate, medians. The process has the
environment of an engine process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ...kernels.activation.native import NativeSiluMul
from ...kernels.activation.reference import silu_mul
from ...kernels.norm.native import NativeNorm
from ...kernels.norm.reference import rms_norm
from ...kernels.rope.native import NativeRotateAndWrite
from ...kernels.rope.reference import rotate_and_write
from . import machine
from .in_engine import as_an_engine


@dataclass(frozen=True)
class Shape:
    """Sizes of a layer."""

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    qk_norm: bool = False


SHAPES = {
    "Qwen2.5-0.5B": Shape(896, 4864, 14, 2, 64),
    "Llama-3.2-1B": Shape(2048, 8192, 32, 8, 64),
    "Qwen3-1.7B": Shape(2048, 6144, 16, 8, 128, qk_norm=True),
}
ROWS = (1, 4, 16, 64, 512)
Calls = dict[str, Callable[[], Any]]


class Layer:
    """Random inputs of one layer for some rows."""

    def __init__(self, shape: Shape, rows: int, dtype: torch.dtype):
        def random(*sizes: int) -> Tensor:
            return torch.randn(sizes).to(dtype)

        turned = shape.heads + shape.kv_heads
        self.x, self.delta, self.weight = random(rows, shape.hidden), random(rows, shape.hidden) * 1e-3, random(shape.hidden)
        self.qkv = random(rows, (turned + shape.kv_heads) * shape.head_dim)
        self.turns = random(rows, 2 * shape.head_dim)
        self.norm = random(turned, shape.head_dim) if shape.qk_norm else None
        self.pools = {f"{name}_pool": random(4 * rows, shape.kv_heads, shape.head_dim) for name in "kv"}
        self.slots = torch.randperm(4 * rows)[:rows]
        self.gate_up = random(rows, 2 * shape.inner)

    def calls(self, norm: Any, rotate: Any, gate: Any) -> Calls:
        """What is measured, by name; the norm counts once here and twice in a layer."""
        return {
            "add + norm": lambda: norm(self.x, self.weight, 1e-6, self.delta),
            "rope + write": lambda: rotate(self.qkv, self.turns, norm=self.norm, eps=1e-6, slots=self.slots, **self.pools),
            "silu * mul": lambda: gate(self.gate_up),
        }

    def bytes_of(self, name: str) -> int:
        """Read and written once."""
        if name == "add + norm":
            return 4 * self.x.nbytes
        return 2 * self.qkv.nbytes if name == "rope + write" else self.gate_up.nbytes * 3 // 2


def times(calls: list[Callable[[], Any]], seconds: float) -> list[float]:
    """Median seconds of each, alternating."""
    taken: list[list[float]] = [[] for _ in calls]
    until = time.perf_counter() + seconds
    while len(taken[0]) < 12 or time.perf_counter() < until:
        for call, times_of_call in zip(calls, taken, strict=True):
            started = time.perf_counter()
            call()
            times_of_call.append(time.perf_counter() - started)
    return [median(one[2:]) for one in taken]


def main(argv: list[str]) -> int:
    """Run, print a line a case, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench fused", description=__doc__)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each case")
    parser.add_argument("--level", type=int, help="set of instructions; default: the best")
    parser.add_argument("--only", default="", help="shapes whose name contains this")
    return as_an_engine(parser, argv, __name__, run)


def run(said: argparse.Namespace) -> int:
    """Measure in this process."""
    level = torch.ops.ramify.best_level() if said.level is None else said.level
    about = machine.describe()
    print(json.dumps(about))
    print(f"{'':13} {'rows':>5} {'operation':13} {'ours us':>9} {'torch us':>9} {'ratio':>6} {'GB/s':>6} {'share':>6}")
    table = []
    for name, shape in SHAPES.items():
        for rows in ROWS if said.only in name else ():
            with torch.inference_mode():
                table += measure(name, shape, rows, level, said)
    print(json.dumps({"bench": "fused", **about, "dtype": said.dtype, "level": level, "cases": table}))
    return 0


def measure(name: str, shape: Shape, rows: int, level: int, said: argparse.Namespace) -> list[dict]:
    """The operations of one layer, and their sum with two norms."""
    layer = Layer(shape, rows, getattr(torch, said.dtype))
    ours = layer.calls(NativeNorm(level), NativeRotateAndWrite(level), NativeSiluMul(level))
    theirs = layer.calls(rms_norm, rotate_and_write, silu_mul)
    bandwidth = machine.read_bandwidth(3, 0.25)
    found = []
    for operation in ours:
        seconds = times([ours[operation], theirs[operation]], said.seconds)
        rate = layer.bytes_of(operation) / seconds[0]
        found.append({"shape": name, "rows": rows, "operation": operation, "native_us": 1e6 * seconds[0]})
        found[-1] |= {"torch_us": 1e6 * seconds[1], "GBps": rate / 1e9, "share": rate / bandwidth}
    whole = {"shape": name, "rows": rows, "operation": "a layer"}
    for who in ("native_us", "torch_us"):
        whole[who] = found[0][who] + sum(one[who] for one in found)
    for one in [*found, whole]:
        rates = f"{one['GBps']:6.1f} {one['share']:6.0%}" if "share" in one else ""
        costs = f"{one['native_us']:9.1f} {one['torch_us']:9.1f} {one['torch_us'] / one['native_us']:6.1f}"
        print(f"{name:13} {rows:5} {one['operation']:13} {costs} {rates}", flush=True)
    return [*found, whole]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
