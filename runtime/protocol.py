"""The words that lang, server and engine exchange: prompts, sampling, requests, events.

The road starts here: a program or an HTTP body becomes one `GenerateRequest` or `ScoreRequest`; what comes back are
`Event`s. Everything is a frozen, tagged msgspec struct, so it travels between processes as it is (`wire.py`) and within
one process unencoded. Token ids are `bytes`: int32, native order, because ids are buffers from the tokenizer on.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..constrained.spec import Constraint


def pack_ids(ids: Iterable[int]) -> bytes:
    """Token ids as the buffer that travels: int32, native byte order. Raises OverflowError beyond int32."""
    return ids if isinstance(ids, bytes) else array("i", ids).tobytes()


def unpack_ids(buffer: bytes) -> list[int]:
    """The ids in a buffer made by `pack_ids`, as Python ints."""
    return array("i", buffer).tolist()


# --------------------------------------------------------------------------------------------------------- prompts


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Text to tokenise. With `control`, added tokens written in it (`<|im_end|>`) are control tokens; else they stay text."""

    text: str
    control: bool = True


class Tokens(msgspec.Struct, frozen=True, tag="tokens"):
    """Token ids taken as they are. ids: int32 buffer (`pack_ids`)."""

    ids: bytes


class Image(msgspec.Struct, frozen=True, tag="image"):
    """A reference to an image. Refused (`unsupported_modality`) until a model of ours can see."""

    ref: str


class ToolCall(msgspec.Struct, frozen=True):
    """One function call that the assistant made. arguments: a JSON text."""

    name: str
    arguments: str
    id: str = ""


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation. `extra` holds further fields that a template may read (reasoning_content, name, ...)."""

    role: str
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    extra: dict[str, Any] = {}


class Chat(msgspec.Struct, frozen=True, tag="chat"):
    """A whole conversation, rendered by the model's own chat template.

    held: ids of the last call of this conversation (its prompt and its output); what they spell is not tokenised again
        where the template still renders the same text (exact continuation, `text/continuation.py`).
    generation_prompt: ends with the header of an assistant turn, so that the model answers. With `continue_final` the
        last message, whatever its role, is left open instead: generation goes on within it.
    template_kwargs: further variables for the template (`enable_thinking`, ...). tools: JSON texts of tool definitions.
    """

    messages: tuple[Message, ...]
    held: bytes = b""
    generation_prompt: bool = True
    continue_final: bool = False
    tools: tuple[str, ...] = ()
    template_kwargs: dict[str, Any] = {}


Segment = Text | Tokens | Image | Chat
Prompt = tuple[Segment, ...]


# -------------------------------------------------------------------------------------------------------- sampling


class SamplingParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the next token is chosen, and when to stop. None means: the model's generation_config, else the neutral value.

    max_new_tokens: None fills the context; 0 computes the prompt only. temperature: below 1e-6 is greedy.
    top_k: -1 (or 0) is off. logit_bias: token id -> value added to the logit. seed: 64 bits; None draws one and reports it.
    stop: strings that end the text (not returned unless no_stop_trim). stop_regex: patterns that end it.
    presence and frequency penalties count output tokens, the repetition penalty prompt and output (HF's definition).
    canonical_forced: where a constraint leaves no choice, the text is written with the tokenizer's own tokens, which may then be
    computed together; False: the model chooses among all ways to cut it into tokens.
    """

    max_new_tokens: int | None = 128
    min_new_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    stop_regex: tuple[str, ...] = ()
    ignore_eos: bool = False
    no_stop_trim: bool = False
    skip_special_tokens: bool = True
    canonical_forced: bool = True
    n: int = 1


class LogprobParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which log-probabilities are wanted. output: of each output token. prompt_from: of prompt tokens from this position
    on (-1: none; position 0 has no predecessor, so its entry is None). top: how many alternatives beside each.
    token_ids: log-probabilities of these ids beside each."""

    output: bool = False
    prompt_from: int = -1
    top: int = 0
    token_ids: tuple[int, ...] = ()


class AnswerParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an answer in a conversation is written and read, in the model's own formats.

    tools: "none": calls are not looked for. "auto": the model may call the conversation's tools. "required": it must, and says
    nothing else. names: the tools that it may call (empty: all). parallel: several calls in one answer are allowed.
    reasoning: what the model writes before its answer is told apart; a constraint is for what follows.
    """

    tools: str = "none"
    names: tuple[str, ...] = ()
    parallel: bool = True
    reasoning: bool = False


