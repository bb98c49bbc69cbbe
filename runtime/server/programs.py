"""What programs say over HTTP: the protocol's own requests and events, as JSON. Pure.

    POST /ramify/generate   body: a GenerateRequest     answer: text/event-stream, an event of the protocol each, then [DONE]
    POST /ramify/score      body: a ScoreRequest        answer: a Scored

The other side is `lang/backends/endpoint.py`. Token ids travel as base64, so a conversation that was held here goes on from
its exact ids. What the engine itself refuses (ranges of sampling, ids of a prompt, a conversation that cannot be rendered) is
not looked at here; what would harm it, and what is not a client's to say, is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from ..errors import InvalidRequest, RamifyError
from ..protocol import Delta, Failure, Finished, GenerateRequest, LogprobParams, SamplingParams, Scored, ScoreRequest
from .options import ServerOptions
from .parse import decode
from .replies import frame
from .responses import MISTAKE
from .sampling import in_range, stops

Request = TypeVar("Request", GenerateRequest, ScoreRequest)

INT32, INT64 = 2**31 - 1, 2**63 - 1
MOST_SECONDS = 1e6
MOST_CHOICES = 1024
MOST_RID = 256

_encoder = msgspec.json.Encoder()
_DEFAULTS = ServerOptions()


def decode_generate(body: bytes, *, vocab_size: int | None = None, options: ServerOptions = _DEFAULTS) -> GenerateRequest:
    """The request of POST /ramify/generate. vocab_size: bound of the ids whose log-probabilities are asked for.
    options: the caps of one request.

    Raises InvalidRequest: what `parse.decode` raises, not_allowed for a tenant, out_of_range and its like for a value.
    """
    request = _checked(decode(body, GenerateRequest))
    _check_sampling(request.sampling, options)
    _check_logprobs(request.logprobs, vocab_size, options)
    return request


def decode_score(body: bytes) -> ScoreRequest:
    """The request of POST /ramify/score. Raises InvalidRequest as `decode_generate`."""
    request = _checked(decode(body, ScoreRequest))
    _at_most("choices", len(request.choices), MOST_CHOICES, "out_of_range")
    return request


def encode_scored(scored: Scored) -> bytes:
    """The answer of POST /ramify/score."""
    return _encoder.encode(scored)


def failure_of(error: RamifyError) -> Failure:
    """An error after the first event, as the event that tells of it."""
    return Failure(error.code, error.message, error.param)


class EventFrames:
    """`Frames` of POST /ramify/generate: the protocol's own events, one by one."""

    def begin(self, prompt: int, sample: int) -> None:
        """Nothing: the first delta says which sample it is."""

    def delta(self, prompt: int, event: Delta) -> bytes:
        return frame(event)

    def end(self, prompt: int, event: Finished) -> bytes:
        return frame(event)

    def last(self, answers: Sequence[Sequence[Finished]]) -> None:
        """Nothing: each end has said all."""

    def failed(self, error: RamifyError | None, unfinished: Sequence[tuple[int, int]]) -> bytes:
        return frame(failure_of(error or RamifyError(MISTAKE)))

    def took(self, latency_s: float) -> None:
        """Not told: the caller has a clock of its own."""


def _checked(request: Request) -> Request:
    """What both requests have in common."""
    if request.tenant:
        text = "tenant is not the request's to say: who shares a cache follows from the API key. Leave it out."
        raise InvalidRequest(text, code="not_allowed", param="tenant")
    # Beyond 64 bits a number could not even be passed on to the engine.
    in_range("priority", request.priority, -INT32, INT32)
    for name in ("program", "call", "fork_group"):
        in_range(f"hint.{name}", getattr(request.hint, name), -INT64, INT64)
    in_range("deadline_s", request.deadline_s, 0, MOST_SECONDS, open_low=True)
    if len(request.rid) > MOST_RID or not request.rid.isprintable():
        text = f"rid must be at most {MOST_RID} printable characters."
        raise InvalidRequest(text, code="invalid_request_id", param="rid")
    return request


def _check_sampling(said: SamplingParams, options: ServerOptions) -> None:
    in_range("sampling.n", said.n, 1, options.max_n)
    for name in ("max_new_tokens", "min_new_tokens", "top_k"):
        in_range(f"sampling.{name}", getattr(said, name), -1, INT32)
    stops("sampling.stop", said.stop, options)
    stops("sampling.stop_regex", said.stop_regex, options, most_bytes=2048)
    _at_most("sampling.logit_bias", len(said.logit_bias), options.max_logit_bias, "invalid_logit_bias")


def _check_logprobs(said: LogprobParams, vocab_size: int | None, options: ServerOptions) -> None:
    vocab_size = INT32 if vocab_size is None else vocab_size
    in_range("logprobs.top", said.top, 0, min(options.max_top_logprobs, vocab_size), code="invalid_logprobs")
    in_range("logprobs.prompt_from", said.prompt_from, -1, INT32, code="invalid_logprobs")
    _at_most("logprobs.token_ids", len(said.token_ids), options.max_logit_bias, "invalid_logprobs")
    for token in said.token_ids:
        in_range("logprobs.token_ids", token, 0, vocab_size - 1, code="invalid_token_id")


def _at_most(name: str, count: int, most: int, code: str) -> None:
    if count > most:
        raise InvalidRequest(f"{name} has {count} entries; at most {most} are taken. Give fewer.", code=code, param=name)
