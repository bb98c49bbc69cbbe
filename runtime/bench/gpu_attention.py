"""Question: how near to the memory's rate does attention on an NVIDIA GPU come, and what does reading a tree together save?

Bounds: a decode reads every K and V that anybody sees once (bytes / the rate of a copy on the same device); a prefill multiplies
4 * heads * head_dim * keys seen. A case runs over as many layers' pools as no cache holds, recorded as a CUDA graph, so that what
is measured is the device alone; medians. `plan, then` is the host's time in us for a step's lists, by themselves and following
from the step before. Tree cases run with and without being told what is shared. `--configs` tries other launches than those of
`kernels/attention/triton_configs.py`; `--crossover` reads together whatever is shared, and shows from how many keys on that pays
(`kernels/attention/costs.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...kernels.attention.costs import GPU_COSTS, SharingCosts
from ...kernels.attention.interface import AttentionIndex, AttentionSpec, Sharing
from ..executor.sharing import PageSharing

if TYPE_CHECKING:
    from ...kernels.attention.triton_configs import Launch, Launches
    from ...kernels.attention.triton_impl import TritonAttention

SHAPES = {
    "16/8/128": AttentionSpec(16, 8, 128, 0.0884),  # Qwen3-0.6B
    "32/8/128": AttentionSpec(32, 8, 128, 0.0884),  # Llama-3.1-8B
}
COLD_BYTES = 256 << 20
"""Of all layers' K and V that are seen: several times what the second-level cache holds."""
MOST_LAYERS = 32
COPY_BYTES = 1 << 30


