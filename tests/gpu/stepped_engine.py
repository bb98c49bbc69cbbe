"""An engine that is driven step by step in this process, and prompts whose lengths lie around the borders of tiles and pages."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ramify.runtime.assemble import assemble
from ramify.runtime.bundled import MODEL_DIR
from ramify.runtime.config import EngineOptions
from ramify.runtime.protocol import LogprobParams, pack_ids
from ramify.runtime.wire import AbortKey, Drawing, DrawnLogprob, Outbound, Progress, Refused, SequenceEnd, Submit

NUM_NEW = 12


def prompts(count: int = 16) -> list[np.ndarray]:
    """Groups with common beginnings, and at the end a prompt twice, the second time without its last token."""
    rng = np.random.default_rng(0)
    heads = [rng.integers(0, 4000, n, dtype=np.int32) for n in (0, 5, 40, 255, 300)]
    lengths = [1, 2, 15, 16, 17, 31, 64, 257]
    tails = [rng.integers(0, 4000, lengths[i % len(lengths)], dtype=np.int32) for i in range(count - 2)]
    made = [np.concatenate([heads[i % len(heads)], tail]) for i, tail in enumerate(tails)]
    return [*made, made[7].copy(), made[7][:-1].copy()]


class Stepped:
    """One engine. `free` gives its memory back."""

    def __init__(self, device: str, *, model: Path = MODEL_DIR, preempt_every: int = 0, **options: Any):
        self.preempt_every = preempt_every
        plain = {"kv_tokens": 20_000, "chunk_tokens": 4096, "threads": 1, "dtype": "float32"}
        said = EngineOptions(model=str(model), device=device, **{**plain, **options})
        self.engine, self.info = assemble(said, lambda phase, share: None)
        self.keys = itertools.count()
        self.usage: dict[int, Any] = {}

    def run(self, asked: list[np.ndarray], *, alone: bool = False, cold: bool = False, n: int = 1, **drawing: Any):
        """Outputs of all prompts, greedy unless said; n of each. alone: one after the other. cold: from an empty cache."""
        if alone:
            return [output for prompt in asked for output in self.run([prompt], cold=cold, n=n, **drawing)]
        if cold:
            self.engine.flush()
        keys = [next(self.keys) for _ in asked]
        self.submit(keys, asked, n=n, **drawing)
        told = self.finish()
        self.engine.scheduler.check()
        return [told[key, index] for key in keys for index in range(n)]

    def submit(self, keys: list[int], asked: list[np.ndarray], *, top: int = 0, **drawing: Any) -> None:
        """Requests join the queue. top: log-probabilities of so many alternatives."""
        said = Drawing(**{"limit": NUM_NEW, "temperature": 0.0, **drawing})
        logprobs = LogprobParams(output=True, top=top) if top else LogprobParams()
        self.logprobs: dict[tuple[int, int], list[DrawnLogprob]] = {}
        inbox = [
            Submit(key=key, ids=pack_ids(prompt.tobytes()), drawing=said, logprobs=logprobs)
            for key, prompt in zip(keys, asked, strict=True)
        ]
        assert self.engine.enter(inbox) == []

    def finish(self) -> dict[tuple[int, int], list[int]]:
        """Step until nothing runs. Tokens of each request's samples."""
        told: dict[tuple[int, int], list[int]] = {}
        while not self.engine.idle:
            for message in self.engine.step():
                self.take(message, told)
            running = self.engine.scheduler.rows.running()
            if self.preempt_every and self.engine.steps % self.preempt_every == 0 and len(running) > 1:
                for message in self.engine.settle_until(0):
                    self.take(message, told)
                if running := self.engine.scheduler.rows.running():
                    self.engine.scheduler.preempt(running[self.engine.steps % len(running)])
        return told

    def take(self, message: Outbound, told: dict[tuple[int, int], list[int]]) -> None:
        """Write down what a message says."""
        if isinstance(message, Progress):
            columns = (np.frombuffer(message.keys, np.int64), np.frombuffer(message.indices, np.int32))
            entries = list(zip(*(column.tolist() for column in columns), strict=True))
            for entry, token in zip(entries, np.frombuffer(message.tokens, np.int32).tolist(), strict=True):
                told.setdefault(entry, []).append(token)
            for number, drawn in message.logprobs:
                self.logprobs.setdefault(entries[number], []).append(drawn)
        elif isinstance(message, SequenceEnd):
            assert message.failure is None, message
            told.setdefault((message.key, message.index), [])
            self.usage[message.key] = message.usage
        else:
            assert not isinstance(message, Refused), message

    def abort(self, key: int) -> None:
        """End a request."""
        self.engine.enter([AbortKey(key)])


def free() -> None:
    """What was dropped goes back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
