"""Question: how near to the memory's rate, and with many rows to the processor's, do linear layers come, by format and rows?

Bounds: bytes of the weight / the rate at which all cores read, and 2 * weights * rows / the rate of a matrix product in bf16.
The share is of the larger of the two times; for int8 and int4 the processor's bound is that of bf16 too, which they may pass.
Weights are those of the layers of Qwen2.5-0.5B, as many layers as no cache holds. Formats take turns; medians, and the least.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from ...kernels.gemm.few_rows import FewRowsLinear
from ...kernels.gemm.formats import FORMATS
from ...kernels.gemm.interface import Linear
from ...kernels.gemm.native import PackedLinear
from ...kernels.gemm.quantized import QuantizedLinear
from ...kernels.gemm.slabs import Slabs
from . import machine
from .in_engine import as_an_engine

SHAPES = {"qkv": (896, 1152), "o": (896, 896), "gate_up": (896, 9728), "down": (4864, 896)}
"""Layer -> columns, outputs."""
ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256)


class Format:
    """All layers in one format. weight_bytes: of all layers together."""

    def __init__(self, name: str, layers: list[Linear], weight_bytes: float):
        self.name, self.layers, self.weight_bytes = name, layers, weight_bytes

    def seconds(self, xs: dict[int, Tensor]) -> float:
        """Of all layers, one after the other. xs: rows by number of columns."""
        started = time.perf_counter()
        for layer in self.layers:
            layer(xs[layer.in_features])
        return time.perf_counter() - started


def make_formats(layers: int, chosen: list[str]) -> list[Format]:
    """The formats of that name, over the same random weights."""
    weights = [torch.randn(n, k).div_(k**0.5).bfloat16() for _ in range(layers) for k, n in SHAPES.values()]
    count = sum(weight.numel() for weight in weights)
    packed = [PackedLinear(weight) for weight in weights]
    makers: dict[str, tuple[Callable[[], list[Linear]], float]] = {"oneDNN bf16": (lambda: list(packed), 2.0 * count)}
    if torch.ops.ramify.linear_has_bf16() and all(one.memory is not None for one in packed):
        pages = Slabs()
        ours = [FewRowsLinear.of(weight, None, chain=1024, pages=pages) for weight in weights]
        makers["bf16"] = (lambda: list(ours), 2.0 * count)
    for name, form in FORMATS.items():
        makers[name] = (
            lambda form=form: [QuantizedLinear(weight, None, form) for weight in weights],
            form.bits_a_weight / 8 * count,
        )
    return [Format(name, make(), size) for name, (make, size) in makers.items() if not chosen or name in chosen]


def measure(formats: list[Format], rows: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of all layers, for each format, in turns; at least three."""
    xs = {columns: torch.randn(rows, columns).bfloat16() for columns, _ in SHAPES.values()}
    times: dict[str, list[float]] = {one.name: [] for one in formats}
    until = time.perf_counter() + seconds
    while len(times[formats[-1].name]) < 4 or time.perf_counter() < until:
        for one in formats:
            times[one.name].append(one.seconds(xs))
    return {name: taken[1:] for name, taken in times.items()}  # the first warms up


def main(argv: list[str]) -> int:
    """Run, print a line for each number of rows and format, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench linear", description=__doc__)
    parser.add_argument("--layers", type=int, default=8, help="29.8 MB of bf16 weights each (default: 8)")
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--formats", nargs="+", default=[], help="of 'oneDNN bf16', bf16, int8, int4 (default: all)")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each number of rows")
    with torch.inference_mode():
        return as_an_engine(parser, argv, __name__, run)


def run(said: argparse.Namespace) -> int:
    """Measure in this process."""
    about = machine.describe()
    print(json.dumps(about))
    formats = make_formats(said.layers, said.formats)
    weights = said.layers * sum(columns * outputs for columns, outputs in SHAPES.values())
    print(f"{'rows':>5} {'format':12} {'ms a layer':>10} {'least':>8} {'GB/s':>7} {'GFLOP/s':>8} {'share':>6}")
    table = []
    for rows in said.rows:
        read, multiply = machine.read_bandwidth(5, 0.5), machine.matmul_rate(torch.bfloat16)
        for one, taken in zip(formats, measure(formats, rows, said.seconds).values(), strict=True):
            flop, middle = 2.0 * weights * rows, median(taken)
            bound = max(one.weight_bytes / read, flop / multiply)
            row = {
                "rows": rows,
                "format": one.name,
                "ms": 1e3 * middle / said.layers,
                "least_ms": 1e3 * min(taken) / said.layers,
                "GBps": one.weight_bytes / middle / 1e9,
                "GFLOPs": flop / middle / 1e9,
                "share": bound / middle,
            }
            table.append(row)
            print(
                f"{rows:5} {one.name:12} {row['ms']:10.3f} {row['least_ms']:8.3f} {row['GBps']:7.1f} {row['GFLOPs']:8.1f} "
                f"{row['share']:6.0%}",
                flush=True,
            )
    print(json.dumps({"bench": "linear", **about, "layers": said.layers, "cases": table}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
