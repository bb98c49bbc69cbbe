"""OpenAI's JSON: requests as its fields, its answers as events. Pure.

`dialect` says what the server knows besides OpenAI's own fields (`openai.py`); what it does not know is refused here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...constrained.spec import Choice, Constraint, Ebnf, JsonObject, JsonSchema, Regex
from ...runtime.errors import EngineError, InvalidRequest
from ...runtime.protocol import (
    AnswerParams,
    AnswerRead,
    CacheReport,
    Chat,
    Delta,
    Finish,
    Finished,
    GenerateRequest,
    Prompt,
    SamplingParams,
    Text,
    Timings,
    TokenLogprob,
    ToolCall,
    Usage,
)
from ..chat import message_fields

# Sampling fields as every server has them, and those that only servers of the other dialects have.
COMMON = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
EXTENDED: dict[str, dict[str, str]] = {
    **{name: {"sglang": name, "vllm": name} for name in ("top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos")},
    "min_new_tokens": {"sglang": "min_tokens", "vllm": "min_tokens"},
    "no_stop_trim": {"sglang": "no_stop_trim", "vllm": "include_stop_str_in_output"},
    "stop_regex": {"sglang": "stop_regex"},
    "skip_special_tokens": {"sglang": "skip_special_tokens", "vllm": "skip_special_tokens"},
    "canonical_forced": {},
}


class Words:
    """OpenAI's protocol names tokens by their text; here each text gets an id, so that log-probabilities keep their form."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._ids: dict[str, int] = {}

    def id_of(self, word: str) -> int:
        """The id of a token's text, new if it was not seen before."""
        if word not in self._ids:
            self._ids[word] = len(self._words)
            self._words.append(word)
        return self._ids[word]

    def word(self, token: int) -> str | None:
        """The text of an id, None if it is none of ours."""
        return self._words[token] if 0 <= token < len(self._words) else None


def chat_of(prompt: Prompt) -> Chat | None:
    """The conversation of a prompt, None for raw text. Raises InvalidRequest for a mixture of both."""
    chats = [segment for segment in prompt if isinstance(segment, Chat)]
    if chats and len(prompt) > 1:
        raise InvalidRequest("Text before the first role cannot be sent to a chat API. Put it into a turn: s += system(...).")
    return chats[0] if chats else None


def raw_text(prompt: Prompt) -> str:
    """The text of a raw prompt."""
    if not all(isinstance(segment, Text) for segment in prompt):
        raise InvalidRequest("Only text can be sent to an OpenAI server.", code="unsupported_modality")
    return "".join(segment.text for segment in prompt if isinstance(segment, Text))


def chat_messages(chat: Chat) -> list[dict[str, Any]]:
    """OpenAI's messages."""
    return [message_fields(turn) for turn in chat.messages]


def prompt_fields(prompt: Prompt, dialect: str, said: AnswerParams | None = None) -> dict[str, Any]:
    """`prompt`, or `messages` and what belongs to them. said: whether functions are to be called."""
    chat = chat_of(prompt)
    if chat is None:
        return {"prompt": raw_text(prompt)}
    fields: dict[str, Any] = {"messages": chat_messages(chat)}
    if chat.continue_final or not chat.generation_prompt:
        if dialect == "openai":
            raise InvalidRequest(
                "OpenAI's chat API cannot continue a turn that was begun. Let gen(...) be the first in its assistant turn."
            )
        fields["continue_final_message"] = chat.continue_final
        if dialect == "vllm":
            fields["add_generation_prompt"] = False  # its default is True, and it refuses both together
    if chat.tools:
        fields["tools"] = [_definition(json.loads(tool), dialect) for tool in chat.tools]
        fields |= _tool_choice(said)
    if chat.template_kwargs:
        if dialect == "openai":
            raise InvalidRequest("template_kwargs need a server that renders chat templates.", param="template_kwargs")
        fields["chat_template_kwargs"] = dict(chat.template_kwargs)
    return fields


