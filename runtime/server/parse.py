"""JSON bodies to structs, or an error that says where and why. Pure.

The fast path is one strict decode. What it refuses is looked at again, slowly, to say which field it was and what to do.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import Any, TypeVar

import msgspec

from ..errors import InvalidRequest

T = TypeVar("T", bound=msgspec.Struct)

# What is wrong with a field, in one word; for others the word follows from the type that was expected.
CODES = {
    "messages": "invalid_messages",
    "prompt": "invalid_prompt",
    "input_ids": "invalid_token_id",
    "tokens": "invalid_token_id",
    "stop_token_ids": "invalid_token_id",
    "token_ids_logprob": "invalid_token_id",
    "stop": "invalid_stop",
    "stop_regex": "invalid_stop",
    "logit_bias": "invalid_logit_bias",
    "logprobs": "invalid_logprobs",
    "top_logprobs": "invalid_logprobs",
    "response_format": "invalid_response_format",
    "structured_outputs": "invalid_response_format",
    "tools": "invalid_tools",
    "tool_choice": "invalid_tools",
    "cache_salt": "invalid_cache_salt",
}
_AT = re.compile(r"^(.*?)(?: - at `\$([^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_BYTE = re.compile(r"\(byte (\d+)\)")
_NOT_A_NUMBER = re.compile(rb"-?(?:NaN|Infinity)")


@cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


@cache
def _without_refusals(kind: type[Any]) -> type[Any]:
    """The same struct, which ignores what it does not know."""
    return msgspec.defstruct(kind.__name__, [], bases=(kind,), kw_only=True, forbid_unknown_fields=False)


def decode(body: bytes, kind: type[T], ignored: list[str] | None = None) -> T:
    """The body as `kind`. Raises InvalidRequest with one of the codes of docs/server.md.

    ignored: fields that `kind` does not know are added to it, where they would be refused without it.
    """
    try:
        return _decoder(kind).decode(body)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The body is not valid UTF-8: {error}.", code="invalid_unicode") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply to be read.", code="invalid_json") from None
    except msgspec.ValidationError as error:
        refusal = validation_error(str(error), kind)
        if ignored is None or refusal.code != "unknown_parameter":
            raise refusal from None
    except msgspec.DecodeError as error:
        raise malformed(body, str(error)) from None
    known = {field.name for field in msgspec.structs.fields(kind)}
    ignored += [name for name in msgspec.json.decode(body, type=dict[str, msgspec.Raw]) if name not in known]
    return decode(body, _without_refusals(kind))


def convert(value: Any, kind: type[T], at: str) -> T:
    """A part of a body, already plain values, as `kind`. at: its name, for the message. Raises InvalidRequest."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise validation_error(str(error), kind, at) from None


def decode_part(raw: msgspec.Raw, at: str) -> Any:
    """A raw part of a body as plain values. Raises InvalidRequest."""
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise InvalidRequest(f"{at} is nested too deeply to be read.", code="invalid_json", param=at) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed(bytes(raw), str(error)) from None


def malformed(body: bytes, reason: str) -> InvalidRequest:
    """What is wrong with a text that is not JSON. Answers only."""
    if not body.strip():
        return InvalidRequest("The body is empty. Send a JSON object.", code="invalid_json")
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return InvalidRequest("The body begins with a byte order mark. Send plain UTF-8.", code="invalid_unicode")
    found = _BYTE.search(reason)
    at = int(found[1]) if found else None
    if at is not None and _NOT_A_NUMBER.match(body, at):
        return InvalidRequest(f"JSON has no NaN and no Infinity (byte {at}). Send a number.", code="invalid_number")
    if b"\\u" in body and lone_surrogate(body):
        return InvalidRequest(
            "The body has a lone surrogate (\\ud800 to \\udfff). Send whole characters.", code="invalid_unicode"
        )
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        return InvalidRequest(f"The body is not valid UTF-8: {error}.", code="invalid_unicode")
    if reason.startswith("Number out of range"):
        return InvalidRequest(f"A number is too large to be read: {reason}.", code="invalid_number")
    return InvalidRequest(f"The body is not valid JSON: {reason}.", code="invalid_json")


_ESCAPES = re.compile(rb"\\\\|\\u([0-9a-fA-F]{4})(?:\\u([0-9a-fA-F]{4}))?")


def lone_surrogate(body: bytes) -> bool:
    """Whether an escape sequence spells half a character. Linear."""
    at = 0
    while found := _ESCAPES.search(body, at):
        at = found.end()
        if found[1] is None:
            continue
        high = int(found[1], 16)
        if 0xD800 <= high < 0xDC00:
            if found[2] is None or not 0xDC00 <= int(found[2], 16) < 0xE000:
                return True
        elif 0xDC00 <= high < 0xE000:
            return True
        elif found[2] is not None:
            at = found.start(2) - 2
    return False


def validation_error(reason: str, kind: type[Any], at: str = "") -> InvalidRequest:
    """A refusal of msgspec's in our words. kind: what was expected; at: its own name where it is part of a body."""
    matched = _AT.match(reason)
    assert matched is not None
    what, path = matched[1], (matched[2] or "").lstrip(".")
    param = ".".join(part for part in (at, path) if part) or None
    field = re.split(r"[.\[]", path or param or "", maxsplit=1)[0]
    if unknown := _UNKNOWN.match(what):
        return unknown_field(unknown[1], kind, at)
    if missing := _MISSING.match(what):
        name = f"{param}.{missing[1]}" if param else missing[1]
        code = CODES.get(field, "missing_required_parameter") if param else "missing_required_parameter"
        return InvalidRequest(f"{name} is missing. It is required.", code=code, param=name)
    if "out of range" in what:
        code = "invalid_number" if what.startswith("Number") else "invalid_json"
        return InvalidRequest(f"{param or 'The body'} is a number too large to be read.", code=code, param=param)
    text = what[0].lower() + what[1:].replace(" | null", "").replace("`", "")
    is_number = re.search(r"[Ee]xpected `(int|float)", what) is not None
    code = CODES.get(field, "out_of_range" if is_number else "invalid_type")
    if param is None:
        return InvalidRequest(f"The body must be a JSON object: {text}.", code="invalid_json")
    return InvalidRequest(f"{param} has the wrong type: {text}.", code=code, param=param)


def unknown_field(name: str, kind: type[Any], at: str = "") -> InvalidRequest:
    """A name that no field has, with the nearest one that exists."""
    known = [field.name for field in msgspec.structs.fields(kind)]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    where = f" in {at}" if at else ""
    shown = name if len(name) <= 64 else name[:61] + "..."
    return InvalidRequest(f"There is no parameter {shown!r}{where}.{hint}", code="unknown_parameter", param=shown)
