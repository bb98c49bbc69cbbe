"""A cache changes speed, never results: the same greedy tokens, bit for bit, however the engine came by them.

The oracle is the plainest run: one request at a time, cold, the prompt in one piece. Everything else must agree with it, in
fp32 and in bf16, on a random checkpoint whose near ties would show the smallest difference.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from ramify.runtime.assemble import assemble
from ramify.runtime.bundled import MODEL_DIR
from ramify.runtime.config import EngineOptions
from ramify.runtime.engine import Engine
from ramify.runtime.protocol import pack_ids
from ramify.runtime.wire import Drawing, Progress, Refused, SequenceEnd, Submit

NUM_PROMPTS, NUM_NEW = 52, 12


class Runner:
    """One engine, driven step by step; nothing runs beside it."""

    def __init__(self, model: Path, *, preempt_every: int = 0, **options):
        self.engine: Engine
        self.preempt_every = preempt_every
        said = EngineOptions(model=str(model), threads=1, **{"kv_tokens": 20_000, "chunk_tokens": 4096, **options})
        self.engine, self.info = assemble(said, lambda phase, share: None)
        self.keys = itertools.count()
        self.usage: dict[int, object] = {}

    def run(self, prompts: list[np.ndarray], *, alone: bool = False, cold: bool = False, n: int = 1) -> list[list[int]]:
        """Greedy outputs. alone: one after the other. cold: the cache is emptied before each. Checks every invariant."""
        if not alone:
            return self._together(prompts, n)
        outputs = []
        for prompt in prompts:
            if cold:
                self.engine.flush()
            outputs += self._together([prompt], n)
        return outputs

    def _together(self, prompts: list[np.ndarray], n: int) -> list[list[int]]:
        keys = [next(self.keys) for _ in prompts]
        drawing = Drawing(limit=NUM_NEW, temperature=0.0, n=n)
        inbox = [Submit(key=k, ids=pack_ids(p.tobytes()), drawing=drawing) for k, p in zip(keys, prompts, strict=True)]
        told: dict[tuple[int, int], list[int]] = {(k, i): [] for k in keys for i in range(n)}
        while inbox or not self.engine.idle:
            for message in self.engine.step(inbox):
                if isinstance(message, Progress):
                    columns = (np.frombuffer(message.keys, np.int64), np.frombuffer(message.indices, np.int32))
                    for key, index, token in zip(*columns, np.frombuffer(message.tokens, np.int32), strict=True):
                        told[int(key), int(index)].append(int(token))
                elif isinstance(message, SequenceEnd):
                    assert message.failure is None, message
                    self.usage[message.key] = message.usage
                else:
                    assert not isinstance(message, Refused), message
            inbox = []
            running = self.engine.scheduler.rows.running()
            if self.preempt_every and self.engine.steps % self.preempt_every == 0 and len(running) > 1:
                self.engine.scheduler.preempt(running[self.engine.steps % len(running)])
        self.engine.scheduler.check()
        return list(told.values())


def prompts() -> list[np.ndarray]:
    """Lengths around the tile and page borders, and groups with common beginnings."""
    rng = np.random.default_rng(0)
    heads = [rng.integers(0, 4000, n, dtype=np.int32) for n in (0, 5, 40, 255, 300)]
    lengths = [1, 2, 3, 15, 16, 17, 31, 64, 100, 257]
    tails = [rng.integers(0, 4000, lengths[i % 10], dtype=np.int32) for i in range(NUM_PROMPTS - 2)]
    made = [np.concatenate([heads[i % 5], tail]) for i, tail in enumerate(tails)]
    return [*made, made[7].copy(), made[7][:-1].copy()]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def expected(dtype) -> list[list[int]]:
    outputs = Runner(MODEL_DIR, dtype=dtype).run(prompts(), alone=True, cold=True)
    assert len({tuple(o) for o in outputs}) > NUM_PROMPTS // 3, "outputs are all alike: the test would see nothing"
    return outputs


def test_a_warm_cache_gives_the_same_tokens_as_a_cold_one(dtype, expected):
    runner = Runner(MODEL_DIR, dtype=dtype)
    assert runner.run(prompts(), alone=True) == expected
    assert runner.run(prompts(), alone=True) == expected


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunked_prefill_gives_the_same_tokens_as_whole(dtype, expected, chunk):
    few = slice(0, None) if chunk > 1 else slice(0, None, 4)
    assert Runner(MODEL_DIR, dtype=dtype, chunk_tokens=chunk).run(prompts()[few], alone=True, cold=True) == expected[few]


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_batch_gives_the_same_tokens_as_each_alone(dtype, expected, page_size, depth):
    runner = Runner(MODEL_DIR, dtype=dtype, max_running=32, page_size=page_size, depth=depth, chunk_tokens=512)
    assert runner.run(prompts()) == expected
    assert runner.run(prompts()) == expected, "warm"


def test_preempted_sequences_say_the_same(dtype, expected):
    runner = Runner(MODEL_DIR, dtype=dtype, max_running=8, kv_tokens=2400, chunk_tokens=256, preempt_every=2)
    assert runner.run(prompts()) == expected
    assert runner.engine.scheduler.preemptions > 20


def test_samples_of_one_prompt_and_written_out_forks_say_the_same(dtype, expected):
    runner = Runner(MODEL_DIR, dtype=dtype, max_running=32)
    few = prompts()[:8]
    assert runner.run(few, n=3) == [o for o in expected[:8] for _ in range(3)]
    # A fork that continues from what was generated is the same as its text written out and computed cold.
    forked = [np.concatenate([p, np.array([*o, t], np.int32)]) for p, o in zip(few, expected, strict=False) for t in (3, 4)]
    warm = runner.run(forked)
    assert warm == Runner(MODEL_DIR, dtype=dtype).run(forked, alone=True, cold=True)


def test_requests_that_arrive_together_compute_their_common_prefix_once(dtype):
    rng = np.random.default_rng(1)
    head = rng.integers(0, 4000, 512, dtype=np.int32)
    together = [np.concatenate([head, rng.integers(0, 4000, 8, dtype=np.int32)]) for _ in range(32)]
    runner = Runner(MODEL_DIR, dtype=dtype, max_running=32, chunk_tokens=256)
    outputs = runner.run(together)
    computed = sum(u.computed for u in runner.usage.values())
    assert computed <= 1.02 * (512 + 32 * 8)
    assert outputs == Runner(MODEL_DIR, dtype=dtype).run(together, alone=True, cold=True)
