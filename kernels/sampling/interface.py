"""Choosing a token from logits: what each operation takes and returns. `reference.py` is plain torch, for any device.

Every operation works row by row: a row's bits do not depend on the other rows. Weights are unnormalised probabilities,
fp32 [rows, padded], the largest of a row 1; `padded` is the vocabulary rounded up to whole blocks of `BLOCK` tokens, and
what lies beyond the vocabulary has weight 0. Token ids are int64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 128
"""Tokens whose weights are added in one fixed tree."""

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Penalties:
    """place: int64 [n], each draw's row of counts and in_prompt, -1 where it has no penalty. counts: int32 [places, vocab], how
    often a token was output; in_prompt: bool [places, vocab]; both on the device. strengths: float32 [3, n]: presence,
    frequency, repetition."""

    place: Int64
    counts: Tensor
    in_prompt: Tensor
    strengths: Float32


@dataclass(frozen=True, slots=True)
class Edits:
    """What changes the logits of a draw, in this order. Lists of all draws lie one after the other; `*_end`: int64 [n], where
    each draw's list ends.

    bias_ids int64, bias_values float32: added; ids of one draw all different. penalties: repetition, frequency, presence.
    banned_ids: int64, forbidden. mask: int64 [n], the draw's row of masks or -1; masks: int32 [m, words], bit set = allowed.
    """

    bias_end: Int64
    bias_ids: Int64
    bias_values: Float32
    banned_end: Int64
    banned_ids: Int64
    penalties: Penalties | None
    mask: Int64
    masks: NDArray[np.int32] | None


@dataclass(frozen=True, slots=True)
class Draws:
    """What is to be drawn; one entry a token, all on the host.

    which: int64 [n], the logits row. temperature: float32 [n], 0 is greedy. top_k: int64 [n], 0 is off. top_p, min_p, uniform:
    float32 [n]. edited: bool [n], whether any edit belongs to the draw; edits may be None if none does.
    """

    which: Int64
    temperature: Float32
    top_k: Int64
    top_p: Float32
    min_p: Float32
    uniform: Float32
    edited: NDArray[np.bool_]
    edits: Edits | None


class Sample(Protocol):
    def __call__(self, logits: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """logits: [rows, vocab], fp32 or bf16, not changed. Returns tokens int64 [n], -1 where bad, and bad, bool [n]: the row
        held NaN or +inf, or nothing above -inf, or nothing was allowed.

        Edits, then argmax, or weights exp((logit - largest) * (1 / temperature)), top_k, top_p, min_p, and one draw by inverse
        CDF.
        """
        ...


class LogNormalizer(Protocol):
    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """logits: [all, vocab], fp32 or bf16; rows: int64 [n]. log(sum(exp(logits))) of each of the rows, float64 [n]. Not finite
        where a row holds NaN or +inf, or nothing above -inf."""
        ...


class Ranked(Protocol):
    def __call__(self, logits: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` largest logits of each of the rows, fp32 [n, count], and their ids, largest first, equal ones by id. count
        is at most vocab."""
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """What the sampler and the log-probabilities need of a device."""

    sample: Sample
    log_normalizer: LogNormalizer
    ranked: Ranked


class Greedy(Protocol):
    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """logits: fp32 [rows, vocab]. Returns the largest value (NaN if the row holds one) and the lowest id that has it."""
        ...


class KeepTop(Protocol):
    def __call__(self, weights: Tensor, *, vocab: int, top_k: Tensor, top_p: Tensor, max_k: int) -> Tensor:
        """Weights outside of top_k, then top_p, set to 0, as a new tensor. Ties are broken for the lower id. Each row
        has one of the two on.

        top_k: int64 [rows], 0 is off. top_p: fp32 [rows], of the mass that top_k left; a token stays if the mass before it is
        less than top_p. max_k: the largest top_k, 0 if a row has none. vocab: tokens of a row that are real.
        """
        ...


class InverseCdf(Protocol):
    def __call__(self, weights: Tensor, uniform: Tensor) -> Tensor:
        """The first id at which the running sum of weights, in id order, exceeds uniform (fp32 [rows], in [0, 1)) times the
        sum of all. A token of weight 0 is never drawn unless all are 0 (then id 0). Returns int64 [rows]."""
        ...


class Penalize(Protocol):
    def __call__(
        self, logits: Tensor, counts: Tensor, in_prompt: Tensor, *, presence: Tensor, frequency: Tensor, repetition: Tensor
    ) -> Tensor:
        """logits: fp32 [rows, vocab]; counts: int32, times a token was output; in_prompt: bool; penalties: fp32 [rows].

        Repetition over prompt and output as in HF transformers (a negative logit is multiplied, another divided), then
        frequency times the count, and presence once, are subtracted. Returns a new tensor.
        """
        ...


class UnpackMask(Protocol):
    def __call__(self, mask: Tensor, vocab: int) -> Tensor:
        """mask: int32 [rows, words], bit i of word w stands for token 32 w + i, set = allowed. Returns bool [rows, vocab], true =
        forbidden; tokens beyond the last word are forbidden."""
        ...
