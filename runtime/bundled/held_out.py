"""The held-out items of the five tasks: what is asked, and what would be right. Needs no torch.

Every name, city, product and number of two digits in an item belongs to the held-out fifth, and so does every sentence
pattern; the first item of a task is the same for the same seed, whoever asks and how many.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import corpus as C
from . import patterns as P
from .words import Draw

TASKS = ("recall", "extraction", "calculator", "choice", "few_shot")


@dataclass(frozen=True)
class Item:
    """One question. `messages` (a chat whose next turn is the assistant's) or `text` (to be continued) is the prompt.

    choices: the answer is one of them, found by likelihood. schema: the answer is JSON under it, all fields as in `expected`.
    tool_result: the answer is the call `expected`; then this comes back, and the second answer must hold it.
    Otherwise the answer is text, up to `stop` or the end of the turn, and must hold `expected` as whole words; where
    `whole` is set it must be equal to it.
    """

    task: str
    expected: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    tools: list[dict[str, Any]] | None = None
    choices: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    tool_result: str = ""
    stop: str = ""
    whole: bool = False


def held_out(task: str, count: int, seed: int = 0) -> list[Item]:
    """`count` items of a task of `TASKS`."""
    make = MAKERS[task]
    return [make(Draw(random.Random(f"held-out-{task}-{seed}-{i}"), unseen=True)) for i in range(count)]


def recall(d: Draw) -> Item:
    """Two to four facts over one or more turns, small talk between, then one question."""
    r = d.rng
    known = C.facts(d, r.randint(2, 4))
    messages: list[dict[str, Any]] = [{"role": "system", "content": r.choice(P.SYSTEMS)}] if r.random() < 0.3 else []
    for f in known:
        messages += C.told(d, [f])
        if r.random() < 0.3:
            messages += r.choice((C.small_talk, C.fact_question, C.listing))(d)
    f = r.choice(known)
    return Item("recall", f.value, [*messages, C.user(f.ask)])


def extraction(d: Draw) -> Item:
    """A sentence, and a schema of four fields in the prompt."""
    rec = C.record(d, four=True)
    ask = d.pattern(P.EXTRACT_SCHEMA).format(j=json.dumps(rec.schema), s=rec.sentence)
    return Item("extraction", C.as_json(rec), [C.user(ask)], schema=rec.schema)


def calculator(d: Draw) -> Item:
    """Two numbers of two digits and a calculator among up to three tools; half of the time its result is a wrong one, since
    the answer must come from the tool."""
    r = d.rng
    x, y = d.number(10, 99), d.number(10, 99)
    tools = {kind: C.tool(d, kind) for kind in ("add", "weather", "search") if kind == "add" or r.random() < 0.3}
    function = tools["add"]["function"]
    arguments = dict(zip(function["parameters"]["properties"], (x, y), strict=True))
    expected = json.dumps({"name": function["name"], "arguments": arguments})
    result = x + y if r.random() < 0.5 else d.number(100, 9999)
    ask = d.pattern(P.ADD_ASK).format(a=x, b=y)
    return Item("calculator", expected, [C.user(ask)], tools=list(tools.values()), tool_result=str(result))


def choice(d: Draw) -> Item:
    """Three choices: half of the items are chats, half plain text (the choices named at the top)."""
    r = d.rng
    while len((c := C.choice(d)).options) != 3:
        pass
    if r.random() < 0.5:
        return Item("choice", c.answer, [C.user(C.choice_ask(d, c))], choices=tuple(c.options))
    text = d.pattern(C.TEXTS[c.kind]).format(s=c.text, i=c.text, I=c.text.capitalize(), a=C.a(c.text))
    options = tuple(o.lower() for o in c.options)
    return Item("choice", c.answer.lower(), text=f"Choose from {', '.join(options)}.\n\n{text}", choices=options)


def few_shot(d: Draw) -> Item:
    """One to five answered questions in "Q: ... A: ..." or another form, then one more."""
    while len((drawn := C.few_shot(d))[2]) < 2:
        pass
    document, form, rounds = drawn
    text = "".join(piece for piece, _ in document)
    _, _, value = rounds[-1]
    after = form.split("{v}")[1]
    cut = text.rindex(value + after.rstrip("\n"))
    return Item("few_shot", value, text=text[:cut].rstrip(" "), stop="\n", whole=True)


MAKERS: dict[str, Callable[[Draw], Item]] = {
    "recall": recall, "extraction": extraction, "calculator": calculator, "choice": choice, "few_shot": few_shot,
}