class ProgramHint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a program knows of its own future; rides on every request that it makes. deadline_s: seconds from submission."""

    program: int = 0
    call: int = 0
    expects_more: bool = False
    fork_group: int = 0


# -------------------------------------------------------------------------------------------------------- requests


class GenerateRequest(msgspec.Struct, frozen=True, tag="generate"):
    """One prompt, n continuations. priority: higher runs first. deadline_s: seconds from submission, queue included.
    tenant: requests share cache only within the same tenant. rid: the caller's label, for its own use.
    answer: how the answer of a conversation is read; None: as a text."""

    prompt: Prompt
    sampling: SamplingParams = SamplingParams()
    constraint: Constraint | None = None
    logprobs: LogprobParams = LogprobParams()
    hint: ProgramHint = ProgramHint()
    priority: int = 0
    deadline_s: float | None = None
    tenant: str = ""
    rid: str = ""
    answer: AnswerParams | None = None


class ScoreRequest(msgspec.Struct, frozen=True, tag="score"):
    """Log-probabilities of each choice's tokens as continuations of the prompt, computed together as a small tree.

    choices: texts, tokenised with the prompt's end in view. unconditional: also score each choice without the prompt.
    keep: which choices stay cached afterwards: the winner by a rule of `choosing.RULES` (mean, greedy, or gain, which needs
    `unconditional`), all, or none. Tokens that only the others put there leave the cache at once.
    """

    prompt: Prompt
    choices: tuple[str, ...]
    unconditional: bool = False
    keep: str = "mean"
    hint: ProgramHint = ProgramHint()
    priority: int = 0
    deadline_s: float | None = None
    tenant: str = ""
    rid: str = ""


# ---------------------------------------------------------------------------------------------------------- events


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """token: its id; text: its bytes decoded with replacement; logprob: natural log, None for a prompt's first token.
    top: (id, logprob) of the most likely ids; chosen: (id, logprob) of the ids that were asked for."""

    token: int
    logprob: float | None
    text: str = ""
    top: tuple[tuple[int, float], ...] = ()
    chosen: tuple[tuple[int, float], ...] = ()


class Finish(msgspec.Struct, frozen=True):
    """Why a sequence ended. reason: stop | length | abort | error. matched: the stop string, regex or token id."""

    reason: str
    matched: str | int | None = None


class Timings(msgspec.Struct, frozen=True):
    """Seconds. queue: submission to admission; prefill: to the first token; decode: to the end; grammar: compile wait.
    mask: this sequence's share of filling grammar masks, within decode and prefill. preemptions: how often its pages were taken
    away."""

    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    grammar_s: float = 0.0
    mask_s: float = 0.0
    preemptions: int = 0


class Usage(msgspec.Struct, frozen=True):
    """Counts of tokens from the executor's spans: cached + computed = prompt (of the prompt as admitted first; what a
    preempted sequence computes again is `recomputed`). output counts what was generated; forced, how many of these the
    constraint left no choice about and a step computed together with others."""

    prompt: int = 0
    cached: int = 0
    computed: int = 0
    forced: int = 0
    output: int = 0
    recomputed: int = 0


class CacheReport(msgspec.Struct, frozen=True):
    """Why the cache answered as it did. matched: prompt tokens found; diverged_at: index of the first token that was not,
    or -1; reason: hit | never seen | evicted | dropped | other namespace | limit | shared in step. continuation: how the text
    room reused held ids (`new`, `continued`, or what the template rewrote)."""

    matched: int = 0
    diverged_at: int = -1
    reason: str = ""
    continuation: str = ""


class CallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """New of one call. index: which call of the answer. id, name: in its first piece. arguments: more of their JSON text."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class AnswerDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a piece of text means, where an answer is read (`GenerateRequest.answer`)."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()


class AnswerRead(msgspec.Struct, frozen=True, omit_defaults=True):
    """A whole answer. reasoning_tokens: how many tokens the reasoning took."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    reasoning_tokens: int = 0


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """New output of one sequence. index: which of the n. text may be empty while a character or stop string is undecided.
    answer: what it means, None where the answer is a text."""

    index: int
    text: str
    ids: bytes
    logprobs: tuple[TokenLogprob, ...] = ()
    answer: AnswerDelta | None = None


class NotEnforced(msgspec.Struct, frozen=True):
    """A keyword of a schema, at a JSON pointer, that the grammar does not enforce, and why."""

    keyword: str
    pointer: str
    why: str


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The end of one sequence, with everything about it. text: whole output text, stop trimmed.

    held: ids that the next call of the same program may continue from: prompt ids and those output ids whose text is kept.
    tail: text that is part of `text` but not spelled by `held` (a stop string that began inside a token), usually empty.
    answer: what the text means, None where it is a text. not_enforced: of a schema for which best effort was asked.
    """

    index: int
    text: str
    prompt_ids: bytes
    output_ids: bytes
    held: bytes
    tail: str
    finish: Finish
    usage: Usage
    timings: Timings
    cache: CacheReport
    seed: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    answer: AnswerRead | None = None
    not_enforced: tuple[NotEnforced, ...] = ()


class ChoiceScore(msgspec.Struct, frozen=True):
    """ids: the choice's tokens; logprobs: of each, given the prompt; unconditional: of each but the first, without it."""

    ids: bytes
    logprobs: tuple[float, ...]
    unconditional: tuple[float, ...] = ()


class Scored(msgspec.Struct, frozen=True, tag="scored"):
    """The answer to a ScoreRequest, in the order of its choices. prompt_ids: ids that every choice continues."""

    choices: tuple[ChoiceScore, ...]
    prompt_ids: bytes
    usage: Usage
    timings: Timings
    cache: CacheReport


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """An error as a value (`errors.from_code` makes it an exception again)."""

    code: str
    message: str
    param: str | None = None


Event = Delta | Finished | Scored | Failure


def greedy(max_new_tokens: int | None = 128, **fields: Any) -> SamplingParams:
    """Sampling parameters at temperature 0."""
    return SamplingParams(max_new_tokens=max_new_tokens, temperature=0.0, **fields)


def tokens(ids: Sequence[int]) -> Tokens:
    """A segment of given token ids."""
    return Tokens(pack_ids(ids))
