"""POST /v1/chat/completions: OpenAI's body -> a request; events -> its response, whole or as chunks. Pure.

Order of a stream: for each choice one chunk with the role, then reasoning, content and calls, then one with the finish reason; at
the end, where it was asked for, one chunk with the usage and no choices. Of a call the first piece has its id and name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from ..errors import InvalidRequest
from ..protocol import (
    AnswerDelta,
    AnswerParams,
    CallDelta,
    Chat,
    Delta,
    Finished,
    GenerateRequest,
    LogprobParams,
    Message,
    TokenLogprob,
    ToolCall,
)
from ..text.template import check_variables
from .fields import ChatBody, ChatMessage, Part, ToolBody
from .options import ServerOptions
from .replies import Reply, finish_fields, frame, usage_fields
from .sampling import MOST_TOKENS, constraint_of, deadline_of, in_range, priority_of, sampling_params, tenant_of

ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool", "function": "tool"}
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def chat_request(body: ChatBody, options: ServerOptions, *, tenant: str, rid: str) -> GenerateRequest:
    """The request of a body. Raises InvalidRequest."""
    _refuse(body)
    said = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    in_range("max_completion_tokens", body.max_completion_tokens, 1, MOST_TOKENS)
    sampling = sampling_params(body, options, max_tokens=said)
    in_range("top_logprobs", body.top_logprobs, 0, options.max_top_logprobs, code="invalid_logprobs")
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true.", code="invalid_logprobs", param="top_logprobs")
    check_stream_options(body.stream, body.stream_options is not None)
    return GenerateRequest(
        prompt=(chat_segment(body, options),),
        sampling=sampling,
        constraint=constraint_of(body),
        answer=answer_params(body),
        logprobs=LogprobParams(output=bool(body.logprobs), top=body.top_logprobs or 0),
        priority=priority_of(body.priority),
        deadline_s=deadline_of(body.timeout_s, options),
        tenant=tenant_of(body, tenant),
        rid=rid,
    )


def check_stream_options(stream: bool | None, said: bool) -> None:
    """Raises InvalidRequest for stream_options of an answer that is not streamed."""
    if said and not stream:
        text = "stream_options needs stream: true."
        raise InvalidRequest(text, code="invalid_parameter_combination", param="stream_options")


def _refuse(body: ChatBody) -> None:
    if body.chat_template is not None:
        text = "chat_template cannot be set by a request: the model's own is used."
        raise InvalidRequest(text, code="not_allowed", param="chat_template")
    if body.audio is not None or "audio" in (body.modalities or ()):
        raise InvalidRequest("This model writes text only.", code="unsupported_modality", param="modalities")
    if body.functions or body.function_call not in (None, "none", "auto"):
        raise InvalidRequest("functions was replaced by tools. Send tools.", code="unsupported_parameter", param="functions")


def chat_segment(body: ChatBody, options: ServerOptions) -> Chat:
    """The conversation with its tools and template variables. Raises InvalidRequest."""
    last_open = bool(body.continue_final_message)
    if last_open and body.add_generation_prompt:
        text = "continue_final_message and add_generation_prompt exclude each other."
        raise InvalidRequest(text, code="invalid_parameter_combination", param="continue_final_message")
    kwargs = dict(body.chat_template_kwargs or {})
    check_variables(kwargs, "chat_template_kwargs")
    if body.reasoning_effort is not None and "enable_thinking" not in kwargs:
        kwargs["enable_thinking"] = body.reasoning_effort not in ("none", 0, 0.0)
        kwargs["reasoning_effort"] = body.reasoning_effort
    return Chat(
        messages=messages_of(body.messages, options.max_messages),
        generation_prompt=body.add_generation_prompt is not False and not last_open,
        continue_final=last_open,
        tools=tools_of(body, options),
        template_kwargs=kwargs,
    )


def messages_of(said: Sequence[ChatMessage], most: int) -> tuple[Message, ...]:
    """The protocol's messages. Raises InvalidRequest (invalid_messages, unsupported_modality)."""
    if not said:
        raise InvalidRequest("messages is empty. Send at least one message.", code="invalid_messages", param="messages")
    if len(said) > most:
        raise InvalidRequest(
            f"messages has {len(said)} entries; at most {most} are taken.", code="invalid_messages", param="messages"
        )
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(said))


def _message(said: ChatMessage, at: str) -> Message:
    role = ROLES.get(said.role)
    if role is None:
        text = f"{at}.role is {said.role[:64]!r}; it must be one of {', '.join(ROLES)}."
        raise InvalidRequest(text, code="invalid_messages", param=f"{at}.role")
    if said.content is None and not (role == "assistant" and said.tool_calls):
        if role != "assistant":
            raise InvalidRequest(f"{at}.content is missing. Send a text.", code="invalid_messages", param=f"{at}.content")
    if said.role == "tool" and not said.tool_call_id:
        raise InvalidRequest(f"{at}.tool_call_id is missing.", code="invalid_messages", param=f"{at}.tool_call_id")
    extra: dict[str, Any] = {}
    if said.name is not None:
        extra["name"] = said.name
    reasoning = said.reasoning_content if said.reasoning_content is not None else said.reasoning
    if reasoning is not None:
        extra["reasoning_content"] = reasoning
    calls = tuple(
        ToolCall(call.function.name, _arguments(call.function.arguments), call.id or "") for call in said.tool_calls or ()
    )
    return Message(role, _content(said.content, at), calls, said.tool_call_id, extra)


