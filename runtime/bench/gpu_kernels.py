"""Question: what do norm, rope with KV write, activation and sampling cost on a GPU, in Triton and in torch?

Bound: every input read and every output written once, at the rate at which the device copies memory (measured first, read and
write counted both); few rows lie in caches, where that is no bound. For sampling the bound counts the logits once.

Operations of a layer are timed in a CUDA graph, as the engine runs them. Sampling is queued call by call, with caches cleared in
between, and where a device is faster than its host that is what its time shows; beside it stands the host's own, until
everything is queued. Medians.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor

from .fused import Layer, Shape
from .sampling import VOCAB, Case, make_draws

SHAPES = {
    "Qwen3-0.6B": Shape(1024, 3072, 16, 8, 128, qk_norm=True),
    "Qwen3-8B": Shape(4096, 12288, 32, 8, 128, qk_norm=True),
}
ROWS = (1, 64, 256, 8192)
CASES = [
    Case("greedy"),
    Case("greedy, few allowed", mask=0.01),
    Case("greedy, most allowed", mask=0.9),
    Case("T 0.8", temperature=0.8),
    Case("T 0.8, most allowed", temperature=0.8, mask=0.9),
    Case("T 0.8, top_p 0.95", temperature=0.8, top_p=0.95),
    Case("T 0.8, top_k 50, top_p", temperature=0.8, top_p=0.95, top_k=50),
    Case("T 0.8, repetition", temperature=0.8, penalty=1.1),
    Case("flat, T 0.8, top_p 0.95", temperature=0.8, top_p=0.95, flat=True),
]
DRAWS = (1, 64, 256)
COPIED = 1 << 30
"""Bytes that are copied to measure the bandwidth: far more than caches hold."""


def main(argv: list[str]) -> int:
    """Run on the first CUDA device, print a line a case, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m ramify.runtime.bench.gpu_kernels", description=__doc__)
    parser.add_argument("--only", default="", help="cases whose line contains this")
    parser.add_argument("--ms", type=int, default=50, help="for each case")
    said = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("There is no CUDA device that torch can use.", file=sys.stderr)
        return 1
    with torch.inference_mode():
        print(json.dumps(run(said.only, said.ms)))
    return 0


