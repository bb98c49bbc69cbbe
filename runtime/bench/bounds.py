"""The least time that any engine on this machine could take, from sizes and the machine's two rates. Pure; the formulas are in
docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .checkpoints import Shape


@dataclass(frozen=True)
class Limits:
    """What the machine gave: bytes that all cores read in a second, FLOP a second of a matrix product in bf16."""

    bandwidth: float
    flops: float


@dataclass(frozen=True)
class Bounds:
    """Of one model on one machine. weight_bytes: a weight takes on average (2 in bf16)."""

    shape: Shape
    limits: Limits
    weight_bytes: float = 2.0

    def prefill_s(self, new: int, cached: int = 0, *, heads: int = 1) -> float:
        """`new` tokens after `cached` ones, with the logits of `heads` of them."""
        shape = self.shape
        linear = 2 * shape.layer_parameters * new + 2 * shape.vocab_parameters * heads
        seen = cached * new + new * new / 2
        return (linear + self._attention(seen)) / self.limits.flops

    def decode_s(self, rows: int, unique: int, contexts: int) -> float:
        """One step of `rows` sequences that see `contexts` tokens together, `unique` of them different."""
        weights = self.shape.layer_parameters + self.shape.vocab_parameters
        linear = max(self.weight_bytes * weights / self.limits.bandwidth, 2 * weights * rows / self.limits.flops)
        attention = max(
            self.shape.kv_bytes_token * unique / self.limits.bandwidth, self._attention(contexts) / self.limits.flops
        )
        return linear + attention

    def decoding_s(self, lengths: Sequence[int], unique: int, steps: int) -> float:
        """`steps` steps after prompts of these lengths that hold `unique` different tokens together."""
        rows, whole = len(lengths), sum(lengths)
        return sum(self.decode_s(rows, unique + rows * done, whole + rows * done) for done in range(1, steps + 1))

    def _attention(self, seen: float) -> float:
        return 4 * self.shape.layers * self.shape.heads[0] * self.shape.head_dim * seen


def new_parts(prompts: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """For each prompt, in sorted order, (how much of it an earlier one began with, its length): edges of the prefix tree."""
    parts, before = [], ()
    for prompt in sorted(map(tuple, prompts)):
        most = min(len(prompt), len(before))
        parts.append((next((i for i in range(most) if prompt[i] != before[i]), most), len(prompt)))
        before = prompt
    return parts


def unique_tokens(prompts: Iterable[Sequence[int]]) -> int:
    """Tokens of all prompts, those with the same past counted once: nodes of their prefix tree."""
    return sum(end - begin for begin, end in new_parts(prompts))


def prefill_of(bounds: Bounds, prompts: Sequence[Sequence[int]]) -> float:
    """Seconds to compute all prompts, each unique token once, with the logits of every prompt's last token."""
    parts = new_parts(prompts)
    heads = bounds.prefill_s(0, heads=len(prompts))
    return heads + sum(bounds.prefill_s(end - begin, begin, heads=0) for begin, end in parts)