def _arguments(said: str | dict[str, Any]) -> str:
    return said if isinstance(said, str) else msgspec.json.encode(said).decode()


def _content(said: str | list[Part] | None, at: str) -> str:
    if said is None or isinstance(said, str):
        return said or ""
    texts = []
    for number, part in enumerate(said):
        if part.type not in ("text", "refusal", "input_text", "output_text"):
            text = f"{at}.content[{number}] is of type {part.type[:64]!r}, and this model reads text only. Leave it out."
            raise InvalidRequest(text, code="unsupported_modality", param=f"{at}.content[{number}]")
        if part.text is None and part.type == "text":
            name = f"{at}.content[{number}].text"
            raise InvalidRequest(f"{name} is missing.", code="invalid_messages", param=name)
        texts.append(part.text or "")
    return "".join(texts)


def tools_of(body: ChatBody, options: ServerOptions) -> tuple[str, ...]:
    """Definitions for the template. Raises InvalidRequest (invalid_tools)."""
    tools = body.tools or []
    if len(tools) > options.max_tools:
        raise InvalidRequest(
            f"tools has {len(tools)} entries; at most {options.max_tools} are taken.", code="invalid_tools", param="tools"
        )
    for index, tool in enumerate(tools):
        _tool_name(tool, f"tools[{index}]")
    return tuple(msgspec.json.encode(_plain(tool)).decode() for tool in tools)


def _plain(tool: ToolBody) -> dict[str, Any]:
    function = msgspec.to_builtins(tool.function)
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _tool_name(tool: ToolBody, at: str) -> str:
    if tool.type != "function" or tool.function is None:
        raise InvalidRequest(
            f"{at}.type is {tool.type[:64]!r}; only function tools are taken.", code="invalid_tools", param=f"{at}.type"
        )
    name = tool.function.name
    if not _TOOL_NAME.fullmatch(name):
        text = f"{at}.function.name is {name[:64]!r}; it must have 1 to 64 letters, digits, _ or -."
        raise InvalidRequest(text, code="invalid_tools", param=f"{at}.function.name")
    return name


def answer_params(body: ChatBody) -> AnswerParams | None:
    """What tool_choice and its companions ask for, None where nothing is to be told apart. Raises InvalidRequest
    (invalid_tools)."""
    names = [tool.function.name for tool in body.tools or () if tool.function is not None]
    mode, chosen, parallel = _tool_choice(body.tool_choice, names)
    parallel = parallel and body.parallel_tool_calls is not False
    reasoning = body.separate_reasoning is not False
    return AnswerParams(mode, chosen, parallel, reasoning) if mode != "none" or reasoning else None


def _tool_choice(said: str | dict[str, Any] | None, names: Sequence[str]) -> tuple[str, tuple[str, ...], bool]:
    """(none, auto or required; the names that are allowed, empty for all; whether several calls are)."""
    if said is None or said in ("none", "auto"):
        return ("auto" if names and said != "none" else "none"), (), True
    if said == "required":
        _check_names(names, ())
        return "required", (), True
    kind = said.get("type") if isinstance(said, dict) else None
    if isinstance(said, dict) and kind == "allowed_tools":
        allowed = said.get("allowed_tools", said)
        mode, listed = (allowed.get("mode", "auto"), allowed.get("tools")) if isinstance(allowed, dict) else (None, None)
        if mode not in ("auto", "required") or not isinstance(listed, list) or not listed:
            raise _choice_error("tool_choice of type allowed_tools needs allowed_tools: {mode: auto or required, tools: [...]}.")
        chosen = tuple(_named(tool) for tool in listed)
        _check_names(names, chosen)
        return mode, chosen, True
    if isinstance(said, dict) and kind in ("function", None):
        chosen = (_named(said),)
        _check_names(names, chosen)
        return "required", chosen, False
    raise _choice_error("tool_choice must be none, auto, required, or an object of type function or allowed_tools.")


