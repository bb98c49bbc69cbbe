"""Structural tags: free text until a trigger, then what its tag says, and free text again; rows of tags; reasoning first."""

from __future__ import annotations

import json
import random
import re

import pytest
from grammar_bench import STOP, WORDS, Bench, make_bench

from ramify.constrained.masks import allowed_tokens
from ramify.constrained.schema import schema_text
from ramify.constrained.spec import (
    Choice,
    Constraint,
    Ebnf,
    JsonObject,
    JsonSchema,
    Reasoned,
    Regex,
    StructuralTags,
    Tag,
    TagRow,
)
from ramify.constrained.vocabulary import CONTROL_MARK, Vocabulary
from ramify.runtime.errors import ConstraintError

CALL, END, THINK, THOUGHT, SPECIAL = range(300, 305)
TOKENS = {"<call>": CALL, "</call>": END, "<think>": THINK, "</think>": THOUGHT}


@pytest.fixture(scope="module")
def controlled() -> Bench:
    """Single bytes, some words, an end token, and control tokens: four plain ones and a special one, `[CALLS]`."""
    tokens = [bytes([b]) for b in range(256)] + [b"", b""] + [word.encode() for word in WORDS]
    tokens += [b"<ca", b"ll>", b"<call"] + [b""] * (300 - len(tokens) - 3)
    tokens += [CONTROL_MARK + text.encode() for text in (*TOKENS, "[CALLS]")]
    vocabulary = Vocabulary.from_tokens(tokens, stop_ids=[STOP], size=320)
    from msgspec.structs import replace

    return make_bench(replace(vocabulary, controls=TOKENS, specials={"[CALLS]": SPECIAL}))


def ids(text: str) -> list[int]:
    """Byte by byte, with control tokens where their text stands."""
    parts = re.split(r"(</?call>|</?think>|\[CALLS\])", text)
    return [i for part in parts for i in ([TOKENS.get(part, SPECIAL)] if part in (*TOKENS, "[CALLS]") else part.encode())]


def takes(bench: Bench, constraint: Constraint, said: str | list[int]) -> bool:
    """Whether this is a complete output."""
    matcher = bench.matcher(constraint)
    return all(matcher.accept(token) for token in (ids(said) if isinstance(said, str) else said)) and matcher.may_end


INTEGERS = JsonSchema(schema_text({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}))
TAG = Tag('<call>{"name": "f", "arguments": ', INTEGERS, "}</call>")
OTHER = Tag('<call>{"name": "g", "arguments": ', JsonObject(), "}</call>")
F, G = '<call>{"name": "f", "arguments": {"n": 5}}</call>', '<call>{"name": "g", "arguments": {"x": [1]}}</call>'
TAGS = StructuralTags(("<call>",), (TAG, OTHER))


def test_free_text_tags_and_free_text_again(controlled):
    for text in ("", "hello", F, f"I call.\n{F}", f"a{F}b{G}c{F}", "a < b <c <call", "<think>why?</think> so", "é漢😀"):
        assert takes(controlled, TAGS, text), text
    for text in (
        f"{F[:-7]}",
        "<call>",
        "<call>hello</call>",
        F.replace("5", '"5"'),
        F.replace('"f"', '"h"'),
        "[CALLS]",
        "</call>x<call>",
    ):
        assert not takes(controlled, TAGS, text), text


def test_a_control_token_is_not_spelled_out_in_characters(controlled):
    assert not takes(controlled, TAGS, list(b"<call>"))
    assert not takes(controlled, TAGS, [*b"<call>", *ids(F)[1:]])
    assert takes(controlled, TAGS, [*b"<call ", *b"x>"])
    from msgspec.structs import replace

    marked = replace(TAGS, marked=True)  # where control tokens are told from characters, both have their place
    assert takes(controlled, marked, [*b"<call>", *ids(F)]) and not takes(controlled, marked, ids(F)[:-1])
    # Within a call its text may be spelled, as anything in a string may; the token itself may not stand there.
    inside = Tag("<call>", JsonSchema('{"type":"string"}'), "</call>")
    assert takes(controlled, StructuralTags(("<call>",), (inside,)), [CALL, *b'"<call>"', END])
    assert not takes(controlled, StructuralTags(("<call>",), (inside,)), [CALL, *b'"', CALL, *b'"', END])