def run(only: str, ms: int) -> dict:
    """All cases."""
    from triton.testing import do_bench, do_bench_cudagraph

    def queued_us(call: Callable[[], Any]) -> float:
        return 1e3 * cast(float, do_bench(call, warmup=max(1, ms // 4), rep=ms, return_mode="median"))

    def graph_us(call: Callable[[], Any]) -> float:
        torch.cuda.synchronize()  # it records on a stream of its own, which does not wait for what makes the inputs
        return 1e3 * cast(float, do_bench_cudagraph(call, rep=ms, return_mode="median"))

    torch.set_default_device("cuda")  # of this process, which only measures
    source = torch.empty(COPIED, dtype=torch.uint8)
    bandwidth = 2 * COPIED / queued_us(partial(torch.empty_like(source).copy_, source)) * 1e6
    about = {"device": torch.cuda.get_device_name(), "copy_GBps": bandwidth / 1e9, "torch": torch.__version__}
    print(json.dumps(about))
    print(f"{'':36} {'rows':>5} {'ours us':>9} {'torch us':>9} {'ratio':>6} {'GB/s':>7} {'share':>6} {'host us':>8}")
    found = layers(only, graph_us, bandwidth) + samples(only, queued_us, bandwidth) + normalizers(only, queued_us, bandwidth)
    return {"bench": "gpu_kernels", **about, "cases": found}


def report(name: str, rows: int, ours: float, theirs: float, read: int, bandwidth: float, host: float | None = None) -> dict:
    """Prints a line. read: bytes that have to move. Returns what it says."""
    rate = read / ours * 1e6
    said = f"{name:36} {rows:5} {ours:9.1f} {theirs:9.1f} {theirs / ours:6.1f} {rate / 1e9:7.0f} {rate / bandwidth:6.0%}"
    print(said if host is None else f"{said} {host:8.0f}", flush=True)
    one = {"case": name, "rows": rows, "us": ours, "torch_us": theirs, "GBps": rate / 1e9, "share": rate / bandwidth}
    return one if host is None else {**one, "host_us": host}


def layers(only: str, device_us: Callable[[Callable[[], Any]], float], bandwidth: float) -> list[dict]:
    """Between the linears."""
    from ...kernels.activation.reference import silu_mul
    from ...kernels.activation.triton_impl import TritonSiluMul
    from ...kernels.norm.reference import rms_norm
    from ...kernels.norm.triton_impl import TritonNorm
    from ...kernels.rope.reference import rotate_and_write
    from ...kernels.rope.triton_impl import TritonRotateAndWrite

    found = []
    for shape_name, shape in SHAPES.items():
        for rows in ROWS:
            layer = Layer(shape, rows, torch.bfloat16)
            ours = layer.calls(TritonNorm(), TritonRotateAndWrite(), TritonSiluMul())
            theirs = layer.calls(rms_norm, rotate_and_write, silu_mul)
            for operation, call in ours.items():
                name = f"{shape_name} {operation}"
                if only in name:
                    times = device_us(call), device_us(theirs[operation])
                    found.append(report(name, rows, *times, layer.bytes_of(operation), bandwidth))
    return found


def samples(only: str, device_us: Callable[[Callable[[], Any]], float], bandwidth: float) -> list[dict]:
    """From logits to tokens."""
    from ...kernels.sampling.draw import REFERENCE_SAMPLING
    from ...kernels.sampling.triton_impl import triton_sampling

    ours, theirs, found = triton_sampling(), REFERENCE_SAMPLING, []
    for case in CASES:
        for rows in DRAWS:
            if only not in f"sample {case.name}":
                continue
            with torch.device("cpu"):
                draws = make_draws(case, rows)
            logits, edits = make_logits(rows, flat=case.flat), draws.edits
            if edits is not None and edits.penalties is not None:
                one = edits.penalties
                on_device = replace(one, counts=one.counts.cuda(), in_prompt=one.in_prompt.cuda())
                draws = replace(draws, edits=replace(edits, penalties=on_device))
            sample, reference = (partial(one.sample, logits, draws) for one in (ours, theirs))
            differ = int((sample()[0] != reference()[0]).sum())
            times = device_us(sample), device_us(reference)
            found.append(report(f"sample {case.name}", rows, *times, logits.nbytes, bandwidth, host_us(sample)))
            found[-1]["differ"] = differ
            if differ:
                print(f"    {differ} of {rows} tokens are not the reference's")
    return found


def normalizers(only: str, device_us: Callable[[Callable[[], Any]], float], bandwidth: float) -> list[dict]:
    """What log-probabilities of whole rows cost."""
    from ...kernels.sampling.draw import REFERENCE_SAMPLING
    from ...kernels.sampling.triton_impl import triton_sampling

    found = []
    for rows in DRAWS if only in "log normalizer" else ():
        logits, every = make_logits(rows, flat=False), torch.arange(rows)
        calls = (partial(one.log_normalizer, logits, every) for one in (triton_sampling(), REFERENCE_SAMPLING))
        ours, theirs = map(device_us, calls)
        found.append(report("log normalizer", rows, ours, theirs, logits.nbytes, bandwidth))
    return found


def make_logits(rows: int, *, flat: bool) -> Tensor:
    """bf16 [rows, VOCAB], normal, or falling off with the rank of a token as a trained model's do."""
    if flat:
        return torch.randn(rows, VOCAB).bfloat16()
    rank = torch.rand(rows, VOCAB).argsort(-1).add_(1)
    return rank.float().log_().mul_(-1.5).bfloat16()


def host_us(call: Callable[[], Any], times: int = 20) -> float:
    """Median until the call returns, with nothing queued before it."""
    taken = []
    for _ in range(times):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return 1e6 * median(taken)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
