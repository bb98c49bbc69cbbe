"""Question: what does choosing a token cost for a vocabulary of 152,000, in C++ and in torch?

Logits are bf16, as they come from the head. They fall off with the rank of a token, as a trained model's do (top_p 0.95 keeps
some tens of tokens); `flat` ones are normal, the worst case (top_p keeps most of the vocabulary). Bound: each row of logits
read once, at the rate at which all cores read. Ours and torch's alternate, medians; both draw the same tokens, which is checked.
The process has the environment of an engine process.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...kernels.sampling.draw import REFERENCE_SAMPLING
from ...kernels.sampling.interface import Draws, Edits, Penalties
from ...kernels.sampling.native import native_sampling
from . import machine
from .fused import times
from .in_engine import as_an_engine

VOCAB = 151_936
ROWS = (1, 16, 64)


@dataclass(frozen=True)
class Case:
    """Parameters of every row. mask: share of the words of a grammar mask that allow everything; the others forbid."""

    name: str
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    mask: float | None = None
    penalty: float = 1.0
    flat: bool = False


CASES = [
    Case("greedy"),
    Case("greedy, few allowed", mask=0.01),
    Case("greedy, most allowed", mask=0.9),
    Case("T 0.8", temperature=0.8),
    Case("T 0.8, top_p 0.95", temperature=0.8, top_p=0.95),
    Case("T 0.8, top_p 0.95, most", temperature=0.8, top_p=0.95, mask=0.9),
    Case("T 0.8, top_k 50, top_p", temperature=0.8, top_p=0.95, top_k=50),
    Case("T 0.8, top_p, repetition", temperature=0.8, top_p=0.95, penalty=1.1),
    Case("flat, T 0.8, top_p 0.95", temperature=0.8, top_p=0.95, flat=True),
]


def make_logits(rows: int, flat: bool) -> Tensor:
    """bf16 [rows, VOCAB]."""
    generator = torch.Generator().manual_seed(0)
    if flat:
        return torch.randn(rows, VOCAB, generator=generator).bfloat16()
    rank = torch.rand(rows, VOCAB, generator=generator).argsort(-1).add_(1)
    return rank.float().log_().mul_(-1.5).bfloat16()


def make_draws(case: Case, rows: int) -> Draws:
    """One draw a row."""
    rng = np.random.default_rng(0)
    none, edits = np.zeros(rows, np.int64), None
    if case.mask is not None or case.penalty != 1:
        edits = Edits(none, none[:0], np.zeros(0, np.float32), none, none[:0], None, none - 1, None)
    if edits and case.mask is not None:
        masks = np.where(rng.random((rows, -(-VOCAB // 32))) < case.mask, -1, 0).astype(np.int32)
        edits = replace(edits, mask=np.arange(rows), masks=masks)
    if edits and case.penalty != 1:
        counts = torch.zeros(rows, VOCAB, dtype=torch.int32)
        counts[:, torch.from_numpy(rng.integers(0, VOCAB, 500))] = 1
        strengths = np.tile(np.array([[0], [0], [case.penalty]], np.float32), rows)
        edits = replace(edits, penalties=Penalties(np.arange(rows), counts, counts > 1, strengths))
    return Draws(
        which=np.arange(rows),
        temperature=np.full(rows, case.temperature, np.float32),
        top_k=np.full(rows, case.top_k),
        top_p=np.full(rows, case.top_p, np.float32),
        min_p=np.zeros(rows, np.float32),
        uniform=rng.random(rows).astype(np.float32),
        edited=np.full(rows, edits is not None),
        edits=edits,
    )


def main(argv: list[str]) -> int:
    """Run, print a line a case, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench sampling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each case")
    parser.add_argument("--level", type=int, help="set of instructions; default: the best")
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    return as_an_engine(parser, argv, __name__, run)


def run(said: argparse.Namespace) -> int:
    """Measure in this process. Returns 1 where the tokens differ or there is nothing to measure."""
    ours = native_sampling(torch.ops.ramify.best_level() if said.level is None else said.level)
    about = machine.describe()
    print(json.dumps(about))
    print(f"{'rows':>4} {'':26} {'ours ms':>9} {'torch ms':>9} {'ratio':>6} {'ns a logit':>10} {'share':>6}")
    bandwidth = machine.read_bandwidth(5, 0.5)
    table = []
    for rows in said.rows:
        for case in [case for case in CASES if said.only in case.name]:
            logits, draws = make_logits(rows, case.flat), make_draws(case, rows)
            with torch.inference_mode():
                if not torch.equal(ours.sample(logits, draws)[0], REFERENCE_SAMPLING.sample(logits, draws)[0]):
                    print(f"{case.name}: tokens differ")
                    return 1
                calls = [lambda: ours.sample(logits, draws), lambda: REFERENCE_SAMPLING.sample(logits, draws)]  # noqa: B023
                mine, theirs = times(calls, said.seconds)
            share = logits.nbytes / bandwidth / mine
            table.append({"case": case.name, "rows": rows, "native_ms": 1e3 * mine, "torch_ms": 1e3 * theirs, "share": share})
            costs = f"{1e3 * mine:9.3f} {1e3 * theirs:9.3f} {theirs / mine:6.1f} {1e9 * mine / logits.numel():10.3f}"
            print(f"{rows:4} {case.name:26} {costs} {share:6.0%}", flush=True)
    print(json.dumps({"bench": "sampling", **about, "vocab": VOCAB, "cases": table}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
