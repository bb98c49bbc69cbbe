"""From flat schemas to grammar rules: one method a type."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

from ..runtime.errors import ConstraintError
from . import digits, limits, regex
from .flatten import Flattener, is_annotation
from .formats import ANNOTATING_FORMATS, NUMBER_FORMATS, STRING_FORMATS
from .grammar import EMPTY, NOTHING, Alt, Literal, Node, Ref, Repeat, Seq, alt, lengths, repeat, seq
from .json_text import COLON, COMMA, INTEGER, literal, quoted, text_between
from .keywords import KEYWORDS_OF_TYPE, check_keywords, escaped, unsupported
from .merge import Flat, both, has_type

MAX_COUNT = 10_000
MAX_FORMAT = 128
"""Length of a string with a format and a maxLength: nobody means 2,083 counted characters of a URL."""
MAX_UNIQUE = 8
MAX_MULTIPLES = 2048
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
                return _integer(flat, pointer)
            case "number":
                return _number(flat, pointer)
            case "string":
                return _string(flat, pointer)
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
            return _accepts_text(beside, value, pointer)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _accepts_number(beside, value, pointer)
        return True  # null and booleans: no other keyword speaks of them

    # ---- arrays ----

    def _array(self, flat: Flat, pointer: str) -> Node:
        prefix, items = flat.get("prefixItems", []), flat.get("items", True)
        least, most = _counts(flat, "minItems", "maxItems", pointer)
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
            if name not in declared and not any(_finds(p, name, pointer) for p in patterns):
                declared[name] = other
        for pattern, part in patterns.items():
            for name in [*declared, *(n for n in flat.get("required", ()) if n not in declared)]:
                if _finds(pattern, name, pointer):
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
        return [v for f in flats for v in f["enum"] if isinstance(v, str) and self._is_valid(v, _beside_enum(f), pointer)]

    def _allows_name(self, flat: Flat, name: str, pointer: str) -> bool:
        flats = self._name_flats(flat, pointer)
        return flats is None or any(
            ("enum" not in f or name in f["enum"]) and _accepts_text(_beside_enum(f), name, pointer) for f in flats
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
            key, value = quoted(_language(pattern, place)), part
        if names is not None:
            key = alt(*(_string(f, f"{pointer}/propertyNames") if f else key for f in names))
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


# ---- scalars --------------------------------------------------------------------------------------------------------


def _types(flat: Flat) -> list[str]:
    """The types to generate, in a fixed order; without `type`, those that the keywords speak of."""
    if "type" in flat:
        found = flat["type"] - {"integer"} if "number" in flat["type"] else flat["type"]
        return [kind for kind in (*_ALL_TYPES, "integer") if kind in found]
    spoken = [kind for kind, keywords in KEYWORDS_OF_TYPE.items() if any(k in flat or f"{k}s" in flat for k in keywords)]
    return spoken or list(_ALL_TYPES)


def _beside_enum(flat: Flat) -> Flat:
    return {key: value for key, value in flat.items() if key not in ("enum", "type")}


def _counts(flat: Flat, low: str, high: str, pointer: str) -> tuple[int, int | None]:
    """Bounds of a count: a lower one beyond MAX_COUNT is too complex, an upper one beyond it is lowered to it."""
    least, most = flat.get(low, 0), flat.get(high)
    if least > MAX_COUNT:
        raise limits.too_complex(f"`{low}` is {least}; at most {MAX_COUNT} is taken.", f"{pointer}/{low}")
    return least, most if most is None else min(most, MAX_COUNT)


def _string(flat: Flat, pointer: str) -> Node:
    if "enum" in flat:
        texts = [v for v in flat["enum"] if isinstance(v, str) and _accepts_text(_beside_enum(flat), v, pointer)]
        return alt(*map(literal, texts))
    least, most = _counts(flat, "minLength", "maxLength", pointer)
    contents = [(_language(p, f"{pointer}/pattern"), "pattern") for p in flat.get("patterns", ())]
    for name in flat.get("formats", ()):
        if name in STRING_FORMATS:
            contents.append((regex.whole(STRING_FORMATS[name]), "format"))
        elif name not in ANNOTATING_FORMATS:
            advice = "Use a pattern, or one of: " + ", ".join(sorted(STRING_FORMATS)) + "."
            raise unsupported(f"The string format {name!r}", advice, f"{pointer}/format")
    if not contents:
        return seq(Literal('"'), text_between(least, most), Literal('"')) if (least, most) != (0, None) else Ref("json_string")
    if len(contents) > 1:
        raise unsupported("A string with several patterns and formats", "Write one pattern.", f"{pointer}/pattern")
    node, keyword = contents[0]
    if keyword == "format" and most is not None:
        most = min(most, MAX_FORMAT)
    fitted = _fitted(node, least, most)
    if fitted is None:
        advice = "Put the length into the pattern, for example `^[a-z]{1,20}$`."
        raise unsupported(f"minLength or maxLength beside this {keyword}", advice, f"{pointer}/{keyword}")
    return quoted(fitted)


def _language(pattern: str, pointer: str) -> Node:
    """`pattern` as JSON Schema means it. A pattern that is no regex makes the schema invalid."""
    try:
        return regex.searched(pattern)
    except ConstraintError as error:
        code = {"invalid_grammar": "invalid_json_schema", "unsupported_regex": "unsupported_schema"}.get(error.code, error.code)
        raise ConstraintError(f"{error.message} (at {pointer})", code=code, param=pointer) from None


def _fitted(node: Node, least: int, most: int | None) -> Node | None:
    """Texts of `node` with `least` to `most` characters: all of them where one repetition takes up the difference, fewer
    where other parts vary, too (they are given their greatest length). None where several parts have no end."""
    low, high = lengths(node)
    if low >= least and (most is None or (high is not None and high <= most)):
        return node
    if isinstance(node, Alt):
        parts = [_fitted(item, least, most) for item in node.items]
        return None if any(part is None for part in parts) else alt(*(part for part in parts if part is not None))
    if (most is not None and low > most) or (high is not None and high < least):
        return NOTHING
    if isinstance(node, Seq):
        return _fitted_part(list(node.items), least, most)
    return _fitted_repeat(node, least, most) if isinstance(node, Repeat) else None


def _fitted_part(items: list[Node], least: int, most: int | None) -> Node | None:
    """A sequence whose one endless part, or else its one part of varying length, takes up the difference."""
    spans = [lengths(item) for item in items]
    loose = [i for i, (_, high) in enumerate(spans) if high is None] or [i for i, (low, high) in enumerate(spans) if low != high]
    if len(loose) != 1:
        return None
    others_low = sum(low for i, (low, _) in enumerate(spans) if i != loose[0])
    others_high = sum(high or 0 for i, (_, high) in enumerate(spans) if i != loose[0])
    room = None if most is None else most - others_high
    part = None if room is not None and room < 0 else _fitted(items[loose[0]], max(0, least - others_low), room)
    if part is None:
        return None
    items[loose[0]] = part
    return seq(*items)


def _fitted_repeat(node: Repeat, least: int, most: int | None) -> Node | None:
    low, width = lengths(node.item)
    if low == width and width:
        times_high = node.most if most is None else most // width if node.most is None else min(node.most, most // width)
        return repeat(node.item, max(node.least, -(-least // width)), times_high)
    if node.most == 1:
        inner = _fitted(node.item, least, most)
        empty_fits = node.least == 0 and least == 0
        return None if inner is None else alt(EMPTY, inner) if empty_fits else inner
    return None


def _bounds(flat: Flat, pointer: str) -> tuple[digits.Bound | None, digits.Bound | None]:
    """The tighter of the inclusive, the exclusive and the format's bound on each side."""
    lows = [digits.Bound(Decimal(str(flat[k])), k != "minimum") for k in ("minimum", "exclusiveMinimum") if k in flat]
    highs = [digits.Bound(Decimal(str(flat[k])), k != "maximum") for k in ("maximum", "exclusiveMaximum") if k in flat]
    for name in flat.get("formats", ()):
        if name not in NUMBER_FORMATS and name not in STRING_FORMATS:
            raise unsupported(f"The number format {name!r}", "Use minimum and maximum.", f"{pointer}/format")
        if span := NUMBER_FORMATS.get(name):
            lows.append(digits.Bound(Decimal(span[0]), False))
            highs.append(digits.Bound(Decimal(span[1]), False))
    low = max(lows, key=lambda b: (b.value, b.strict), default=None)
    high = min(highs, key=lambda b: (b.value, not b.strict), default=None)
    return low, high