def test_one_tag_at_least_and_one_at_most(controlled):
    once = StructuralTags(("<call>",), (TAG, OTHER), stop_after_first=True)
    must = StructuralTags(("<call>",), (TAG, OTHER), at_least_one=True)
    both = StructuralTags(("<call>",), (TAG, OTHER), at_least_one=True, stop_after_first=True)
    for text, allowed in {
        "": (1, 0, 0),
        "text": (1, 0, 0),
        f"text{F}": (1, 1, 1),
        f"{F}text": (0, 1, 0),
        f"{F}\n{G}": (0, 1, 0),
    }.items():
        assert tuple(map(int, (takes(controlled, c, text) for c in (once, must, both)))) == allowed, text
    matcher = controlled.matcher(once)
    assert all(matcher.accept(token) for token in ids(F))
    assert allowed_tokens(controlled.masks.fill([matcher])[0], 320).tolist() == [STOP]


def test_triggers_of_characters_with_several_tags_each(bench):
    tags = StructuralTags(
        ("<fn=", "[["),
        (
            Tag("<fn=a>", INTEGERS, "</fn>"),
            Tag("<fn=b>", Regex("[xy]+"), "</fn>"),
            Tag("[[", Choice(("one", "two")), "]]"),
            Tag("[[n", Ebnf("root ::= [0-9]+"), "]]"),
        ),
    )
    for text in ("", "<fn", "a [ b", '<fn=a>{"n": 1}</fn>', "so <fn=b>xyx</fn> and [[two]] or [[n17]] <fn"):
        assert takes(bench, tags, list(text.encode())), text
    for text in ("<fn=", "<fn=c>", "<fn=b></fn>", "[[three]]", "x[[", "<<fn=a>{}</fn>"):
        assert not takes(bench, tags, list(text.encode())), text


def test_a_row_is_nothing_but_tags(controlled):
    row = TagRow((TAG, OTHER), separator="\n")
    assert all(takes(controlled, row, text) for text in (F, f"{F}\n{G}\n{G}"))
    assert not any(takes(controlled, row, text) for text in ("", "x", f"x{F}", f"{F}\n", f"{F}{G}"))
    assert takes(controlled, TagRow((TAG,)), F) and not takes(controlled, TagRow((TAG,)), f"{F}\n{F}")
    listed = TagRow((Tag('{"name": "f", "arguments": ', INTEGERS, "}"),), "[CALLS][", ", ", "]")
    one = '{"name": "f", "arguments": {"n": 1}}'
    free = StructuralTags(("[CALLS]",), (listed,), stop_after_first=True)
    assert takes(controlled, listed, f"[CALLS][{one}, {one}]") and not takes(controlled, listed, f"[CALLS][{one}, ]")
    assert (
        takes(controlled, free, f"Yes.[CALLS][{one}]")
        and takes(controlled, free, "No.")
        and not takes(controlled, free, "[CALLS]")
    )


def test_tags_at_the_start_or_not_at_all(bench):
    row = TagRow((Tag('{"name": "f", "parameters": ', INTEGERS, "}"),), separator="; ")
    said = StructuralTags(('{"name": ',), (row,), at_start=True)
    one = '{"name": "f", "parameters": {"n": 1}}'
    for text in ("", "text", "{", '{"name', '{"names": 1}', f"text {one} text", one, f"{one}; {one}"):
        assert takes(bench, said, list(text.encode())), text
    for text in ('{"name": ', '{"name": "x"}', f"{one} text", f"{one}; "):
        assert not takes(bench, said, list(text.encode())), text
    either = StructuralTags(('{"name": ',), (row,), at_start=True, otherwise=Choice(("yes", "no")))
    assert takes(bench, either, list(b"yes")) and takes(bench, either, list(one.encode()))
    assert not takes(bench, either, list(b"maybe"))


def test_reasoning_is_free_and_the_answer_is_not(controlled):
    answer = Reasoned("<think>", "</think>", INTEGERS)
    begun = Reasoned("<think>", "</think>", INTEGERS, begun=True)
    thought = 'Well, {"n": "x"} <call> would be wrong.\n'
    assert takes(controlled, answer, f'<think>{thought}</think>\n\n{{"n": 1}}') and takes(controlled, answer, '{"n": 1}')
    assert takes(controlled, begun, f'{thought}</think>{{"n": 1}}') and not takes(controlled, begun, '{"n": 1}')
    for text in (f"<think>{thought}</think>", f'<think>{thought}</think>{{"n": "x"}}', f'{thought}{{"n": 1}}'):
        assert not takes(controlled, answer, text), text


