"""`ramify generate`: one prompt, one text on stdout; what it cost on stderr."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from ...constrained.spec import Constraint, JsonSchema, Regex
from ..cli import engine_options, sampling_params
from ..console import say
from ..errors import InvalidRequest
from ..protocol import Chat, Delta, Finished, GenerateRequest, Message, Prompt, Text
from .starting import start


def cost(event: Finished) -> str:
    """What a call took, in one line: where its prompt came from, and how long each phase lasted."""
    usage, timings = event.usage, event.timings
    rate = f", {(usage.output - 1) / timings.decode_s:.0f} tokens/s" if usage.output > 1 and timings.decode_s > 0 else ""
    forced = f", {usage.forced} forced" if usage.forced else ""
    return (
        f"prompt {usage.prompt} tokens ({usage.cached} cached, {usage.computed} computed{forced}), output {usage.output} "
        f"({event.finish.reason}); prefill {timings.prefill_s * 1000:.0f} ms, decode {timings.decode_s * 1000:.0f} ms{rate}"
    )


def read_schema(path: str) -> JsonSchema:
    """The schema in a file. Raises InvalidRequest where there is no such file; its content is judged by the engine."""
    try:
        return JsonSchema(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The schema {path} cannot be read: {error}. Give a file that holds a JSON schema.") from error


def read_prompt(said: argparse.Namespace) -> Prompt:
    """The prompt from the command line or from standard input. Raises InvalidRequest where it is empty."""
    text = said.prompt
    if text is None:
        if sys.stdin.isatty():
            say("Reading the prompt from the terminal; Ctrl-D ends it.")
        text = sys.stdin.read()
    if not text:
        raise InvalidRequest("The prompt is empty. Give it as an argument or on standard input.")
    return (Chat((Message("user", text),)),) if said.chat else (Text(text),)


async def generate(said: argparse.Namespace, request: GenerateRequest) -> Finished:
    """Run one request on an engine of its own; prints its text. Raises what the engine raises."""
    engine = await start(engine_options(said))
    finished = None
    try:
        async for event in engine.generate(request):
            if isinstance(event, Delta) and said.stream:
                print(event.text, end="", flush=True)
            elif isinstance(event, Finished):
                finished = event
    finally:
        await engine.close()
    assert finished is not None, "the engine ended a request without saying so"
    print("" if said.stream else finished.text)
    return finished


def run(said: argparse.Namespace) -> int:
    """Exit status 0 when a text was made."""
    constraint: Constraint | None = Regex(said.regex) if said.regex is not None else None
    if said.json_schema is not None:
        constraint = read_schema(said.json_schema)
    request = GenerateRequest(read_prompt(said), sampling_params(said), constraint)
    say(cost(asyncio.run(generate(said, request))))
    return 0
