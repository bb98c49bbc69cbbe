"""Python functions as tools: definitions from hints and docstrings, calls in a program, the loop that runs them."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Any, Literal

import jsonschema
import pydantic
import pytest

import ramify as sgl
from ramify.lang.backends.openai_fields import Answer, Words, prompt_fields
from ramify.lang.backends.scripted import Scripted
from ramify.lang.tools import Call, answer_of, described, prepared, result_text, tool_of, tools_of
from ramify.runtime.protocol import AnswerParams, AnswerRead, Chat, Message, ToolCall

pytestmark = pytest.mark.timeout(60)


class Unit(enum.Enum):
    METRIC = "metric"
    IMPERIAL = "imperial"


@dataclass(frozen=True)
class Place:
    city: str
    country: str | None


class Window(pydantic.BaseModel):
    days: int = pydantic.Field(ge=1, le=9)
    hours: list[int] = []


def forecast(
    place: Place,
    window: Window,
    kind: Literal["rain", "sun"],
    unit: Unit = Unit.METRIC,
    tags: list[str] | None = None,
    scale: float = 1.5,
) -> str:
    """Tells what the weather
    will be.

    Longer words that the model need not read.

    Args:
        place: Where. May
            take two lines.
        window (Window): When: from now on.
        scale: By how much.

    Returns:
        unit: not a parameter here.
    """
    return f"{place.city} {window.days} {kind} {unit.name} {tags} {scale}"


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def divide(a: int, b: int) -> float:
    """Divides.

    :param a: what is divided
    :param int b: by this
    """
    return a / b


def function_of(tool: Any) -> dict[str, Any]:
    return json.loads(tool.definition)["function"]


# --------------------------------------------------------------------------------------------------------- definitions


def test_a_functions_hints_and_docstring_become_a_strict_definition():
    function = function_of(tool_of(forecast))
    parameters = function["parameters"]
    assert function["name"] == "forecast" and function["strict"] is True
    assert function["description"] == "Tells what the weather will be."
    assert list(parameters["properties"]) == ["place", "window", "kind", "unit", "tags", "scale"]
    assert parameters["required"] == ["place", "window", "kind"] and parameters["additionalProperties"] is False
    said = {name: schema.get("description") for name, schema in parameters["properties"].items()}
    assert said == {
        "place": "Where. May take two lines.",
        "window": "When: from now on.",
        "kind": None,
        "unit": None,
        "tags": None,
        "scale": "By how much.",
    }
    assert parameters["properties"]["scale"]["default"] == 1.5 and parameters["properties"]["kind"]["enum"] == ["rain", "sun"]
    jsonschema.Draft202012Validator.check_schema(parameters)
    good = {"place": {"city": "Bern", "country": None}, "window": {"days": 3}, "kind": "sun"}
    jsonschema.validate(good, parameters)
    for wrong in ({**good, "kind": "snow"}, {**good, "window": {"days": 10}}, {**good, "more": 1}, {"place": good["place"]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, parameters)


def test_arguments_arrive_as_values_of_their_types():
    call = Call(
        "forecast", {"place": {"city": "Bern", "country": None}, "window": {"days": 3}, "kind": "sun", "unit": "imperial"}
    )
    assert prepared(call, tools_of([forecast]))() == "Bern 3 sun IMPERIAL None 1.5"
    bound = tool_of(forecast).bound(call.arguments or {})
    assert bound["place"] == Place("Bern", None) and isinstance(bound["window"], Window) and bound["unit"] is Unit.IMPERIAL


def test_descriptions_in_sphinx_form_and_none_at_all():
    assert described("Divides.\n\n:param a: what is divided\n:param int b: by this\n    and that") == (
        "Divides.",
        {"a": "what is divided", "b": "by this and that"},
    )
    assert described("") == ("", {}) and described("Args:\n    x: y") == ("", {"x": "y"})
    assert described("One.\n\nArgs:\n    x: y\n\n    z: w\nReturns:\n    q: no") == ("One.", {"x": "y", "z": "w"})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x, "no type hint"),
        (eval("lambda *args: 0"), "cannot be given by name"),
        ({"type": "function"}, "no function with a name"),
        (5, "Give a function"),
        ({"type": "function", "function": {"name": "two words"}}, "1 to 64"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(wrong, message):
    with pytest.raises((sgl.InvalidRequest, sgl.ConstraintError), match=message):
        sgl.gen("x", tools=[wrong])


def test_arguments_of_gen_that_do_not_fit_together_are_refused():
    for said, message in (
        ({"tools": [add], "regex": "a"}, "constrain the same"),
        ({"tools": [add, add]}, "Two tools"),
        ({"tools": [add], "tool_choice": "divide"}, "none of the tools"),
        ({"tools": [], "tool_choice": "required"}, "no tools"),
        ({"tool_choice": "auto"}, "need tools"),
        ({"parallel_tool_calls": False}, "need tools"),
    ):
        with pytest.raises(sgl.InvalidRequest, match=message):
            sgl.gen("x", **said)


def test_results_are_told_as_text_or_as_json():
    values = ("é", 5, None, [1, "x"], {"a": Unit.METRIC}, Place("Bern", None), Window(days=2))
    assert [result_text(value) for value in values] == [
        "é", "5", "null", '[1, "x"]', '{"a": "Unit.METRIC"}', '{"city": "Bern", "country": null}', '{"days":2,"hours":[]}',
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ programs


def called(*calls: tuple[str, str], content: str = "") -> AnswerRead:
    return AnswerRead(content, calls=tuple(ToolCall(name, text, f"call_{i}") for i, (name, text) in enumerate(calls)))


def test_a_call_is_a_value_and_its_result_a_turn_that_names_it():
    backend = Scripted([called(("add", '{"a": 2, "b": 3}'), content="I add."), "It is 5."])

    @sgl.function
    def program(s):
        s += sgl.user("2 + 3?") + sgl.assistant(sgl.gen("answer", tools=[add], tool_choice="required"))
        [call] = s["answer"].calls
        s += sgl.tool(str(add(**call.arguments)), call=call)
        s += sgl.assistant(sgl.gen("words"))

    state = program.run(backend=backend)
    assert (state["answer"].text, str(state["answer"]), str(state["answer"].calls[0])) == ("I add.", "I add.", "add(a=2, b=3)")
    assert state["words"] == "It is 5."
    first, second = backend.requests
    assert first.answer == AnswerParams("required", reasoning=True) and second.answer is None
    chat = second.prompt[0]
    assert json.loads(chat.tools[0])["function"]["name"] == "add" and chat.tools == first.prompt[0].tools
    assert chat.messages[1:] == (
        Message("assistant", "I add.", (ToolCall("add", '{"a": 2, "b": 3}', "call_0"),)),
        Message("tool", "5", (), "call_0"),
    )
    assert state.messages()[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 2, "b": 3}'}
    assert state.messages()[2]["tool_call_id"] == "call_0"
    assert state.explain("words").continuation == "continued"


def test_the_loop_runs_functions_until_the_model_answers_in_words():
    backend = Scripted(
        [
            called(("add", '{"a": 2, "b": 3}'), ("divide", '{"a": 1, "b": 0}')),
            called(("divide", '{"a": 1, "b": "x"}'), ("multiply", "{}"), ("add", "{"), ("add", '{"a": 1, "c": 2}')),
            "Done.",
        ]
    )

    @sgl.function
    def program(s):
        s += sgl.user("Go.")
        return sgl.run_tools(s, [add, divide], max_tokens=50, tool_choice="required")

    state = program.run(backend=backend)
    assert state.ret_value.text == "Done." and state["answer"] == state.ret_value
    results = [m["content"] for m in state.messages() if m["role"] == "tool"]
    assert results[:2] == ["5", "Error: ZeroDivisionError: division by zero"]
    assert [r.split(":")[0] for r in results[2:]] == ["Error"] * 4
    assert "'b' is wrong" in results[2] and "no function 'multiply'" in results[3]
    assert "not a JSON object" in results[4] and "no parameter 'c'" in results[5]
    assert [request.answer.tools for request in backend.requests] == ["required", "auto", "auto"]
    assert all(request.sampling.max_new_tokens == 50 for request in backend.requests)


def test_the_loop_is_bounded():
    backend = Scripted(lambda _: called(("add", '{"a": 1, "b": 1}')))

    @sgl.function
    def program(s):
        s += sgl.user("Go.")
        sgl.run_tools(s, [add], max_rounds=3)

    with pytest.raises(sgl.InvalidRequest, match="after 3 rounds") as error:
        program.run(backend=backend)
    assert error.value.code == "too_many_rounds" and len(backend.requests) == 3
    for wrong in ({"max_rounds": 0}, {"tools": [{"type": "function", "function": {"name": "f"}}]}):
        with pytest.raises(sgl.InvalidRequest):
            sgl.run_tools(None, **{"tools": [add], **wrong})  # type: ignore[arg-type]


async def test_an_async_program_awaits_its_functions():
    backend = Scripted([called(("slow", '{"x": 4}'), ("add", '{"a": 1, "b": 2}')), "Done."])

    async def slow(x: int) -> int:
        return x * 2

    @sgl.function
    async def program(s):
        s += sgl.user("Go.")
        return await sgl.arun_tools(s, [slow, add])

    state = await program.arun(backend=backend)
    assert [m["content"] for m in state._executor.transcript.messages() if m["role"] == "tool"] == ["8", "3"]


def test_branches_call_by_themselves_and_are_joined_with_their_calls():
    backend = Scripted(lambda prompt: "So." if "<|tool|>" in prompt else called(("add", '{"a": 1, "b": 1}')))

    @sgl.function
    def program(s):
        s += sgl.user("Go.")
        forks = s.fork(2)
        for fork in forks:
            sgl.run_tools(fork, [add])
        forks.join("concate_and_append")

    messages = program.run(backend=backend).messages()
    assert [m["role"] for m in messages] == ["user", *["assistant", "tool", "assistant"] * 2]
    assert [len(m.get("tool_calls", ())) for m in messages] == [0, 1, 0, 0, 1, 0, 0]


def test_a_turn_that_has_called_is_over():
    backend = Scripted([called(("add", "{}")), "never"])

    @sgl.function
    def program(s):
        s += sgl.user("Go.")
        s += sgl.assistant(sgl.gen("a", tools=[add]) + sgl.gen("b"))

    with pytest.raises(sgl.InvalidRequest, match="is over"):
        program.run(backend=backend)


def test_a_run_shows_the_tools_of_all_its_calls():
    backend = Scripted(lambda _: "So.")

    @sgl.function
    def program(s):
        s += sgl.user("Go.") + sgl.assistant(sgl.gen("x"))

    program.run(backend=backend, tools=[add])
    assert backend.requests[0].prompt[0].tools == (tool_of(add).definition,) and hash(sgl.gen("y", tools=[add]))


def test_several_answers_are_a_list():
    backend = Scripted(lambda _: [called(("add", '{"a": 1, "b": 1}')), "No."])

    @sgl.function
    def program(s):
        s += sgl.user("Go.") + sgl.assistant(sgl.gen("x", tools=[add], n=2))

    answers = program.run(backend=backend)["x"]
    assert [len(answer.calls) for answer in answers] == [1, 0] and answers[1].text == "No."


# ----------------------------------------------------------------------------------------------------- OpenAI's fields


def test_tools_are_sent_in_openais_words():
    chat = Chat((Message("user", "x"),), tools=(tool_of(add).definition, tool_of(forecast).definition))

    def sent(dialect: str, *said: Any, **more: Any) -> dict[str, Any]:
        fields = prompt_fields((chat,), dialect, AnswerParams(*said, **more) if said else None)
        return {key: value for key, value in fields.items() if key not in ("messages", "tools")}

    assert sent("openai") == {"tool_choice": "none"}
    assert sent("openai", "auto") == {"tool_choice": "auto"}
    assert sent("openai", "required", parallel=False) == {"tool_choice": "required", "parallel_tool_calls": False}
    assert sent("sglang", "required", ("add",), False) == {"tool_choice": {"type": "function", "function": {"name": "add"}}}
    assert sent("sglang", "auto", ("add",))["tool_choice"]["allowed_tools"]["mode"] == "auto"
    for dialect, strict in (("openai", [True, False]), ("sglang", [True, True])):
        tools = prompt_fields((chat,), dialect, AnswerParams("auto"))["tools"]
        assert [tool["function"]["strict"] for tool in tools] == strict  # OpenAI's own wants no optional property


def test_streamed_calls_are_put_together():
    answer, words = Answer(0, is_read=True), Words()
    for delta in (
        {"role": "assistant", "content": "I "},
        {"content": "add.", "reasoning_content": "Hm."},
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1,'}}]},
        {
            "tool_calls": [
                {"index": 0, "function": {"arguments": ' "b": 2}'}},
                {"index": 1, "id": "call_2", "function": {"name": "f"}},
            ]
        },
    ):
        answer.take({"index": 0, "delta": delta}, words)
    answer.take({"index": 0, "delta": {}, "finish_reason": "tool_calls"}, words)
    finished = answer.finished({}, 0)
    assert finished.finish.reason == "stop" and finished.answer is not None
    read = answer_of(finished.answer)
    assert (read.text, read.reasoning) == ("I add.", "Hm.")
    assert read.calls == (Call("add", {"a": 1, "b": 2}, "call_1", '{"a": 1, "b": 2}'), Call("f", {}, "call_2", ""))
