"""The hop between the text side and the engine: typed messages, the same objects within a process, frames between two.

Everything that reaches the engine is already decided by the text side: ids, resolved sampling, compiled grammar. What
comes back is columnar (`Progress`: one message a step) with an object only where a sequence begins or ends.
"""

from __future__ import annotations

import msgspec

from .config import EngineOptions
from .protocol import CacheReport, Failure, Finish, LogprobParams, Timings, Usage


class Drawing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sampling parameters with nothing left open (see `protocol.SamplingParams`). stop_ids end the sequence; limit: most
    new tokens, None fills the context. canonical_forced: see `protocol.SamplingParams`."""

    limit: int | None = 128
    min_new_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    stop_ids: tuple[int, ...] = ()
    canonical_forced: bool = True
    n: int = 1


# ------------------------------------------------------------------------------------------------------ to the engine


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Generate. key: the text side's number for this request. ids: prompt, int32. grammar: from `constrained.compiler`.

    The samples of a request are numbered from `index` on. output: tokens that sample `index` has drawn already, when a
    request goes on after its engine was lost; drawing.n is 1 then.
    """

    key: int
    ids: bytes
    drawing: Drawing
    index: int = 0
    output: bytes = b""
    grammar: bytes | None = None
    logprobs: LogprobParams = LogprobParams()
    tenant: str = ""
    priority: int = 0
    deadline_s: float | None = None
    program: int = 0


class SubmitScore(msgspec.Struct, frozen=True, tag="submit_score"):
    """Score choices (int32 buffers) after the prompt `ids`, which may be empty. keep: see `protocol.ScoreRequest`.
    alone: what the rule `gain` needs, the log-probabilities of each choice's tokens without the prompt."""

    key: int
    ids: bytes
    choices: tuple[bytes, ...]
    keep: str = "mean"
    alone: tuple[tuple[float | None, ...], ...] = ()
    tenant: str = ""
    priority: int = 0
    deadline_s: float | None = None
    program: int = 0


class StopAt(msgspec.Struct, frozen=True, tag="stop_at"):
    """The text side saw a stop in sample `index` of request `key`: it ends after `num_output` tokens."""

    key: int
    index: int
    num_output: int


class AbortKey(msgspec.Struct, frozen=True, tag="abort"):
    """Nobody waits for this request any more."""

    key: int


class GrammarLoaded(msgspec.Struct, frozen=True, tag="grammar_loaded"):
    """From a thread of the engine's own process: the grammar with this ticket was read (`constrained.loading`)."""

    ticket: int


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """A control request. what: info | stats | tree | flush | check. token: pairs question and answer."""

    token: int
    what: str


class Configure(msgspec.Struct, frozen=True, tag="configure"):
    """First message to an engine process: what to load."""

    options: EngineOptions


class Close(msgspec.Struct, frozen=True, tag="close"):
    """Last message to an engine process."""


Inbound = Submit | SubmitScore | StopAt | AbortKey | GrammarLoaded | Ask | Configure | Close


# ---------------------------------------------------------------------------------------------------- from the engine


class DrawnLogprob(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities of one output token. top, chosen: (id, logprob)."""

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()
    chosen: tuple[tuple[int, float], ...] = ()


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Tokens drawn in one step, and behind them tokens that a grammar forced, in the order of each sample. keys int64, indices
    int32, tokens int32: equal counts. logprobs: (entry, values)."""

    step: int
    keys: bytes
    indices: bytes
    tokens: bytes
    logprobs: tuple[tuple[int, DrawnLogprob], ...] = ()


class SequenceEnd(msgspec.Struct, frozen=True, tag="end"):
    """A sequence has ended after `num_output` tokens. failure: set when finish.reason is error."""

    key: int
    index: int
    num_output: int
    finish: Finish
    usage: Usage
    timings: Timings
    cache: CacheReport
    prompt_logprobs: tuple[DrawnLogprob, ...] = ()
    failure: Failure | None = None


class ScoreEnd(msgspec.Struct, frozen=True, tag="score_end"):
    """logprobs: per choice and token; the first token's is None when there was no prompt."""

    key: int
    logprobs: tuple[tuple[float | None, ...], ...]
    usage: Usage
    timings: Timings
    cache: CacheReport


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The engine did not take the request, or gave it up before anything was drawn."""

    key: int
    failure: Failure


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """Reply to `Ask`. body: JSON."""

    token: int
    body: bytes


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """A phase of start-up and its share done (0 to 1)."""

    phase: str
    share: float


class EngineInfo(msgspec.Struct, frozen=True):
    """What was loaded and chosen, for the start-up panel, `doctor` and `get_server_info`. kernels: a line each, with why.

    sampling_defaults: from generation_config.json, empty where the user declined them. Sizes in tokens or bytes.
    """

    model: str
    path: str
    architecture: str
    parameters: int
    dtype: str
    device: str
    kernels: tuple[str, ...]
    threads: int
    vocab_size: int
    context_length: int
    kv_tokens: int
    kv_bytes: int
    page_size: int
    max_running: int
    chunk_tokens: int
    depth: int
    eviction: str
    schedule: str
    eos_ids: tuple[int, ...]
    sampling_defaults: dict[str, float]
    load_s: float
    pid: int = 0


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The engine takes requests."""

    info: EngineInfo


class Fatal(msgspec.Struct, frozen=True, tag="fatal"):
    """Start-up failed; the process ends."""

    failure: Failure


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """The loop turns. steps: steps settled; running, waiting: sequences."""

    steps: int
    running: int
    waiting: int


Outbound = Progress | SequenceEnd | ScoreEnd | Refused | Answer | Loading | Ready | Fatal | Heartbeat

_ENCODER = msgspec.msgpack.Encoder()
_INBOUND = msgspec.msgpack.Decoder(Inbound)
_OUTBOUND = msgspec.msgpack.Decoder(list[Outbound])


def encode(message: Inbound | list[Outbound]) -> bytes:
    """One frame."""
    return _ENCODER.encode(message)


def decode_inbound(frame: bytes) -> Inbound:
    """A frame for the engine. Raises msgspec.DecodeError (ValidationError included) for anything else."""
    return _INBOUND.decode(frame)


def decode_outbound(frame: bytes) -> list[Outbound]:
    """A frame from the engine: all messages of one turn of its loop. Raises msgspec.DecodeError for anything else."""
    return _OUTBOUND.decode(frame)
