"""Roles become messages: what a state has written so far, in the form in which the next call needs it.

A program without roles is raw text: what the model already holds, as ids, and what was written since. From the first role
on it is a conversation, which the model's own chat template renders; text that was written before the first role goes in
front of it as it is. Inside a conversation everything belongs to a turn (`nodes.role_after` and `state.py` see to that).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..runtime.protocol import Chat, Message, Prompt, Segment, Text, Tokens
from .nodes import Constant, Expr, RoleBegin, RoleEnd


@dataclass
class Transcript:
    """One state's writing. Owned by its interpreter; `copy` gives a fork its own.

    lead: segments before the first role, once there is one. turns: closed turns. role, open_text: the open turn.
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

    def begin(self, role: str) -> str:
        """Open a turn; returns what is shown of it."""
        self.written.append(RoleBegin(role))
        if not self.in_conversation:
            self.lead, self.held, self.pending = self._raw(), b"", ""
            self.in_conversation = True
        self.role, self.open_text = role, ""
        return f"{role}: "

    def end(self) -> str:
        """Close the open turn; returns what is shown of it."""
        assert self.role is not None
        self.written.append(RoleEnd(self.role))
        self.turns += (Message(self.role, self.open_text),)
        self.role, self.open_text = None, ""
        return "\n"

    def called(self, text: str, held: bytes, tail: str) -> None:
        """A call ended with `text`. held: ids of prompt and text, empty where the backend does not know them."""
        self.written.append(Constant(text))
        if self.role is not None:
            self.open_text += text
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
            if open_final:
                turns += (Message(self.role, self.open_text),)
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

    def messages(self) -> list[dict[str, str]]:
        """The turns as OpenAI's messages; the open one, if it has text, is the last."""
        turns = self.turns + ((Message(self.role, self.open_text),) if self.role is not None and self.open_text else ())
        return [{"role": turn.role, "content": turn.content} for turn in turns]

    def _raw(self) -> Prompt:
        segments: tuple[Segment, ...] = (Tokens(self.held),) if self.held else ()
        return segments + ((Text(self.pending),) if self.pending else ())
