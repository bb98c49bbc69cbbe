"""Flags of `ramify serve` for what `options.py` holds, in groups as its help shows them. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .options import LOG_LEVELS, ServerOptions

# group -> field of ServerOptions -> (metavar or choices, help without the default). A test holds that every field is here.
SERVER_FLAGS: dict[str, dict[str, tuple[str | Sequence[str] | None, str]]] = {
    "listening": {
        "host": ("HOST", "address to listen on; 0.0.0.0 is every one of this machine"),
        "port": ("PORT", "0 takes one that is free"),
        "served_model_name": ("NAME", "what clients call the model (default: the model's own name)"),
        "cors_origins": ("ORIGIN", "a page that browsers let use this server, * is any; may be repeated"),
    },
    "keys": {
        "api_keys": (
            "KEY",
            "who sends it may use the server; may be repeated (default: none, everyone may). Other users of this machine can"
            " read a flag; a file or RAMIFY_API_KEY is safer",
        ),
        "api_key_file": ("FILE", "more keys, one a line; # begins a comment"),
        "admin_api_keys": ("KEY", "for the routes that change the server; may be repeated (default: none, each key may)"),
        "key_concurrency": ("N", "requests that one key may have on their way (default: any number)"),
    },
    "limits": {
        "max_body": ("BYTES", "of a request's body"),
        "header_timeout_s": ("S", "to read a request's headers"),
        "body_timeout_s": ("S", "to read its body"),
        "idle_timeout_s": ("S", "of silence before a connection is closed"),
        "request_timeout_s": ("S", "deadline of a request that names none"),
        "drain_timeout_s": ("S", "to finish what runs after SIGTERM; 0 aborts it at once"),
        "stream_interval": ("N", "tokens that a stream sends at once, after the first: more cost less, and come less smoothly"),
        "output_buffer": ("BYTES", "of a stream that its client has not read, before deltas are merged"),
        "stall_timeout_s": ("S", "without any of it read, before the request is aborted"),
        "max_n": ("N", "samples of a request"),
        "max_prompts": ("N", "prompts of a request"),
        "max_messages": ("N", "messages of a conversation"),
        "max_stop": ("N", "stop strings of a request"),
        "max_stop_bytes": ("BYTES", "of a stop string"),
        "max_logit_bias": ("N", "entries of logit_bias"),
        "max_top_logprobs": ("N", "alternatives a token"),
        "max_tools": ("N", "tools of a request"),
        "lenient_params": (None, "warn of unknown fields in requests, where they would be refused"),
    },
    "logging": {
        "log_level": (LOG_LEVELS, "how much is logged, on stderr"),
        "log_json": (None, "a JSON object a line"),
    },
}
SINGULAR = {"api_keys": "api_key", "admin_api_keys": "admin_api_key", "cors_origins": "cors_origin"}
"""Settings that hold several values, and what one of them is called in a flag, and, if one likes, elsewhere."""


def flag_of(name: str) -> str:
    """The flag for a setting: `max_body` -> `--max-body`, `api_keys` -> `--api-key`. Pure."""
    return "MODEL" if name == "model" else "--" + SINGULAR.get(name, name).replace("_", "-")


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """One flag per field of ServerOptions, with its default. What is not said leaves no attribute."""
    defaults = ServerOptions()
    for title, flags in SERVER_FLAGS.items():
        group = parser.add_argument_group(title)
        for name, (values, text) in flags.items():
            kind, default = ServerOptions.__annotations__[name], getattr(defaults, name)
            shown = text if default in (None, ()) else f"{text} (default: {readable(name, default)})"
            if kind == "bool":
                action = argparse.BooleanOptionalAction
                group.add_argument(flag_of(name), dest=name, action=action, default=argparse.SUPPRESS, help=shown)
                continue
            more: dict[str, Any] = {"metavar": values} if isinstance(values, str) else {"choices": values}
            action = "append" if kind.startswith("tuple") else "store"
            number = int if kind.startswith("int") else float if kind.startswith("float") else str
            group.add_argument(
                flag_of(name), dest=name, type=number, action=action, default=argparse.SUPPRESS, help=shown, **more
            )


def readable(name: str, value: object) -> str:
    """A default as the help shows it: bytes in MiB or KiB, whole seconds without a point. Pure."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name in ("max_body", "output_buffer"):
        return f"{value}, {value // 2**20} MiB" if value >= 2**20 else f"{value}, {value // 2**10} KiB"
    return f"{value:g}" if isinstance(value, float) else str(value)
