"""The examples that users read: each runs and prints what its first line promises. A script plays the model."""

from __future__ import annotations

from importlib import import_module

import pytest
from msgspec.structs import replace

from ramify.lang.backends.scripted import Scripted
from ramify.runtime.protocol import AnswerRead, GenerateRequest, ToolCall

pytestmark = pytest.mark.timeout(30)

KNOWN = {
    "capital of France?\nA: ": "Paris\n",
    "capital of Spain?\nA: ": "Madrid\n",
    "opposite of hot?\nA: ": "cold\n",
    "Give me three tips": "1. Balanced diet.\n2. Regular exercise.\n3. Enough sleep.",
    "Expand this tip: Regular exercise": "Walk or run.",
    "is wonderful.<|end|><|assistant|>": "positive",
    "is broken.<|end|><|assistant|>": "negative",
    "was average.<|end|><|assistant|>": "neutral",
    "Marta Silva": '{"name": "Marta Silva", "age": 34, "city": "Porto", "product": "bicycle"}',
    "Jonas Weber": '{"name": "Jonas Weber", "age": 52, "city": "Lyon", "product": "lantern"}',
    "What is my dog called?<|end|><|assistant|>": "Your dog is called Bruno.",
    "What is 27 plus 58?<|end|><|assistant|>": AnswerRead(calls=(ToolCall("add", '{"a": 27, "b": 58}', "call_1"),)),
    "<|tool|>85<|end|><|assistant|>": "27 plus 58 is 85.",
}


def model(prompt: str) -> str | AnswerRead:
    ends = [(prompt.rfind(known) + len(known), answer) for known, answer in KNOWN.items() if known in prompt]
    return max(ends)[1] if ends else "Noted.\n"


class Unlimited(Scripted):
    """Its tokens are characters, so limits that are meant for a model's tokens are lifted."""

    async def generate(self, request: GenerateRequest):
        if request.sampling.max_new_tokens:
            request = replace(request, sampling=replace(request.sampling, max_new_tokens=None))
        async for event in super().generate(request):
            yield event


PROMISED = {
    "batch": ["hot/cold", "open/Noted."],
    "chat": ["assistant: Your dog is called Bruno.", "tokens cached"],
    "choose": ["is wonderful. -> positive", "is broken. -> negative", "We are sorry."],
    "extract": ["Order(name='Marta Silva', age=34, city='Porto', product='bicycle'): 35 next year", "53 next year"],
    "few_shot": ["France: Paris", "Spain: Madrid", "tokens, computed ahead"],
    "fork": ["Regular exercise: Walk or run.", "Enough sleep: "],
    "tool": ['calls add with {"a": 27, "b": 58}\n  result 85\n  27 plus 58 is 85.', "19.\n  Noted."],
}


@pytest.mark.parametrize("name", PROMISED)
def test_an_example_does_what_its_first_line_says(name, capsys):
    example = import_module(f"ramify.lang.examples.{name}")
    assert example.__doc__.strip()
    example.main(Unlimited(model))
    printed = capsys.readouterr().out
    for text in PROMISED[name]:
        assert text in printed


def test_every_example_is_tested():
    from importlib.resources import files

    here = {entry.name.removesuffix(".py") for entry in files("ramify.lang.examples").iterdir() if entry.name.endswith(".py")}
    assert here - {"__init__"} == set(PROMISED)
