"""Question: how much faster than `transformers` are one stream, a batch, and many requests with one prefix?

Same random weights in the shape of Qwen2.5-0.5B, same token ids, greedy, fixed lengths, bf16, one run. transformers is used
as its documentation shows (`generate`, sdpa, eager): one by one, and as one padded batch. Bounds: `docs/performance.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..async_engine import AsyncEngine
from ..config import EngineOptions
from ..protocol import Delta, Finished, GenerateRequest, greedy, tokens

SHAPE: dict[str, Any] = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
    "eos_token_id": 151_643,
}


def checkpoint(folder: Path) -> Path:
    """A random checkpoint in the shape of Qwen2.5-0.5B (bf16, 988 MB), made once, with a byte tokenizer."""
    place = folder / "qwen2.5-0.5b-random"
    if (place / "model.safetensors").exists():
        return place
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(**SHAPE, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    model: Any = Qwen2ForCausalLM(config)
    model = model.to(torch.bfloat16)
    model.save_pretrained(place)
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(place / "tokenizer.json"))
    return place


class Ramify:
    """This engine, in its own process, as a program uses it."""

    def __init__(self, engine: AsyncEngine):
        self.engine = engine

    async def one(self, prompt: np.ndarray, count: int) -> tuple[float, float, bytes]:
        """Seconds to the first token, seconds from it to the last, and the ids."""
        request = GenerateRequest((tokens(prompt.tolist()),), greedy(count, ignore_eos=True))
        started = time.perf_counter()
        first, output = 0.0, b""
        async for event in self.engine.generate(request):
            if isinstance(event, Delta) and not first:
                first = time.perf_counter()
            if isinstance(event, Finished):
                output = event.output_ids
        return first - started, time.perf_counter() - first, output

    async def together(self, prompts: list[np.ndarray], count: int) -> tuple[float, list[bytes]]:
        """Seconds until all are done, from a cold cache."""
        await self.engine.flush_cache()
        started = time.perf_counter()
        results = await asyncio.gather(*(self.one(p, count) for p in prompts))
        return time.perf_counter() - started, [r[2] for r in results]


class Transformers:
    """The peer."""

    def __init__(self, folder: Path):
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self.model.generation_config.pad_token_id = 0

    def generate(self, prompts: list[np.ndarray], count: int) -> tuple[float, list[bytes]]:
        """One call of generate for prompts of one length; seconds and new ids."""
        ids = self.torch.tensor(np.stack(prompts), dtype=self.torch.int64)
        started = time.perf_counter()
        with self.torch.inference_mode():
            out = self.model.generate(
                ids, attention_mask=self.torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count, do_sample=False
            )
        seconds = time.perf_counter() - started
        return seconds, [row.numpy().astype(np.int32).tobytes() for row in out[:, ids.shape[1] :]]

    def one_by_one(self, prompts: list[np.ndarray], count: int) -> tuple[float, list[bytes]]:
        """Each prompt by itself."""
        results = [self.generate([p], count) for p in prompts]
        return sum(r[0] for r in results), [r[1][0] for r in results]


def prompts(count: int, shared: int, own: int, seed: int) -> list[np.ndarray]:
    """Seeded random prompts: `shared` tokens in common, `own` of each."""
    rng = np.random.default_rng(seed)
    head = rng.integers(0, 150_000, shared, dtype=np.int32)
    return [np.concatenate([head, rng.integers(0, 150_000, own, dtype=np.int32)]) for _ in range(count)]


def agreement(ours: list[bytes], theirs: list[bytes]) -> float:
    """Mean share of leading ids in common: in bf16 random weights have near ties, so texts part at some point."""
    shares = []
    for a, b in zip(ours, theirs, strict=True):
        x, y = np.frombuffer(a, np.int32), np.frombuffer(b, np.int32)
        differ = np.flatnonzero(x != y)
        shares.append((differ[0] if len(differ) else len(x)) / len(x))
    return float(np.mean(shares))


async def run(folder: Path, repeats: int, only: str, threads: int | None) -> dict[str, Any]:
    """All scenarios, Ramify and the peer in turn."""
    from .machine import describe

    place = checkpoint(folder)
    figures: dict[str, Any] = {"machine": describe()}
    peer = Transformers(place)
    engine = await AsyncEngine.start(EngineOptions(model=str(place), dtype="bfloat16", kv_tokens=40_000, threads=threads))
    ours = Ramify(engine)
    scenarios = {"single": single, "batch": batch, "shared": shared_prefix}
    try:
        for name, scenario in scenarios.items():
            if only in ("all", name):
                figures[name] = await scenario(ours, peer, repeats)
                print(name, json.dumps(figures[name]), flush=True)
    finally:
        await engine.close()
    return figures


async def single(ours: Ramify, peer: Transformers, repeats: int) -> dict[str, Any]:
    """One stream: 128 in, 64 out. Decode only: transformers' prefill is taken off by a run of one token."""
    [prompt] = prompts(1, 0, 128, seed=1)
    await ours.one(prompt, 8)
    peer.generate([prompt], 8)
    mine, theirs = [], []
    for _ in range(repeats):
        await ours.engine.flush_cache()
        mine.append(63 / (await ours.one(prompt, 64))[1])
        whole, first = peer.generate([prompt], 64)[0], peer.generate([prompt], 1)[0]
        theirs.append(63 / (whole - first))
    return report({"ramify_tok_s": mine, "transformers_tok_s": theirs}, ratio=median(mine) / median(theirs))


async def batch(ours: Ramify, peer: Transformers, repeats: int) -> dict[str, Any]:
    """16 requests at once: 256 in, 64 out."""
    many = prompts(16, 0, 256, seed=2)
    mine, padded, alone = [], [], []
    same = 0.0
    for number in range(repeats):
        seconds, out = await ours.together(many, 64)
        mine.append(seconds)
        padded.append(peer.generate(many, 64)[0])
        if number == 0:
            slow, theirs = peer.one_by_one(many, 64)
            alone.append(slow)
            same = agreement(out, theirs)
    times = {"ramify_s": mine, "padded_s": padded, "one_by_one_s": alone}
    return report(
        times, ratio_one_by_one=median(alone) / median(mine), ratio_padded=median(padded) / median(mine), same_ids=same
    )


async def shared_prefix(ours: Ramify, peer: Transformers, repeats: int) -> dict[str, Any]:
    """32 requests of 1,024 shared and 64 own tokens, 32 out, cold."""
    many = prompts(32, 1024, 64, seed=3)
    mine = [(await ours.together(many, 32))[0] for _ in range(repeats)]
    alone, _ = peer.one_by_one(many, 32)
    return report({"ramify_s": mine, "one_by_one_s": [alone]}, ratio=alone / median(mine))


def report(series: dict[str, list[float]], **more: float) -> dict[str, Any]:
    """Medians and spreads."""
    named = {name: {"median": median(v), "min": min(v), "max": max(v), "runs": len(v)} for name, v in series.items()}
    return {**named, **{name: round(value, 3) for name, value in more.items()}}


def main(argv: list[str]) -> int:
    """Run, print a table, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench versus", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ramify-bench")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["all", "single", "batch", "shared"], default="all")
    parser.add_argument("--threads", type=int, default=None)
    said = parser.parse_args(argv)
    figures = asyncio.run(run(said.folder, said.repeats, said.only, said.threads))
    for name, values in figures.items():
        print(name)
        for key, value in values.items():
            print(f"    {key:22} {value}")
    print(json.dumps({"bench": "versus", "load": os.getloadavg()[0], **figures}))
    return 0
