"""The loop of an agent: the model calls, the program runs the functions and tells their results, until it answers in words.

user: What is 27 plus 58, times 2?
assistant: add(a=27, b=58)          a turn of the model
tool: 85                            a turn for each call: the result, or the error, which the model may react to
assistant: multiply(a=85, b=2)
tool: 170
assistant: It is 170.               no call: the loop ends
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from ..runtime.errors import InvalidRequest
from .api import assistant, gen, tool
from .state import ProgramState
from .tools import Call, Tool, ToolAnswer, error_text, prepared, result_text, tools_of

MAX_ROUNDS = 8


def run_tools(
    s: ProgramState, tools: Sequence[Any], *, name: str = "answer", max_rounds: int = MAX_ROUNDS, **said: Any
) -> ToolAnswer:
    """Let the model call `tools` until it answers in words, and return that answer; the variable `name` holds it.

    Each round appends an assistant's turn and a tool's turn for each call. An error in a function is its result: the model is
    told. said: further arguments of `gen` (max_tokens, temperature, parallel_tool_calls, ...; tool_choice is for the first
    round). Raises InvalidRequest (`too_many_rounds`) when the model still calls after max_rounds rounds.
    """
    known, choice = _checked(tools, max_rounds), said.pop("tool_choice", None)
    for _ in range(max_rounds):
        s += assistant(gen(name, tools=known, tool_choice=choice, **said))
        choice = None
        answer = s[name]
        if not answer.calls:
            return answer
        for call in answer.calls:
            s += tool(_result(call, known), call=call)
    raise _too_many(max_rounds)


async def arun_tools(
    s: ProgramState, tools: Sequence[Any], *, name: str = "answer", max_rounds: int = MAX_ROUNDS, **said: Any
) -> ToolAnswer:
    """`run_tools` for `async def` programs; functions may be coroutines."""
    known, choice = _checked(tools, max_rounds), said.pop("tool_choice", None)
    for _ in range(max_rounds):
        s += assistant(gen(name, tools=known, tool_choice=choice, **said))
        choice = None
        answer = await s.get(name)
        if not answer.calls:
            return answer
        for call in answer.calls:
            s += tool(await _aresult(call, known), call=call)
    raise _too_many(max_rounds)


def _result(call: Call, tools: Sequence[Tool]) -> str:
    """What a call comes to, errors included."""
    try:
        value = prepared(call, tools)()
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            raise InvalidRequest(f"{call.name} is a coroutine: call it from an async program, by arun_tools.")
        return result_text(value)
    except Exception as error:
        return error_text(error)


async def _aresult(call: Call, tools: Sequence[Tool]) -> str:
    try:
        value = prepared(call, tools)()
        return result_text(await value if inspect.isawaitable(value) else value)
    except Exception as error:
        return error_text(error)


def _checked(tools: Sequence[Any], max_rounds: int) -> tuple[Tool, ...]:
    if max_rounds < 1:
        raise InvalidRequest(f"max_rounds is {max_rounds}; it must be at least 1.", param="max_rounds")
    known = tools_of(tools)
    for one in known:
        if one.function is None:
            text = f"{one.name} is a definition without a function, so it cannot be run. Give the function."
            raise InvalidRequest(text, code="invalid_tools", param="tools")
    return known


def _too_many(max_rounds: int) -> InvalidRequest:
    text = f"The model still calls functions after {max_rounds} rounds. Raise max_rounds, or say in the prompt when to stop."
    return InvalidRequest(text, code="too_many_rounds", param="max_rounds")
