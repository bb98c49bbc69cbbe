"""Structural tags, rows of them, and reasoning before an answer: from spec.py's values to a grammar.

    StructuralTags   free [trigger call], again and again        free: `free_text.py`, without a trigger
                     call = what the trigger leaves of a tag's begin, its content, its end
    TagRow           opening tag (separator tag)* closing
    Reasoned         [[begin] free end, white space] then

The contents' grammars keep rules of their own (`t3_...`); JSON's common ones are shared.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from ..runtime.errors import ConstraintError
from . import json_text, schema
from .free_text import ControlTokens, Pattern, free_text, not_beginning_with, spelled
from .grammar import (
    EMPTY,
    Alt,
    Grammar,
    Literal,
    Node,
    Ref,
    Repeat,
    Seq,
    Token,
    alt,
    any_of,
    optional,
    repeat,
    seq,
)
from .spec import Constraint, JsonSchema, Reasoned, StructuralTags, Tag, TagRow

_JSON = json_text.LAYOUTS["compact"]
_RULES = _JSON.rules()
Lower = Callable[[Constraint], Grammar]
SPACE_AFTER_REASONING = repeat(any_of(" \n"), 0, 4)


def lower(constraint: StructuralTags | TagRow | Reasoned, controls: ControlTokens, lower_one: Lower) -> Grammar:
    """The grammar, not pruned. controls: the control tokens of the vocabulary. lower_one: the grammar of any other constraint.
    Raises ConstraintError: invalid_grammar for tags that fit no trigger, and what `lower_one` raises."""
    return _Tags(controls, lower_one).whole(constraint)


class _Tags:
    """Collects the rules of one grammar."""

    def __init__(self, controls: ControlTokens, lower_one: Lower):
        self._controls, self._lower_one = controls, lower_one
        self._rules: dict[str, Node] = dict(_RULES)
        self._known: dict[tuple[Constraint, str, bool], Node] = {}

    def whole(self, constraint: Constraint) -> Grammar:
        root = self._node(constraint)
        return Grammar({"root": root, **self._rules})

    def _node(self, constraint: Constraint) -> Node:
        match constraint:
            case StructuralTags(at_start=True):
                return self._at_start(constraint)
            case StructuralTags():
                return self._anywhere(constraint)
            case TagRow():
                return self._row(constraint, 0)
            case Reasoned():
                return self._reasoned(constraint)
            case _:
                return self._grafted(self._lower_one(constraint))

    # ---- tags ----

    def _tag(self, tag: Tag, skip: int) -> Node:
        """A tag without the first `skip` symbols of its begin."""
        begin = self._controls.pattern(tag.begin)[skip:]
        return seq(spelled(begin), self._content(tag), self._controls.node(tag.end))

    def _row(self, row: TagRow, skip: int) -> Node:
        """A row without the first `skip` symbols of its opening."""
        if not row.tags:
            raise _wrong("A row of tags has no tag. Give at least one.")
        opening = self._controls.pattern(row.opening)
        if len(opening) < skip:
            raise _wrong("The trigger of a row of tags must be a beginning of its opening.")
        one = self._rule("row", alt(*(self._tag(tag, 0) for tag in row.tags)))
        more = EMPTY if row.separator is None else repeat(seq(self._controls.node(row.separator), one), 0, None)
        return seq(spelled(opening[skip:]), one, more, self._controls.node(row.closing))

    def _content(self, tag: Tag) -> Node:
        key = (tag.content, tag.form, tag.strict)
        if key not in self._known:
            grammar = self._content_grammar(tag)
            self._known[key] = self._rule("content", self._grafted(grammar, own=tag.form != "json"))
        return self._known[key]

    def _content_grammar(self, tag: Tag) -> Grammar:
        keywords = tag.form == "keywords"
        content = tag.content
        try:
            if not keywords:
                return self._lower_one(content)
            return any_keywords() if not isinstance(content, JsonSchema) else keywords_of(content.schema)
        except ConstraintError:
            if tag.strict:
                raise
            return any_keywords() if keywords else json_text.any_object()

    # ---- around them ----

    def _begin(self, tag: Tag | TagRow) -> Pattern:
        return self._controls.pattern(tag.begin if isinstance(tag, Tag) else tag.opening)

    def _anywhere(self, said: StructuralTags) -> Node:
        if not said.triggers or "" in said.triggers:
            raise _wrong("Structural tags need triggers, none of them empty.")
        triggers = [self._controls.pattern(trigger) for trigger in said.triggers]
        forbidden = [] if said.marked else _look_alikes(said.triggers, triggers)
        calls, used = [], set()
        for trigger in triggers:
            fitting = [i for i, tag in enumerate(said.tags) if self._begin(tag)[: len(trigger)] == trigger]
            used.update(fitting)
            calls.append(self._rule("call", alt(*(self._rest(said.tags[i], len(trigger)) for i in fitting))))
        if unused := [i for i in range(len(said.tags)) if i not in used]:
            raise _wrong(f"Tag {unused[0]} begins with none of the triggers. Give it one, or a begin that starts with one.")

        def free(name: str, after: Node, may_end: bool) -> Node:
            then = [seq(call, after) for call in calls]
            loose = self._controls.plain.values()
            self._rules |= free_text(name, triggers, then, forbidden=forbidden, controls=loose, may_end=may_end)
            return Ref(name)

        if said.stop_after_first:
            return free("free", EMPTY, not said.at_least_one)
        any_more = free("free", Ref("free"), True)
        return free("first", any_more, False) if said.at_least_one else any_more

    def _rest(self, tag: Tag | TagRow, skip: int) -> Node:
        return self._tag(tag, skip) if isinstance(tag, Tag) else self._row(tag, skip)

    def _at_start(self, said: StructuralTags) -> Node:
        tags = alt(*(self._rest(tag, 0) for tag in said.tags))
        if said.at_least_one:
            return tags
        if said.otherwise is not None:
            return alt(tags, self._node(said.otherwise))
        forms = [pattern for text in said.triggers for pattern in (self._controls.pattern(text), tuple(text))]
        self._rules |= not_beginning_with("other", list(dict.fromkeys(forms)), self._controls.plain.values())
        return alt(tags, Ref("other"))

    def _reasoned(self, said: Reasoned) -> Node:
        end = self._controls.pattern(said.end)
        if not end:
            raise _wrong("Reasoning needs a mark at its end.")
        forbidden = [] if said.marked else _look_alikes([said.end], [end])
        answer = self._rule("answer", self._node(said.then))
        then = [seq(SPACE_AFTER_REASONING, answer)]
        loose = self._controls.plain.values()
        self._rules |= free_text("thought", [end], then, forbidden=forbidden, controls=loose, may_end=False)
        thought = Ref("thought")
        return thought if said.begun else alt(seq(self._controls.node(said.begin), thought), answer)

    # ---- rules ----

    def _rule(self, kind: str, node: Node) -> Node:
        """A rule of its own for what would be repeated."""
        name = f"{kind}_{len(self._rules)}"
        self._rules[name] = node
        return Ref(name)

    def _grafted(self, grammar: Grammar, own: bool = False) -> Node:
        """The root of another grammar, its rules added to ours under names of their own. own: JSON's rules as well."""
        prefix = f"t{len(self._rules)}_"
        own = own or any(_RULES.get(name, node) != node for name, node in grammar.rules.items())  # JSON in another layout
        names = {name: name if name in _RULES and not own else prefix + name for name in grammar.rules}
        for name, node in grammar.rules.items():
            self._rules[names[name]] = _renamed(node, names)
        return Ref(names[grammar.root])


