"""The events of one HTTP request, whatever number of prompts it has. Leaving the iteration aborts what still runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from ..async_engine import AsyncEngine
from ..protocol import Event, Finished, GenerateRequest

MOST_UNREAD = 64
"""Events between the prompts of a request and its reader: beyond, they wait where deltas are merged."""


async def events_of(
    engine: AsyncEngine, requests: Sequence[GenerateRequest], interval: int
) -> AsyncGenerator[tuple[int, Event], None]:
    """(number of the prompt, event), in the order in which they come; interval: see `AsyncEngine.generate`.

    Raises the first prompt's error.
    """
    if len(requests) == 1:
        async with aclosing(engine.generate(requests[0], interval)) as events:  # type: ignore[type-var]
            async for event in events:
                yield 0, event
        return
    queue: asyncio.Queue[tuple[int, Event | BaseException | None]] = asyncio.Queue(MOST_UNREAD)
    tasks = [asyncio.create_task(_pump(engine, number, request, interval, queue)) for number, request in enumerate(requests)]
    left = len(tasks)
    try:
        while left:
            number, item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield number, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(
    engine: AsyncEngine,
    number: int,
    request: GenerateRequest,
    interval: int,
    queue: asyncio.Queue[tuple[int, Event | BaseException | None]],
) -> None:
    try:
        async with aclosing(engine.generate(request, interval)) as events:  # type: ignore[type-var]
            async for event in events:
                await queue.put((number, event))
        await queue.put((number, None))
    except Exception as error:
        await queue.put((number, error))


async def collect(engine: AsyncEngine, requests: Sequence[GenerateRequest]) -> list[list[Finished]]:
    """The samples of each prompt, by index. Raises the first error; the other prompts are then aborted."""
    answers: list[dict[int, Finished]] = [{} for _ in requests]
    async with aclosing(events_of(engine, requests, 0)) as events:
        async for number, event in events:
            if isinstance(event, Finished):
                answers[number][event.index] = event
    return [[samples[index] for index in sorted(samples)] for samples in answers]
