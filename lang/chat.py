"""Roles become messages: what a state has written so far, in the form in which the next call needs it.

A program without roles is raw text: what the model already holds, as ids, and what was written since. From the first role
on it is a conversation, which the model's own chat template renders; text that was written before the first role goes in
front of it as it is. Inside a conversation everything belongs to a turn (`nodes.role_after` and `state.py` see to that).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..runtime.errors import InvalidRequest
from ..runtime.protocol import AnswerRead, Chat, Message, Prompt, Segment, Text, Tokens, ToolCall
from .nodes import Answered, Constant, Expr, RoleBegin, RoleEnd


@dataclass
class Transcript:
    """One state's writing. Owned by its interpreter; `copy` gives a fork its own.

    lead: segments before the first role, once there is one. turns: closed turns. role, open_text, open_calls, open_extra,
    call_id: the open turn. tools: definitions that the template shows; those of the last call that had some.
    held: ids of the last call, from which the next one continues. pending: raw text that `held` does not spell.
    display: the whole text as people read it. written: what was appended, in order, for a join.
    """

    template_kwargs: dict[str, Any] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    lead: Prompt = ()
    turns: tuple[Message, ...] = ()
    in_conversation: bool = False
    role: str | None = None
    open_text: str = ""
    open_calls: tuple[ToolCall, ...] = ()
    open_extra: dict[str, Any] = field(default_factory=dict)
    call_id: str | None = None
    held: bytes = b""
    pending: str = ""
    written: list[Expr] = field(default_factory=list)

    def copy(self) -> Transcript:
        """A transcript that goes on from here by itself. What was `written` before is not its own."""
        return replace(self, written=[])

    def text(self, text: str) -> str:
        """Append text; returns what is shown of it."""
        self.written.append(Constant(text))
        if self.role is None:
            self.pending += text
        else:
            self.open_text += text
        return text

    def begin(self, role: str, call_id: str | None = None) -> str:
        """Open a turn; returns what is shown of it. call_id: the call that it answers."""
        self.written.append(RoleBegin(role, call_id))
        if not self.in_conversation:
            self.lead, self.held, self.pending = self._raw(), b"", ""
            self.in_conversation = True
        self.role, self.call_id = role, call_id
        return f"{role}: "

    def end(self) -> str:
        """Close the open turn; returns what is shown of it."""
        assert self.role is not None
        self.written.append(RoleEnd(self.role))
        self.turns += (self._open(),)
        self.role, self.open_text, self.open_calls, self.open_extra, self.call_id = None, "", (), {}, None
        return "\n"

    def _open(self) -> Message:
        """The open turn so far."""
        assert self.role is not None
        return Message(self.role, self.open_text, self.open_calls, self.call_id, self.open_extra)

    def called(self, text: str, held: bytes, tail: str, read: AnswerRead | None = None) -> None:
        """A call of the model ended with `text`. held: ids of prompt and text, empty where the backend does not know them.
        read: what the text means, if it was read: words and calls of functions."""
        self.written.append(Constant(text) if read is None else Answered(text, read))
        if self.role is not None:
            self.open_text += text if read is None else read.content
            if read is not None:
                self.open_calls += read.calls
                self.open_extra = {"reasoning_content": read.reasoning} if read.reasoning else self.open_extra
            # Ids before the conversation are no part of what the template renders, so nothing can be continued there.
            self.held = b"" if self.lead else held
        elif held:
            self.held, self.pending = held, tail
        else:
            self.pending += text

    def prompt(self) -> Prompt:
        """What the next call is given."""
        if not self.in_conversation:
            return self._raw() or (Text(""),)
        turns, open_final = self.turns, False
        if self.role is not None:
            # An assistant turn without text yet is the template's own generation prompt; any other open turn is left open.
            open_final = self.role != "assistant" or bool(self.open_text)
            if self.open_calls:
                text = "The model has called functions in this turn, so it is over. Close it, and give the results in tool turns."
                raise InvalidRequest(text, code="text_after_calls")
            if open_final:
                turns += (self._open(),)
        return (
            *self.lead,
            Chat(
                messages=turns,
                held=self.held,
                generation_prompt=self.role is not None and not open_final,
                continue_final=open_final,
                tools=self.tools,
                template_kwargs=self.template_kwargs,
            ),
        )

    def messages(self) -> list[dict[str, Any]]:
        """The turns as OpenAI's messages; the open one, if it has text, is the last."""
        is_open = self.role is not None and (self.open_text or self.open_calls)
        return [message_fields(turn) for turn in (*self.turns, *((self._open(),) if is_open else ()))]

    def _raw(self) -> Prompt:
        segments: tuple[Segment, ...] = (Tokens(self.held),) if self.held else ()
        return segments + ((Text(self.pending),) if self.pending else ())


def message_fields(turn: Message) -> dict[str, Any]:
    """A turn as OpenAI's JSON."""
    message: dict[str, Any] = {"role": turn.role, "content": turn.content, **turn.extra}
    if turn.tool_calls:
        functions = [(call.id, {"name": call.name, "arguments": call.arguments}) for call in turn.tool_calls]
        message["tool_calls"] = [{"id": id_, "type": "function", "function": function} for id_, function in functions]
    if turn.tool_call_id is not None:
        message["tool_call_id"] = turn.tool_call_id
    return message