def _definition(tool: dict[str, Any], dialect: str) -> dict[str, Any]:
    """A tool as the server takes it: OpenAI's own wants each property of a strict schema to be required."""
    function = tool.get("function", tool)
    parameters = function.get("parameters") or {}
    optional = set(parameters.get("properties") or ()) - set(parameters.get("required") or ())
    if dialect == "openai" and function.get("strict") and optional:
        return {**tool, "function": {**function, "strict": False}}
    return tool


def _tool_choice(said: AnswerParams | None) -> dict[str, Any]:
    """What the server is told about calls. Without `said` they come as text, and the program reads them itself."""
    if said is None or said.tools == "none":
        return {"tool_choice": "none"}
    parallel = {} if said.parallel else {"parallel_tool_calls": False}
    functions = [{"type": "function", "function": {"name": name}} for name in said.names]
    if said.tools == "required" and len(functions) == 1:
        return {"tool_choice": functions[0]}
    if functions:
        return {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": said.tools, "tools": functions}}, **parallel}
    return {"tool_choice": said.tools, **parallel}


def sampling_fields(sampling: SamplingParams, dialect: str, *, chat: bool) -> dict[str, Any]:
    """The sampling parameters that were said, by the server's names. Raises InvalidRequest for one that it does not have."""
    neutral = SamplingParams()
    fields: dict[str, Any] = {}
    for name in COMMON:
        value = getattr(sampling, name)
        if value is not None and (name in ("temperature", "top_p", "seed") or value != getattr(neutral, name)):
            fields[name] = value
    if sampling.max_new_tokens is not None:
        fields["max_completion_tokens" if chat and dialect == "openai" else "max_tokens"] = sampling.max_new_tokens
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.n > 1:
        fields["n"] = sampling.n
    if sampling.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    for name, theirs in EXTENDED.items():
        value = getattr(sampling, name)
        if value == getattr(neutral, name):
            continue
        key = theirs.get(dialect)
        if key is None:
            raise InvalidRequest(f"A server of the dialect {dialect!r} has no {name}. Leave it out.", param=name)
        fields[key] = list(value) if isinstance(value, tuple) else value
    return fields


def constraint_fields(constraint: Constraint | None, dialect: str, *, chat: bool) -> dict[str, Any]:
    """The constraint by the server's names. Raises InvalidRequest where the server has no such constraint."""
    if constraint is None:
        return {}
    if isinstance(constraint, JsonObject):
        return {"response_format": {"type": "json_object"}}
    if isinstance(constraint, JsonSchema) and (chat or dialect != "openai"):
        described = {"name": "output", "schema": json.loads(constraint.schema), "strict": constraint.strict}
        return {"response_format": {"type": "json_schema", "json_schema": described}}
    if dialect == "vllm":
        return {"structured_outputs": _vllm(constraint)}
    if dialect == "sglang":
        if isinstance(constraint, Regex):
            return {"regex": constraint.pattern}
        if isinstance(constraint, Ebnf):
            return {"ebnf": constraint.grammar}
        if isinstance(constraint, Choice):
            return {"regex": "(" + "|".join(map(_literal, constraint.options)) + ")"}
    kind = type(constraint).__name__
    raise InvalidRequest(f"This server cannot enforce a constraint of kind {kind}. Use json_schema in a chat turn, or an Engine.")


def _vllm(constraint: Constraint) -> dict[str, Any]:
    if isinstance(constraint, Regex):
        return {"regex": constraint.pattern}
    if isinstance(constraint, Ebnf):
        return {"grammar": constraint.grammar}
    assert isinstance(constraint, Choice)
    return {"choice": list(constraint.options)}


def _literal(text: str) -> str:
    """A regular expression for exactly this text. Only characters with a meaning get a backslash: not all engines take more."""
    return "".join("\\" + character if character in r"\.^$*+?{}[]()|/" else character for character in text)


def logprob_fields(request: GenerateRequest, *, chat: bool) -> dict[str, Any]:
    """`logprobs` in either form. Raises InvalidRequest for what the protocol does not have."""
    asked = request.logprobs
    if asked.prompt_from >= 0 or asked.token_ids:
        raise InvalidRequest("OpenAI's protocol gives log-probabilities of the output only. Leave logprob_start_len at -1.")
    if not asked.output:
        return {}
    return {"logprobs": True, "top_logprobs": asked.top} if chat else {"logprobs": asked.top}


# --------------------------------------------------------------------------------------------------- JSON -> events


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """OpenAI's usage as ours."""
    prompt = int(usage.get("prompt_tokens") or 0)
    cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    return Usage(prompt=prompt, cached=cached, computed=prompt - cached, output=int(usage.get("completion_tokens") or 0))


class Answer:
    """One of n texts as it arrives. is_read: with the functions that are called in it."""

    def __init__(self, index: int, *, is_read: bool = False):
        self.index = index
        self.reasoning = ""
        self._is_read = is_read
        self._calls: dict[int, dict[str, str]] = {}
        self.text = ""
        self.reason: str | None = None
        self.matched: str | int | None = None
        self.logprobs: list[TokenLogprob] = []

    def take(self, choice: Mapping[str, Any], words: Words) -> Delta | None:
        """A choice of one event; the new text, if there is any."""
        part = choice.get("delta") or choice.get("message") or {}
        text = part.get("content") or choice.get("text") or ""
        new = tuple(_logprobs(choice.get("logprobs"), words))
        self.text += text
        self.logprobs += new
        self.reasoning += part.get("reasoning_content") or part.get("reasoning") or ""
        for number, piece in enumerate(part.get("tool_calls") or ()):
            call = self._calls.setdefault(int(piece.get("index", number)), {"id": "", "name": "", "arguments": ""})
            function = piece.get("function") or {}
            call["id"] = piece.get("id") or call["id"]
            call["name"] = function.get("name") or call["name"]
            call["arguments"] += function.get("arguments") or ""
        self.reason = choice.get("finish_reason") or self.reason
        self.matched = choice.get("matched_stop", choice.get("stop_reason")) or self.matched
        return Delta(self.index, text, b"", new) if text else None

    def finished(self, usage: Mapping[str, Any], seed: int) -> Finished:
        """The end of this text. Raises EngineError if the stream ended before it did."""
        if self.reason is None:
            raise EngineError("The server's stream ended before the answer did. Run the program again.")
        reason = {"length": "length", "abort": "abort", "error": "error"}.get(self.reason, "stop")
        return Finished(
            index=self.index,
            text=self.text,
            prompt_ids=b"",
            output_ids=b"",
            held=b"",
            tail="",
            finish=Finish(reason, self.matched),
            usage=usage_of(usage),
            timings=Timings(),
            cache=CacheReport(matched=usage_of(usage).cached),
            seed=seed,
            logprobs=tuple(self.logprobs),
            answer=self._read() if self._is_read else None,
        )

    def _read(self) -> AnswerRead:
        calls = [ToolCall(call["name"], call["arguments"], call["id"]) for _, call in sorted(self._calls.items())]
        return AnswerRead(self.text, self.reasoning, tuple(calls))


def _logprobs(logprobs: Any, words: Words) -> list[TokenLogprob]:
    """Log-probabilities in the form of chat (`content`) or of completions (parallel lists)."""
    if not isinstance(logprobs, Mapping):
        return []
    entries: list[TokenLogprob] = []
    for item in logprobs.get("content") or ():
        top = tuple((words.id_of(other["token"]), other["logprob"]) for other in item.get("top_logprobs") or ())
        entries.append(TokenLogprob(words.id_of(item["token"]), item["logprob"], item["token"], top))
    tops = logprobs.get("top_logprobs") or []
    pairs = zip(logprobs.get("tokens") or (), logprobs.get("token_logprobs") or (), strict=False)
    for number, (token, value) in enumerate(pairs):
        others = tops[number] if number < len(tops) and tops[number] else {}
        entries.append(TokenLogprob(words.id_of(token), value, token, tuple((words.id_of(t), lp) for t, lp in others.items())))
    return entries
