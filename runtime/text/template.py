"""Messages to text: the model's own chat template in a sandboxed Jinja environment.

The environment is the one that templates on the Hugging Face hub are written for (`raise_exception`, `strftime_now`,
`tojson` without HTML escapes, loop controls, `{% generation %}`). Templates come with checkpoints and are not trusted: the
sandbox forbids Python's internals and mutation, `range` is bounded by it, and a time limit is checked at every output.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import InvalidRequest, ModelError
from .pieces import CUT
from .tokenizer import read_json

MAX_MESSAGES = 4096
RENDER_LIMIT_S = 1.0
_RESERVED_NAMES = (
    *("messages", "tools", "chat_template", "tokenize", "add_generation_prompt", "continue_final_message"),
    "self",  # no template has it, and no method takes it
)
_REASONING = ("reasoning_content", "thinking", "reasoning")


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks what a model would say, for training; here it changes nothing."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment(now: Callable[[], datetime]) -> ImmutableSandboxedEnvironment:
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    env.filters["tojson"] = _tojson
    env.globals["raise_exception"] = _raise_exception
    env.globals["strftime_now"] = lambda form: now().strftime(form)
    return env


class ChatTemplate:
    """The chat templates of a model: usually one, sometimes a second one that is used when there are tools."""

    def __init__(
        self,
        sources: Mapping[str, str],
        variables: Mapping[str, str],
        *,
        origin: str = "this model",
        now: Callable[[], datetime] = datetime.now,
        limit_s: float = RENDER_LIMIT_S,
    ):
        """sources: name -> Jinja source ("default", "tool_use", ...), may be empty. variables: `Tokenizer.named`.
        origin: where it was looked for, for messages. now: the clock of templates that write the date.
        limit_s: processor time that one rendering may take.
        Raises ModelError where a source is not Jinja."""
        env = _environment(now)
        self.variables = dict(variables)
        self.source = "\n".join(sources.values())
        self._origin = origin
        self._limit_s = limit_s
        self._templates = {name: _compile(env, name, source, origin) for name, source in sources.items()}

    @classmethod
    def load(cls, folder: str | Path, variables: Mapping[str, str]) -> ChatTemplate:
        """From chat_template.jinja (and additional_chat_templates/), else from tokenizer_config.json; none is no error."""
        folder = Path(folder)
        configured = read_json(folder / "tokenizer_config.json").get("chat_template")
        if isinstance(configured, str):
            sources = {"default": configured}
        else:
            try:
                sources = {entry["name"]: entry["template"] for entry in configured or []}
            except (KeyError, TypeError) as error:
                text = f"{folder}/tokenizer_config.json: chat_template is neither a text nor a list of templates with a name."
                raise ModelError(f"{text} Fetch the file again.") from error
        files = {"default": folder / "chat_template.jinja"}
        files |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
        sources |= {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.is_file()}
        return cls(sources, variables, origin=str(folder))

    @property
    def available(self) -> bool:
        """Whether the model has a chat template at all."""
        return bool(self._templates)

    @cached_property
    def space_before_answers(self) -> bool:
        """Whether the template writes a space between its generation prompt and an answer: then a model begins its answer
        with that space, which is not part of the answer's content."""
        asked, said = {"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}
        try:
            prompt = self.render([asked], add_generation_prompt=True)
            return self.render([asked, said]).startswith(prompt + " answer")
        except InvalidRequest:  # a template with demands of its own
            return False

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        **variables: Any,
    ) -> str:
        """The conversation as text. messages: role, content, tool_calls, ...; tools: tool definitions.

        continue_final_message: the text ends with the last message's content, left open. variables: for the template.
        Raises InvalidRequest: no_chat_template; invalid_messages with the template's own words; not_allowed for a
        variable that is not the caller's to set.
        """
        template = self._choose(tools)
        _check(messages, variables)
        turns = [_with_reasoning(message) for message in messages]
        if continue_final_message:
            # The space tells afterwards whether the template strips its messages.
            turns[-1] = {**turns[-1], "content": str(turns[-1].get("content") or "") + CUT + " "}
        text = _run(
            template,
            {
                **self.variables,
                **variables,
                "messages": turns,
                "tools": list(tools) if tools else None,
                "documents": None,
                "add_generation_prompt": add_generation_prompt,
            },
            self._limit_s,
        )
        return _cut_open(text) if continue_final_message else text

    def _choose(self, tools: Sequence[Any] | None) -> jinja2.Template:
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        template = self._templates.get(name)
        if template is None:
            have = f"only templates named {', '.join(sorted(self._templates))}" if self._templates else "no chat template"
            raise InvalidRequest(
                f"The model has {have} (looked in {self._origin}). Put a chat_template.jinja beside its tokenizer.json, or "
                "send a plain text prompt instead of messages.",
                code="no_chat_template",
            )
        return template


def _compile(env: ImmutableSandboxedEnvironment, name: str, source: str, origin: str) -> jinja2.Template:
    try:
        return env.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ModelError(
            f"The chat template {name!r} of {origin} is not valid Jinja: line {error.lineno}: {error.message}"
        ) from None


def _check(messages: Sequence[Any], variables: Mapping[str, Any]) -> None:
    if not messages:
        raise InvalidRequest("The conversation has no messages. Send at least one.", code="invalid_messages", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise InvalidRequest(
            f"The conversation has {len(messages)} messages, more than the {MAX_MESSAGES} that are rendered. Shorten it.",
            code="invalid_messages",
            param="messages",
        )
    check_variables(variables)


def check_variables(variables: Mapping[str, Any], param: str = "template_kwargs") -> None:
    """Raises InvalidRequest (not_allowed) for a variable that is not the caller's to set. param: what he calls them."""
    if forbidden := sorted(set(variables) & set(_RESERVED_NAMES)):
        text = f"The template variable {forbidden[0]!r} cannot be set by a request. Use the request's own fields."
        raise InvalidRequest(text, code="not_allowed", param=param)


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """Reasoning is passed under three names; templates read `reasoning_content`, or `thinking`. None means absent."""
    given = {key: value for key, value in message.items() if value is not None}
    reasoning = next((given[name] for name in _REASONING if name in given), None)
    return given if reasoning is None else {"thinking": reasoning, **given, "reasoning_content": reasoning}


def _run(template: jinja2.Template, context: dict[str, Any], limit_s: float) -> str:
    """Renders piece by piece, so that a template which never ends is stopped at its next output."""
    deadline = time.thread_time() + limit_s
    parts: list[str] = []
    try:
        for part in template.generate(context):
            parts.append(part)
            if time.thread_time() > deadline:
                raise InvalidRequest(
                    f"The chat template needed more than {limit_s:g} s of processor time. Shorten the conversation.",
                    code="invalid_messages",
                    param="messages",
                )
    except InvalidRequest:
        raise
    except jinja2.TemplateError as error:
        raise InvalidRequest(
            f"The model's chat template refused the conversation: {error.message or type(error).__name__}",
            code="invalid_messages",
            param="messages",
        ) from None
    except Exception as error:  # whatever a template does with values that it did not expect
        raise InvalidRequest(
            f"The model's chat template cannot render the conversation: {type(error).__name__}: {error}",
            code="invalid_messages",
            param="messages",
        ) from None
    return "".join(parts)


def _cut_open(text: str) -> str:
    at = text.rfind(CUT)
    if at < 0:
        raise InvalidRequest(
            "The last message cannot be continued: the model's chat template does not write its content.",
            code="invalid_messages",
            param="messages",
        )
    stripped = not text.startswith(" ", at + 1)
    return text[:at].rstrip() if stripped else text[:at]
