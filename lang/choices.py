"""How `select` decides, given the log-probabilities of each choice's tokens. Pure functions, nothing else.

The three methods and their names are those of SGLang's frontend ("Choices Methods in SGLang"), the third after Gao,
"Multiple Choice Normalization in LM Evaluation" (EleutherAI blog, 2021). A method of one's own is any callable with the
same keyword arguments and the attribute `requires_unconditional_logprobs`. With an attribute `rule`, a name in
`runtime.choosing.RULES`, the branches of the choices that lose by that rule leave the cache as soon as they are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..runtime.choosing import first_best, gains, greedy_pick, greedy_rows

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


def logprobs_of(entries: Sequence[TokenEntry]) -> list[float]:
    """The log-probabilities alone, None as 0."""
    return [entry[0] or 0.0 for entry in entries]


@dataclass(frozen=True)
class TokenLengthNormalized:
    """The choice with the highest mean log-probability of its tokens. The default."""

    requires_unconditional_logprobs: bool = False
    rule: str = "mean"

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
    rule: str = "greedy"

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
    rule: str = "gain"

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
        scores = gains(*(list(map(logprobs_of, rows)) for rows in (input_token_logprobs, unconditional_token_logprobs)))
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
