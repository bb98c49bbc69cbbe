"""How `select` decides, given the log-probabilities of each choice's tokens. Pure functions, nothing else.

The three methods and their names are those of SGLang's frontend ("Choices Methods in SGLang"), the third after Gao,
"Multiple Choice Normalization in LM Evaluation" (EleutherAI blog, 2021). A method of one's own is any callable with the
same keyword arguments and the attribute `requires_unconditional_logprobs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# (logprob, token id, token text or None), as in SGLang's meta_info; the first unconditional logprob of a choice is None.
TokenEntry = tuple[float | None, int, str | None]


@dataclass(frozen=True)
class ChoicesDecision:
    """decision: the choice taken. meta_info: what `get_meta_info` returns for it."""

    decision: str
    meta_info: dict[str, Any] = field(default_factory=dict)


class ChoicesMethod(Protocol):
    """A way to decide. Called with one entry per choice in every list."""

    @property
    def requires_unconditional_logprobs(self) -> bool: ...

    def __call__(
        self,
        *,
        choices: Sequence[str],
        normalized_prompt_logprobs: Sequence[float],
        input_token_logprobs: Sequence[Sequence[TokenEntry]],
        output_token_logprobs: Sequence[Sequence[TokenEntry]],
        unconditional_token_logprobs: Sequence[Sequence[TokenEntry]] | None = None,
    ) -> ChoicesDecision: ...


def mean(values: Sequence[float]) -> float:
    """The mean; of nothing it is 0, the log-probability of an empty continuation."""
    return sum(values) / len(values) if values else 0.0


def first_best(scores: Sequence[float]) -> int:
    """Index of the largest score, the first of equals. Raises ValueError when empty."""
    return max(range(len(scores)), key=scores.__getitem__)


def logprobs_of(entries: Sequence[TokenEntry]) -> list[float]:
    """The log-probabilities alone, None as 0."""
    return [entry[0] or 0.0 for entry in entries]


def greedy_rows(tokens: Sequence[Sequence[float]]) -> list[list[float]]:
    """Each choice's log-probabilities, made equally long by repeating a shorter choice's own mean."""
    width = max(map(len, tokens), default=0)
    return [list(row) + [mean(row)] * (width - len(row)) for row in tokens]


def greedy_pick(rows: Sequence[Sequence[float]]) -> int:
    """Position by position keep only the rows with the largest value; the first of what is left."""
    left = list(range(len(rows)))
    for column in range(len(rows[0]) if rows else 0):
        best = max(rows[i][column] for i in left)
        left = [i for i in left if rows[i][column] == best]
        if len(left) == 1:
            break
    return left[0]


def unconditional_scores(
    given: Sequence[Sequence[TokenEntry]], alone: Sequence[Sequence[TokenEntry]]
) -> list[float]:
    """Mean over a choice's tokens of log p(token | prompt) - log p(token). Raises ValueError on unequal lengths."""
    return [mean([a - b for a, b in zip(logprobs_of(x), logprobs_of(y), strict=True)]) for x, y in zip(given, alone, strict=True)]


@dataclass(frozen=True)
class TokenLengthNormalized:
    """The choice with the highest mean log-probability of its tokens. The default."""

    requires_unconditional_logprobs: bool = False

    def __call__(
        self, *, choices, normalized_prompt_logprobs, input_token_logprobs, output_token_logprobs, **_
    ) -> ChoicesDecision:
        return ChoicesDecision(
            choices[first_best(normalized_prompt_logprobs)],
            {
                "normalized_prompt_logprobs": normalized_prompt_logprobs,
                "input_token_logprobs": input_token_logprobs,
                "output_token_logprobs": output_token_logprobs,
            },
        )


@dataclass(frozen=True)
class GreedyTokenSelection:
    """The choice whose first token is most likely; ties are settled by the next token. A choice that another one continues
    is extended by its own mean log-probability."""

    requires_unconditional_logprobs: bool = False

    def __call__(
        self, *, choices, normalized_prompt_logprobs, input_token_logprobs, output_token_logprobs, **_
    ) -> ChoicesDecision:
        rows = greedy_rows([logprobs_of(entries) for entries in input_token_logprobs])
        return ChoicesDecision(
            choices[greedy_pick(rows)],
            {
                "normalized_prompt_logprobs": normalized_prompt_logprobs,
                "input_token_logprobs": input_token_logprobs,
                "output_token_logprobs": output_token_logprobs,
                "greedy_logprob_matrix": rows,
            },
        )


@dataclass(frozen=True)
class UnconditionalLikelihoodNormalized:
    """The choice whose tokens gain most from the prompt: the mean of log p(token | prompt) - log p(token). The first token's
    unconditional log-probability is unknown and counts as 0. Costs a second scoring, without the prompt."""

    requires_unconditional_logprobs: bool = True

    def __call__(
        self,
        *,
        choices,
        normalized_prompt_logprobs,
        input_token_logprobs,
        output_token_logprobs,
        unconditional_token_logprobs=None,
    ) -> ChoicesDecision:
        if unconditional_token_logprobs is None:
            raise ValueError("unconditional_likelihood_normalized needs the choices' log-probabilities without the prompt.")
        scores = unconditional_scores(input_token_logprobs, unconditional_token_logprobs)
        return ChoicesDecision(
            choices[first_best(scores)],
            {
                "normalized_prompt_logprobs": normalized_prompt_logprobs,
                "input_token_logprobs": input_token_logprobs,
                "output_token_logprobs": output_token_logprobs,
                "unconditional_token_logprobs": unconditional_token_logprobs,
                "normalized_unconditional_prompt_logprobs": scores,
            },
        )


token_length_normalized = TokenLengthNormalized()
greedy_token_selection = GreedyTokenSelection()
unconditional_likelihood_normalized = UnconditionalLikelihoodNormalized()
