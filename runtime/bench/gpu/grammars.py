"""Question: what does a constraint cost on a GPU, and what does it save where it leaves no choice?

1, 16 and 64 requests at once with a vocabulary of 128,000 tokens, 128 tokens each at temperature 1: free, under a schema whose
tokens are drawn one by one, and with jump-forward, in turns (`bench/constrained.py` has the schema). Ceiling: free text.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator

from ...async_engine import AsyncEngine
from ..checkpoints import LARGE_VOCABULARY
from ..constrained import KINDS, SCHEMA, Found, summary
from ..constrained import run as ask
from .setting import Line, Setting, scenario, through

SHORT = {
    "free tokens/s": "free tok/s",
    "constrained tokens/s": "constrained",
    "constrained against free": "constrained/free",
    "jump-forward tokens/s": "jumping",
    "jump-forward against free": "jumping/free",
    "forced share": "forced",
    "steps, jump-forward against constrained": "steps",
}
"""Headings, in place of the names of `constrained.summary`."""


async def measure(setting: Setting) -> AsyncIterator[Line]:
    """A line for each number of requests. Two engines: without jump-forward and with it."""
    counts, output = ((2,), 16) if setting.quick else ((1, 16, 64), 128)
    sizes = {"max_running": max(counts), "kv_tokens": max(counts) * (output + 128), "context_length": 1024}
    plain = setting.options(tokens=LARGE_VOCABULARY, jump_forward=False, **sizes)
    jumping = setting.options(tokens=LARGE_VOCABULARY, **sizes)
    async with (
        await AsyncEngine.start(plain, in_process=setting.in_process) as without,
        await AsyncEngine.start(jumping, in_process=setting.in_process) as jumps,
    ):
        for engine in (without, jumps):  # the grammar engines are imported, kernels compiled, graphs captured
            await ask(engine, SCHEMA, requests=max(counts), output=8)
        await ask(without, None, requests=max(counts), output=8)
        for count in counts:
            found: dict[str, list[Found]] = {kind: [] for kind in KINDS}
            for _ in range(setting.repeats + 1):
                for kind in KINDS:
                    engine = jumps if kind == "jump-forward" else without
                    await engine.flush_cache()
                    found[kind].append(await ask(engine, None if kind == "free" else SCHEMA, requests=count, output=output))
            figures = summary({kind: runs[1:] for kind, runs in found.items()})
            yield {"requests": count, **{SHORT.get(name, name): value for name, value in figures.items()}}
            if setting.left_s < 0:
                return


def run(setting: Setting) -> Iterator[Line]:
    """See `measure`."""
    return through(measure(setting))


def main(argv: list[str]) -> int:
    """Run it."""
    return scenario("g4", argv, __doc__, run)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
