"""What the routes answer, as types: for /openapi.json, and for the tests that hold the answers to them.

The handlers write plain values (`replies.py`, `control.py`); nothing here is made while a request is served.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ..protocol import Event, Scored

FinishReason = Literal["stop", "length", "tool_calls", "abort", "error"]


class PromptDetails(msgspec.Struct, kw_only=True):
    """cached_tokens: how many of the prompt's tokens were in the cache."""

    cached_tokens: int


class OutputDetails(msgspec.Struct, kw_only=True):
    """reasoning_tokens: how many of them were reasoning, where it is told apart."""

    reasoning_tokens: int


class TokenUsage(msgspec.Struct, kw_only=True):
    """Counted from what was computed. A prompt counts once, whatever n is."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: OutputDetails


class Alternative(msgspec.Struct, kw_only=True):
    """A token, its log-probability (-9999 for none), its bytes."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatTokenLogprob(Alternative, kw_only=True):
    """A token of the answer, and the likeliest in its place. The bytes of all tokens in turn are the text."""

    top_logprobs: list[Alternative]


class ChatLogprobs(msgspec.Struct, kw_only=True):
    """Of an answer's tokens, where they were asked for."""

    content: list[ChatTokenLogprob]
    refusal: None


class CalledFunction(msgspec.Struct, kw_only=True):
    """arguments: a JSON text."""

    name: str
    arguments: str


class AssistantCall(msgspec.Struct, kw_only=True):
    """A function that the model calls. id: to be sent back with its result."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(msgspec.Struct, kw_only=True):
    """The answer. content: null where it is calls alone. reasoning_content: what the model thought before."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str = ""
    tool_calls: list[AssistantCall] = []


class AnyChoice(msgspec.Struct, kw_only=True):
    """What every choice may have. matched_stop, stop_reason: the stop that ended it, by SGLang's and vLLM's names.
    token_ids, prompt_token_ids, meta_info: where they were asked for."""

    index: int
    finish_reason: FinishReason | None
    matched_stop: str | int | None = None
    stop_reason: str | int | None = None
    token_ids: list[int] = []
    prompt_token_ids: list[int] = []
    meta_info: dict[str, Any] = {}


class ChatChoice(AnyChoice, kw_only=True):
    """One of n answers."""

    message: AssistantMessage
    logprobs: ChatLogprobs | None


class ChatCompletion(msgspec.Struct, kw_only=True):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: TokenUsage


class FunctionPiece(msgspec.Struct, kw_only=True):
    """name: in the first piece of a call. arguments: text to append."""

    arguments: str
    name: str = ""


class CallPiece(msgspec.Struct, kw_only=True):
    """What is new in call number `index`. id, type: in its first piece."""

    index: int
    function: FunctionPiece
    id: str = ""
    type: Literal["function"] = "function"


class ChatDelta(msgspec.Struct, kw_only=True):
    """role: in the first chunk of a choice. content, reasoning_content: text to append. tool_calls: pieces of calls."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str = ""
    tool_calls: list[CallPiece] = []


class ChatChunkChoice(AnyChoice, kw_only=True):
    """What is new in one choice."""

    delta: ChatDelta
    logprobs: ChatLogprobs | None


class ChatChunk(msgspec.Struct, kw_only=True):
    """One event of a stream. Each choice: its role, its text, its finish reason. With include_usage, a last chunk without
    choices has the usage, and the others null. Then `data: [DONE]`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: TokenUsage | None = None


class CompletionLogprobs(msgspec.Struct, kw_only=True):
    """Lists with an entry for each token. text_offset: where it begins, in characters. The first token of an echoed prompt has
    no log-probability."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoice(AnyChoice, kw_only=True):
    """index: number of the prompt * n + number of the sample. In a stream, text is what is new."""

    text: str
    logprobs: CompletionLogprobs | None


class Completion(msgspec.Struct, kw_only=True):
    """The answer, and each event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: TokenUsage | None = None


class Generated(msgspec.Struct, kw_only=True):
    """One sample. In a stream, text and output_ids are all so far, and meta_info is whole in the last event. index: which
    sample, where there are several."""

    text: str
    output_ids: list[int]
    meta_info: dict[str, Any]
    index: int = 0


class ModelCard(msgspec.Struct, kw_only=True):
    """max_model_len: its context in tokens, null while it is loaded."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: None
    max_model_len: int | None


class ModelList(msgspec.Struct, kw_only=True):
    """All names of the model."""

    object: Literal["list"]
    data: list[ModelCard]


class Tokenized(msgspec.Struct, kw_only=True):
    """token_strs: where they were asked for."""

    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] = []


class Detokenized(msgspec.Struct, kw_only=True):
    text: str


class Flushed(msgspec.Struct, kw_only=True):
    """tokens: how many were dropped."""

    tokens: int


class AbortedRequests(msgspec.Struct, kw_only=True):
    """aborted: how many requests were ended."""

    aborted: int


class Status(msgspec.Struct, kw_only=True):
    """Where the server stands."""

    status: Literal["starting", "ready", "overloaded", "draining", "dead"]


class Version(msgspec.Struct, kw_only=True):
    version: str


class ErrorDetails(msgspec.Struct, kw_only=True):
    """message: what was wrong, and what to do. type: its kind. param: the field, or a place within it. code: its stable name."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(msgspec.Struct, kw_only=True):
    """The form of every error, also within a stream."""

    error: ErrorDetails


ANSWERS: dict[str, Any] = {
    "chat": ChatCompletion,
    "completions": Completion,
    "models": ModelList,
    "model": ModelCard,
    "generate": Generated | list[Generated],
    "tokenize": Tokenized,
    "detokenize": Detokenized,
    "flush_cache": Flushed,
    "abort_request": AbortedRequests,
    "server_info": dict[str, Any],
    "model_info": dict[str, Any],
    "cache_tree": dict[str, Any],
    "health": Status,
    "ready": Status,
    "health_generate": Status,
    "version": Version,
    "program_score": Scored,
    "openapi": dict[str, Any],
}
"""Name of a handler -> its JSON answer."""
EVENTS: dict[str, Any] = {"chat": ChatChunk, "completions": Completion, "generate": Generated, "program_generate": Event}
"""Name of a handler -> the JSON of each event of its stream."""
