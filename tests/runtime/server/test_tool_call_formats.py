"""Formats of calls and reasoning: what is read of an answer, in every chunking, and that constraint and reader agree."""

from __future__ import annotations

import gc
import json
import random
import re
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.runtime.config import TOOL_CALL_PARSERS
from ramify.runtime.errors import InvalidRequest
from ramify.runtime.protocol import AnswerParams
from ramify.runtime.server.formats.base import tools_of
from ramify.runtime.server.formats.detect import FORMATS, detect
from ramify.runtime.server.formats.reasoning import AnswerReader, Reasoning, joined_calls
from ramify.runtime.server.formats.values import as_json

CONTROLS = ("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<think>", "</think>")
HERMES = '<tool_call>\n{"name": "f", "arguments": {"a": "x } \\" {", "b": [1, {}]}}\n</tool_call>'
LLAMA = '{"name": "f", "parameters": {"a": "x } \\" {", "b": [1, {}]}}'
LISTED = '[TOOL_CALLS][{"name": "f", "arguments": {"a": "x } \\" {", "b": [1, {}]}}'
ARGS = '[TOOL_CALLS]f[ARGS]{"a": "x } \\" {", "b": [1, {}]}'
PYTHONIC = '[f(a="x } \\" {", b=[1, {}])'
SAID = {"a": 'x } " {', "b": [1, {}]}
# format -> (one call, two calls)
WRITTEN = {
    "hermes": (HERMES, HERMES + "\n" + HERMES),
    "llama3_json": (LLAMA, LLAMA + "; " + LLAMA),
    "mistral": (LISTED + "]", LISTED + ", " + LISTED.removeprefix("[TOOL_CALLS][") + "]"),
    "mistral_args": (ARGS, ARGS * 2),
    "pythonic": (PYTHONIC + "]", PYTHONIC + ", " + PYTHONIC[1:] + "]"),
}


def runs(text: str, controls=CONTROLS) -> list[tuple[str, bool]]:
    """As tokens give it: control tokens apart."""
    parts = re.split("(" + "|".join(map(re.escape, controls)) + ")", text) if controls else [text]
    return [(part, part in controls) for part in parts if part]


def read(
    name: str, said: str | list[tuple[str, bool]], *, controls=CONTROLS, thinks=False, begun=False, cuts: tuple[int, ...] = ()
):
    """(content, reasoning, calls) of an answer that is pushed in pieces, cut at `cuts`."""
    calls = FORMATS[name](controls).reader() if name else None
    reader = AnswerReader(Reasoning(frozenset(controls)) if thinks else None, calls, begun=begun)
    pieces, at = runs(said, controls) if isinstance(said, str) else said, 0
    whole = "".join(text for text, _ in pieces)
    for text, is_control in pieces:
        if is_control:
            reader.control(at, at + len(text))
        at += len(text)
    places = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    taken = [reader.push(whole[start:end]) for start, end in pairwise(places)] + [reader.flush()]
    content, reasoning = (
        "".join(part for piece in taken for part in getattr(piece, kind)) for kind in ("content", "reasoning")
    )
    return (
        content,
        reasoning,
        [(c.index, c.name, c.arguments) for c in joined_calls([c for piece in taken for c in piece.calls])],
    )


def called(answer) -> list[tuple[str, object]]:
    return [(name, json.loads(arguments)) for _, name, arguments in answer[2]]


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("controls", [CONTROLS, ()], ids=["control tokens", "characters"])
def test_one_call_and_two_calls_are_read(name, controls):
    one, two = WRITTEN[name]
    assert called(answer := read(name, one, controls=controls)) == [("f", SAID)] and answer[0] == ""
    assert called(answer := read(name, two, controls=controls)) == [("f", SAID)] * 2 and answer[0] == ""
    assert [index for index, _, _ in answer[2]] == [0, 1]


