"""Question: how much of its rate does one stream keep while another program is busy on one of the cores?

The same decode in turn with and without a program that never rests on the first core. Bound: the cores that are left and half
of that one, as a fair scheduler gives them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .adapters.base import Adapter, Generate
from .bounds import Bounds
from .machine import cores
from .runner import bench
from .scenario import Case, Measured, Scenario, Setting, Works
from .work import apart


@asynccontextmanager
async def busy_core() -> AsyncIterator[None]:
    """A program that computes without end on the first core that this process may use, until left."""
    program = f"import os\nos.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\nprint('on', flush=True)\nwhile True: pass"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield
    finally:
        process.kill()
        await process.wait()


async def share_kept(adapter: Adapter, works: Works) -> Measured:
    """Rate beside the neighbour over the rate without, one after the other."""
    [work] = works
    quiet = (await adapter.run(work)).decode_rate
    async with busy_core():
        beside = (await adapter.run(work)).decode_rate
    return Measured(beside / quiet, {"quiet_tok_s": quiet, "beside_tok_s": beside})


def cases(setting: Setting) -> list[Case]:
    """One stream, and a batch of 8."""
    prompt, output = (16, 16) if setting.quick else (128, 48)

    def bound(_: Bounds) -> float:
        return (cores() - 0.5) / cores()

    return [
        Case(
            name=f"{count} stream{'s' * (count > 1)} of {output} tokens",
            unit="share",
            works=(Generate(apart(count, prompt, setting.vocab, 20 + count), output),),
            measure=share_kept,
            cache="warm",
            bound=bound,
        )
        for count in (1, 8)
    ]


SCENARIO = Scenario("neighbour", "Qwen2.5-0.5B", ("transformers", "vllm", "llama.cpp"), 6, cases)


def main(argv: list[str]) -> int:
    """Run it."""
    return bench(SCENARIO, argv, __doc__)
