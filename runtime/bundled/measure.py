"""Measure a checkpoint on the held-out items. How an answer is scored is kept apart from what produces it: a `Backend`
generates and scores, and this file has one that is plain transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from .held_out import TASKS, Item, held_out


class Prompt(NamedTuple):
    """A chat whose next turn is the assistant's and begins with `prefix`, or else a text to be continued."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    text: str
    prefix: str = ""


class Backend(Protocol):
    def generate(self, prompts: Sequence[Prompt], *, max_tokens: int, stop: str = "") -> list[str]:
        """Greedy continuations, up to the end of the turn or the text or `stop` (which is cut off); tool calls as text."""
        ...

    def score(self, prompts: Sequence[Prompt], choices: Sequence[tuple[str, ...]]) -> list[list[float]]:
        """For each prompt the mean log-likelihood (nats a token) of each of its choices as the continuation."""
        ...


class Result(NamedTuple):
    """right of `items` answers were right; wrong holds (item, what came) of the others."""

    task: str
    items: int
    right: int
    wrong: list[tuple[Item, str]]


def measure(backend: Backend, task: str, *, count: int = 500, seed: int = 0, free: bool = False) -> Result:
    """Ask all items of one task. free: extraction without any constraint on the JSON."""
    items = held_out(task, count, seed)
    prompts = [Prompt(item.messages, item.tools, item.text) for item in items]
    if task == "choice":
        scores = backend.score(prompts, [item.choices for item in items])
        answers = [item.choices[row.index(max(row))] for item, row in zip(items, scores, strict=True)]
        marks = [answer == item.expected for item, answer in zip(items, answers, strict=True)]
    elif task == "calculator":
        answers, marks = calculator(backend, items, prompts)
    elif task == "extraction" and not free:
        answers = fields(backend, items, prompts)
        marks = [correct(item, answer) for item, answer in zip(items, answers, strict=True)]
    else:
        answers = backend.generate(prompts, max_tokens=96, stop=items[0].stop)
        marks = [correct(item, answer) for item, answer in zip(items, answers, strict=True)]
    wrong = [(item, answer) for item, answer, mark in zip(items, answers, marks, strict=True) if not mark]
    return Result(task, len(items), sum(marks), wrong)


def fields(backend: Backend, items: list[Item], prompts: list[Prompt]) -> list[str]:
    """The JSON as a decoder constrained by the schema writes it: what the schema fixes is given, and values are generated
    up to what ends them. All items ask for as many fields."""
    written = ["{"] * len(items)
    properties = [list((item.schema or {})["properties"].items()) for item in items]
    for index in range(len(properties[0])):
        kinds = [listed[index] for listed in properties]
        written = [text + (", " if index else "") + f'"{key}": ' + ('"' if kind["type"] == "string" else "")
                   for text, (key, kind) in zip(written, kinds, strict=True)]
        answers = backend.generate([p._replace(prefix=text) for p, text in zip(prompts, written, strict=True)], max_tokens=32)
        for i, (answer, (_, kind)) in enumerate(zip(answers, kinds, strict=True)):
            written[i] += answer.partition('"')[0] + '"' if kind["type"] == "string" else _number(answer)
    return [text + "}" for text in written]