def _integer(flat: Flat, pointer: str) -> Node:
    low, high = _bounds(flat, pointer)
    least = None if low is None else math.floor(low.value) + 1 if low.strict else math.ceil(low.value)
    most = None if high is None else math.ceil(high.value) - 1 if high.strict else math.floor(high.value)
    of = flat.get("multipleOf", 1)
    if of == 1:
        return INTEGER if least is None and most is None else digits.integers(least, most)
    if isinstance(of, int):
        listed = digits.multiples(of, least, most, at_most=MAX_MULTIPLES)
        if listed is not None:
            return listed
        if most is None and (least is None or least <= of):
            free = digits.free_multiples(of, negative=least is None, zero=least is None or least <= 0)
            if free is not None and (least is None or least >= 0):
                return free
    advice = f"Give it bounds with at most {MAX_MULTIPLES} multiples in between, or check it after the call."
    raise unsupported(f"`multipleOf` {of}", advice, f"{pointer}/multipleOf")


def _number(flat: Flat, pointer: str) -> Node:
    if "multipleOf" in flat:
        if not isinstance(flat["multipleOf"], int):
            advice = "Fractions are rounded differently by every validator; count in the smaller unit, as an integer."
            raise unsupported(f"`multipleOf` {flat['multipleOf']}", advice, f"{pointer}/multipleOf")
        return _integer(flat, pointer)
    low, high = _bounds(flat, pointer)
    if low is None and high is None:
        return Ref("json_number")
    node = digits.decimals(low, high)
    if node is None:
        raise unsupported("A bound of more than 15 significant digits", "Round it.", pointer)
    return node


