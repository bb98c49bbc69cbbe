"""A conversation as pieces: protocol messages in the form that templates read, rendered, control tokens told apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest
from ..protocol import Chat, Message
from .pieces import Pieces, joined
from .template import ChatTemplate, check_variables
from .tokenizer import Tokenizer


def message_fields(message: Message) -> dict[str, Any]:
    """A message as the mapping that chat templates expect; arguments of tool calls become objects where they are JSON."""
    fields: dict[str, Any] = {**message.extra, "role": message.role, "content": message.content}
    if message.tool_calls:
        fields["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call.arguments)}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    return fields


def _arguments(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def tool_definitions(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Tool definitions from their JSON texts. Raises InvalidRequest (invalid_tools)."""
    tools = []
    for index, text in enumerate(texts):
        try:
            tool = json.loads(text)
        except (ValueError, RecursionError) as error:
            tool = error
        if not isinstance(tool, dict):
            raise InvalidRequest(
                f"Tool {index} is not a JSON object: {str(tool)[:200]}", code="invalid_tools", param=f"tools[{index}]"
            )
        tools.append(tool)
    return tools


def render(chat: Chat, tokenizer: Tokenizer, template: ChatTemplate, *, messages: int | None = None) -> tuple[str | None, Pieces]:
    """(the rendered text if it may be tokenised in one go, its pieces: what was typed is text, what the template wrote is not).

    messages: only so many of the first ones, as history (nothing left open). The first value is None if a content string
    has a control token's text in it. Raises InvalidRequest as `ChatTemplate.render` and `ControlTokens.mark` do.
    """
    check_variables(chat.template_kwargs)
    whole = messages is None
    turns = [message_fields(message) for message in (chat.messages if whole else chat.messages[:messages])]
    inputs = (turns, tool_definitions(chat.tools), chat.template_kwargs)
    open_last = whole and chat.continue_final and bool(chat.messages)
    options = {"add_generation_prompt": whole and chat.generation_prompt and not open_last, "continue_final_message": open_last}

    def run(turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        return template.render(turns, tools, **options, **variables)

    (marked_turns, marked_tools, marked_variables), has_marks = tokenizer.control.mark(inputs)
    text = run(*inputs)
    if not has_marks:
        return text, tokenizer.control.split(text)
    # Names of variables are the template's own words: what marks made of them is not used.
    marked = run(marked_turns, marked_tools, dict(zip(chat.template_kwargs, marked_variables.values(), strict=True)))
    return None, tokenizer.control.resolve(text, marked)


def end_token_ids(tokenizer: Tokenizer, template: ChatTemplate) -> frozenset[int]:
    """Ids that end an answer: those of the configs, and the special token that the template writes after an assistant turn."""
    if not template.available:
        return tokenizer.eos_ids
    probe = "answer"
    chat = Chat((Message("user", "question"), Message("assistant", probe)), generation_prompt=False)
    try:
        _, pieces = render(chat, tokenizer, template)
    except InvalidRequest:  # a template with demands of its own (a system message, certain tools)
        return tokenizer.eos_ids
    spoken = [i for i, piece in enumerate(joined(pieces)) if isinstance(piece, str) and probe in piece]
    after = pieces[spoken[-1] + 1 : spoken[-1] + 2] if spoken else []
    return tokenizer.eos_ids | {piece for piece in after if isinstance(piece, int) and piece in tokenizer.special_ids}