def calculator(backend: Backend, items: list[Item], prompts: list[Prompt]) -> tuple[list[str], list[bool]]:
    """The call must be the expected one, and the answer after the tool's message must hold the tool's result."""
    calls = backend.generate(prompts, max_tokens=96)
    seconds = []
    for prompt, item in zip(prompts, items, strict=True):
        call = {"type": "function", "function": json.loads(item.expected)}
        turns = [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": item.tool_result}]
        seconds.append(prompt._replace(messages=prompt.messages + turns))
    finals = backend.generate(seconds, max_tokens=48)
    marks = [same_json(call_of(call), item.expected) and holds(final, item.tool_result)
             for call, final, item in zip(calls, finals, items, strict=True)]
    return [f"{call} ... {final}" for call, final in zip(calls, finals, strict=True)], marks


def correct(item: Item, answer: str) -> bool:
    """Whether an answer in text is right."""
    if item.schema is not None:
        return same_json(answer, item.expected)
    return answer.strip() == item.expected if item.whole else holds(answer, item.expected)


def holds(answer: str, expected: str) -> bool:
    """Whether the expected words stand in the answer, not as a part of longer ones."""
    return re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", answer) is not None


def call_of(answer: str) -> str:
    """The JSON of the first tool call, or ""."""
    found = re.search(r"<tool_call>\s*(.*?)\s*</tool_call>", answer, re.DOTALL)
    return found[1] if found else ""


def same_json(answer: str, expected: str) -> bool:
    """Equal as JSON values; the order of the fields does not matter."""
    try:
        return json.loads(answer) == json.loads(expected)
    except ValueError:
        return False


def _number(answer: str) -> str:
    """The digits and points that an answer begins with."""
    found = re.match(r"[\d.]*", answer)
    return found[0] if found else ""


class TransformersBackend:
    """Plain transformers on the CPU. dtype: "bfloat16" or "float32"."""

    def __init__(self, folder: Path, dtype: str, *, rows: int = 50):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch, self.rows = torch, rows
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def _text(self, prompt: Prompt) -> str:
        if not prompt.messages:
            return prompt.text
        chat = self.tokenizer.apply_chat_template(prompt.messages, tools=prompt.tools, tokenize=False, add_generation_prompt=True)
        return chat + prompt.prefix

    def generate(self, prompts: Sequence[Prompt], *, max_tokens: int, stop: str = "") -> list[str]:
        texts = [self._text(p) for p in prompts]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        answers = [""] * len(texts)
        stops: dict[str, Any] = {"stop_strings": [stop], "tokenizer": self.tokenizer} if stop else {}
        for start in range(0, len(order), self.rows):
            some = order[start:start + self.rows]
            batch = self.tokenizer([texts[i] for i in some], return_tensors="pt", padding=True, add_special_tokens=False)
            with self.torch.inference_mode():
                ids = self.model.generate(**batch, max_new_tokens=max_tokens, do_sample=False, **stops)
            for i, row in zip(some, ids[:, batch["input_ids"].shape[1]:], strict=True):
                answer = self.tokenizer.decode(row, skip_special_tokens=True)
                answers[i] = answer.split(stop)[0] if stop else answer
        return answers

    def score(self, prompts: Sequence[Prompt], choices: Sequence[tuple[str, ...]]) -> list[list[float]]:
        scores = []
        for prompt, options in zip(prompts, choices, strict=True):
            head = self.tokenizer(self._text(prompt), add_special_tokens=False)["input_ids"]
            row = []
            for option in options:
                tail = self.tokenizer(option, add_special_tokens=False)["input_ids"]
                with self.torch.inference_mode():
                    logits = self.model(self.torch.tensor([head + tail])).logits[0, len(head) - 1:-1]
                picked = logits.float().log_softmax(-1).gather(1, self.torch.tensor(tail)[:, None])
                row.append(float(picked.mean()))
            scores.append(row)
        return scores


def report(folder: Path, *, items: int = 500, dtypes: Sequence[str] = ("bfloat16", "float32")) -> str:
    """A Markdown table: the share of right answers for every task and dtype."""
    lines = [f"| task ({items} held-out items, greedy) | " + " | ".join(dtypes) + " |", "| --- |" + " --- |" * len(dtypes)]
    backends = [TransformersBackend(folder, dtype) for dtype in dtypes]
    for task, free in [*((task, False) for task in TASKS), ("extraction", True)]:
        results = [measure(backend, task, count=items, free=free) for backend in backends]
        name = f"{task} without constraint" if free else task
        lines.append(f"| {name} | " + " | ".join(f"{100 * r.right / r.items:.1f} %" for r in results) + " |")
    return "\n".join(lines)
