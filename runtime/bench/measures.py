"""What one run of a case does with an engine, and which number it gives."""

from __future__ import annotations

from dataclasses import replace

from .adapters.base import Adapter, Generate, Run, Work
from .bounds import unique_tokens
from .scenario import Measured, Works


def first(work: Work, count: int) -> Work:
    """The same with its first `count` prompts alone. Pure."""
    return replace(work, prompts=work.prompts[:count])


def reuse(run: Run, work: Work) -> dict[str, float]:
    """Prompt tokens computed, as the engine counts them, and how many times more than the unique ones."""
    if run.computed is None:
        return {}
    unique = unique_tokens(work.prompts)
    return {"computed": run.computed, "unique": unique, "computed/unique": run.computed / unique}


async def first_token(adapter: Adapter, works: Works) -> Measured:
    """Seconds to the first token, cold."""
    [work] = works
    await adapter.flush()
    run = await adapter.run(work)
    return Measured(run.first_s)


async def decode_rate(adapter: Adapter, works: Works) -> Measured:
    """Tokens a second while all sequences decode: prompts are not in it, be they computed or found."""
    [work] = works
    run = await adapter.run(work)
    return Measured(run.decode_rate, {"whole_s": run.seconds})


async def seconds_cold(adapter: Adapter, works: Works) -> Measured:
    """Seconds for all of it, from an empty cache."""
    [work] = works
    await adapter.flush()
    run = await adapter.run(work)
    return Measured(run.seconds, reuse(run, work))


async def seconds_warm(adapter: Adapter, works: Works) -> Measured:
    """Seconds for all of it, when the same has just been done."""
    [work] = works
    run = await adapter.run(work)
    return Measured(run.seconds, reuse(run, work))


async def throughput_cold(adapter: Adapter, works: Works) -> Measured:
    """Generated tokens a second over the whole, prompts included, from an empty cache."""
    [work] = works
    assert isinstance(work, Generate)
    await adapter.flush()
    run = await adapter.run(work)
    return Measured(work.sequences * work.output / run.seconds, {"first_s": run.first_s, **reuse(run, work)})
