"""Python functions as tools: their definitions from type hints and docstrings, calls of them with checked arguments.

    def weather(city: str, days: int = 1) -> str:          {"name": "weather", "description": "Tells the weather.",
        '''Tells the weather.                                "parameters": {"type": "object", "properties": {
                                                               "city": {"type": "string", "description": "Name of a town."},
        Args:                                                  "days": {"type": "integer", "default": 1}},
            city: Name of a town.                            "required": ["city"], "additionalProperties": false},
        '''                                                  "strict": true}

Types are those of `gen(type=...)` (`typed.py`): an argument arrives as a value of its type, a dataclass as an instance.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..runtime.errors import ConstraintError, InvalidRequest
from ..runtime.protocol import AnswerParams, AnswerRead, ToolCall
from .typed import Typed, label, typed

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ARGUMENTS = re.compile(r"^\s*(?:Args|Arguments|Parameters)\s*:\s*$")
_GOOGLE = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SPHINX = re.compile(r"^\s*:param\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)$")


@dataclass(frozen=True)
class Tool:
    """A function that the model may call. definition: JSON text of OpenAI's form. function: None where only the definition is
    known; then the program makes the call itself. arguments: parameter -> converter."""

    name: str
    definition: str
    function: Callable[..., Any] | None = None
    arguments: Mapping[str, Typed] = field(default_factory=dict, compare=False)

    def bound(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a call as values of the parameters' types. Raises InvalidRequest (`wrong_arguments`)."""
        if unknown := [name for name in arguments if name not in self.arguments]:
            raise _wrong(f"{self.name} has no parameter {unknown[0]!r}; it has {', '.join(self.arguments) or 'none'}.")
        bound = {}
        for name, value in arguments.items():
            try:
                bound[name] = self.arguments[name].parse(json.dumps(value))
            except InvalidRequest as error:
                raise _wrong(f"{self.name}: the argument {name!r} is wrong: {error.message}") from None
        return bound


@dataclass(frozen=True)
class Call:
    """A call that the model made. arguments: as its JSON says; None where that is no JSON object. id: for the answer."""

    name: str
    arguments: dict[str, Any] | None
    id: str = ""
    text: str = ""

    def __str__(self) -> str:
        inside = self.text if self.arguments is None else ", ".join(f"{k}={v!r}" for k, v in self.arguments.items())
        return f"{self.name}({inside})"


@dataclass(frozen=True)
class ToolAnswer:
    """What `gen(tools=...)` gives. text: the words. calls: what is to be called, usually nothing or all there is."""

    text: str
    calls: tuple[Call, ...] = ()
    reasoning: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class ToolUse:
    """The tools of one call of the model, and how they may be used."""

    tools: tuple[Tool, ...]
    params: AnswerParams

    @property
    def definitions(self) -> tuple[str, ...]:
        """For the chat template."""
        return tuple(tool.definition for tool in self.tools)


# ------------------------------------------------------------------------------------------------------- definitions


def tools_of(given: Iterable[Any]) -> tuple[Tool, ...]:
    """Tools of what `tools=` was given: functions, definitions as dicts or their JSON text, and Tools. Raises ConstraintError
    (`unsupported_type`) or InvalidRequest (`invalid_tools`)."""
    tools = tuple(_tool(one) for one in given)
    for index, tool in enumerate(tools):
        if not _NAME.fullmatch(tool.name):
            raise _invalid(f"A tool's name is {tool.name[:64]!r}; it must have 1 to 64 letters, digits, _ or -.")
        if tool.name in [other.name for other in tools[:index]]:
            raise _invalid(f"Two tools are called {tool.name!r}.")
    return tools


