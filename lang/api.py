"""What a program is written with: `function`, `gen`, `select`, roles. Each returns a frozen expression; nothing runs here.

Names and arguments are SGLang's; `seed`, `logit_bias`, `repetition_penalty`, `ebnf`, `type` and the role `tool` are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, overload

from msgspec.structs import replace

from ..constrained.spec import Constraint, JsonSchema, Regex, Whitespace
from ..runtime.errors import ConstraintError, InvalidRequest
from . import background
from .backend import backend_of, default
from .choices import ChoicesMethod, token_length_normalized
from .nodes import Concat, Gen, Logprobs, RoleBegin, RoleEnd, Select, as_expr, leaves
from .program import Program
from .sampling import constraint_of, sampling_fields
from .tools import Call, tool_use
from .typed import typed

# What `dtype=` stands for. A string is written as JSON, in quotes, so that it can hold any character.
DTYPES: dict[str, Constraint] = {
    "int": Regex(r"[-+]?[0-9]+"),
    "float": Regex(r"[-+]?[0-9]*\.?[0-9]+"),
    "bool": Regex(r"(True|False)"),
    "str": JsonSchema('{"type": "string"}'),
}


@overload
def function(func: Callable[..., Any]) -> Program: ...
@overload
def function(*, num_api_spec_tokens: int | None = None) -> Callable[[Callable[..., Any]], Program]: ...
def function(func: Callable[..., Any] | None = None, num_api_spec_tokens: int | None = None) -> Any:
    """Make a program of a function whose first argument is the state. With or without parentheses, on `def` and `async def`.

    num_api_spec_tokens is accepted for SGLang's sake and changes nothing: every call is a request of its own."""
    return Program(func) if func is not None else Program


def gen(
    name: str | None = None,
    max_tokens: int | None = None,
    min_tokens: int | None = None,
    n: int | None = None,
    stop: str | Sequence[str] | None = None,
    stop_token_ids: Sequence[int] | None = None,
    stop_regex: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    logprob_start_len: int | None = None,
    top_logprobs_num: int | None = None,
    return_text_in_logprobs: bool | None = None,
    dtype: type | str | None = None,
    choices: Sequence[str] | None = None,
    choices_method: ChoicesMethod | None = None,
    regex: str | None = None,
    json_schema: Any = None,
    *,
    seed: int | None = None,
    logit_bias: Mapping[int, float] | None = None,
    repetition_penalty: float | None = None,
    ebnf: str | None = None,
    type: Any = None,
    strict: bool = True,
    whitespace: Whitespace = "compact",
    tools: Sequence[Any] | None = None,
    tool_choice: Any = None,
    parallel_tool_calls: bool | None = None,
) -> Gen | Select:
    """A call of the model; its output is appended and becomes the variable `name`.

    What is None is taken from the run, and what the run does not say from the model. The variable is a string; with n > 1 a
    list of n, of which the text goes on with the first; with `type` a value of that type (see `typed.py`). dtype constrains
    the text to int, float, bool or str, the variable stays a string. json_schema: a JSON text, a dict or a pydantic model.
    strict=False: what cannot be enforced of it is left out, and meta_info lists it as `not_enforced`. whitespace="any": JSON may
    be laid out with spaces and lines.
    choices makes it a `select`. At most one of dtype, choices, regex, json_schema, ebnf, type and tools may be given.
    tools: what the model may call in this turn: Python functions, whose definitions come from their type hints and docstrings,
    or definitions as dicts. The variable is then a `ToolAnswer` with text and calls (`run_tools` runs them). tool_choice: auto
    (default), required, none, or one of the tools. parallel_tool_calls=False: one call at most. Calls obey their schema.
    Raises InvalidRequest or ConstraintError for arguments that cannot be right.
    """
    shapes = {"dtype": dtype, "choices": choices, "regex": regex, "json_schema": json_schema, "ebnf": ebnf}
    shapes |= {"type": type, "tools": tools}
    given = [key for key, value in shapes.items() if value is not None]
    if len(given) > 1:
        raise InvalidRequest(f"{' and '.join(given)} constrain the same output. Give one of them.", param=given[1])
    if tools is None and (tool_choice is not None or parallel_tool_calls is not None):
        raise InvalidRequest("tool_choice and parallel_tool_calls need tools.", param="tools")
    if choices is not None:
        return select(name, choices, 0.0 if temperature is None else temperature, choices_method or token_length_normalized)
    said = sampling_fields(
        {
            "max_tokens": max_tokens,
            "min_tokens": min_tokens,
            "n": n,
            "stop": stop,
            "stop_token_ids": stop_token_ids,
            "stop_regex": stop_regex,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "frequency_penalty": frequency_penalty,
            "presence_penalty": presence_penalty,
            "repetition_penalty": repetition_penalty,
            "ignore_eos": ignore_eos,
            "seed": seed,
            "logit_bias": logit_bias,
        }
    )
    converter = typed(type) if type is not None else None
    if converter is not None:
        constraint: Constraint | None = JsonSchema(converter.schema)
    elif dtype is not None:
        constraint = _dtype(dtype)
    else:
        constraint = constraint_of({"json_schema": json_schema, "regex": _regex(regex), "ebnf": ebnf})
    if isinstance(constraint, JsonSchema):
        constraint = replace(constraint, strict=strict, whitespace=whitespace)
    logprobs = Logprobs(return_logprob, logprob_start_len, top_logprobs_num, return_text_in_logprobs)
    use = None if tools is None else tool_use(tools, tool_choice, parallel_tool_calls)
    return Gen(name, tuple(said.items()), constraint, converter, logprobs, use)


