"""`gen(type=T)`: any value of a type, written as JSON, obeys the type's schema and comes back equal."""

from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass
from typing import Annotated, Literal, NewType, Optional, TypedDict

import jsonschema
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ramify as sgl
from ramify.constrained.spec import JsonSchema
from ramify.lang.backends.scripted import Scripted
from ramify.lang.typed import schema_text, typed


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Address:
    street: str
    number: int
    zip: Optional[str]  # noqa: UP045  the older spelling has to work as well


@dataclass(frozen=True)
class Person:
    name: str
    age: int | None
    color: Color
    level: Level
    kind: Literal["a", 1, None]
    address: Address
    tags: list[str]
    scores: dict[str, float]
    pair: tuple[int, bool]
    many: tuple[float, ...]


@dataclass(frozen=True)
class Tree:
    value: int
    children: list[Tree]


class Movie(TypedDict):
    title: str
    year: int


@dataclass(frozen=True)
class Film:
    title: str
    year: int


class Model(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=1)
    address: Address
    films: list[Film] = []


text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
whole = st.integers(-(10**15), 10**15)
number = st.floats(allow_nan=False, allow_infinity=False)
address = st.builds(Address, text, whole, st.none() | text)
person = st.builds(
    Person,
    text,
    st.none() | whole,
    st.sampled_from(Color),
    st.sampled_from(Level),
    st.sampled_from(["a", 1, None]),
    address,
    st.lists(text, max_size=3),
    st.dictionaries(text, number, max_size=3),
    st.tuples(whole, st.booleans()),
    st.lists(number, max_size=3).map(tuple),
)
tree = st.recursive(st.builds(Tree, whole, st.just([])), lambda c: st.builds(Tree, whole, st.lists(c, max_size=2)), max_leaves=4)

TYPES = {
    int: whole,
    float: number,
    bool: st.booleans(),
    str: text,
    None: st.none(),
    Literal["yes", "no"]: st.sampled_from(["yes", "no"]),
    Literal[True, 0]: st.sampled_from([True, 0]),
    Color: st.sampled_from(Color),
    int | str | None: st.none() | whole | text,
    list[list[int]]: st.lists(st.lists(whole, max_size=3), max_size=3),
    dict[str, Color]: st.dictionaries(text, st.sampled_from(Color), max_size=3),
    Address: address,
    Person: person,
    list[Person]: st.lists(person, max_size=2),
    Tree: tree,
    Movie: st.fixed_dictionaries({"title": text, "year": whole}),
    NewType("UserId", int): whole,
    Annotated[str, "a name"]: text,
}


def plain(value):
    """A value as JSON's own types."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_every_value_round_trips_through_json_that_obeys_the_schema(kind):
    converter = typed(kind)
    schema = json.loads(converter.schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    @settings(max_examples=40)
    @given(TYPES[kind])
    def check(value):
        for written in (json.dumps(plain(value)), json.dumps(plain(value), ensure_ascii=False, separators=(", ", ": "))):
            assert validator.is_valid(json.loads(written))
            back = converter.parse(written)
            assert back == value and type(back) is type(value)

    check()


@pytest.mark.parametrize("value", ['say "hi"', "two\nlines\ttab", "emoji 🦜 é 日本", "back\\slash /", "\x00\x7f", ""])
def test_strings_hold_any_character(value):
    for written in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        state = sgl.function(lambda s, w=written: s.__iadd__("A: " + sgl.gen("x", type=str))).run(backend=Scripted([written]))
        assert state["x"] == value and state.text() == "A: " + written


def test_half_of_a_surrogate_pair_becomes_the_replacement_character():
    assert typed(str).parse(r'"a\ud800b"') == "a\ufffdb"
    assert typed(str).parse(r'"\ud83e\udd9c"') == "🦜"


def test_objects_have_exactly_their_fields_in_order():
    schema = json.loads(typed(Address).schema)
    assert schema == {
        "type": "object",
        "properties": {
            "street": {"type": "string"},
            "number": {"type": "integer"},
            "zip": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["street", "number", "zip"],
        "additionalProperties": False,
    }


def test_a_type_that_contains_itself_is_defined_once():
    schema = json.loads(typed(Tree).schema)
    assert schema["$ref"] == "#/$defs/Tree"
    assert schema["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


@pytest.mark.parametrize("kind", [Model, list[Model], Optional[Model]], ids=str)  # noqa: UP045
def test_pydantic_models_validate_themselves_wherever_they_stand(kind):
    converter = typed(kind)
    one = {"name": "n", "address": {"street": "s", "number": 1, "zip": None}, "films": [{"title": "t", "year": 2}]}
    value = converter.parse(json.dumps([one] if kind == list[Model] else one))
    model = value[0] if kind == list[Model] else value
    assert isinstance(model, Model) and model.address == Address("s", 1, None) and model.films == [Film("t", 2)]
    with pytest.raises(sgl.InvalidRequest, match="name"):
        converter.parse(json.dumps([one | {"name": ""}] if kind == list[Model] else one | {"name": ""}))


def test_pydantic_objects_take_no_properties_that_they_do_not_list():
    schema = json.loads(typed(Model).schema)
    assert schema["additionalProperties"] is False and schema["$defs"]["Address"]["additionalProperties"] is False


REFUSED = [bytes, object, list, dict[int, str], set[int], complex, Annotated[int, 5], Literal[b"x"]]


@pytest.mark.parametrize("kind", REFUSED, ids=str)
def test_a_type_without_an_exact_schema_is_refused(kind):
    with pytest.raises(sgl.ConstraintError, match=r"gen\(type=.*not possible") as caught:
        sgl.gen("x", type=kind)
    assert caught.value.code == "unsupported_type"


MISFITS = [(int, '"1"'), (int, "1.5"), (bool, "1"), (Address, '{"street": "s"}'), (Color, '"pink"')]


@pytest.mark.parametrize(("kind", "written"), MISFITS)
def test_json_of_another_type_is_an_error(kind, written):
    with pytest.raises(sgl.InvalidRequest) as caught:
        typed(kind).parse(written)
    assert caught.value.code == "wrong_type"


def test_n_typed_texts_are_a_list_of_values():
    backend = Scripted([['{"title": "t", "year": 1}', '{"title": "u", "year": 2}']])
    state = sgl.function(lambda s: s.__iadd__(sgl.gen("x", type=Movie, n=2))).run(backend=backend)
    assert state["x"] == [{"title": "t", "year": 1}, {"title": "u", "year": 2}]
    assert backend.requests[0].constraint == JsonSchema(typed(Movie).schema)


def test_a_number_that_ends_at_max_tokens_is_not_taken_for_whole():
    program = sgl.function(lambda s: s.__iadd__(sgl.gen("x", type=int, max_tokens=2)))
    assert program.run(backend=Scripted(["12"]))["x"] == 12
    with pytest.raises(sgl.InvalidRequest, match="'12' is not a complete int") as caught:
        program.run(backend=Scripted(["123"]))
    assert caught.value.code == "incomplete_output"


def test_json_schema_takes_a_text_a_dict_or_a_model():
    assert schema_text('{"type": "null"}') == schema_text({"type": "null"}) == '{"type": "null"}'
    assert json.loads(schema_text(Model)) == Model.model_json_schema()
    with pytest.raises(sgl.ConstraintError, match="use type="):
        schema_text(int)