@dataclass(frozen=True)
class Case:
    """`rows` spans of `length` tokens. levels: (tokens, rows that share them), from the root on; then `own` positions of each
    row before its span."""

    name: str
    rows: int
    own: int
    length: int = 1
    levels: tuple[tuple[int, int], ...] = ()

    @property
    def unique(self) -> int:
        """Positions that some row sees."""
        return sum(tokens * (self.rows // group) for tokens, group in self.levels) + self.rows * (self.own + self.length)

    @property
    def seen(self) -> int:
        """Keys that all queries see together."""
        before = self.own + sum(tokens for tokens, _ in self.levels)
        return self.rows * (before * self.length + self.length * (self.length + 1) // 2)


CASES = [
    *(Case(f"decode {rows} x {context}", rows, context - 1) for rows in (1, 64, 256) for context in (1024, 8192)),
    Case("256 on one 8192, 128 own", 256, 127, levels=((8192, 256),)),
    Case("256 on 1024, 16 x 2048, 128 own", 256, 127, levels=((1024, 256), (2048, 16))),
    Case("64 on 512 in pairs, 128 own", 64, 127, levels=((512, 2),)),
    Case("prefill 8 x 1024", 8, 0, 1024),
    Case("prefill 8 x 256 on one 4096", 8, 0, 256, levels=((4096, 8),)),
]
CROSSOVER = [
    Case(f"{rows} rows share {keys}, 128 own", rows, 127, levels=((keys, rows),))
    for rows in (2, 8, 32, 128)
    for keys in (64, 256, 1024, 4096)
]


@dataclass(frozen=True)
class Inputs:
    """A step: where everything lies, queries, and the pools of several layers."""

    index: AttentionIndex
    q: Tensor
    pools: list[tuple[Tensor, Tensor]]


def make_inputs(case: Case, spec: AttentionSpec, dtype: torch.dtype, page_size: int, device: torch.device) -> Inputs:
    """Pages in an order drawn at random; what is shared is whole pages of that size."""
    pages = iter(np.random.default_rng(0).permutation(case.unique // page_size + 2 * case.rows).tolist())
    before = sum(tokens for tokens, _ in case.levels)
    end = before + case.own + case.length
    table = np.zeros((case.rows, -(-end // page_size)), np.int32)
    at = 0
    for tokens, group in case.levels:
        for first in range(0, case.rows, group):
            table[first : first + group, at : at + tokens // page_size] = [next(pages) for _ in range(tokens // page_size)]
        at += tokens // page_size
    for row in range(case.rows):
        table[row, at:] = [next(pages) for _ in range(table.shape[1] - at)]
    row = np.arange(case.rows, dtype=np.int32)
    sharing = Sharing(*PageSharing(table).of(row, np.full_like(row, table.shape[1])))
    index = AttentionIndex(
        query_start=row * case.length,
        query_length=np.full_like(row, case.length),
        start=np.full_like(row, before + case.own),
        row=row,
        page_table=torch.from_numpy(table).to(device),
        page_size=page_size,
        sharing=replace(sharing, shared=sharing.shared * page_size) if case.levels else None,
    )
    shape = (int(table.max()) * page_size + page_size, spec.num_kv_heads, spec.head_dim)
    layer_bytes = 2 * case.unique * spec.num_kv_heads * spec.head_dim * dtype.itemsize
    layers = min(MOST_LAYERS, -(-COLD_BYTES // layer_bytes))
    pools = [tuple(torch.empty(shape, dtype=dtype, device=device).normal_() for _ in range(2)) for _ in range(layers)]
    q = torch.randn(case.rows * case.length, spec.num_heads, spec.head_dim, device=device).to(dtype)
    return Inputs(index, q, pools)  # type: ignore[arg-type]


def device_seconds(work: Callable[[], object], seconds: float) -> float:
    """Median seconds of `work` as a CUDA graph."""
    from triton.testing import do_bench_cudagraph

    torch.cuda.synchronize()  # it records on a stream of its own, which does not wait for what made the inputs
    taken: Any = do_bench_cudagraph(work, rep=int(1e3 * seconds), return_mode="median")
    return 1e-3 * taken


def layer_seconds(attention: TritonAttention, inputs: Inputs, index: AttentionIndex, seconds: float) -> float:
    """Of one layer."""
    plan = attention.plan(index)

    def layers() -> None:
        for k_pool, v_pool in inputs.pools:
            attention.run(plan, k_pool, v_pool, inputs.q)

    return device_seconds(layers, seconds) / len(inputs.pools)


def plan_seconds(attention: TritonAttention, index: AttentionIndex, repeats: int = 50) -> tuple[float, float]:
    """Medians of the host's time: for a step by itself, and for one that follows from the step before."""
    taken = []
    for back in range(repeats):
        before = replace(index, start=index.start - np.minimum(back + 1, index.start))
        began = time.perf_counter()
        attention.host_plan(before)
        planned = time.perf_counter()
        attention.host_plan(replace(before, start=before.start + 1))
        taken.append((planned - began, time.perf_counter() - planned))
    return median(first for first, _ in taken), median(then for _, then in taken)


def copy_rate(seconds: float) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / device_seconds(lambda: target.copy_(source), seconds)


def measure(case: Case, shape: str, said: argparse.Namespace, rate: float, chosen: Launches | None = None) -> Iterator[dict]:
    """Lines of the table: with sharing and without, where there is any."""
    from ...kernels.attention.triton_impl import TritonAttention

    spec, dtype, device = SHAPES[shape], getattr(torch, said.dtype), torch.device("cuda")
    costs = SharingCosts(0, 0) if said.crossover else GPU_COSTS
    attention = TritonAttention(spec, device, said.deterministic, kv_dtype=dtype, costs=costs, chosen=chosen)
    inputs = make_inputs(case, spec, dtype, said.page_size, device)
    kv_bytes = 2 * case.unique * spec.num_kv_heads * spec.head_dim * dtype.itemsize
    for shares in (True, False) if case.levels else (False,):
        index = inputs.index if shares else replace(inputs.index, sharing=None)
        taken = layer_seconds(attention, inputs, index, said.seconds)
        capacity = attention.host_plan(index).capacity
        first, then = plan_seconds(attention, index)
        yield {
            "shape": shape,
            "case": case.name + (", together" if shares else ", apart" if case.levels else ""),
            "us": 1e6 * taken,
            "GBps": kv_bytes / taken / 1e9,
            "share": kv_bytes / taken / rate,
            "TFLOPs": 4e-12 * spec.num_heads * spec.head_dim * case.seen / taken,
            "plan_us": [1e6 * first, 1e6 * then],
            "items": [capacity.small, capacity.large, capacity.parts],
        }


def candidates(small: Launch, large: Launch, prefill: bool) -> Iterator[tuple[str, Launches]]:
    """Launches around those of the table: of large items for a case that has some, else of small ones."""
    from ...kernels.attention.triton_configs import Launches

    if prefill:
        for rows, keys, warps, stages, places in (
            (64, 64, 4, 3, 2), (64, 64, 4, 2, 3), (64, 128, 4, 2, 2), (128, 64, 4, 2, 1),
            (128, 64, 8, 2, 1), (128, 64, 8, 3, 1), (128, 64, 8, 4, 1), (128, 128, 8, 2, 1), (128, 128, 8, 3, 1),
        ):  # fmt: skip
            one = replace(large, rows=rows, keys=keys, warps=warps, stages=stages, per_processor=places)
            yield f"large {rows}x{keys} warps {warps} stages {stages} places {places}", Launches(small, one)
        return
    for keys, warps, stages, places in (
        (32, 2, 4, 4), (32, 4, 4, 3), (32, 4, 6, 3), (64, 4, 2, 3), (64, 4, 3, 2), (64, 4, 4, 2), (64, 4, 4, 4),
        (64, 8, 4, 2), (128, 4, 2, 2), (128, 4, 3, 1), (128, 8, 3, 1),
    ):  # fmt: skip
        one = replace(small, keys=keys, warps=warps, stages=stages, per_processor=places)
        yield f"small 16x{keys} warps {warps} stages {stages} places {places}", Launches(one, large)


def main(argv: list[str]) -> int:
    """Run, print a line a case, end with one line of JSON. Without a GPU it says so."""
    parser = argparse.ArgumentParser(prog="ramify bench gpu_attention", description=__doc__)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--page-size", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=0.1, help="of the device, for each measurement")
    parser.add_argument("--deterministic", action="store_true", help="a row's bits do not depend on its company")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--shape", choices=tuple(SHAPES), help="default: all")
    parser.add_argument("--configs", action="store_true", help="with other launches as well")
    parser.add_argument("--crossover", action="store_true", help="from how many shared keys on reading together pays")
    said = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("There is no NVIDIA GPU here, and this measures nothing else.")
        return 0
    rate = copy_rate(said.seconds)
    about = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "copy_GBps": round(rate / 1e9)}
    print(json.dumps(about))
    print(f"{'':9} {'a layer':40} {'us':>9} {'GB/s':>7} {'share':>6} {'TFLOP/s':>8} {'plan, then':>11}  small, large, parts")
    table = []
    for shape in (said.shape,) if said.shape else SHAPES:
        for case in CROSSOVER if said.crossover else CASES:
            if said.only not in case.name:
                continue
            for label, chosen in configurations(SHAPES[shape], case, said):
                if label:
                    print(f"  {label}")
                try:
                    for row in measure(case, shape, said, rate, chosen):
                        table.append({**row, **({"config": label, **asdict(chosen)} if chosen else {})})
                        print(line(row), flush=True)
                except Exception as error:
                    if chosen is None:
                        raise
                    print(f"  does not run: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
    options = {"dtype": said.dtype, "page_size": said.page_size, "deterministic": said.deterministic}
    print(json.dumps({"bench": "gpu_attention", **about, **options, "cases": table}))
    return 0


def configurations(spec: AttentionSpec, case: Case, said: argparse.Namespace) -> Iterator[tuple[str, Launches | None]]:
    """The table's launches, and others if they are asked for."""
    from ...kernels.attention.triton_configs import launches

    yield "", None
    if said.configs:
        chosen = launches(spec, said.deterministic)
        yield from candidates(chosen.small, chosen.large, bool(case.levels) or case.length > 1)


def line(row: dict) -> str:
    """One line of the table."""
    rates = f"{row['us']:9.1f} {row['GBps']:7.0f} {row['share']:6.0%} {row['TFLOPs']:8.1f}"
    host = f"{row['plan_us'][0]:5.0f}, {row['plan_us'][1]:4.0f}"
    return f"{row['shape']:9} {row['case']:40} {rates} {host}  {', '.join(map(str, row['items']))}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