def _look_alikes(texts: Sequence[str], patterns: Sequence[Pattern]) -> list[Pattern]:
    """What control tokens stand for, spelled out in characters: no trigger, but it looks like one."""
    return [tuple(text) for text, pattern in zip(texts, patterns, strict=True) if tuple(text) != pattern]


def _renamed(node: Node, names: dict[str, str]) -> Node:
    match node:
        case Ref(name):
            return Ref(names[name])
        case Seq(items):
            return Seq(tuple(_renamed(item, names) for item in items))
        case Alt(items):
            return Alt(tuple(_renamed(item, names) for item in items))
        case Repeat(item, least, most):
            return Repeat(_renamed(item, names), least, most)
        case Token(item):
            return Token(_renamed(item, names))
        case _:
            return node


# ---- keyword arguments ----------------------------------------------------------------------------------------------

_SPOKEN = frozenset(
    ("type", "properties", "required", "additionalProperties", "title", "description", "$defs", "definitions", "$schema")
)
_LITERALS = {"true": "True", "false": "False", "null": "None"}


def keywords_of(text: str) -> Grammar:
    """The properties of an object schema as Python's keyword arguments, in the schema's order: `city="Bern", days=3`.

    Values are JSON with Python's True, False and None; strings have JSON's escapes. Raises ConstraintError
    `unsupported_schema` for a schema that says more of its object than its properties.
    """
    schema.lower(text)  # refuses what is no schema, or none that could be enforced
    said = msgspec.json.decode(text)
    if not isinstance(said, dict) or said.get("type", "object") != "object" or (more := set(said) - _SPOKEN):
        what = f"{sorted(more)[0]!r}" if isinstance(said, dict) and said.get("type", "object") == "object" else "its type"
        message = f"A tool of this model takes keyword arguments, and its schema says more than properties: {what}."
        raise ConstraintError(message, code="unsupported_schema", param="parameters")
    properties, required = said.get("properties", {}), said.get("required", [])
    for name in [*properties, *required]:
        if name not in properties or not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name):
            message = f"{name[:64]!r} cannot be a keyword argument of a tool. Declare it under an identifier."
            raise ConstraintError(message, code="unsupported_schema", param="parameters")
    shared = {key: said[key] for key in ("$defs", "definitions") if key in said}
    for reference in _references(said):
        if not reference.startswith(("#/$defs/", "#/definitions/")):
            message = f"The reference {reference[:64]!r} leads out of a keyword argument. Put its target into $defs."
            raise ConstraintError(message, code="unsupported_schema", param="parameters")
    rules: dict[str, Node] = {}
    items: list[tuple[Node, bool]] = []
    for number, (name, part) in enumerate(properties.items()):
        whole = {**part, **shared} if isinstance(part, dict) else part
        lowered = schema.lower(schema.schema_text(whole)).grammar
        names = {rule: f"p{number}_{rule}" for rule in lowered.rules}
        rules |= {names[rule]: _in_python(_renamed(node, names)) for rule, node in lowered.rules.items()}
        items.append((seq(Literal(f"{name}="), Ref(names[lowered.root])), name in required))
    rules["root"] = _listed(items, rules)
    return Grammar(rules)