def _named(said: Any) -> str:
    function = said.get("function", said) if isinstance(said, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise _choice_error('tool_choice names no function. Write {"type": "function", "function": {"name": ...}}.')
    return name


def _check_names(names: Sequence[str], chosen: Sequence[str]) -> None:
    if not names:
        raise _choice_error("tool_choice asks for a call, and there are no tools. Send tools.")
    for name in chosen:
        if name not in names:
            raise _choice_error(f"tool_choice names {name[:64]!r}, which is not among the tools.")


def _choice_error(text: str) -> InvalidRequest:
    return InvalidRequest(text, code="invalid_tools", param="tool_choice")


# ---------------------------------------------------------------------------------------------------------- answers


class ChatReply(Reply):
    """Writes the answers to one chat request."""

    prefix = "chatcmpl"
    nothing: Mapping[str, Any] = {"delta": {}}

    def whole(self, answers: Sequence[Sequence[Finished]]) -> dict[str, Any]:
        return {**self.head("chat.completion"), "choices": [self._choice(f) for f in answers[0]], "usage": usage_fields(answers)}

    def _choice(self, finished: Finished) -> dict[str, Any]:
        choice = {"index": finished.index, "message": _said(finished), "logprobs": self._logprobs(finished.logprobs)}
        return {**choice, **finish_fields(finished), **_finish_of_calls(finished), **self.extras(finished)}

    def begin(self, prompt: int, sample: int) -> bytes:
        return frame(self._chunk(sample, {"role": "assistant", "content": ""}))

    def delta(self, prompt: int, event: Delta) -> bytes | None:
        logprobs = self._logprobs(event.logprobs)
        if event.answer is not None:
            return self._read_delta(event.index, event.answer, logprobs)
        if logprobs is None:
            return (
                self.filled(event.index, lambda t: self._chunk(event.index, {"content": t}), event.text) if event.text else None
            )
        if not event.text and not logprobs["content"]:
            return None
        return frame(self._chunk(event.index, {"content": event.text}, {"logprobs": logprobs}))

    def _read_delta(self, index: int, answer: AnswerDelta, logprobs: dict[str, Any] | None) -> bytes | None:
        """The frames of what was read: reasoning, content, and a piece of each call."""
        if logprobs is None and not answer.reasoning and not answer.calls:
            content = answer.content
            return self.filled(index, lambda t: self._chunk(index, {"content": t}), content) if content else None
        parts: list[dict[str, Any]] = [{"reasoning_content": answer.reasoning}] if answer.reasoning else []
        parts += [{"content": answer.content}] if answer.content else []
        parts += [{"tool_calls": [_call_delta(call)]} for call in answer.calls]
        if not parts and logprobs is not None and logprobs["content"]:
            parts = [{"content": ""}]
        more = [{"logprobs": logprobs}] if logprobs is not None else []
        frames = [frame(self._chunk(index, part, extra)) for part, extra in zip_longest(parts, more[: len(parts)], fillvalue={})]
        return b"".join(frames) or None

    def end(self, prompt: int, event: Finished) -> bytes:
        more = {**finish_fields(event), **_finish_of_calls(event), **self.extras(event)}
        usage = {"usage": usage_fields([[event]])} if self.continuous else {}
        return frame({**self._chunk(event.index, {}, more), **usage})

    def last(self, answers: Sequence[Sequence[Finished]]) -> bytes | None:
        if not self.include_usage:
            return None
        return frame({**self.head("chat.completion.chunk"), "choices": [], "usage": usage_fields(answers)})

    def _chunk(self, index: int, delta: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **(more or {})}
        return {**self.head("chat.completion.chunk"), "choices": [choice], **self.no_usage()}

    def _logprobs(self, entries: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self.wants_logprobs:
            return None
        return {"content": [self._logprob(entry) for entry in entries if not self.is_silent(entry.token)], "refusal": None}

    def _logprob(self, entry: TokenLogprob) -> dict[str, Any]:
        top = [self._token(token, logprob) for token, logprob in entry.top]
        return {**self._token(entry.token, entry.logprob), "top_logprobs": top}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        spelled = self.spell(token)
        return {"token": spelled.decode("utf-8", "replace"), "logprob": finite(logprob), "bytes": list(spelled)}


def _said(finished: Finished) -> dict[str, Any]:
    """The message of an answer."""
    read = finished.answer
    if read is None:
        return {"role": "assistant", "content": finished.text, "refusal": None}
    message: dict[str, Any] = {"role": "assistant", "content": read.content, "refusal": None}
    if read.reasoning:
        message["reasoning_content"] = read.reasoning
    if read.calls:
        functions = [(call.id, {"name": call.name, "arguments": call.arguments}) for call in read.calls]
        message["content"] = read.content or None
        message["tool_calls"] = [{"id": id_, "type": "function", "function": function} for id_, function in functions]
    return message


def _finish_of_calls(finished: Finished) -> dict[str, Any]:
    """An answer that ends by itself after a call ends for the call; one that is cut off stays cut off."""
    called = finished.answer is not None and finished.answer.calls and finished.finish.reason == "stop"
    return {"finish_reason": "tool_calls"} if called else {}


def _call_delta(call: CallDelta) -> dict[str, Any]:
    if not call.id:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}


def finite(logprob: float | None) -> float:
    """OpenAI's -9999 for what has no probability: JSON has no infinity."""
    return -9999.0 if logprob is None or logprob == float("-inf") else logprob
