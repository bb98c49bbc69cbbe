"""From flat schemas to grammar rules: one method a type."""

from __future__ import annotations

import json
from typing import Any

from . import limits
from .flatten import Flattener, is_annotation
from .grammar import EMPTY, NOTHING, Alt, Literal, Node, Ref, alt, repeat, seq
from .json_text import COLON, COMMA, literal, quoted
from .keywords import KEYWORDS_OF_TYPE, check_keywords, escaped, unsupported
from .merge import Flat, both, has_type
from .schema_scalars import accepts_number, accepts_text, beside_enum, counts, finds, integer, language, number, string

MAX_UNIQUE = 8
_ALL_TYPES = ("object", "array", "string", "number", "boolean", "null")


class Lowering:
    """Turns the schemas inside one root schema into rules; equal schemas share a rule, so recursion ends."""

    def __init__(self, root: Any):
        self.rules: dict[str, Node] = {}
        self._flattener = Flattener(root)
        self._names: dict[str, str] = {}

    def node(self, schema: Any, pointer: str) -> Node:
        """The rule (or the literal) for any value of `schema`. Raises ConstraintError."""
        if isinstance(schema, dict):
            check_keywords(schema, pointer, is_root=schema is self._flattener.root)
            schema = {key: value for key, value in schema.items() if not is_annotation(key)} or True
        if schema is True:
            return Ref("json_value")
        if schema is False:
            return NOTHING
        text = json.dumps(schema)
        if text not in self._names:
            self._names[text] = name = self._new_rule(NOTHING)
            self.rules[name] = self._built(schema, pointer)
        return Ref(self._names[text])

    def _new_rule(self, node: Node) -> str:
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
            return self._enum(flat, pointer)
        if not flat:
            return Ref("json_value")
        return alt(*(self._of_type(kind, flat, pointer) for kind in _types(flat)))

    def _of_type(self, kind: str, flat: Flat, pointer: str) -> Node:
        match kind:
            case "null":
                return Literal("null")
            case "boolean":
                return alt(Literal("true"), Literal("false"))
            case "integer":
                return integer(flat, pointer)
            case "number":
                return number(flat, pointer)
            case "string":
                return string(flat, pointer)
            case "array":
                return self._array(flat, pointer)
        return self._object(flat, pointer)

    # ---- enum ----

    def _enum(self, flat: Flat, pointer: str) -> Node:
        """The values that satisfy the neighbouring keywords too, as an independent validator finds."""
        values = flat["enum"]
        if "type" in flat:
            values = [value for value in values if has_type(value, flat["type"])]
        beside = {key: value for key, value in flat.items() if key not in ("enum", "type")}
        if beside:
            values = [value for value in values if self._is_valid(value, beside, pointer)]
        return alt(*map(literal, values))

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
            return self._unique(flat, prefix, items, least, most, pointer)
        item = self.node(items, f"{pointer}/items")
        after = max(0, least - len(prefix))
        room = None if most is None else most - len(prefix)
        if prefix:
            tail = repeat(seq(COMMA, item), after, room) if room is None or room > 0 else EMPTY
        else:
            some = seq(item, repeat(seq(COMMA, item), max(0, after - 1), None if room is None else room - 1))
            tail = EMPTY if room == 0 else alt(EMPTY, some) if after == 0 else some
        for i in reversed(range(len(prefix))):
            element = seq(COMMA if i else EMPTY, self.node(prefix[i], f"{pointer}/prefixItems/{i}"), tail)
            more = most is None or i < most
            tail = alt(*([EMPTY] if i >= least else []), *([element] if more else []))
        return seq(Literal("["), tail, Literal("]")) if most is None or least <= most else NOTHING

    def _unique(self, flat: Flat, prefix: list[Any], items: Any, least: int, most: int | None, pointer: str) -> Node:
        """Arrays without repetition of a few listed values: a rule for each set of values that are still to come."""
        values = None if prefix else self._literals(items, f"{pointer}/items")
        if values is None or len(values) > MAX_UNIQUE:
            advice = f"It is enforced where items is an enum of up to {MAX_UNIQUE} values. Check it after the call."
            raise unsupported("`uniqueItems`", advice, f"{pointer}/uniqueItems")
        most = len(values) if most is None else min(most, len(values))
        rules: dict[frozenset[int], Node] = {}

        def after(left: frozenset[int]) -> Node:
            if left not in rules:
                used = len(values) - len(left)
                steps = [seq(COMMA if used else EMPTY, values[i], after(left - {i})) for i in sorted(left)] if used < most else []
                rules[left] = Ref(self._new_rule(alt(*([EMPTY] if used >= least else []), *steps)))
            return rules[left]

        return seq(Literal("["), after(frozenset(range(len(values)))), Literal("]"))

    def _literals(self, schema: Any, pointer: str) -> list[Literal] | None:
        """The listed values of a schema, each once; None when it allows others."""
        flats = self._flattener.flats(schema, pointer)
        if any("enum" not in flat for flat in flats):
            return None
        found = [self._enum(flat, pointer) for flat in flats]
        listed = [part for node in found for part in (node.items if isinstance(node, Alt) else (node,))]
        return [part for part in dict.fromkeys(listed) if isinstance(part, Literal)]

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
        return seq(Literal("{"), self._members(nodes, required, least, most), Literal("}"))

    def _declared(self, flat: Flat, pointer: str) -> dict[str, Any] | None:
        """The properties that an object gets, with all that is said about each; None when its names are free."""
        names = self._listed_names(flat, pointer)
        declared = dict(flat.get("properties", {}))
        other = flat.get("additionalProperties", True)
        if names is None and not flat.get("required") and other is not False:
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
        patterns = flat.get("patternProperties", {})
        names = self._name_flats(flat, pointer)
        key: Node = Ref("json_string")
        value = flat.get("additionalProperties", True)
        place = f"{pointer}/additionalProperties"
        if len(patterns) > 1 or (patterns and names is not None):
            advice = "Use one pattern, or declare the properties."
            raise unsupported("Several `patternProperties`, or with propertyNames,", advice, f"{pointer}/patternProperties")
        for pattern, part in patterns.items():
            place = f"{pointer}/patternProperties/{escaped(pattern)}"
            key, value = quoted(language(pattern, place)), part
        if names is not None:
            key = alt(*(string(f, f"{pointer}/propertyNames") if f else key for f in names))
        entry = seq(key, COLON, self.node(value, place))
        some = seq(entry, repeat(seq(COMMA, Ref(self._new_rule(entry))), 0, None if most is None else max(0, most - 1)))
        inside = some if least else EMPTY if most == 0 else alt(EMPTY, some)
        return seq(Literal("{"), inside if most is None or least <= most else NOTHING, Literal("}"))

    def _members(self, nodes: dict[str, Node], required: frozenset[str], least: int, most: int | None) -> Node:
        """The members in order. A state is (next property, members so far, counted up to what still matters)."""
        top = max(1, least, most if most is not None and most < len(nodes) else 0)
        members = list(nodes.items())
        after: list[Node] = [EMPTY if count >= least else NOTHING for count in range(top + 1)]
        for index in reversed(range(len(members))):
            name, value = members[index]
            pair = seq(literal(name), COLON, value)
            here = []
            for count in range(top + 1):
                may_take = most is None or count < most
                taken = seq(COMMA if count else EMPTY, pair, after[min(count + 1, top)]) if may_take else NOTHING
                here.append(taken if name in required else alt(taken, after[count]))
            # A rule of its own wherever two ways lead here, and now and then, so that sequences stay short.
            is_shared = index > 0 and members[index - 1][0] not in required
            after = [Ref(self._new_rule(node)) for node in here] if is_shared or index % 32 == 31 else here
        return after[0]


def _types(flat: Flat) -> list[str]:
    """The types to generate, in a fixed order; without `type`, those that the keywords speak of."""
    if "type" in flat:
        found = flat["type"] - {"integer"} if "number" in flat["type"] else flat["type"]
        return [kind for kind in (*_ALL_TYPES, "integer") if kind in found]
    spoken = [kind for kind, keywords in KEYWORDS_OF_TYPE.items() if any(k in flat or f"{k}s" in flat for k in keywords)]
    return spoken or list(_ALL_TYPES)