def _references(value: Any) -> Iterator[str]:
    """Every `$ref` in a schema."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)


def any_keywords() -> Grammar:
    """Any keyword arguments with JSON's values."""
    letters, digits = [(0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)], [(0x30, 0x39)]
    name = seq(json_text.chars(letters), repeat(json_text.chars([*letters, *digits]), 0, 63))
    pair = seq(name, Literal("="), Ref("json_value"))
    rules = {rule: _in_python(node) for rule, node in _RULES.items()}
    return Grammar({"root": optional(seq(pair, repeat(seq(_JSON.comma, pair), 0, None))), **rules})


def _listed(items: Sequence[tuple[Node, bool]], rules: dict[str, Node]) -> Node:
    """Items in order with commas between those that are there; (item, whether it must be)."""
    fresh, after = EMPTY, EMPTY  # what follows if nothing, or something, came before
    for number, (item, needed) in reversed(list(enumerate(items))):
        rules[f"after{number}"], following = after, Ref(f"after{number}")
        with_item = seq(item, following)
        fresh = with_item if needed else alt(with_item, fresh)
        separated = seq(_JSON.comma, with_item)
        after = separated if needed else alt(separated, following)
    return fresh


def _in_python(node: Node) -> Node:
    match node:
        case Literal(text) if text in _LITERALS:
            return Literal(_LITERALS[text])
        case Seq(items):
            return Seq(tuple(map(_in_python, items)))
        case Alt(items):
            return Alt(tuple(map(_in_python, items)))
        case Repeat(item, least, most):
            return Repeat(_in_python(item), least, most)
        case Token(item):
            return Token(_in_python(item))
        case _:
            return node


def _wrong(message: str) -> ConstraintError:
    return ConstraintError(message, code="invalid_grammar")
