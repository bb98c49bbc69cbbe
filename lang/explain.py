"""What is known of a call when it has ended: an explanation for people, and log-probabilities of choices. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.meta_info import TokenText
from ..runtime.protocol import Finished, Scored, unpack_ids


@dataclass(frozen=True)
class Explanation:
    """Where one call's time and tokens went. Counts are tokens, times seconds.

    cached + computed = prompt; forced: of the output, left no choice by a constraint and computed together. diverged_at: index
    of the first prompt token that the cache did not have, -1 if it had all it could; reason: why it ended there. continuation:
    how ids that were held already were used again. For n > 1 counts and times are those of the first sequence, output is the sum.
    """

    name: str
    prompt: int
    cached: int
    computed: int
    forced: int
    output: int
    recomputed: int
    matched: int
    diverged_at: int
    reason: str
    continuation: str
    queue_s: float
    prefill_s: float
    decode_s: float
    grammar_s: float
    mask_s: float
    preemptions: int
    finish: str
    seed: int

    def __str__(self) -> str:
        where = f", differs from token {self.diverged_at} on" if self.diverged_at >= 0 else ""
        lines = [
            f"{self.name}: {self.prompt} prompt tokens = {self.cached} cached + {self.computed} computed"
            f" -> {self.output} output tokens{f', {self.forced} of them forced' if self.forced else ''} ({self.finish})",
            f"  cache: {self.matched} tokens matched{where}{f' ({self.reason})' if self.reason else ''}",
            f"  time: queue {_ms(self.queue_s)}, prefill {_ms(self.prefill_s)}, decode {_ms(self.decode_s)}"
            f", grammar {_ms(self.grammar_s)}{f', masks {_ms(self.mask_s)}' if self.mask_s else ''}",
        ]
        if self.continuation:
            lines.insert(2, f"  continuation: {self.continuation}")
        if self.preemptions:
            lines.append(f"  preempted {self.preemptions} times, {self.recomputed} tokens computed again")
        return "\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def explain(name: str, answer: Sequence[Finished] | Scored) -> Explanation:
    """The explanation of a finished call."""
    first = answer if isinstance(answer, Scored) else answer[0]
    usage, cache, timings = first.usage, first.cache, first.timings
    return Explanation(
        name=name,
        prompt=usage.prompt,
        cached=usage.cached,
        computed=usage.computed,
        forced=usage.forced,
        output=usage.output if isinstance(answer, Scored) else sum(part.usage.output for part in answer),
        recomputed=usage.recomputed,
        matched=cache.matched,
        diverged_at=cache.diverged_at,
        reason=cache.reason,
        continuation=cache.continuation,
        queue_s=timings.queue_s,
        prefill_s=timings.prefill_s,
        decode_s=timings.decode_s,
        grammar_s=timings.grammar_s,
        mask_s=timings.mask_s,
        preemptions=timings.preemptions,
        finish="selected" if isinstance(first, Scored) else first.finish.reason,
        seed=0 if isinstance(first, Scored) else first.seed,
    )


def choice_entries(scored: Scored, texts: TokenText) -> tuple[list[list[Any]], list[list[Any]] | None]:
    """(input_token_logprobs, unconditional_token_logprobs) as `choices.py` takes them, one list per choice."""
    given, alone = [], []
    for choice in scored.choices:
        ids = unpack_ids(choice.ids)
        given.append([(lp, token, texts(token)) for lp, token in zip(choice.logprobs, ids, strict=True)])
        if choice.unconditional or len(ids) <= 1:
            values = (None, *choice.unconditional)
            alone.append([(lp, token, texts(token)) for lp, token in zip(values, ids, strict=False)])
    return given, alone if len(alone) == len(given) else None
