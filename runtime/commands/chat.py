"""`ramify chat`: a conversation in the terminal, on an engine of its own or on a server (--url). Each turn continues from the
token ids that the engine already holds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from ..cli import ENGINE_FLAGS, engine_options, sampling_params
from ..console import say, table
from ..errors import InvalidRequest, RamifyError
from ..protocol import Chat, Delta, Event, Finished, GenerateRequest, Message, ProgramHint, SamplingParams
from .generate import cost
from .starting import start

HELP = "/reset begins anew, /explain shows what each turn took from the cache, /exit or Ctrl-D ends, Ctrl-C stops an answer."


class Answering(Protocol):
    """An engine here, or a server."""

    def generate(self, request: GenerateRequest) -> AsyncIterator[Event]: ...

    async def close(self) -> None: ...


@dataclass
class Conversation:
    """What has been said. held: ids of the last finished call, from which the next one continues."""

    system: str | None
    messages: list[Message] = field(default_factory=list)
    held: bytes = b""
    turns: list[Finished] = field(default_factory=list)
    number: int = 1

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.messages = [Message("system", self.system)] if self.system else []
        self.held = b""
        self.turns = []

    def reset(self) -> None:
        """Forget everything but the system message. Changes state."""
        self.number += 1
        self._begin()

    def ask(self, text: str, sampling: SamplingParams) -> GenerateRequest:
        """The request for the answer to `text`, which becomes part of the conversation. Changes state."""
        self.messages.append(Message("user", text))
        hint = ProgramHint(program=self.number, call=len(self.turns), expects_more=True)
        return GenerateRequest((Chat(tuple(self.messages), held=self.held),), sampling, hint=hint)

    def answered(self, event: Finished) -> None:
        """Take a finished answer into the conversation. Changes state."""
        self.messages.append(Message("assistant", event.text))
        self.held = event.held
        self.turns.append(event)

    def interrupted(self, text: str) -> None:
        """Take what was shown of an answer that the user stopped. Changes state."""
        self.messages.append(Message("assistant", text))

    def failed(self) -> None:
        """Take back the last question. Changes state."""
        self.messages.pop()

    def explain(self) -> None:
        """Print, for each turn, where its prompt's tokens came from."""
        rows = []
        for number, turn in enumerate(self.turns, 1):
            usage, prefill = turn.usage, f"{turn.timings.prefill_s * 1000:.0f} ms"
            rows.append((number, usage.prompt, usage.cached, usage.computed, usage.output, prefill, why(turn)))
        headers = ("turn", "prompt", "cached", "computed", "output", "prefill", "cache")
        table(headers, rows, right=range(6), file=sys.stdout)


def why(event: Finished) -> str:
    """The cache's answer in words."""
    return ", ".join(part for part in (event.cache.reason, event.cache.continuation) if part)


async def answer(engine: Answering, conversation: Conversation, request: GenerateRequest) -> Finished | None:
    """Stream one answer to stdout. Returns None where Ctrl-C stopped it; what was shown stays in the conversation."""
    shown: list[str] = []
    events = engine.generate(request)
    try:
        async for event in events:
            if isinstance(event, Delta):
                shown.append(event.text)
                print(event.text, end="", flush=True)
            elif isinstance(event, Finished):
                conversation.answered(event)
                return event
    except asyncio.CancelledError:
        conversation.interrupted("".join(shown))
        return None
    finally:
        print(flush=True)
        await events.aclose()  # type: ignore[attr-defined]  # an async generator: closing it aborts the request
    raise AssertionError("the engine ended a request without saying so")


def read(interactive: bool) -> str | None:
    """The next line that the user types, None at the end."""
    if not interactive:
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    while True:
        try:
            return input("> ")
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /exit ends the chat)")


def converse(runner: asyncio.Runner, engine: Answering, conversation: Conversation, sampling: SamplingParams) -> None:
    """Read, answer, repeat, until the end of the input."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        import readline  # noqa: F401  # makes input() remember lines and obey the arrow keys

        say(HELP)
    while (line := read(interactive)) is not None:
        command = line.strip()
        if command in {"/exit", "/quit"}:
            return
        if command == "/reset":
            conversation.reset()
            say("A new conversation.")
        elif command == "/explain":
            conversation.explain()
        elif command in {"/help", "/?"}:
            say(HELP)
        elif command.startswith("/") and " " not in command:
            say(f"There is no command {command}. {HELP}")
        elif command:
            try:
                finished = runner.run(answer(engine, conversation, conversation.ask(line, sampling)))
            except RamifyError as error:
                if not interactive:
                    raise
                conversation.failed()
                say(f"{error}")
                continue
            say(f"({cost(finished)})" if finished else "(stopped)")


async def connect(url: str, api_key: str | None) -> Answering:
    """The server at that address, once it has answered. Raises RamifyError."""
    from ...lang.backends.endpoint import RuntimeEndpoint

    endpoint = RuntimeEndpoint(url, api_key)
    try:
        info = await endpoint.server_info()
    except BaseException:
        await endpoint.close()
        raise
    say(f"Talking to {info.get('model_name') or info.get('model')} at {endpoint.base_url}.")
    return endpoint


def refuse_engine_flags(said: argparse.Namespace) -> None:
    """Raises InvalidRequest for what only the server itself can be told."""
    given = [name for name in ENGINE_FLAGS if getattr(said, name, None) is not None]
    if given:
        name = "MODEL" if given[0] == "model" else "--" + given[0].replace("_", "-")
        raise InvalidRequest(f"{name} is said where the engine is started; with --url that is the server. Leave it out.")


def run(said: argparse.Namespace) -> int:
    """Exit status 0 at the end of the input."""
    if said.url is not None:
        refuse_engine_flags(said)
    elif said.api_key is not None:
        raise InvalidRequest("--api-key is a server's. Give its address with --url.")
    with asyncio.Runner() as runner:
        engine = runner.run(start(engine_options(said)) if said.url is None else connect(said.url, said.api_key))
        try:
            converse(runner, engine, Conversation(said.system), sampling_params(said))
        finally:
            runner.run(engine.close())
    return 0
