"""From a schema to its branches: references followed, combinations multiplied out, each branch a flat schema (`merge.py`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from ..runtime.errors import ConstraintError
from . import limits
from .keywords import ANNOTATIONS, check_keywords, unsupported
from .merge import TYPES, Flat, common_types, identity, merge, type_of

MAX_BRANCHES = 512
_COMBINING = frozenset(("$ref", "allOf", "anyOf", "oneOf", "dependentRequired", "dependentSchemas", "dependencies"))
_SCOPED = frozenset(("unevaluatedProperties", "unevaluatedItems"))


def is_annotation(keyword: str) -> bool:
    """True for keywords without meaning to a validator."""
    return keyword in ANNOTATIONS or keyword.startswith("x-")


class Flattener:
    """The branches of any schema inside one root schema."""

    def __init__(self, root: Any):
        self.root = root

    def flats(self, schema: Any, pointer: str, trail: frozenset[str] = frozenset()) -> list[Flat]:
        """The branches: a value is valid under `schema` if (not only if: see schema.py) it is valid under one of them.

        trail: the references on the way here; one that comes back to itself has no finite instance on that way, so it adds
        no branch. Raises ConstraintError.
        """
        if isinstance(schema, bool):
            return [{}] if schema else []
        check_keywords(schema, pointer, is_root=schema is self.root)
        branches = [_base(schema, pointer)]
        for others in self._conjuncts(schema, pointer, trail):
            branches = [m for a in branches for b in others if (m := self._merged(a, b, pointer)) is not None]
            if len(branches) > MAX_BRANCHES:
                raise limits.too_complex(f"The combinations at {pointer or '#'} give more than {MAX_BRANCHES} cases.", pointer)
        for keyword, closed in (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")):
            if keyword in schema:
                branches = [{closed: schema[keyword], **branch} for branch in branches]
        return branches

    def _conjuncts(self, schema: dict[str, Any], pointer: str, trail: frozenset[str]) -> Iterable[list[Flat]]:
        """For each combining keyword, the branches it adds; one of each holds."""
        if "$ref" in schema:
            target, place = self.resolve(schema["$ref"], f"{pointer}/$ref")
            yield [] if place in trail else self.flats(target, place, trail | {place})
        for index, part in enumerate(schema.get("allOf", ())):
            yield self.flats(part, f"{pointer}/allOf/{index}", trail)
        if "anyOf" in schema:
            yield [f for i, part in enumerate(schema["anyOf"]) for f in self.flats(part, f"{pointer}/anyOf/{i}", trail)]
        if "oneOf" in schema:
            options = [self.flats(part, f"{pointer}/oneOf/{i}", trail) for i, part in enumerate(schema["oneOf"])]
            yield self._exclusive(options, f"{pointer}/oneOf")
        for name, needed in _dependencies(schema):
            without: Flat = {"properties": {name: False}}
            present: Flat = {"required": [name]}
            if isinstance(needed, list):
                yield [without, {"required": [name, *needed]}]
            else:
                inner = self.flats(needed, f"{pointer}/dependentSchemas/{name}", trail)
                yield [without, *(m for f in inner if (m := self._merged(present, f, pointer)) is not None)]

    def _merged(self, a: Flat, b: Flat, pointer: str) -> Flat | None:
        try:
            return merge(a, b)
        except ValueError as keyword:
            raise unsupported(f"The combination of several `{keyword}`", "Write them as one.", pointer) from None

    # ---- references ----

    def resolve(self, reference: str, pointer: str) -> tuple[Any, str]:
        """The schema that a local reference names, and its pointer. Raises ConstraintError `invalid_json_schema`."""
        base = self.root.get("$id") or self.root.get("id") if isinstance(self.root, dict) else None
        fragment = reference
        if isinstance(base, str) and reference.partition("#")[0] == base.rstrip("#"):
            fragment = "#" + reference.partition("#")[2]
        if not fragment.startswith("#"):
            raise ConstraintError(
                f"`$ref` {reference!r} leaves the schema; nothing is fetched. Copy its target into `$defs`.",
                code="invalid_json_schema",
                param=pointer,
            )
        if fragment not in ("#", "#/") and not fragment.startswith("#/"):
            raise unsupported(f"The reference to the anchor {fragment!r}", "Refer by JSON pointer: `#/$defs/...`.", pointer)
        target = self.root
        place = "" if fragment == "#/" else unquote(fragment[1:])
        for token in place.split("/")[1:]:
            name = token.replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(name)] if isinstance(target, list) else target[name]
            except (KeyError, IndexError, ValueError, TypeError):
                raise ConstraintError(
                    f"`$ref` {reference!r} names nothing in the schema.", code="invalid_json_schema", param=pointer
                ) from None
        if not isinstance(target, (dict, bool)):
            raise ConstraintError(f"`$ref` {reference!r} names no schema.", code="invalid_json_schema", param=pointer)
        return target, place

    # ---- oneOf ----

    def _exclusive(self, options: list[list[Flat]], pointer: str) -> list[Flat]:
        """The branches of a oneOf, changed so that what is generated for one option is invalid under all others."""
        for i, left in enumerate(options):
            for right in options[i + 1 :]:
                for x, a in enumerate(left):
                    for y, b in enumerate(right):
                        apart = self._apart(a, b)
                        if apart is None:
                            advice = "Give each option a required property with a const of its own, or use anyOf."
                            raise unsupported("`oneOf` with options that a value could satisfy together", advice, pointer)
                        left[x], right[y] = a, b = apart
        return [flat for option in options for flat in option]

    def _apart(self, a: Flat, b: Flat) -> tuple[Flat, Flat] | None:
        """Both branches, narrowed until nothing generated for one is valid under the other; None if that is not certain."""
        if "enum" in a and "enum" in b:
            known = {identity(value) for value in b["enum"]}
            return None if any(identity(value) in known for value in a["enum"]) else (a, b)
        shared = common_types(_types(a), _types(b))
        if not shared:
            return a, b
        if shared != {"object"} or _types(a) != {"object"} or _types(b) != {"object"}:
            return None
        for name in a.get("properties", {}).keys() & b.get("properties", {}).keys():
            mine, theirs = self._values(a["properties"][name]), self._values(b["properties"][name])
            if mine is not None and theirs is not None and not mine & theirs:
                return _requiring(a, name), _requiring(b, name)
        return (a, b) if _excludes(a, b) and _excludes(b, a) else None

    def _values(self, schema: Any) -> set[str] | None:
        """The identities of the values that a schema allows, when they are listed."""
        flats = self.flats(schema, "")
        if not flats or any("enum" not in flat for flat in flats):
            return None
        return {identity(value) for flat in flats for value in flat["enum"]}


def _types(flat: Flat) -> frozenset[str]:
    if "enum" in flat:
        return frozenset(type_of(value) for value in flat["enum"])
    return flat.get("type", TYPES)


def _requiring(flat: Flat, name: str) -> Flat:
    return {**flat, "required": [*flat.get("required", ()), *(() if name in flat.get("required", ()) else (name,))]}


def _excludes(a: Flat, b: Flat) -> bool:
    """True when nothing generated for `b` is valid under `a`: a requires a name that b does not have, or forbids one that b
    always has. What is generated for a branch with properties has no others."""
    declared = b.get("properties")
    if declared is None:
        return False
    missing = any(name not in declared and name not in b.get("required", ()) for name in a.get("required", ()))
    forbidden = a.get("additionalProperties") is False and "patternProperties" not in a
    return missing or (forbidden and any(name not in a.get("properties", {}) for name in b.get("required", ())))


def _dependencies(schema: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        yield from schema.get(keyword, {}).items()


def _base(schema: dict[str, Any], pointer: str) -> Flat:
    """The schema's own keywords as a flat schema, older drafts' spellings replaced by today's."""
    flat: Flat = {}
    for keyword, value in schema.items():
        if keyword in _COMBINING or keyword in _SCOPED or is_annotation(keyword):
            continue
        match keyword:
            case "type":
                flat["type"] = frozenset([value] if isinstance(value, str) else value)
            case "const":
                flat["enum"] = [value] if "enum" not in schema else _listed(schema["enum"], value)
            case "enum" if "const" in schema:
                pass
            case "pattern" | "format":
                flat[f"{keyword}s"] = [value]
            case "propertyNames":
                flat["propertyNames"] = [value]
            case "additionalItems":
                pass  # speaks only beside the array form of items
            case "items" if isinstance(value, list):
                flat["prefixItems"] = value
                flat["items"] = schema.get("additionalItems", True)
            case "exclusiveMinimum" | "exclusiveMaximum" if isinstance(value, bool):
                pass
            case "minimum" | "maximum" if schema.get(f"exclusive{keyword.capitalize()}") is True:
                flat[f"exclusive{keyword.capitalize()}"] = value
            case "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties":
                flat[keyword] = int(value)
            case "multipleOf":
                flat[keyword] = int(value) if float(value).is_integer() else value
            case _:
                flat[keyword] = value
    return flat


def _listed(values: list[Any], value: Any) -> list[Any]:
    return [value] if identity(value) in {identity(v) for v in values} else []
