"""What the user may say about a server. `resolve.py` takes it from flags, environment and file; each part receives its piece."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from ..config import EngineOptions
from ..errors import InvalidRequest

LOG_LEVELS = ("debug", "info", "warning", "error")
SECRETS = ("api_keys", "admin_api_keys")
"""Settings whose values appear nowhere: not in repr, logs, errors or `--print-config`."""
MOST_KEY_BYTES = 8192
KEY_RULE = f"a key has 1 to {MOST_KEY_BYTES} printable ASCII characters and no space."
_ZERO_IS_MEANT = ("max_stop", "max_logit_bias", "max_top_logprobs", "max_tools")


class ServerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server, beside its engine. Bytes, seconds and counts; None means: off, or choose for me.

    host, port: where to listen; port 0 takes a free one. served_model_name: what clients call the model.
    api_keys: who may use the server; empty: everyone. api_key_file: more of them, one a line. admin_api_keys: who may use
        the routes that change it; empty: whoever may use the server. key_concurrency: requests a key may have on their way.
    max_body: of a request. header_timeout_s, body_timeout_s: to read them. idle_timeout_s: of a silent connection.
    request_timeout_s: deadline of a request that names none. drain_timeout_s: for what runs when the server is told to stop.
    stream_interval: tokens of a sample that a stream sends at once, after the first.
    output_buffer: unread bytes of a stream after which its deltas are merged. stall_timeout_s: and given up.
    max_n, max_prompts, max_messages, max_stop (of max_stop_bytes each), max_logit_bias, max_top_logprobs, max_tools:
        most that one request may hold.
    lenient_params: unknown fields are ignored, with a warning.
    cors_origins: pages that a browser lets use the server; `*` is any. log_level: see LOG_LEVELS. log_json: a JSON object a line.
    """

    host: str = "127.0.0.1"
    port: int = 30000
    served_model_name: str | None = None
    cors_origins: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = ()
    api_key_file: str | None = None
    admin_api_keys: tuple[str, ...] = ()
    key_concurrency: int | None = None
    max_body: int = 32 * 2**20
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 75.0
    request_timeout_s: float = 600.0
    drain_timeout_s: float = 30.0
    stream_interval: int = 1
    output_buffer: int = 256 * 2**10
    stall_timeout_s: float = 30.0
    max_n: int = 128
    max_prompts: int = 256
    max_messages: int = 4096
    max_stop: int = 16
    max_stop_bytes: int = 256
    max_logit_bias: int = 1024
    max_top_logprobs: int = 20
    max_tools: int = 1024
    lenient_params: bool = False
    log_level: str = "info"
    log_json: bool = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            yield name, (Hidden(len(value)) if name in SECRETS else value)


class Hidden(int):
    """So many secrets, as they are shown."""

    def __repr__(self) -> str:
        return f"<{int(self)} hidden>"


class ServeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of `ramify serve`."""

    engine: EngineOptions = EngineOptions()
    server: ServerOptions = ServerOptions()


def is_key(text: str) -> bool:
    """Whether a client could send this as a bearer token: 1 to 8192 printable ASCII characters, no space."""
    return 1 <= len(text) <= MOST_KEY_BYTES and all("!" <= one <= "~" for one in text)


def validate_server(said: ServerOptions) -> None:
    """Refuse what no server could do. Raises InvalidRequest with `param`, and never with a key in its message."""

    def refuse(name: str, what: str) -> InvalidRequest:
        return InvalidRequest(f"{name} {what}", param=name)

    if not said.host or any(one.isspace() for one in said.host):
        raise refuse("host", f"is {said.host!r}; it must be a name or an address, such as 127.0.0.1 or 0.0.0.0.")
    if not 0 <= said.port <= 65535:
        raise refuse("port", f"is {said.port}; it must be 0 (any that is free) to 65535.")
    if said.served_model_name is not None and not (said.served_model_name and said.served_model_name.isprintable()):
        raise refuse("served_model_name", f"is {said.served_model_name!r}; it must be a name that can be printed.")
    for name in SECRETS:
        keys = getattr(said, name)
        wrong = [number for number, key in enumerate(keys, 1) if not is_key(key)]
        if wrong:
            raise refuse(name, f"holds no usable key in place {wrong[0]}: {KEY_RULE}")
    keyed = said.api_keys or said.api_key_file is not None or said.admin_api_keys
    if said.key_concurrency is not None and not keyed:
        raise refuse("key_concurrency", f"is {said.key_concurrency}, but there are no keys. Give api_keys or api_key_file.")
    for origin in said.cors_origins:
        if origin != "*" and ("://" not in origin or origin.endswith("/") or not origin.isprintable() or " " in origin):
            raise refuse("cors_origins", f"holds {origin!r}; an origin is * or, for example, https://example.org (no path).")
    if said.log_level not in LOG_LEVELS:
        raise refuse("log_level", f"{said.log_level!r} is not known. Use one of {', '.join(LOG_LEVELS)}.")
    for name in said.__struct_fields__:
        value = getattr(said, name)
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0 and (value or name == "drain_timeout_s")):
            raise refuse(name, f"is {value}; it must be a number of seconds above 0.")
        least = 0 if name in _ZERO_IS_MEANT else 1
        if isinstance(value, int) and not isinstance(value, bool) and name != "port" and value < least:
            raise refuse(name, f"is {value}; it must be at least {least}.")