# ---- checking given values ------------------------------------------------------------------------------------------


def _accepts_text(flat: Flat, text: str, pointer: str) -> bool:
    """True when a given string satisfies the string keywords of `flat`."""
    if not flat.get("minLength", 0) <= len(text) <= flat.get("maxLength", len(text)):
        return False
    for name in flat.get("formats", ()):
        if name not in STRING_FORMATS and name not in ANNOTATING_FORMATS:
            raise unsupported(f"The string format {name!r}", "Leave it out beside an enum.", f"{pointer}/format")
        if name in STRING_FORMATS and not re.fullmatch(STRING_FORMATS[name], text):
            return False
    return all(_finds(pattern, text, pointer) for pattern in flat.get("patterns", ()))


def _finds(pattern: str, text: str, pointer: str) -> bool:
    """True when `pattern` occurs in `text`. Only patterns that regex.py reads: for them Python's matching is the same."""
    _language(pattern, pointer)
    return re.search(pattern, text, re.ASCII) is not None


def _accepts_number(flat: Flat, value: int | float, pointer: str) -> bool:
    low, high = _bounds(flat, pointer)
    exact = Decimal(str(value))
    if low is not None and (exact < low.value or (low.strict and exact == low.value)):
        return False
    if high is not None and (exact > high.value or (high.strict and exact == high.value)):
        return False
    of = flat.get("multipleOf")
    if of is not None and not isinstance(of, int):
        raise unsupported(f"`multipleOf` {of}", "Leave it out beside an enum.", f"{pointer}/multipleOf")
    return of is None or exact % of == 0
