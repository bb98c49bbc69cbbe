"""From flat schemas to grammar rules: one method a type."""

from __future__ import annotations

import json
from typing import Any

from . import limits
from .arrays import containing, unique
from .flatten import Flattener, is_annotation
from .grammar import EMPTY, NOTHING, Node, Ref, alt, repeat, seq
from .json_text import Layout, inside, quoted, scalar
from .keywords import KEYWORDS_OF_TYPE, escaped, unsupported
from .merge import Flat, both, identity, merge, type_of
from .schema_scalars import (
    accepts_number,
    accepts_text,
    beside_enum,
    counts,
    finds,
    integer,
    is_excluded,
    language,
    number,
    string,
)

MAX_PATTERNS = 4
_ORDER = ("object", "array", "string", "number", "fraction", "integer", "boolean", "null")
"""In which types are generated."""


class Lowering:
    """Turns the schemas inside one root schema into rules; equal schemas share a rule, so recursion ends."""

    def __init__(self, root: Any, layout: Layout):
        """root: with localised references (`references.py`)."""
        self.layout = layout
        self.rules: dict[str, Node] = {}
        self._flattener = Flattener(root)
        self._names: dict[str, str] = {}

    def node(self, schema: Any, pointer: str) -> Node:
        """The rule (or the literal) for any value of `schema`. Raises ConstraintError."""
        if isinstance(schema, dict):
            self._flattener.check(schema, pointer)
            schema = {key: value for key, value in schema.items() if not is_annotation(key)} or True
        if schema is True:
            return Ref("json_value")
        if schema is False:
            return NOTHING
        text = json.dumps(schema)
        if text not in self._names:
            self._names[text] = name = self.new_rule(NOTHING)
            self.rules[name] = self._built(schema, pointer)
        return Ref(self._names[text])

    def new_rule(self, node: Node) -> str:
        """The name of a new rule."""
        if len(self.rules) >= limits.RULES:
            raise limits.too_complex(f"The schema needs more than {limits.RULES} grammar rules.")
        name = f"r{len(self.rules)}"
        self.rules[name] = node
        return name

    def _built(self, schema: dict[str, Any], pointer: str) -> Node:
        if schema.keys() == {"$ref"}:
            return self.node(*self._flattener.resolve(schema["$ref"], f"{pointer}/$ref"))
        if schema.keys() == {"anyOf"}:
            return alt(*(self.node(part, f"{pointer}/anyOf/{i}") for i, part in enumerate(schema["anyOf"])))
        return alt(*(self._flat(flat, pointer) for flat in self._flattener.flats(schema, pointer)))

    def _flat(self, flat: Flat, pointer: str) -> Node:
        if "enum" in flat:
            return alt(*map(self.layout.literal, self._values(flat, pointer)))
        if not flat:
            return Ref("json_value")
        return alt(*(self._of_type(kind, flat, pointer) for kind in _types(flat)))

    def _of_type(self, kind: str, flat: Flat, pointer: str) -> Node:
        match kind:
            case "null" | "boolean":
                values = [None] if kind == "null" else [True, False]
                return alt(*(scalar(value) for value in values if not is_excluded(flat, value)))
            case "integer":
                return integer(flat, pointer)
            case "number" | "fraction":
                return number(flat, pointer, fractions_only=kind == "fraction")
            case "string":
                return string(flat, pointer)
            case "array":
                return self._array(self._not_empty(flat, [], "minItems", pointer), pointer)
        return self._object(self._not_empty(flat, {}, "minProperties", pointer), pointer)

    def _not_empty(self, flat: Flat, empty: Any, least: str, pointer: str) -> Flat:
        """`flat` where the empty array or object is excluded: with at least one item. Others cannot be left out."""
        excluded = [value for value in flat.get("excluded", ()) if isinstance(value, type(empty))]
        if any(value != empty for value in excluded):
            what = f"`not` of a listed {'array' if empty == [] else 'object'}"
            raise unsupported(what, "Say what is allowed instead.", f"{pointer}/not")
        return {**flat, least: max(1, flat.get(least, 0))} if excluded else flat

    # ---- enum ----

    def _values(self, flat: Flat, pointer: str) -> list[Any]:
        """The listed values that satisfy the neighbouring keywords too."""
        values = [value for value in flat["enum"] if "type" not in flat or type_of(value) in flat["type"]]
        if "excluded" in flat:
            values = [value for value in values if not is_excluded(flat, value)]
        beside = {key: value for key, value in beside_enum(flat).items() if key != "excluded"}
        if beside:
            values = [value for value in values if self._is_valid(value, beside, pointer)]
        return values

    def _is_valid(self, value: Any, beside: Flat, pointer: str) -> bool:
        if isinstance(value, (dict, list)):
            advice = "Leave only the enum; its values say everything."
            raise unsupported("An enum of objects or arrays beside other keywords", advice, pointer)
        if isinstance(value, str):
            return accepts_text(beside, value, pointer)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return accepts_number(beside, value, pointer)
        return True  # null and booleans: no other keyword speaks of them

    # ---- arrays ----

    def _array(self, flat: Flat, pointer: str) -> Node:
        prefix, items = flat.get("prefixItems", []), flat.get("items", True)
        least, most = counts(flat, "minItems", "maxItems", pointer)
        if items is False:
            most = len(prefix) if most is None else min(most, len(prefix))
        if flat.get("uniqueItems") and (most is None or most > 1):
            if "contains" in flat or prefix or (values := self._listed(items, f"{pointer}/items")) is None:
                advice = "It is enforced where items lists its values (enum). Check it after the call."
                raise unsupported("`uniqueItems`", advice, f"{pointer}/uniqueItems")
            return self.layout.array(unique(self, values, least, most))
        if "contains" in flat:
            return self.layout.array(containing(self, flat, least, most, pointer))
        comma, item = self.layout.comma, self.node(items, f"{pointer}/items")
        after = max(0, least - len(prefix))
        room = None if most is None else most - len(prefix)
        if prefix:
            tail = repeat(seq(comma, item), after, room) if room is None or room > 0 else EMPTY
        else:
            some = seq(item, repeat(seq(comma, item), max(0, after - 1), None if room is None else room - 1))
            tail = EMPTY if room == 0 else alt(EMPTY, some) if after == 0 else some
        for i in reversed(range(len(prefix))):
            element = seq(comma if i else EMPTY, self.node(prefix[i], f"{pointer}/prefixItems/{i}"), tail)
            more = most is None or i < most
            tail = alt(*([EMPTY] if i >= least else []), *([element] if more else []))
        return self.layout.array(tail) if most is None or least <= most else NOTHING

    def _listed(self, schema: Any, pointer: str) -> list[Node] | None:
        """The values of a schema that allows only listed ones, booleans and null, each once; None when it allows others."""
        flats = self._flattener.flats(schema, pointer)
        few = frozenset(("boolean", "null"))
        if any("enum" not in flat and not flat.get("type", {"any"}) <= few for flat in flats):
            return None
        found = []
        for flat in flats:
            values = [None] * ("null" in flat.get("type", ())) + [True, False] * ("boolean" in flat.get("type", ()))
            found += self._values(flat if "enum" in flat else {**flat, "enum": values}, pointer)
        return [self.layout.literal(value) for value in {identity(value): value for value in found}.values()]

    # ---- objects ----

    def _object(self, flat: Flat, pointer: str) -> Node:
        least, most = flat.get("minProperties", 0), flat.get("maxProperties")
        properties = self._declared(flat, pointer)
        if properties is None:
            return self._map(flat, least, most, pointer)
        required = frozenset(flat.get("required", ()))
        if least > len(properties) and flat.get("additionalProperties", True) is not False:
            advice = "Declare the properties, or lower it."
            raise unsupported("`minProperties` beyond the declared properties", advice, f"{pointer}/minProperties")
        nodes = {name: self.node(part, f"{pointer}/properties/{escaped(name)}") for name, part in properties.items()}
        return self.layout.object(self._members(nodes, required, least, most))

    def _declared(self, flat: Flat, pointer: str) -> dict[str, Any] | None:
        """The properties that an object gets, with all that is said about each; None when its names are free."""
        names = self._listed_names(flat, pointer)
        declared = dict(flat.get("properties", {}))
        other = flat.get("additionalProperties", True)
        may_be_free = other is not False or "patternProperties" in flat
        if names is None and not flat.get("required") and may_be_free:
            if "properties" not in flat or (not declared and "additionalProperties" in flat):
                return None  # `properties: {}` beside an explicit additionalProperties is a map, too
        patterns = flat.get("patternProperties", {})
        for name in [*flat.get("required", ()), *(names or () if "properties" not in flat else ())]:
            if name not in declared and not any(finds(p, name, pointer) for p in patterns):
                declared[name] = other
        for pattern, part in patterns.items():
            for name in [*declared, *(n for n in flat.get("required", ()) if n not in declared)]:
                if finds(pattern, name, pointer):
                    declared[name] = both(declared.get(name, True), part)
        return {name: part if self._allows_name(flat, name, pointer) else False for name, part in declared.items()}

    def _name_flats(self, flat: Flat, pointer: str) -> list[Flat] | None:
        """The branches of propertyNames, None without it."""
        schemas = flat.get("propertyNames", [])
        if not schemas:
            return None
        joined = schemas[0] if len(schemas) == 1 else {"allOf": schemas}
        return [f for f in self._flattener.flats(joined, f"{pointer}/propertyNames") if "string" in f.get("type", ("string",))]

    def _listed_names(self, flat: Flat, pointer: str) -> list[str] | None:
        """The names that propertyNames lists, None when it does not list them."""
        flats = self._name_flats(flat, pointer)
        if flats is None or any("enum" not in f for f in flats):
            return None
        return [v for f in flats for v in f["enum"] if isinstance(v, str) and self._is_valid(v, beside_enum(f), pointer)]

    def _allows_name(self, flat: Flat, name: str, pointer: str) -> bool:
        flats = self._name_flats(flat, pointer)
        return flats is None or any(
            ("enum" not in f or name in f["enum"]) and accepts_text(beside_enum(f), name, pointer) for f in flats
        )

    def _map(self, flat: Flat, least: int, most: int | None, pointer: str) -> Node:
        """An object of free names. A name may come twice (the last one counts), so more than one cannot be demanded."""
        if least > 1:
            raise unsupported(f"`minProperties` {least} with free names", "Declare the properties.", f"{pointer}/minProperties")
        kinds = self._kinds_of_name(flat, pointer)
        entry = alt(*(seq(key, self.layout.colon, self.node(value, place)) for key, value, place in kinds))
        further = seq(self.layout.comma, Ref(self.new_rule(entry)))
        some = seq(entry, repeat(further, 0, None if most is None else max(0, most - 1)))
        members = some if least else EMPTY if most == 0 else alt(EMPTY, some)
        return self.layout.object(members) if most is None or least <= most else NOTHING

    def _kinds_of_name(self, flat: Flat, pointer: str) -> list[tuple[Node, Any, str]]:
        """The names of a map, by what their values have to be: (key, schema of the value, its pointer). With patterns a name
        matches some of them, and its value satisfies what belongs to each of these."""
        names = self._name_flats(flat, pointer)
        patterns = list(flat.get("patternProperties", {}).items())
        if not patterns:
            key = Ref("json_string") if names is None else alt(*(string(f, f"{pointer}/propertyNames") for f in names))
            return [(key, flat.get("additionalProperties", True), f"{pointer}/additionalProperties")]
        if len(patterns) == 1 and names is None:
            [(pattern, part)] = patterns
            place = f"{pointer}/patternProperties/{escaped(pattern)}"
            return [(quoted(inside(language(pattern, place))), part, place)]
        if len(patterns) > MAX_PATTERNS:
            advice = "Use fewer patterns, or declare the properties."
            raise unsupported(f"More than {MAX_PATTERNS} `patternProperties`", advice, f"{pointer}/patternProperties")
        found: list[tuple[Node, Any, str]] = []
        for chosen in range(1, 1 << len(patterns)):
            matched = [pattern for i, pattern in enumerate(patterns) if chosen >> i & 1]
            others = [pattern for i, (pattern, _) in enumerate(patterns) if not chosen >> i & 1]
            value: Any = True
            for _, part in matched:
                value = both(value, part)
            said: Flat = {"patterns": [pattern for pattern, _ in matched], "notPatterns": others}
            for name in names if names is not None else [{}]:
                joined = merge(said, {key: part for key, part in name.items() if key != "type"})
                if joined is not None and (key := string(joined, f"{pointer}/patternProperties")) != NOTHING:
                    found.append((key, value, f"{pointer}/patternProperties/{escaped(matched[0][0])}"))
        return found

    def _members(self, nodes: dict[str, Node], required: frozenset[str], least: int, most: int | None) -> Node:
        """The members in order. A state is (next property, members so far, counted up to what still matters)."""
        top = max(1, least, most if most is not None and most < len(nodes) else 0)
        members = list(nodes.items())
        after: list[Node] = [EMPTY if count >= least else NOTHING for count in range(top + 1)]
        for index in reversed(range(len(members))):
            name, value = members[index]
            pair = seq(scalar(name), self.layout.colon, value)
            here = []
            for count in range(top + 1):
                may_take = most is None or count < most
                taken = seq(self.layout.comma if count else EMPTY, pair, after[min(count + 1, top)]) if may_take else NOTHING
                here.append(taken if name in required else alt(taken, after[count]))
            # A rule of its own wherever two ways lead here, and now and then, so that sequences stay short.
            is_shared = index > 0 and members[index - 1][0] not in required
            after = [Ref(self.new_rule(node)) for node in here] if is_shared or index % 32 == 31 else here
        return after[0]


def _types(flat: Flat) -> list[str]:
    """The types to generate, in a fixed order; without `type`, those that the keywords speak of. Integers and fractions
    together are numbers."""
    if "type" in flat:
        found = set(flat["type"])
    else:
        spoken = {kind for kind, words in KEYWORDS_OF_TYPE.items() if any(k in flat or f"{k}s" in flat for k in words)}
        found = spoken or {"number", *_ORDER}
        found |= {"integer", "fraction"} if "number" in found else set()
    if {"integer", "fraction"} <= found:
        found = (found - {"integer", "fraction"}) | {"number"}
    return [kind for kind in _ORDER if kind in found]
