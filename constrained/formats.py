"""The string formats of JSON Schema as regexes of `regex.py`, each a subset of what the format allows.

A subset, because RFCs allow more than anyone means (quoted local parts, leap seconds), and because what is produced has to pass
the strictest validator: dates exist (29 February is left out), times have an offset, hosts have a dot. And few counts: each
unit of a count is a state of the automaton, and an engine computes a mask for each state.
"""

from __future__ import annotations

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_GROUP = r"[0-9a-f]{1,4}"
_LABEL = r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,15}"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,2}}\.[A-Za-z]{{2,6}}"
_DATE = (
    r"[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_OFFSET = r"(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
_URI = rf"(?:https?|ftp)://{_HOST}(?::[1-9][0-9]{{0,3}})?(?:/[A-Za-z0-9._~/=&+-]*)?"
_EMAIL = rf"[A-Za-z0-9](?:[._+-]?[A-Za-z0-9]){{0,23}}@{_HOST}"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-{version}[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"

STRING_FORMATS: dict[str, str] = {
    "date": _DATE,
    "time": _CLOCK + _OFFSET,
    "date-time": f"{_DATE}T{_CLOCK}{_OFFSET}",
    "duration": r"P(?:[0-9]{1,4}W|(?:[0-9]{1,4}D)(?:T[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?)?"
    r"|T(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S))",
    "email": _EMAIL,
    "hostname": _HOST,
    "ipv4": rf"{_OCTET}(?:\.{_OCTET}){{3}}",
    "ipv6": rf"(?:{_GROUP}:){{7}}{_GROUP}|(?:{_GROUP}:){{1,3}}(?::{_GROUP}){{1,4}}|::(?:{_GROUP}(?::{_GROUP}){{0,5}})?",
    "uri": _URI,
    "uri-reference": _URI,
    "iri": _URI,
    "iri-reference": _URI,
    "uuid": _UUID.replace("{version}", "[1-5]"),
    "json-pointer": r"(?:/[A-Za-z0-9._-]+)*",
    "relative-json-pointer": r"(?:0|[1-9][0-9]{0,3})(?:#|(?:/[A-Za-z0-9._-]+)*)",
    "idn-email": _EMAIL,
    "idn-hostname": _HOST,
    "byte": r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?",
} | {f"uuid{version}": _UUID.replace("{version}", str(version)) for version in (1, 3, 4, 5)}
"""format -> regex of the whole string. `byte` (base64) is OpenAPI's, `uuid1` to `uuid5` are pydantic's."""

NUMBER_FORMATS: dict[str, tuple[int, int] | None] = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "float": None,
    "double": None,
}
"""OpenAPI's formats of numbers: bounds, or None where every number that is generated fits."""

ANNOTATING_FORMATS = frozenset("password path file-path directory-path binary textarea color phone markdown".split())
"""Formats that say how to show or store a value; no specification defines which strings they allow."""
