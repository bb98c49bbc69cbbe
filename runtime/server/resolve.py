"""What the user said, in flags, `RAMIFY_*` variables and a file, as one tree, and where each value came from. Pure.

Order: defaults < file < environment < flags. A name is a field of EngineOptions or ServerOptions: `kv_tokens` is the flag
`--kv-tokens`, the variable `RAMIFY_KV_TOKENS` and the key `kv-tokens` (or `kv_tokens`) of the file.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from ..config import EngineOptions, validate
from ..errors import InvalidRequest
from .flags import SINGULAR, flag_of
from .options import SECRETS, ServeConfig, ServerOptions, validate_server

PREFIX = "RAMIFY_"
CONFIG_VARIABLE = "RAMIFY_CONFIG"
"""Names the file, as `--config` does; the one variable that is no setting."""
DEFAULT = "default"
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a text or a list of texts"}


class Resolved(NamedTuple):
    """origins: setting -> `default`, a flag, a variable, or FILE:key."""

    config: ServeConfig
    origins: dict[str, str]


class Said(NamedTuple):
    """A setting's value, typed, and where it was said."""

    value: Any
    origin: str


def resolve_serve(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Mapping[Any, Any], *, file_name: str = "the file"
) -> Resolved:
    """The whole configuration. flags: by setting, only what was said. environ: any; the `RAMIFY_*` variables count.
    file: its keys. Raises InvalidRequest that names the place, and never a key's value."""
    said: dict[str, Said] = {}
    said.update(_from_file(file, file_name))
    said.update(_from_environment(environ))
    said.update((name, _typed(name, value, flag_of(name))) for name, value in flags.items())
    origins = {name: said[name].origin if name in said else DEFAULT for name in kinds()}
    engine = {name: said[name].value for name in EngineOptions.__struct_fields__ if name in said}
    server = {name: said[name].value for name in ServerOptions.__struct_fields__ if name in said}
    config = ServeConfig(EngineOptions(**engine), ServerOptions(**server))
    try:
        validate(config.engine)
        validate_server(config.server)
    except InvalidRequest as error:
        place = origins.get(error.param or "", DEFAULT)
        text = error.message if place == DEFAULT else f"{place}: {error.message}"
        raise InvalidRequest(text, code=error.code, param=error.param) from None
    return Resolved(config, origins)


@cache
def kinds() -> dict[str, Any]:
    """Setting -> its type, of the engine first."""
    return {name: get_type_hints(one)[name] for one in (EngineOptions, ServerOptions) for name in one.__struct_fields__}


@cache
def spellings() -> dict[str, str]:
    """How a setting may be spelled -> its name: itself, and the singular of one that holds several values."""
    return {**{name: name for name in kinds()}, **{one: many for many, one in SINGULAR.items()}}


def _from_file(file: Mapping[Any, Any], file_name: str) -> Iterator[tuple[str, Said]]:
    seen: dict[str, Any] = {}
    for key, value in file.items():
        name = spellings().get(str(key).replace("-", "_"))
        if name is None:
            known = [one.replace("_", "-") for one in spellings()]
            raise _unknown(f"{file_name} has the key {_short(str(key))}, which is", str(key).replace("_", "-"), known)
        if name in seen:
            text = f"{file_name} says {seen[name]} and {key}, which are one setting. Leave one of them."
            raise InvalidRequest(text, param=name)
        seen[name] = key
        yield name, _typed(name, value, f"{file_name}:{key}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Said]]:
    known = {PREFIX + one.upper(): name for one, name in spellings().items()}
    seen: dict[str, str] = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        name = known.get(variable)
        if name is None:
            raise _unknown(f"The variable {_short(variable)} is", variable, [*known, CONFIG_VARIABLE])
        if name in seen:
            text = f"{seen[name]} and {variable} are one setting. Unset one of them."
            raise InvalidRequest(text, param=name)
        seen[name] = variable
        if not value.strip():
            raise InvalidRequest(f"{variable} is empty. Give it a value, or unset it.", param=name)
        several = get_origin(kinds()[name]) is tuple
        yield name, _typed(name, [one.strip() for one in value.split(",")] if several else value, variable)


def _typed(name: str, value: Any, origin: str) -> Said:
    kind = kinds()[name]
    if get_origin(kind) is tuple and isinstance(value, str):
        value = [value]
    try:
        return Said(msgspec.convert(value, kind, strict=False), origin)
    except (msgspec.ValidationError, ValueError):
        shown = "" if name in SECRETS else f"is {_short(repr(value))}; it "
        raise InvalidRequest(f"{origin} {shown}must be {_words(kind)}.", param=name) from None


def _words(kind: Any) -> str:
    """What a type is called: `int | None` -> a whole number, or null."""
    if isinstance(kind, types.UnionType):
        return f"{_words(get_args(kind)[0])}, or null"
    return _WORDS[get_origin(kind) or kind]


def _unknown(what: str, word: str, known: list[str]) -> InvalidRequest:
    near = difflib.get_close_matches(word, known, 1)
    return InvalidRequest(f"{what} not known. {f'Did you mean {near[0]}?' if near else 'See: ramify serve --help.'}")


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
