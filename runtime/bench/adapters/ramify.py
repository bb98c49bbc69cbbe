"""This engine: in its own process as a program uses it, or on a thread of this one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ...async_engine import AsyncEngine
from ...config import EngineOptions
from ...errors import RamifyError
from ...protocol import Delta, Finished, GenerateRequest, SamplingParams, ScoreRequest, Usage, tokens
from .base import Continuation, Generate, Needs, Run, Score, Unusable, Work, as_ids

SWITCH = {"on": "true", "off": "false"}


def with_settings(options: EngineOptions, said: Mapping[str, str]) -> EngineOptions:
    """The options, but for those that are said by name. Pure. Raises Unusable for a name or value that no engine knows."""
    unknown = sorted(set(said) - set(options.__struct_fields__))
    if unknown:
        raise Unusable(f"There is no engine option {unknown[0]!r}. Known: {', '.join(options.__struct_fields__)}.")
    try:
        words = {name: SWITCH.get(value, value) for name, value in said.items()}
        return msgspec.convert({**msgspec.structs.asdict(options), **words}, EngineOptions, strict=False)
    except msgspec.ValidationError as error:
        raise Unusable(f"An engine option does not fit: {error}.") from None


def engine_options(model: Path, needs: Needs, said: Mapping[str, str]) -> EngineOptions:
    """Sizes as the work needs them, and what was said. Pure. Raises Unusable."""
    sizes = EngineOptions(
        model=str(model),
        dtype=needs.dtype,
        kv_tokens=needs.tokens,
        max_running=needs.rows,
        threads=needs.threads,
        queue=100_000,
    )
    return with_settings(sizes, said)


class RamifyAdapter:
    """See `base.Adapter`. said: engine options by name, beyond sizes. in_process: steps on a thread of this process."""

    def __init__(self, name: str, said: Mapping[str, str], *, in_process: bool = False):
        self.name, self.about, self.keeps_prefixes = name, name, True
        self.engine: AsyncEngine | None = None
        self._said, self._in_process = dict(said), in_process

    async def start(self, model: Path, needs: Needs) -> None:
        """See `base.Adapter`."""
        options = engine_options(model, needs, self._said)
        try:
            self.engine = await AsyncEngine.start(options, in_process=self._in_process)
        except RamifyError as error:
            raise Unusable(str(error)) from error
        from .... import __version__

        how = "engine on a thread" if self._in_process else "engine process"
        more = "".join(f", {name}={value}" for name, value in self._said.items())
        self.about = f"Ramify {__version__}, {how}{more}"

    async def flush(self) -> None:
        """See `base.Adapter`."""
        assert self.engine is not None
        await self.engine.flush_cache()

    async def run(self, work: Work) -> Run:
        """See `base.Adapter`."""
        return await (self._generate(work) if isinstance(work, Generate) else self._score(work))

    async def close(self) -> None:
        """See `base.Adapter`."""
        if self.engine is not None:
            await self.engine.close()

    async def _generate(self, work: Generate) -> Run:
        engine = self.engine
        assert engine is not None
        sampling = SamplingParams(
            max_new_tokens=work.output,
            temperature=0.0 if work.samples == 1 else 1.0,
            top_p=1.0,
            top_k=-1,
            min_p=0.0,
            repetition_penalty=1.0,
            ignore_eos=True,
            seed=0,
            n=work.samples,
        )
        started = time.perf_counter()

        async def one(prompt: tuple[int, ...]) -> tuple[list[Continuation], Usage]:
            times: list[list[float]] = [[] for _ in range(work.samples)]
            ends: list[Finished] = []
            async for event in engine.generate(GenerateRequest((tokens(prompt),), sampling)):
                if isinstance(event, Delta):
                    now = time.perf_counter() - started
                    times[event.index] += [now] * (len(event.ids) // 4)
                elif isinstance(event, Finished):
                    ends.append(event)
            ends.sort(key=lambda end: end.index)
            made = [Continuation(as_ids(end.output_ids), tuple(times[end.index])) for end in ends]
            return made, _total([end.usage for end in ends])

        answers = await asyncio.gather(*(one(prompt) for prompt in work.prompts))
        seconds = time.perf_counter() - started
        usage = _total([usage for _, usage in answers])
        sequences = tuple(one for made, _ in answers for one in made)
        return Run(seconds, sequences, cached=usage.cached, computed=usage.computed + usage.recomputed)

    async def _score(self, work: Score) -> Run:
        engine = self.engine
        assert engine is not None
        started = time.perf_counter()
        requests = [ScoreRequest((tokens(prompt),), work.texts) for prompt in work.prompts]
        scored = await asyncio.gather(*(engine.score(request) for request in requests))
        seconds = time.perf_counter() - started
        for one in scored:
            if tuple(as_ids(choice.ids) for choice in one.choices) != work.choices:
                raise Unusable("Ramify cut the choices into other tokens than the peers were given.")
        usage = _total([one.usage for one in scored])
        scores = tuple(tuple(choice.logprobs for choice in one.choices) for one in scored)
        return Run(seconds, cached=usage.cached, computed=usage.computed + usage.recomputed, scores=scores)


def _total(usages: list[Usage]) -> Usage:
    return Usage(*(sum(column) for column in zip(*map(msgspec.structs.astuple, usages), strict=True)))
