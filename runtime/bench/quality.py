"""Question: what of its held-out tasks does the bundled model get right, through this engine, in bf16 and fp32?

Greedy, 500 items a task, all at once. Extraction runs under the item's own schema, choices are scored as `select` does, the
rest is free text; what is right is decided by `runtime/bundled/measure.py`. The ceiling is 100 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from ...constrained.spec import JsonSchema
from ..async_engine import AsyncEngine, complete
from ..bundled.held_out import TASKS, held_out
from ..bundled.measure import Prompt, correct, measure
from ..config import EngineOptions
from ..protocol import Chat, GenerateRequest, Message, SamplingParams, Scored, ScoreRequest, Text, ToolCall


def segments(prompt: Prompt) -> tuple[Chat | Text]:
    """A measured prompt as a request's prompt."""
    if not prompt.messages:
        return (Text(prompt.text),)
    turns = []
    for turn in prompt.messages:
        calls = tuple(
            ToolCall(c["function"]["name"], json.dumps(c["function"]["arguments"])) for c in turn.get("tool_calls") or ()
        )
        turns.append(Message(turn["role"], turn.get("content") or "", calls))
    return (Chat(tuple(turns), tools=tuple(json.dumps(t) for t in prompt.tools or ())),)


class EngineBackend:
    """`measure.Backend` on our engine. Owns an event loop."""

    def __init__(self, options: EngineOptions):
        self._loop = asyncio.new_event_loop()
        self._engine = self._loop.run_until_complete(AsyncEngine.start(options))

    def close(self) -> None:
        """End the engine."""
        self._loop.run_until_complete(self._engine.close())
        self._loop.close()

    def generate(
        self, prompts: Sequence[Prompt], *, max_tokens: int, stop: str = "", schemas: Sequence[str] | None = None
    ) -> list[str]:
        """See `measure.Backend`. schemas: JSON schemas that the answers must follow, one for each prompt."""
        sampling = SamplingParams(max_new_tokens=max_tokens, temperature=0.0, stop=(stop,) if stop else ())
        constraints = [JsonSchema(s) for s in schemas] if schemas else [None] * len(prompts)

        async def one(prompt: Prompt, constraint: JsonSchema | None) -> str:
            [finished] = await complete(self._engine, GenerateRequest(segments(prompt), sampling, constraint))
            return finished.text

        async def together() -> list[str]:
            return await asyncio.gather(*(one(p, c) for p, c in zip(prompts, constraints, strict=True)))

        return self._loop.run_until_complete(together())

    def score(self, prompts: Sequence[Prompt], choices: Sequence[tuple[str, ...]]) -> list[list[float]]:
        """See `measure.Backend`."""

        async def together() -> list[Scored]:
            requests = [ScoreRequest(segments(p), c) for p, c in zip(prompts, choices, strict=True)]
            return await asyncio.gather(*(self._engine.score(r) for r in requests))

        scored = self._loop.run_until_complete(together())
        return [[sum(c.logprobs) / len(c.logprobs) for c in one.choices] for one in scored]


def right_share(backend: EngineBackend, task: str, count: int) -> float:
    """Percent of a task's items that were right."""
    if task != "extraction":
        result = measure(backend, task, count=count)
        return 100.0 * result.right / result.items
    items = held_out(task, count)
    prompts = [Prompt(item.messages, item.tools, item.text) for item in items]
    answers = backend.generate(prompts, max_tokens=128, schemas=[json.dumps(item.schema) for item in items])
    return 100.0 * sum(correct(item, answer) for item, answer in zip(items, answers, strict=True)) / count


def main(argv: list[str]) -> int:
    """Run, print a table, end with one line of JSON."""
    parser = argparse.ArgumentParser(prog="ramify bench quality", description=__doc__)
    parser.add_argument("--model", type=Path, default=None, help="a checkpoint that `runtime.bundled.make` wrote")
    parser.add_argument("--items", type=int, default=500)
    said = parser.parse_args(argv)
    figures: dict[str, dict[str, float]] = {}
    for dtype in ("bfloat16", "float32"):
        started = time.perf_counter()
        backend = EngineBackend(EngineOptions(model=str(said.model) if said.model else None, dtype=dtype, kv_tokens=100_000))
        try:
            figures[dtype] = {task: right_share(backend, task, said.items) for task in TASKS}
        finally:
            backend.close()
        line = "  ".join(f"{task} {share:.1f} %" for task, share in figures[dtype].items())
        print(f"{dtype:9} {line}  ({time.perf_counter() - started:.0f} s)", flush=True)
    print(json.dumps({"bench": "quality", "items": said.items, "load": os.getloadavg()[0], **figures}))
    return 0
