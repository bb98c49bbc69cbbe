"""From a schema to its branches: references followed, combinations multiplied out, each branch a flat schema (`merge.py`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..runtime.errors import ConstraintError
from . import limits, references
from .keywords import ANNOTATIONS, check_keywords, unsupported
from .merge import TYPES, Flat, identity, kinds, merge, type_of
from .negate import complement, is_primitive

MAX_BRANCHES = 512
MAX_LOOK = 3
"""Levels of properties that are looked into for what tells the options of a oneOf apart: they may lead back to it."""
_COMBINING = frozenset(
    ("$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies")
)
_SCOPED = frozenset(("unevaluatedProperties", "unevaluatedItems"))


def is_annotation(keyword: str) -> bool:
    """True for keywords without meaning to a validator."""
    return keyword in ANNOTATIONS or keyword.startswith("x-")


class Flattener:
    """The branches of any schema inside one root schema, whose references are localised (`references.py`)."""

    def __init__(self, root: Any):
        self.root = root
        self._draft = references.draft_of(root)
        self._complements = 0
        self._looking = 0

    def check(self, schema: dict[str, Any], pointer: str) -> None:
        """Raises ConstraintError `unsupported_schema` for a keyword of this level that is not enforced."""
        check_keywords(schema, pointer, self._draft)

    def resolve(self, reference: str, pointer: str) -> tuple[Any, str]:
        """The schema that a reference names, and its pointer. Raises ConstraintError `invalid_json_schema`."""
        return references.target(self.root, reference, pointer)

    def flats(self, schema: Any, pointer: str, trail: frozenset[str] = frozenset()) -> list[Flat]:
        """The branches: a value is valid under `schema` if (not only if: see schema.py) it is valid under one of them.

        trail: the references on the way here; one that comes back to itself has no finite instance on that way, so it adds
        no branch. Raises ConstraintError.
        """
        if isinstance(schema, bool):
            return [{}] if schema else []
        self.check(schema, pointer)
        branches = [_base(schema)]
        complements = self._complements
        for others in self._conjuncts(schema, pointer, trail):
            branches = [m for a in branches for b in others if (m := self._merged(a, b, pointer)) is not None]
            if len(branches) > MAX_BRANCHES:
                raise limits.too_complex(f"The combinations at {pointer or '#'} give more than {MAX_BRANCHES} cases.", pointer)
        for keyword, closed in (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")):
            if keyword in schema:
                if self._complements > complements:
                    advice = "Use additionalProperties or items, or declare everything in one place."
                    raise unsupported(f"`{keyword}` beside `not` or `if`", advice, f"{pointer}/{keyword}")
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
            yield self._one_of(schema["oneOf"], f"{pointer}/oneOf", trail)
        if "not" in schema:
            yield self._complement(schema["not"], f"{pointer}/not", trail)
        if "if" in schema and ("then" in schema or "else" in schema):
            met = {"allOf": [schema["if"], schema.get("then", True)]}
            otherwise = self._complement(schema["if"], f"{pointer}/if", trail, beside=schema.get("else", True))
            yield [*self.flats(met, pointer, trail), *otherwise]
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

    # ---- not ----

    def _complement(self, schema: Any, pointer: str, trail: frozenset[str], *, beside: Any = True) -> list[Flat]:
        """The branches of what is invalid under `schema` and valid under `beside`."""
        self._complements += 1
        other = {"not": schema} if is_primitive(schema) else complement(schema, pointer, self, trail)
        if isinstance(other, dict) and is_primitive(other.get("not")) and beside is True:
            return [m for part in _except(other["not"]) if (m := self._merged(_base(other), part, pointer)) is not None]
        return self.flats(other if beside is True else {"allOf": [other, beside]}, pointer, trail)

    # ---- oneOf ----

    def _one_of(self, parts: list[Any], pointer: str, trail: frozenset[str]) -> list[Flat]:
        """The branches of a oneOf: options that exclude each other as they are, or each with the negation of the others."""
        options = [self.flats(part, f"{pointer}/{i}", trail) for i, part in enumerate(parts)]
        if (apart := self._exclusive(options)) is not None:
            return apart
        try:
            others = [complement(part, f"{pointer}/{i}", self, trail) for i, part in enumerate(parts)]
        except ConstraintError:
            advice = "Give each option a required property with a const of its own, or use anyOf."
            raise unsupported("`oneOf` with options that a value could satisfy together", advice, pointer) from None
        self._complements += 1
        found: list[Flat] = []
        for i, part in enumerate(parts):
            found += self.flats({"allOf": [part, *others[:i], *others[i + 1 :]]}, pointer, trail)
        return found

    def _exclusive(self, options: list[list[Flat]]) -> list[Flat] | None:
        """The branches of a oneOf, changed so that what is generated for one option is invalid under all others; None if that
        is not certain."""
        for i, left in enumerate(options):
            for right in options[i + 1 :]:
                for x, a in enumerate(left):
                    for y, b in enumerate(right):
                        apart = self._apart(a, b)
                        if apart is None:
                            return None
                        left[x], right[y] = a, b = apart
        return [flat for option in options for flat in option]

    def _apart(self, a: Flat, b: Flat) -> tuple[Flat, Flat] | None:
        """Both branches, narrowed until nothing generated for one is valid under the other; None if that is not certain."""
        if "enum" in a and "enum" in b:
            known = {identity(value) for value in b["enum"]}
            return None if any(identity(value) in known for value in a["enum"]) else (a, b)
        shared = _types(a) & _types(b)
        if not shared:
            return a, b
        if shared != {"object"} or _types(a) != {"object"} or _types(b) != {"object"}:
            return None
        for name in a.get("properties", {}).keys() & b.get("properties", {}).keys():
            mine, theirs = self._values(a["properties"][name]), self._values(b["properties"][name])
            if mine is not None and theirs is not None and not mine & theirs:
                return _requiring(a, name), _requiring(b, name)
        narrowed_b, narrowed_a = _invalid_under(a, b), _invalid_under(b, a)
        return None if narrowed_a is None or narrowed_b is None else (narrowed_a, narrowed_b)

    def _values(self, schema: Any) -> set[str] | None:
        """The identities of the values that a schema allows, when they are listed; None where that is too deep to see."""
        if self._looking >= MAX_LOOK:
            return None
        self._looking += 1
        try:
            flats = self.flats(schema, "")
        finally:
            self._looking -= 1
        if not flats or any("enum" not in flat for flat in flats):
            return None
        return {identity(value) for flat in flats for value in flat["enum"]}


def _types(flat: Flat) -> frozenset[str]:
    if "enum" in flat:
        return frozenset(type_of(value) for value in flat["enum"])
    return flat.get("type", TYPES)


def _except(negated: Flat) -> list[Flat]:
    """The branches of `not` before a type, listed values or a pattern."""
    match negated:
        case {"type": types}:
            return [{"type": TYPES - kinds(types)}]
        case {"enum": values}:
            return [{"excluded": values}]
        case _:
            return [{"type": frozenset(("string",)), "notPatterns": [negated["pattern"]]}]


def _requiring(flat: Flat, name: str) -> Flat:
    return {**flat, "required": [*flat.get("required", ()), *(() if name in flat.get("required", ()) else (name,))]}


def _invalid_under(a: Flat, b: Flat) -> Flat | None:
    """`b`, narrowed so that nothing generated for it is valid under `a`: without a name that a requires, or with one that a
    forbids. None if it always could be."""
    declared = b.get("properties", {})
    if a.get("additionalProperties") is False and "patternProperties" not in a:
        if any(name not in a.get("properties", {}) for name in b.get("required", ())):
            return b
    missing = [name for name in a.get("required", ()) if name not in declared and name not in b.get("required", ())]
    if "properties" not in b or not missing:
        return None
    return {**b, "properties": {**declared, missing[0]: False}}


def _dependencies(schema: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        yield from schema.get(keyword, {}).items()


def _base(schema: dict[str, Any]) -> Flat:
    """The schema's own keywords as a flat schema, older drafts' spellings replaced by today's."""
    flat: Flat = {}
    for keyword, value in schema.items():
        if keyword in _COMBINING or keyword in _SCOPED or is_annotation(keyword):
            continue
        match keyword:
            case "type":
                flat["type"] = kinds(value)
            case "const":
                flat["enum"] = [value] if "enum" not in schema else _listed(schema["enum"], value)
            case "enum" if "const" in schema:
                pass
            case "pattern" | "format":
                flat[f"{keyword}s"] = [value]
            case "propertyNames":
                flat["propertyNames"] = [value]
            case "contains":
                most = schema.get("maxContains")
                flat["contains"] = [(value, int(schema.get("minContains", 1)), None if most is None else int(most))]
            case "minContains" | "maxContains" | "additionalItems":
                pass  # speak only beside contains, and beside the array form of items
            case "items" if isinstance(value, list):
                flat["prefixItems"] = value
                if "additionalItems" in schema:
                    flat["items"] = schema["additionalItems"]
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
