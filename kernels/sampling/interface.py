"""Choosing a token from logits: what each operation takes and returns. `reference.py` is plain torch, for any device.

Every operation works row by row: a row's bits do not depend on the other rows. Weights are unnormalised probabilities,
fp32 [rows, padded], the largest of a row 1; `padded` is the vocabulary rounded up to whole blocks of `BLOCK` tokens, and
what lies beyond the vocabulary has weight 0. Token ids are int64.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

BLOCK = 128
"""Tokens whose weights are added in one fixed tree."""


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