def test_a_schema_that_cannot_be_enforced_is_refused_if_strict_and_any_object_otherwise(bench):
    free_set = '{"type":"array","items":{"type":"string"},"uniqueItems":true}'
    hard = JsonSchema('{"type":"object","properties":{"a":' + free_set + '},"required":["a"]}')
    with pytest.raises(ConstraintError) as error:
        bench.compile(StructuralTags(("<f>",), (Tag("<f>", hard, "</f>"),)))
    assert error.value.code == "unsupported_schema"
    loose = StructuralTags(("<f>",), (Tag("<f>", hard, "</f>", strict=False),))
    assert takes(bench, loose, list(b'<f>{"b": 1}</f>')) and not takes(bench, loose, list(b"<f>1</f>"))
    kept = StructuralTags(("<f>",), (Tag("<f>", INTEGERS, "</f>", strict=False),))
    assert takes(bench, kept, list(b'<f>{"n": 1}</f>')) and not takes(bench, kept, list(b'<f>{"n": "x"}</f>'))


def test_keyword_arguments_follow_an_object_schema(bench):
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"$ref": "#/$defs/count"},
            "warm": {"type": "boolean"},
            "of": {"enum": [None, "true"]},
        },
        "required": ["days"],
        "$defs": {"count": {"type": "integer", "minimum": 1, "maximum": 9}},
    }
    row = TagRow((Tag("w(", JsonSchema(json.dumps(schema)), ")", form="keywords"),), "[", ", ", "]")
    for text in ("[w(days=3)]", '[w(city="Bern, \\"CH\\"", days=3, warm=True, of=None)]', '[w(days=1, of="true"), w(days=2)]'):
        assert takes(bench, row, list(text.encode())), text
    for text in ("[w()]", "[w(days=10)]", "[w(warm=True)]", "[w(days=3, warm=true)]", "[w(warm=True, days=3)]", "[w(days=3,)]"):
        assert not takes(bench, row, list(text.encode())), text
    anything = TagRow((Tag("w(", JsonObject(), ")", form="keywords"),))
    assert takes(bench, anything, list(b'w(a=1, b_2=[True, {"x": None}])')) and takes(bench, anything, list(b"w()"))
    assert not takes(bench, anything, list(b"w(1)")) and not takes(bench, anything, list(b"w(a = 1)"))
    for hard, message in (
        ({"properties": {"class": {}}}, "keyword"),
        ({"properties": {"a": {}}, "minProperties": 1}, "more than properties"),
        ({"properties": {"a": {"$ref": "#/properties/b"}, "b": {}}}, "leads out"),
        ({"properties": []}, "not valid"),
    ):
        tag = Tag("w(", JsonSchema(json.dumps({"type": "object", **hard})), ")", form="keywords")
        with pytest.raises(ConstraintError, match=message):
            bench.compile(TagRow((tag,)))


@pytest.mark.parametrize(
    "wrong",
    [
        StructuralTags((), (TAG,)),
        StructuralTags(("",), (TAG,)),
        StructuralTags(("<other>",), (TAG,)),
        TagRow(()),
        StructuralTags(("[CALLS]x",), (TagRow((TAG,), "[CALLS]"),)),
        Reasoned("<think>", "", INTEGERS),
    ],
)
def test_tags_that_say_nothing_are_refused(controlled, wrong):
    with pytest.raises(ConstraintError) as error:
        controlled.compile(wrong)
    assert error.value.code == "invalid_grammar"


def test_too_many_tags_and_too_long_triggers_are_refused(bench):
    for wrong in (StructuralTags(("x" * 200,), (TAG,)), StructuralTags(("<call>",), (TAG,) * 3000)):
        with pytest.raises(ConstraintError) as error:
            bench.compile(wrong)
        assert error.value.code == "grammar_too_complex"


@pytest.mark.parametrize("seed", range(6))
def test_random_outputs_consist_of_free_text_and_valid_calls(controlled, seed):
    """Walks over the masks, with a bias to calls: whatever comes out is read by a plain search."""
    rng, calls = random.Random(seed), 0
    grammar = controlled.compile(StructuralTags(("<call>",), (TAG,)))
    for _ in range(8):
        matcher, output = controlled.store.matcher(grammar), ""
        for step in range(400):
            allowed = allowed_tokens(controlled.masks.fill([matcher])[0], 320)
            assert len(allowed)
            wanted = [token for token in (CALL, STOP, ord("}")) if token in allowed]
            token = int(rng.choice(wanted if wanted and rng.random() < 0.2 + step / 400 else allowed))
            assert matcher.accept(token)
            if token == STOP:
                break
            output += controlled.vocabulary.tokens[token].removeprefix(CONTROL_MARK).decode("latin-1")
        else:
            continue
        for called in re.findall(r"<call>(.*?)</call>", output, re.DOTALL):
            said = json.loads(called)
            assert said["name"] == "f" and isinstance(said["arguments"]["n"], int)
            calls += 1
    assert calls > 0
