"""The chat template of the bundled model, as Jinja for the checkpoint and as Python for the training text.

Both write the same characters (a test holds them equal), and rendering is append-only: what the first k messages
render to is a prefix of what all of them render to, so a conversation never invalidates a cached prefix.
"""

from __future__ import annotations

import json
from typing import Any

END_OF_TEXT, TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CALL, END_OF_CALL = "<tool_call>", "</tool_call>"

TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}{{ content }}
{%- elif content is iterable -%}{%- for part in content -%}{{ part.text }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set first = messages[0] if messages else none -%}
{%- set system = first is not none and first.role == 'system' -%}
{%- if system or tools -%}
{{- '<|im_start|>system\\n' -}}
{%- if system -%}{{- text(first.content) -}}{%- endif -%}
{%- if tools -%}
{%- if system -%}{{- '\\n\\n' -}}{%- endif -%}
{{- 'Tools:' -}}
{%- for tool in tools -%}
{%- set function = tool.function if tool.function is defined else tool -%}
{{- '\\n' + function.name + '(' -}}
{%- if function.parameters is defined and function.parameters.properties is defined -%}
{%- for key in function.parameters.properties -%}
{{- key + ': ' + (function.parameters.properties[key].type | default('any') | string) -}}
{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- ')' -}}
{%- if function.description is defined and function.description -%}{{- ': ' + function.description -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if not (loop.first and system) -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- set content = text(message.content) -%}
{{- content -}}
{%- if message.tool_calls -%}
{%- for call in message.tool_calls -%}
{%- set function = call.function if call.function is defined else call -%}
{%- if content or not loop.first -%}{{- '\\n' -}}{%- endif -%}
{{- '<tool_call>\\n{"name": "' + function.name + '", "arguments": ' -}}
{%- if function.arguments is string -%}{{- function.arguments -}}{%- else -%}{{- function.arguments | tojson -}}{%- endif -%}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def body(message: dict[str, Any]) -> str:
    """What stands in a message's turn, without the marks around it."""
    parts = [message["content"]] if message.get("content") else []
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        arguments = function["arguments"]
        arguments = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        parts.append(f'{CALL}\n{{"name": "{function["name"]}", "arguments": {arguments}}}\n{END_OF_CALL}')
    return "\n".join(parts)


def tool_lines(tools: list[dict[str, Any]]) -> str:
    """A signature and a description a line: a fifth of the tokens of their JSON."""
    lines = ["Tools:"]
    for tool in tools:
        function = tool.get("function", tool)
        properties = function.get("parameters", {}).get("properties", {})
        signature = ", ".join(f"{key}: {value.get('type', 'any')}" for key, value in properties.items())
        description = f": {function['description']}" if function.get("description") else ""
        lines.append(f"{function['name']}({signature}){description}")
    return "\n".join(lines)


def segments(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> list[tuple[str, bool]]:
    """The rendered conversation in pieces; True: the assistant writes this piece."""
    pieces: list[tuple[str, bool]] = []
    rest = messages
    if tools or (messages and messages[0]["role"] == "system"):
        system = [messages[0]["content"]] if messages and messages[0]["role"] == "system" else []
        rest = messages[len(system):]
        text = "\n\n".join(system + ([tool_lines(tools)] if tools else []))
        pieces.append((f"{TURN}system\n{text}{END_OF_TURN}\n", False))
    for message in rest:
        pieces.append((f"{TURN}{message['role']}\n", False))
        pieces.append((body(message) + END_OF_TURN, message["role"] == "assistant"))
        pieces.append(("\n", False))
    return pieces


def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, *,
           add_generation_prompt: bool = False) -> str:
    """The conversation as the template writes it."""
    text = "".join(piece for piece, _ in segments(messages, tools))
    return text + (f"{TURN}assistant\n" if add_generation_prompt else "")