@pytest.mark.parametrize("name", WRITTEN)
def test_an_answer_without_a_call_is_content_to_the_last_character(name):
    for text in ("", "Hello.", " {a} [b] <c> \n", '{"name": 1}', "[1, 2]", "<tool_call", "[f", "\n\n", '{"name": "f", "par'):
        assert read(name, text) == (text, "", []), text


@pytest.mark.parametrize("name", ["hermes", "mistral", "mistral_args"])
def test_text_may_come_before_a_call_and_white_space_between_is_the_formats(name):
    answer = read(name, "I look. \n" + WRITTEN[name][0] + "\n")
    assert answer[0] == "I look." and called(answer) == [("f", SAID)]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_call_that_is_cut_off_keeps_what_there_is(name):
    text = WRITTEN[name][0]
    seen = set()
    for end in range(len(text)):
        _, _, calls = read(name, text[:end])
        assert len(calls) <= 1
        for _, called_name, arguments in calls:
            assert called_name == "f" and arguments.startswith("{")
            seen.add(arguments)
    assert any(not arguments.endswith("}") for arguments in seen)


def test_what_looks_like_a_call_and_is_none_is_content():
    for name, text in {
        "hermes": '<tool_call>\n{"nam": 1}</tool_call> so',
        "mistral": "[TOOL_CALLS] none",
        "mistral_args": "[TOOL_CALLS]f[ARGS]5",
        "llama3_json": '{"name": "f", "parameters": 5} so',
        "pythonic": "[f] so (x)",
    }.items():
        assert read(name, text) == (text, "", []), name


def test_characters_that_spell_a_control_token_are_content():
    text = "<tool_call>"
    assert read("hermes", [(text, False), (HERMES.removeprefix(text), False)]) == (HERMES, "", [])


def test_content_after_calls_is_content():
    answer = read("hermes", f"A{HERMES}B")
    assert answer[0] == "AB" and called(answer) == [("f", SAID)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nWell.\n</think>\n\nYes.", ("Yes.", "Well.", [])),
        ("Yes.", ("Yes.", "", [])),
        ("<think></think>Yes.", ("Yes.", "", [])),
        ("<think>never ends", ("", "never ends", [])),
        ("\nYes <think>no</think>", ("\nYes <think>no</think>", "", [])),
        (f"<think>a <tool_call> b</think>\n{HERMES}", ("", "a <tool_call> b", [(0, "f", HERMES[40:-14])])),
    ],
)
@pytest.mark.parametrize("controls", [CONTROLS, ()], ids=["control tokens", "characters"])
def test_reasoning_is_told_apart(text, expected, controls):
    content, reasoning, calls = read("hermes", text, thinks=True, controls=controls)
    assert (content, reasoning) == expected[:2] and len(calls) == len(expected[2])


def test_a_call_without_reasoning_is_a_call_though_the_model_could_think():
    for begin in ("", "\n", " "):
        for controls in (CONTROLS, (), ("<tool_call>", "</tool_call>"), ("<think>", "</think>")):
            answer = read("hermes", begin + HERMES, thinks=True, controls=controls)
            assert called(answer) == [("f", SAID)] and answer[:2] == ("", ""), controls


def test_reasoning_that_the_prompt_has_begun():
    assert read("hermes", "Well.\n</think>\n\nYes.", thinks=True, begun=True) == ("Yes.", "Well.", [])
    assert read("", "Well.</think>Yes.\n", thinks=True, begun=True) == ("Yes.\n", "Well.", [])