def _dtype(dtype: type | str) -> Constraint:
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", "")
    if name == "string":
        name = "str"
    if name not in DTYPES:
        raise InvalidRequest(f"dtype {dtype!r} is not known. Use int, float, bool or str; other types by type=.", param="dtype")
    return DTYPES[name]


def _regex(pattern: str | None) -> str | None:
    if pattern is not None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConstraintError(f"regex {pattern!r} is not a regular expression: {error}.", code="unsupported_regex") from None
    return pattern


def gen_int(name: str | None = None, max_tokens: int | None = None, n: int | None = None, **said: Any) -> Gen:
    """`gen` whose text is an integer (the variable is its text, as in SGLang; `gen(type=int)` gives an int)."""
    return _of_dtype(int, name, max_tokens, {"n": n, **said})


def gen_string(name: str | None = None, max_tokens: int | None = None, n: int | None = None, **said: Any) -> Gen:
    """`gen` whose text is a string in double quotes, written as in JSON."""
    return _of_dtype(str, name, max_tokens, {"n": n, **said})


def _of_dtype(dtype: type, name: str | None, max_tokens: int | None, said: dict[str, Any]) -> Gen:
    node = gen(name, max_tokens, dtype=dtype, **said)
    assert isinstance(node, Gen)
    return node


def select(
    name: str | None = None,
    choices: Sequence[str] | None = None,
    temperature: float = 0.0,
    choices_method: ChoicesMethod = token_length_normalized,
) -> Select:
    """One of `choices`, appended and kept as the variable `name`.

    At temperature 0 all choices are scored together and `choices_method` decides. Above it one is sampled token by token,
    in the model's own proportions, and choices_method has no part in it. Raises InvalidRequest without choices."""
    if isinstance(choices, str) or not choices:
        raise InvalidRequest(f"select needs a list of at least one choice, not {choices!r}.", param="choices")
    texts = tuple(str(choice) for choice in choices)
    if "" in texts:
        raise InvalidRequest("A choice is empty, and an empty text cannot be scored. Leave it out.", param="choices")
    return Select(name, texts, float(temperature), choices_method)


def image(expr: Any) -> NoReturn:
    """Refused: no model that Ramify runs can see yet. Raises InvalidRequest (`unsupported_modality`)."""
    raise _unseen("Images")


def video(path: str, num_frames: int) -> NoReturn:
    """Refused, as `image`."""
    raise _unseen("Videos")


def _unseen(what: str) -> InvalidRequest:
    return InvalidRequest(f"{what} are not supported: no model here can see yet. Send text.", code="unsupported_modality")


# ------------------------------------------------------------------------------------------------------------- roles


def role(name: str, expr: object | None = None) -> Concat:
    """A turn of the role `name`, for templates that know more roles than these."""
    return _turn(RoleBegin(name), expr)


def _turn(begin: RoleBegin, expr: object | None) -> Concat:
    inner = () if expr is None else tuple(leaves(as_expr(expr)))
    return Concat((begin, *inner, RoleEnd(begin.role)))


def system(expr: object | None = None) -> Concat:
    """A system turn."""
    return role("system", expr)


def user(expr: object | None = None) -> Concat:
    """A user turn."""
    return role("user", expr)


def assistant(expr: object | None = None) -> Concat:
    """An assistant turn; a `gen` in it is the model's answer, text before it is put into the model's mouth."""
    return role("assistant", expr)


def tool(expr: object | None = None, call: Call | str | None = None) -> Concat:
    """A turn with a tool's answer, for chat templates that know the role. call: what it answers, or its id."""
    return _turn(RoleBegin("tool", call.id if isinstance(call, Call) else call), expr)


def system_begin() -> RoleBegin:
    """Open a system turn."""
    return RoleBegin("system")


def system_end() -> RoleEnd:
    """Close the system turn."""
    return RoleEnd("system")


def user_begin() -> RoleBegin:
    """Open a user turn."""
    return RoleBegin("user")


def user_end() -> RoleEnd:
    """Close the user turn."""
    return RoleEnd("user")


def assistant_begin() -> RoleBegin:
    """Open an assistant turn."""
    return RoleBegin("assistant")


def assistant_end() -> RoleEnd:
    """Close the assistant turn."""
    return RoleEnd("assistant")


# ---------------------------------------------------------------------------------------------------------- backends


def set_default_backend(backend: Any) -> None:
    """The backend of every run that names none: an `Engine`, an `OpenAI`, or None to have none again."""
    default.backend = None if backend is None else backend_of(backend)


def flush_cache(backend: Any = None, empty_cache: bool = True) -> bool:
    """Forget what the backend has cached and nobody uses; True when it is done. False if there is no backend.

    empty_cache is accepted for SGLang's sake and changes nothing: the pool's memory stays the pool's."""
    if backend is None and default.backend is None:
        return False
    background.run(backend_of(backend).flush_cache(), "await backend.flush_cache()")
    return True


def get_server_info(backend: Any = None) -> dict[str, Any] | None:
    """What the backend says of itself (model, cache, counters), or None if there is no backend."""
    if backend is None and default.backend is None:
        return None
    return background.run(backend_of(backend).server_info(), "await backend.server_info()")
