"""What a benchmark asks of an engine, and what it gets back: the same ids for all of them, and a time for every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..bounds import unique_tokens

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Generate:
    """All prompts at once, `output` tokens each, whatever the end-of-text token says; greedy, or `samples` of each at
    temperature 1."""

    prompts: tuple[Ids, ...]
    output: int
    samples: int = 1

    @property
    def sequences(self) -> int:
        """How many are generated."""
        return len(self.prompts) * self.samples

    @property
    def new(self) -> int:
        """Tokens after the prompt, in each sequence."""
        return self.output


@dataclass(frozen=True)
class Score:
    """Log-probabilities of the same choices after each prompt. texts: what the choices spell, for those who take texts."""

    prompts: tuple[Ids, ...]
    choices: tuple[Ids, ...]
    texts: tuple[str, ...]

    @property
    def sequences(self) -> int:
        """How many are scored."""
        return len(self.prompts) * len(self.choices)

    @property
    def new(self) -> int:
        """Tokens after the prompt, in the longest choice."""
        return max(map(len, self.choices))


Work = Generate | Score


@dataclass(frozen=True)
class Continuation:
    """One continuation. ids: empty where the engine does not tell them. times: seconds from the start of the run at which
    each of its tokens was there."""

    ids: Ids
    times: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """One piece of work done. seconds: wall clock of the whole. computed: prompt tokens that were computed (cached: that
    were not), None where the engine does not say. scores: for each prompt, each choice's log-probabilities."""

    seconds: float
    sequences: tuple[Continuation, ...] = ()
    cached: int | None = None
    computed: int | None = None
    scores: tuple[tuple[tuple[float, ...], ...], ...] = ()

    @property
    def first_s(self) -> float:
        """Until the first token of all."""
        return min(one.times[0] for one in self.sequences)

    @property
    def decode_rate(self) -> float:
        """Tokens a second of all sequences together, from the moment when each has its first until the first one ends: what
        the prompts cost is not in it."""
        begin = max(one.times[0] for one in self.sequences)
        end = min(one.times[-1] for one in self.sequences)
        made = sum(sum(begin < time <= end for time in one.times) for one in self.sequences)
        return made / (end - begin) if end > begin else float("nan")


@dataclass(frozen=True)
class Needs:
    """What an engine must be made for. tokens: places in its KV cache, rows: sequences at once, context: of the longest;
    kv_bytes: of all places together."""

    tokens: int
    rows: int
    context: int
    kv_bytes: int
    dtype: str = "bfloat16"
    threads: int = 1


def needs(works: Sequence[Work], kv_bytes_token: int, *, dtype: str, threads: int) -> Needs:
    """What the largest of these pieces of work asks of an engine that shares prefixes, with some room: a page of 128 tokens
    for each sequence. Pure."""
    tokens = max(unique_tokens(work.prompts) + work.sequences * work.new for work in works)
    rows = max(work.sequences if isinstance(work, Generate) else len(work.choices) for work in works)
    tokens = int(tokens * 1.05) + 128 * (rows + 4)
    size = 4 if dtype == "float32" else 2
    return Needs(
        tokens=tokens,
        rows=rows,
        context=max(len(prompt) + work.new for work in works for prompt in work.prompts) + 16,
        kv_bytes=tokens * kv_bytes_token * size // 2,
        dtype=dtype,
        threads=threads,
    )


class Unusable(Exception):
    """This engine cannot take part; the text says why, and stands in the results."""


class Adapter(Protocol):
    """An engine in a benchmark. name: as in the tables. `start` comes first, `close` last.

    about: what it is, with its version. keeps_prefixes: whether a later prompt finds what an earlier one left, so that
    "warm" means something.
    """

    name: str
    about: str
    keeps_prefixes: bool

    async def start(self, model: Path, needs: Needs) -> None:
        """Load. Raises Unusable."""
        ...

    async def flush(self) -> None:
        """Forget all prefixes."""
        ...

    async def run(self, work: Work) -> Run:
        """Do it. Raises Unusable where the engine cannot do work of this kind."""
        ...

    async def close(self) -> None:
        """End everything that was started."""
        ...


def prompt_lists(work: Work) -> list[list[int]]:
    """The prompts as what JSON takes."""
    return [list(map(int, prompt)) for prompt in work.prompts]


def as_ids(buffer: bytes) -> Ids:
    """An int32 buffer as ids."""
    return tuple(np.frombuffer(buffer, np.int32).tolist())