PIECES = [
    *CONTROLS,
    HERMES,
    LLAMA,
    LISTED,
    ARGS,
    PYTHONIC,
    "]",
    ", ",
    "; ",
    "\n",
    " ",
    "x",
    '{"name": "',
    "f",
    '"',
    "}",
    "[f(",
    ")",
    "a='b'",
    "é",
]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.lists(st.sampled_from(PIECES), max_size=8),
    st.lists(st.integers(0, 2000), max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_the_pieces_of_every_chunking_are_those_of_the_whole(name, parts, cuts, as_controls, begun):
    text, controls = "".join(parts), CONTROLS if as_controls else ()
    whole = read(name, text, controls=controls, thinks=True, begun=begun)
    assert read(name, text, controls=controls, thinks=True, begun=begun, cuts=tuple(cuts)) == whole
    assert read(name, text, controls=controls, thinks=True, begun=begun, cuts=tuple(range(len(text)))) == whole


@pytest.mark.parametrize("name", FORMATS)
def test_reading_is_linear(name):
    def seconds(size: int) -> float:
        text = WRITTEN[name][0].replace("x }", "x" * size) + "<tool_call [TOOL_CALL " * (size // 22)
        best = 1e9
        for _ in range(3):
            started = time.perf_counter()
            read(name, text, cuts=tuple(range(0, len(text), 3)))
            best = min(best, time.perf_counter() - started)
        return best

    gc.collect()
    gc.disable()  # a collection looks at everything that the tests have loaded
    try:
        small, large = seconds(6_000), seconds(48_000)
    finally:
        gc.enable()
    assert large < 32 * small  # 8 times the text; a quadratic reader takes 64 times as long


def test_python_literals_become_json():
    for literal, expected in {
        "True": True, "None": None, "'it\\'s'": "it's", '"\\u00e9"': "é", "[1, 2.5, 'a']": [1, 2.5, "a"],
        "{'a': (1, False)}": {"a": [1, False]}, "{\"a\": null}": {"a": None}, "-3": -3, "Berne": "Berne", "1e999": "1e999",
    }.items():  # fmt: skip
        assert json.loads(as_json(literal)) == expected or literal == "1e999"
    assert called(read("pythonic", "[f(a='x, (y)', b={'k': [1, 2]}, c = None), g()]")) == [
        ("f", {"a": "x, (y)", "b": {"k": [1, 2]}, "c": None}),
        ("g", {}),
    ]


# ------------------------------------------------------------------------------------------------------------ detection


@pytest.mark.parametrize(
    ("template", "calls", "thinks"),
    [
        ("{{- '<tool_call>\\n{\"name\": ' }}", "hermes", False),
        ("...<tool_call>... '<think>\\n' ... '</think>'", "hermes", True),
        ("{{ '[TOOL_CALLS][' }}", "mistral", False),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}", "mistral_args", False),
        ("{{- '{\"name\": \"' + tool_call.name + '\", ' }}{{- '\"parameters\": ' }} <|python_tag|>", "llama3_json", False),
        ("[func_name1(params_name1=params_value1), func_name2(params)]", "pythonic", False),
        ("'<tool_call>\\n<function=' + name", None, False),
        ("{{ message.content }}", None, False),
    ],
)
def test_a_template_says_which_format_its_model_has(template, calls, thinks):
    found = detect(template, CONTROLS)
    assert (None if found.calls is None else found.calls.name, found.reasoning is not None) == (calls, thinks)


def test_the_template_can_be_overruled():
    assert detect("<tool_call>", (), calls="pythonic").calls.name == "pythonic"  # type: ignore[union-attr]
    assert detect("<tool_call></think>", (), calls="none", reasoning="none") == (None, None)
    assert set(TOOL_CALL_PARSERS) == {*FORMATS, "auto", "none"}
    for wrong in ({"calls": "qwen"}, {"reasoning": "deepseek"}):
        with pytest.raises(InvalidRequest, match="must be"):
            detect("", (), **wrong)


# ----------------------------------------------------------------------------------------------- constraint and reader

WEATHER = {
    "name": "weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 5},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "warm": {"type": "boolean"},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
CLOCK = {"name": "clock", "strict": True}
TOOLS = [{"type": "function", "function": function} for function in (WEATHER, CLOCK)]


@pytest.fixture(scope="module")
def benches():
    """A vocabulary with the formats' control tokens, and one without."""
    import sys
    from pathlib import Path

    from msgspec.structs import replace

    sys.path.append(str(Path(__file__).parents[2] / "constrained"))
    from grammar_bench import WORDS, byte_bench, make_bench

    from ramify.constrained.vocabulary import CONTROL_MARK, Vocabulary

    words = [word.encode() for word in (*WORDS, "weather", "clock", "(", '"city"', "city=", "days=")]
    tokens = [bytes([b]) for b in range(256)] + [b"", b"", *words] + [CONTROL_MARK + c.encode() for c in CONTROLS]
    first = 258 + len(words)
    known = {text: first + i for i, text in enumerate(CONTROLS)}
    plain = {text: i for text, i in known.items() if text[0] == "<"}
    vocabulary = replace(
        Vocabulary.from_tokens(tokens, stop_ids=[256], size=len(tokens)),
        controls=plain,
        specials={text: i for text, i in known.items() if text not in plain},
    )
    return {True: make_bench(vocabulary), False: byte_bench()}


def walk(bench, grammar: bytes, rng: random.Random) -> list[tuple[str, bool]] | None:
    """A random output as the runs of its tokens, with a bias to control tokens and to ends; None if it takes too long."""
    from ramify.constrained.masks import allowed_tokens
    from ramify.constrained.vocabulary import CONTROL_MARK

    matcher, output = bench.store.matcher(grammar), []
    for step in range(400):
        allowed = allowed_tokens(bench.masks.fill([matcher])[0], bench.vocabulary.size)
        assert len(allowed)
        wanted = [
            t for t in allowed if t == 256 or bench.vocabulary.tokens[t].startswith(CONTROL_MARK) or t in tuple(b'"}]);,')
        ]
        likely = wanted and rng.random() < 0.3 + step / 200
        token = int(rng.choice(wanted if likely else allowed))
        assert matcher.accept(token)
        if token == 256:
            data = b"".join(output)
            parts = re.split(rb"(\xff(?:" + b"|".join(re.escape(c.encode()) for c in CONTROLS) + rb"))", data)
            return [(part.removeprefix(CONTROL_MARK).decode(), part[:1] == CONTROL_MARK) for part in parts if part]
        output.append(bench.vocabulary.tokens[token])
    return None


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("as_controls", [True, False], ids=["control tokens", "characters"])
def test_what_a_constraint_allows_its_reader_reads(benches, name, as_controls):
    """Strict arguments validate, required calls are there and alone, and one call is at most one."""
    from jsonschema import validate

    bench, controls, rng = benches[as_controls], CONTROLS if as_controls else (), random.Random(name)
    made, tools = FORMATS[name](controls), tools_of(TOOLS, ())
    if not as_controls and name.startswith("mistral"):
        pytest.skip("these models have the tokens")
    seen = 0
    for mode, parallel in (("required", True), ("required", False), ("auto", True), ("auto", False)):
        grammar = bench.compile(made.constraint(tools, AnswerParams(mode, parallel=parallel), None))
        for _ in range(6):
            said = walk(bench, grammar, rng)
            if said is None:
                continue
            content, _, calls = read(name, said, controls=controls)
            assert mode == "auto" or (calls and not content), said
            assert parallel or len(calls) <= 1
            for _, called_name, arguments in calls:
                parameters = {"weather": WEATHER["parameters"], "clock": {"maxProperties": 0}}[called_name]
                validate(json.loads(arguments), parameters)
                seen += 1
    assert seen >= 6


def test_named_tools_are_the_only_ones(benches):
    made = FORMATS["hermes"](CONTROLS)
    grammar = benches[True].compile(
        made.constraint(tools_of(TOOLS, ("clock",)), AnswerParams("required", parallel=False), None)
    )
    said = walk(benches[True], grammar, random.Random(1))
    assert said is not None and [(n, a) for _, n, a in read("hermes", said)[2]] == [("clock", "{}")]
    for names, tools in ((("other",), TOOLS), ((), [])):
        with pytest.raises(InvalidRequest) as error:
            tools_of(tools, names)
        assert error.value.code == "invalid_tools"
