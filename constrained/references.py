"""References of a schema as JSON pointers from its root: identifiers, anchors and nested bases resolved, nothing fetched.

After `localised` a `$ref` that begins with `#` is a pointer from the root. One that names something else is left as it was
written; `target` refuses it when, and only when, it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urldefrag, urljoin

from ..runtime.errors import ConstraintError
from .keywords import escaped

_VALUES = frozenset(("enum", "const", "default", "example", "examples"))
"""Keywords whose values are no schemas."""
_MAPS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"))
"""Keywords that hold schemas by name: their own keys are no keywords."""
_ROOT = "ramify:root"
"""The base of a schema that names none; `urljoin` leaves what follows it alone."""

DRAFTS = {"draft-04": 4, "draft-06": 6, "draft-07": 7, "draft/2019-09": 2019, "draft/2020-12": 2020}


def draft_of(schema: Any) -> int:
    """4, 6, 7, 2019 or 2020, as the root's `$schema` says; 2020 without one."""
    named = schema.get("$schema") if isinstance(schema, dict) else None
    return next((draft for key, draft in DRAFTS.items() if isinstance(named, str) and key in named), 2020)


def localised(schema: Any) -> Any:
    """`schema` with `$ref`s rewritten to pointers from its root. Up to draft 7 what stands beside a `$ref` means nothing and is
    left out. `$dynamicRef` and `$recursiveRef` become a `$ref` where they can only lead to one place. Pure."""
    if not isinstance(schema, dict):
        return schema
    old = draft_of(schema) <= 7
    named: dict[str, str] = {}
    dynamic: dict[str, list[str]] = {}
    recursive = 0
    for pointer, base, item in _schemas(schema, "", _ROOT, old):
        named.setdefault(base, pointer)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(item.get(keyword), str):
                named.setdefault(f"{base}#{item[keyword]}", pointer)
        identifier = _identifier(item)
        if old and identifier.startswith("#"):
            named.setdefault(base + identifier, pointer)
        if isinstance(item.get("$dynamicAnchor"), str):
            dynamic.setdefault(item["$dynamicAnchor"], []).append(pointer)
        recursive += item.get("$recursiveAnchor") is True

    def pointer_of(reference: str, base: str) -> str | None:
        target, fragment = urldefrag(reference if base == _ROOT and reference.startswith("#") else urljoin(base, reference))
        target = target or base
        if f"{target}#{fragment}" in named:
            return "#" + quote(named[f"{target}#{fragment}"], safe="/~$")
        if target in named and (not fragment or fragment.startswith("/")):
            return "#" + quote(named[target], safe="/~$") + ("" if fragment == "/" and target == _ROOT else fragment)
        return None

    def rewritten(item: Any, base: str, *, holds: bool) -> Any:
        if isinstance(item, list):
            return [rewritten(part, base, holds=False) for part in item]
        if not isinstance(item, dict):
            return item
        if holds:
            return {name: rewritten(part, base, holds=False) for name, part in item.items()}
        reference = item.get("$ref")
        if old and isinstance(reference, str):
            kept = {key: item[key] for key in item if key in ("$defs", "definitions")}
            item = {"$ref": reference, **kept}
        base = _base_of(item, base, old)
        found = {}
        for key, part in item.items():
            if key == "$ref" and isinstance(part, str):
                found[key] = pointer_of(part, base) or part
            elif key == "$dynamicRef" and (one := _only(dynamic, part, pointer_of(part, base))):
                found["$ref"] = one
            elif key == "$recursiveRef" and part == "#" and recursive <= 1:
                found["$ref"] = "#" + quote(named[base], safe="/~$")
            else:
                found[key] = part if key in _VALUES else rewritten(part, base, holds=key in _MAPS)
        return found

    return rewritten(schema, _ROOT, holds=False)


def _only(dynamic: dict[str, list[str]], reference: Any, pointer: str | None) -> str | None:
    """Where a `$dynamicRef` leads when no other place has its anchor, so that the way here does not matter."""
    places = dynamic.get(str(reference).partition("#")[2], [])
    return pointer if pointer is not None and len(places) <= 1 else None


def _identifier(item: dict[str, Any]) -> str:
    found = item.get("$id", item.get("id"))
    return found if isinstance(found, str) else ""


def _base_of(item: dict[str, Any], base: str, old: bool) -> str:
    """The base of what is inside `item`."""
    identifier = _identifier(item)
    if not identifier or identifier.startswith("#") or (old and "$ref" in item):
        return base
    return urldefrag(urljoin(base, identifier))[0]


def _schemas(item: Any, pointer: str, base: str, old: bool, *, holds: bool = False) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every object that may be a schema: (pointer, base inside it, itself)."""
    if isinstance(item, dict):
        if not holds:
            if pointer == "" and (own := _base_of(item, base, old)) != base:
                yield pointer, base, {}  # the root is also what an empty base names
                base = own
            else:
                base = _base_of(item, base, old)
            yield pointer, base, item
        for key, part in item.items():
            if holds or key not in _VALUES:
                yield from _schemas(part, f"{pointer}/{escaped(key)}", base, old, holds=not holds and key in _MAPS)
    elif isinstance(item, list):
        for index, part in enumerate(item):
            yield from _schemas(part, f"{pointer}/{index}", base, old)


def target(root: Any, reference: str, pointer: str) -> tuple[Any, str]:
    """The schema that a reference of a localised `root` names, and its pointer. pointer: of the reference, for the refusal.
    Raises ConstraintError `invalid_json_schema`."""

    def invalid(what: str) -> ConstraintError:
        return ConstraintError(f"`$ref` {reference!r} {what}", code="invalid_json_schema", param=pointer)

    if not reference.startswith("#"):
        raise invalid("leaves the schema; nothing is fetched. Copy its target into `$defs`.")
    found, place = root, unquote(reference[1:])
    if place and not place.startswith("/"):
        raise invalid("names nothing in the schema.")
    for token in place.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(name)] if isinstance(found, list) else found[name]
        except (KeyError, IndexError, ValueError, TypeError):
            raise invalid("names nothing in the schema.") from None
    if not isinstance(found, (dict, bool)):
        raise invalid("names no schema.")
    return found, place