def _tool(given: Any) -> Tool:
    if isinstance(given, Tool):
        return given
    if isinstance(given, (str, Mapping)):
        try:
            definition = json.loads(given) if isinstance(given, str) else dict(given)
            name = definition.get("function", definition)["name"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _invalid(f"A tool's definition has no function with a name: {str(given)[:100]}.") from None
        return Tool(str(name), json.dumps(definition, ensure_ascii=False))
    if callable(given):
        return tool_of(given)
    raise _invalid(f"A tool is a {type(given).__name__}. Give a function, or a definition as a dict.")


def tool_of(function: Callable[..., Any]) -> Tool:
    """The tool of a function. Raises ConstraintError (`unsupported_type`): a parameter without a type hint, or of a type that
    has no exact schema; *args and **kwargs."""
    name = getattr(function, "__name__", type(function).__name__)
    description, about = described(inspect.getdoc(function) or "")
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except NameError as error:
        raise _unsupported(name, f"{error}; define the types it names at the top of a module") from None
    properties: dict[str, Any] = {}
    required: list[str] = []
    shared: dict[str, Any] = {}
    converters: dict[str, Typed] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise _unsupported(name, f"the parameter {parameter} cannot be given by name")
        if parameter.name not in hints:
            raise _unsupported(name, f"the parameter {parameter.name!r} has no type hint")
        converter = converters[parameter.name] = typed(hints[parameter.name])
        schema = json.loads(converter.schema)
        for key, definition in schema.pop("$defs", {}).items():
            if shared.setdefault(key, definition) != definition:
                raise _unsupported(name, f"two of its types are called {key!r}")
        properties[parameter.name] = _annotated(schema, about.get(parameter.name), parameter.default)
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if shared:
        parameters["$defs"] = shared
    said = {"name": name, **({"description": description} if description else {}), "parameters": parameters, "strict": True}
    definition = {"type": "function", "function": said}
    return Tool(name, json.dumps(definition, ensure_ascii=False), function, converters)


def _annotated(schema: dict[str, Any], about: str | None, default: Any) -> dict[str, Any]:
    if about:
        schema["description"] = about
    if default is not inspect.Parameter.empty and isinstance(default, (str, int, float, bool, list, type(None))):
        schema["default"] = default
    return schema


def described(docstring: str) -> tuple[str, dict[str, str]]:
    """A docstring's description (its first paragraph), and what it says of parameters, in Google's or Sphinx' form. Pure."""
    lines = docstring.splitlines()
    ends = (i for i, line in enumerate(lines) if not line.strip() or _SPHINX.match(line) or _ARGUMENTS.match(line))
    words = [line.strip() for line in lines[: next(ends, len(lines))]]
    about: dict[str, list[str]] = {}
    current: list[str] | None = None
    indent: int | None = None  # of the entries, within a section of arguments
    inside = False
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if sphinx := _SPHINX.match(line):
            current = about.setdefault(sphinx[1], [sphinx[2]])
        elif _ARGUMENTS.match(line):
            inside, indent, current = True, None, None
        elif not line.strip() or (inside and depth == 0):
            inside, current = inside and not line.strip(), None
        elif inside and (indent is None or depth <= indent) and (entry := _GOOGLE.match(line.strip())):
            indent = depth
            current = about.setdefault(entry[1], [entry[2]])
        elif current is not None:
            current.append(line.strip())
    return " ".join(words).strip(), {name: " ".join(filter(None, parts)) for name, parts in about.items()}


# -------------------------------------------------------------------------------------------------------------- use


def tool_use(given: Sequence[Any], choice: Any, parallel: bool | None) -> ToolUse:
    """What `gen(tools=, tool_choice=, parallel_tool_calls=)` says. choice: auto, none, required, a function or its name.
    Raises InvalidRequest (`invalid_tools`)."""
    tools = tools_of(given)
    several = parallel is not False
    if choice in ("auto", "required", "none", None):
        if choice == "required" and not tools:
            raise _invalid("tool_choice is required, and there are no tools.")
        mode = choice or "auto"
        return ToolUse(tools, AnswerParams(mode if tools else "none", (), several, reasoning=True))
    name = choice if isinstance(choice, str) else getattr(choice, "name", getattr(choice, "__name__", None))
    if name not in [tool.name for tool in tools]:
        raise _invalid(f"tool_choice is {name!r}, which is none of the tools, nor auto, required or none.")
    return ToolUse(tools, AnswerParams("required", (str(name),), False, reasoning=True))


def answer_of(read: AnswerRead) -> ToolAnswer:
    """What the backend read, as the program's value."""
    return ToolAnswer(read.content, tuple(map(_call, read.calls)), read.reasoning)


def _call(said: ToolCall) -> Call:
    try:
        arguments = json.loads(said.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    return Call(said.name, arguments if isinstance(arguments, dict) else None, said.id, said.arguments)


def prepared(call: Call, tools: Sequence[Tool]) -> Callable[[], Any]:
    """The function of a call with its arguments, not yet called. Raises InvalidRequest for a call that cannot be made."""
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None or tool.function is None:
        known = ", ".join(tool.name for tool in tools if tool.function is not None) or "none"
        raise _wrong(f"There is no function {call.name[:64]!r}; there are: {known}.")
    if call.arguments is None:
        raise _wrong(f"The arguments of {call.name} are not a JSON object: {call.text[:100]}.")
    function, bound = tool.function, tool.bound(call.arguments)
    return lambda: function(**bound)


def result_text(value: Any) -> str:
    """What a function returned, as the model reads it: text as it is, everything else as JSON, or else as `str` has it."""
    if isinstance(value, str):
        return value
    if hasattr(value, "model_dump_json"):
        return str(value.model_dump_json())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def error_text(error: BaseException) -> str:
    """An error of a function, as the model reads it."""
    return f"Error: {error.message if isinstance(error, InvalidRequest) else f'{type(error).__name__}: {error}'}"


def _wrong(text: str) -> InvalidRequest:
    return InvalidRequest(text, code="wrong_arguments")


def _invalid(text: str) -> InvalidRequest:
    return InvalidRequest(text, code="invalid_tools", param="tools")


def _unsupported(name: str, why: str) -> ConstraintError:
    return ConstraintError(f"{label(name)} cannot be a tool: {why}.", code="unsupported_type", param="tools")
