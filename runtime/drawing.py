"""Sampling with nothing left open: what was said, else the model's own defaults, else neutral. Pure but for a drawn seed."""

from __future__ import annotations

import secrets

from .errors import ContextLengthExceeded, InvalidRequest
from .protocol import LogprobParams, SamplingParams
from .wire import Drawing, EngineInfo

GREEDY_BELOW = 1e-6


def resolve_drawing(said: SamplingParams, info: EngineInfo, eos_ids: tuple[int, ...]) -> Drawing:
    """The engine's parameters for `said`. eos_ids: what ends a text of this model. Raises InvalidRequest, naming the field."""
    defaults, vocab = info.sampling_defaults, info.vocab_size

    def chosen(value: float | None, name: str, neutral: float) -> float:
        return value if value is not None else defaults.get(name, neutral)

    temperature = chosen(said.temperature, "temperature", 1.0)
    top_k = int(chosen(said.top_k, "top_k", -1))
    drawing = Drawing(
        limit=said.max_new_tokens,
        min_new_tokens=said.min_new_tokens,
        temperature=0.0 if 0 <= temperature < GREEDY_BELOW else temperature,
        top_p=chosen(said.top_p, "top_p", 1.0),
        top_k=0 if top_k in (-1, 0) or top_k >= vocab else top_k,
        min_p=chosen(said.min_p, "min_p", 0.0),
        presence_penalty=said.presence_penalty,
        frequency_penalty=said.frequency_penalty,
        repetition_penalty=chosen(said.repetition_penalty, "repetition_penalty", 1.0),
        logit_bias=tuple(said.logit_bias.items()),
        seed=secrets.randbits(63) if said.seed is None else said.seed & (2**64 - 1),
        stop_ids=tuple(sorted({*(() if said.ignore_eos else eos_ids), *said.stop_token_ids})),
        canonical_forced=said.canonical_forced,
        n=said.n,
    )
    _check(drawing, said, vocab, info.context_length)
    return drawing


def check_logprobs(said: LogprobParams, vocab_size: int) -> None:
    """Raises InvalidRequest, naming the field, for log-probabilities that this model has not."""
    if not 0 <= said.top <= vocab_size:
        text = f"logprobs.top is {said.top}; it must be between 0 and {vocab_size}."
        raise InvalidRequest(text, code="invalid_logprobs", param="logprobs.top")
    if wrong := [token for token in said.token_ids if not 0 <= token < vocab_size]:
        text = f"logprobs.token_ids names token {str(wrong[0])[:32]}; this model has tokens 0 to {vocab_size - 1}."
        raise InvalidRequest(text, code="invalid_token_id", param="logprobs.token_ids")


def _check(drawing: Drawing, said: SamplingParams, vocab_size: int, context_length: int) -> None:
    """Refuse what no model could serve."""
    most_new = context_length if drawing.limit is None else drawing.limit
    limits: list[tuple[str, float, float, float]] = [
        ("temperature", drawing.temperature, 0.0, 1e6),
        ("top_p", drawing.top_p, 1e-9, 1.0),
        ("top_k", drawing.top_k, 0, vocab_size),
        ("min_p", drawing.min_p, 0.0, 1.0),
        ("presence_penalty", drawing.presence_penalty, -2.0, 2.0),
        ("frequency_penalty", drawing.frequency_penalty, -2.0, 2.0),
        ("repetition_penalty", drawing.repetition_penalty, 1e-9, 10.0),
        ("n", drawing.n, 1, 128),
        ("max_new_tokens", most_new, 0, 2**31 - 1),
        ("min_new_tokens", drawing.min_new_tokens, 0, most_new),
    ]
    for name, value, least, most in limits:
        if not least <= value <= most:
            shown = f"{value:g}" if abs(value) < 1e300 else "too large"
            text = f"{name} is {shown}; it must be between {least:g} and {most:g}."
            raise InvalidRequest(text, code="out_of_range", param=name)
    named = (("logit_bias", said.logit_bias, "invalid_logit_bias"), ("stop_token_ids", said.stop_token_ids, "invalid_token_id"))
    for name, ids, code in named:
        wrong = [i for i in ids if not 0 <= i < vocab_size]
        if wrong:
            text = f"{name} names token {wrong[0]}; this model has tokens 0 to {vocab_size - 1}."
            raise InvalidRequest(text, code=code, param=name)
    if drawing.limit is not None and drawing.limit > context_length:
        text = f"max_tokens is {drawing.limit}, but this model's context is {context_length}. Lower it."
        raise ContextLengthExceeded(text, param="max_tokens")
