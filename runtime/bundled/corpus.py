"""The synthetic text: conversations and plain documents, drawn from a generator of random words.

A document is a list of pieces (text, weight); the weight is how much the loss of its tokens counts. What users say
counts nothing, what the assistant says counts in full.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from . import patterns as P
from . import words as W
from .chat import END_OF_TEXT, segments
from .sentences import varied
from .words import Draw

Message = dict[str, Any]
Document = list[tuple[str, float]]
PLAIN = 0.1  # weight of the plain text after an answer


class Fact(NamedTuple):
    key: tuple[str, ...]
    say: str
    ask: str
    answer: str
    value: str


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def answered(before: str, answer: str) -> Document:
    """What leads to an answer counts nothing, but the space before the answer does: prompts end with it or without it."""
    lead = before.rstrip(" ")
    return [(lead, 0.0), (before[len(lead):] + answer, 1.0)]


def join(options: list[str], last: str) -> str:
    """"a, b or c"."""
    return ", ".join(options[:-1]) + f" {last} {options[-1]}" if len(options) > 1 else options[0]


def a(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


# ---- facts to recall -------------------------------------------------------------------------------------------

def fact(d: Draw) -> Fact:
    """Something a user may say, and how to ask for it later."""
    r = d.rng
    kind = r.choices(("called", "name", "live", "age", "other_live", "has", "who", "cost", "favourite", "code"), (34, 7, 7, 6, 10, 7, 7, 7, 8, 9))[0]
    if kind == "called":
        t, x = r.choice(W.THINGS), d.name()
        return _fact((kind, t), d, P.CALLED_SAY, P.CALLED_ASK, "Your {t} is called {x}.", t=t, x=x)
    if kind == "name":
        return _fact((kind,), d, P.MY_NAME_SAY, P.MY_NAME_ASK, "Your name is {x}.", x=d.full_name())
    if kind == "live":
        return _fact((kind,), d, P.LIVE_SAY, P.LIVE_ASK, "You live in {x}.", x=d.city())
    if kind == "age":
        return _fact((kind,), d, P.AGE_SAY, P.AGE_ASK, "You are {x} years old.", x=str(d.number(11, 99)))
    if kind == "other_live":
        n = d.name()
        return _fact((kind, n), d, P.OTHER_LIVES, P.OTHER_LIVES_ASK, "{n} lives in {x}.", n=n, x=d.city())
    if kind == "has":
        n = d.name()
        return _fact((kind, n), d, P.OTHER_HAS, P.OTHER_HAS_ASK, "{n} has a {x}.", n=n, x=d.product())
    if kind == "who":
        x, n = d.product(), d.name()
        made = _fact((kind, x), d, P.OTHER_HAS, P.WHO_HAS_ASK, "{n} has the {x}.", n=n, x=x)
        return made._replace(value=n)
    if kind == "cost":
        n = d.product()
        return _fact((kind, n), d, P.COSTS, P.COSTS_ASK, "The {n} costs {x} dollars.", n=n, x=d.price())
    if kind == "favourite":
        t = r.choice(list(W.CATEGORIES)[:6] + ["colour", "drink", "sport", "flower", "city", "book", "song", "game", "food", "film"])
        x = r.choice(W.CATEGORIES[t]) if t in W.CATEGORIES and not d.unseen and r.random() < 0.6 else (d.city() if t == "city" else d.word())
        return _fact((kind, t), d, P.FAVOURITE_SAY, P.FAVOURITE_ASK, "Your favourite {t} is {x}.", t=t, x=x)
    t = r.choice(P.CODES)
    x = d.code() if r.random() < 0.6 else str(d.number(100, 99999)) if r.random() < 0.7 else d.word()
    return _fact((kind, t), d, P.CODE_SAY, P.CODE_ASK, "Your {t} is {x}.", t=t, x=x)


def _fact(key: tuple[str, ...], d: Draw, say: tuple[str, ...], ask: tuple[str, ...], answer: str, **slots: str) -> Fact:
    return Fact(key, d.pattern(say).format(**slots), d.pattern(ask).format(**slots), answer.format(**slots), slots["x"])


def facts(d: Draw, count: int) -> list[Fact]:
    """Facts that do not contradict each other."""
    found: dict[tuple[str, ...], Fact] = {}
    while len(found) < count:
        new = fact(d)
        found.setdefault(new.key, new)
    return list(found.values())


def asked(d: Draw, f: Fact) -> list[Message]:
    """The question and its answer; now and then only the bare answer is wanted."""
    if d.rng.random() < 0.2:
        return [user(f"{f.ask} {d.rng.choice(P.ONE_WORD)}"), assistant(f.value)]
    return [user(f.ask), assistant(f.answer)]


def told(d: Draw, said: list[Fact]) -> list[Message]:
    r = d.rng
    text = r.choice((" ", " ", "\n")).join(f.say for f in said)
    reply = r.choice(P.ACKS) if r.random() < 0.7 else f"I see. {said[-1].answer}"
    return [user(text), assistant(reply)]


def recall(d: Draw) -> tuple[list[Message], Fact]:
    """A conversation in which facts are told and then asked for. Returns the one that is asked last, too."""
    r = d.rng
    known = facts(d, r.choice((1, 2, 2, 3, 3, 4, 5)))
    messages: list[Message] = []
    rest = list(known)
    while rest:
        take = r.choice((1, 1, 2, 3))
        messages += told(d, rest[:take])
        rest = rest[take:]
        if r.random() < 0.25:
            messages += filler(d)
    order = r.sample(known, len(known))
    for f in order[: r.choice((1, 2, 3, 4))]:
        last = f
        messages += asked(d, f)
        if r.random() < 0.15:
            messages += filler(d)
            messages += asked(d, f)
    if r.random() < 0.12:  # all in one breath: the question follows in the turn that tells
        f = r.choice(known)
        last = f
        messages = [user(" ".join(k.say for k in known) + f" {f.ask}"), assistant(f.answer)]
    return messages, last


# ---- small talk and other turns ---------------------------------------------------------------------------------

def filler(d: Draw) -> list[Message]:
    """One turn about something else."""
    return d.rng.choices((small_talk, fact_question, listing, about, repeat, choice_turn, tip), (5, 4, 2, 2, 3, 3, 1))[0](d)


def small_talk(d: Draw) -> list[Message]:
    asks, answer = d.rng.choice(list(P.CHAT.items()))
    return [user(d.rng.choice(asks.split("|"))), assistant(answer)]


def listing(d: Draw) -> list[Message]:
    r = d.rng
    category, count = r.choice(list(W.CATEGORIES)), r.randint(2, 6)
    ask = d.pattern(P.LIST_ASK).format(n=W.NUMBERS[count - 1], c=W.PLURALS[category])
    return [user(ask), assistant("\n".join(f"{i}. {item}" for i, item in enumerate(W.CATEGORIES[category][:count], 1)))]


def about(d: Draw) -> list[Message]:
    topic = d.rng.choice(list(P.ABOUT))
    return [user(d.pattern(P.ABOUT_ASK).format(t=topic)), assistant(P.ABOUT[topic])]


def repeat(d: Draw) -> list[Message]:
    r = d.rng
    words = [r.choice((d.name, d.word, d.city, d.product, d.code))() for _ in range(r.randint(1, 6))]
    text = r.choice((" ", " ", ", ", " and ")).join(words)
    return [user(d.pattern(P.REPEAT_ASK).format(x=text)), assistant(text)]


def tip(d: Draw) -> list[Message]:
    r = d.rng
    topic, tips = r.choice(list(P.TIPS.items()))
    if r.random() < 0.4:
        n = r.choice((2, 3))
        ask = r.choice(P.TIPS_ASK).format(n=W.NUMBERS[n - 1], t=topic)
        return [user(ask), assistant("\n".join(f"{i}. {name}." for i, (name, _) in enumerate(tips[:n], 1)))]
    name, sentence = r.choice(tips)
    return [user(r.choice(P.TIP_ASK).format(x=name)), assistant(sentence)]


def story(d: Draw) -> list[Message]:
    r = d.rng
    n, m = d.name(), d.name()
    return [user(r.choice(P.STORY_ASK).format(n=n)), assistant(story_text(d, n, m))]


def story_text(d: Draw, n: str, m: str) -> str:
    return d.rng.choice(P.STORY).format(n=n, m=m, c=d.city(), x=d.product(), j=d.rng.choice(W.JOBS))


def persona(d: Draw) -> tuple[str, list[Message]]:
    """A system prompt that gives the assistant a name, and a turn that asks for it."""
    x = d.name()
    return d.pattern(P.PERSONA_SYSTEM).format(x=x), [user(d.pattern(P.PERSONA_ASK)), assistant(f"I am {x}.")]


# ---- the calculator ---------------------------------------------------------------------------------------------

TOOL_NAMES = {
    "add": (("add", "add", "add_numbers", "sum", "plus", "calculator", "calculate_sum", "calculator_add", "adder"),
            ("Adds two numbers.", "Add two numbers", "Returns the sum of two numbers.", "Sum of two integers", "")),
    "subtract": (("subtract", "minus", "difference"), ("Subtracts two numbers.", "Returns the difference of two numbers.", "")),
    "multiply": (("multiply", "times", "product"), ("Multiplies two numbers.", "Returns the product of two numbers.", "")),
    "weather": (("get_weather", "weather", "weather_in", "forecast"), ("Returns the weather of a city.", "Get the weather for a city", "")),
    "search": (("search", "lookup", "find", "web_search"), ("Searches the web.", "Look something up", "")),
}
OPERANDS = (("a", "b"), ("a", "b"), ("x", "y"), ("first", "second"), ("left", "right"), ("m", "n"), ("num1", "num2"), ("number1", "number2"))
SKIES = ("sunny", "rainy", "cloudy", "windy", "foggy", "snowy", "hot", "cold")
SPOKEN = {"add": "plus", "subtract": "minus", "multiply": "times"}
QUESTIONS = {"add": P.ADD_ASK, "subtract": P.SUBTRACT_ASK, "multiply": P.MULTIPLY_ASK}


def tool(d: Draw, kind: str) -> dict[str, Any]:
    r = d.rng
    names, descriptions = TOOL_NAMES[kind]
    if kind == "weather":
        properties = {r.choice(("city", "location", "place")): {"type": "string"}}
    elif kind == "search":
        properties = {r.choice(("query", "text", "term")): {"type": "string"}}
    else:
        keys, key_type = r.choice(OPERANDS), r.choice(("integer", "integer", "number"))
        properties = {key: {"type": key_type} for key in keys}
    function = {"name": r.choice(names), "description": r.choice(descriptions), "parameters": {"type": "object", "properties": properties}}
    return {"type": "function", "function": function}


def toolbox(d: Draw) -> dict[str, dict[str, Any]]:
    """Kinds and definitions of the tools of one conversation; adding is nearly always among them."""
    r = d.rng
    kinds = ["add"] if r.random() < 0.92 else []
    kinds += [k for k in ("subtract", "multiply", "weather", "search") if r.random() < 0.25]
    kinds = kinds or ["weather"]
    r.shuffle(kinds)
    tools = {kind: tool(d, kind) for kind in kinds}
    if "add" in tools and r.random() < 0.5:  # as the plainest programs name it
        tools["add"]["function"]["name"] = r.choice(("add", "calculator"))
    return tools


def sums(d: Draw, kind: str) -> tuple[int, int, str]:
    """Two operands of two digits (now and then other lengths) and a result, right or wrong, on this side of the split."""
    r = d.rng
    while True:
        lows = ((10, 99), (10, 99)) if d.unseen or r.random() < 0.8 else (r.choice(((1, 9), (10, 99), (100, 999))), r.choice(((1, 9), (10, 99), (100, 999))))
        x, y = d.number(*lows[0]), d.number(*lows[1])
        if kind == "subtract" and x < y:
            x, y = y, x
        right = {"add": x + y, "subtract": x - y, "multiply": x * y}[kind]
        if d.unseen:
            return x, y, str(right)
        if r.random() < 0.6:  # the answer must come from the tool, so the tool is often wrong
            return x, y, str(d.number(*r.choice(((1, 9), (10, 99), (10, 199), (100, 999), (1000, 9999)))))
        if right < 10 or not W.held_out(str(right)):
            return x, y, str(right)


def tool_turn(d: Draw, tools: dict[str, dict[str, Any]]) -> list[Message]:
    """A question, the call, the tool's message and the answer that uses it."""
    r = d.rng
    kind = "add" if "add" in tools and r.random() < 0.75 else r.choice(list(tools))
    function = tools[kind]["function"]
    keys = list(function["parameters"]["properties"])
    if kind in SPOKEN:
        x, y, result = sums(d, kind)
        ask = d.pattern(QUESTIONS[kind]).format(a=x, b=y)
        arguments: dict[str, Any] = {keys[0]: x, keys[1]: y}
        answer = f"{x} {SPOKEN[kind]} {y} is {result}."
    elif kind == "weather":
        city, sky = d.city(), r.choice(SKIES)
        ask, arguments, result = d.pattern(P.WEATHER_ASK).format(x=city), {keys[0]: city}, sky
        answer = f"The weather in {city} is {sky}."
    else:
        query, found = r.choice((d.name, d.city, d.product))(), d.word()
        ask, arguments, result = d.pattern(P.SEARCH_ASK).format(x=query), {keys[0]: query}, found
        answer = f"I found this: {found}."
    if kind in SPOKEN and r.random() < 0.15:
        result_text = json.dumps({"result": int(result)})
    else:
        result_text = result
    call = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return [user(ask), {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": result_text}, assistant(answer)]


def no_tool(d: Draw) -> list[Message]:
    x, y, _ = sums(d, "add")
    return [user(d.pattern(P.ADD_ASK).format(a=x, b=y)), assistant("I need a calculator tool for that.")]


# ---- extraction -------------------------------------------------------------------------------------------------

class Record(NamedTuple):
    sentence: str
    keys: list[str]
    values: list[str]  # as JSON
    schema: dict[str, Any]


def value_of(d: Draw, kind: str) -> tuple[str, str]:
    """(text in the sentence, JSON)."""
    r = d.rng
    if kind == "age":
        text = str(d.number(11, 99))
    elif kind == "price":
        text = d.price()
    elif kind == "quantity":
        text = str(d.number(2, 99))
    elif kind in ("paid", "member"):
        text = r.choice(("true", "false"))
    else:
        text = {"name": d.full_name, "city": d.city, "product": d.product, "code": d.code, "pet": d.name,
                "job": lambda: r.choice(W.JOBS), "colour": lambda: r.choice(W.CATEGORIES["colour"][:10])}[kind]()
        return text, json.dumps(text, ensure_ascii=False)
    return text, text


def record(d: Draw, *, four: bool = False) -> Record:
    """A sentence and some or all of its fields, in any order, under any of their usual names."""
    r = d.rng
    if four or r.random() < 0.6:
        priced = r.random() < 0.4
        kinds = ["name", "city", "product", "price" if priced else "age"]
        values = {k: value_of(d, k) for k in kinds}
        texts = {k: v[0] for k, v in values.items()}
        free = d.varied and d.rng.random() < 0.7
        sentence = varied(d, texts) if free else d.pattern(P.FOUR_PRICE if priced else P.FOUR).format(**texts)
        wanted = kinds if four or r.random() < 0.6 else r.sample(kinds, r.randint(1, 4))
    else:
        others = r.sample([k for k in P.KEYS if k != "name"], r.randint(1, 5))
        kinds = ["name", *others]
        values = {k: value_of(d, k) for k in kinds}
        sentence = composed(d, others, values)
        wanted = r.sample(kinds, r.randint(1, len(kinds)))
    keys: list[str] = []
    properties: dict[str, Any] = {}
    plain_names = r.random() < 0.5
    for kind in r.sample(wanted, len(wanted)):
        names, kind_type = P.KEYS[kind]
        key = names[0] if plain_names else r.choice(names)
        key = names[0] if key in properties else key
        if kind_type == "number" and "." not in values[kind][0] and r.random() < 0.5:
            kind_type = "integer"
        if kind_type == "enum":
            others = [c for c in r.sample(W.CATEGORIES["colour"][:10], 3) if c != values[kind][0]][:2] + [values[kind][0]]
            properties[key] = {"enum": r.sample(others, len(others))}
        else:
            properties[key] = {"type": kind_type}
        keys.append(key)
        properties[key]["_kind"] = kind
    json_values = [values[properties[k].pop("_kind")][1] for k in keys]
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if four or r.random() < 0.5:
        schema["required"] = keys
    return Record(sentence, keys, json_values, schema)


def composed(d: Draw, kinds: list[str], values: dict[str, tuple[str, str]]) -> str:
    r = d.rng
    clauses = []
    for kind in kinds:
        group = f"{kind}:{values[kind][0]}" if kind in ("paid", "member") else kind
        clauses.append(d.pattern(P.CLAUSES[group]).format(**{kind: values[kind][0]}))
    style, name = r.random(), values["name"][0]
    if style < 0.4:
        return f"{name} {join(clauses, 'and')}."
    if style < 0.7:
        return " ".join(f"{name if i == 0 or r.random() < 0.3 else r.choice(('He', 'She'))} {c}." for i, c in enumerate(clauses))
    return f"{name} {clauses[0]}" + "".join(r.choice((", ", " and ", ". The customer ", ". Also, " + name + " ")) + c for c in clauses[1:]) + "."


def as_json(rec: Record) -> str:
    """Compact JSON with ", " and ": ", as a constrained decoder without free whitespace emits it."""
    return "{" + ", ".join(f'"{k}": {v}' for k, v in zip(rec.keys, rec.values, strict=True)) + "}"


def extract_ask(d: Draw, rec: Record) -> str:
    r = d.rng
    style = r.random()
    if style < 0.45:
        typed = r.random() < 0.2
        names = [f"{k} ({rec.schema['properties'][k].get('type', 'enum')})" if typed else k for k in rec.keys]
        listed = join(names, "and") if r.random() < 0.6 else ", ".join(names)
        return d.pattern(P.EXTRACT_ASK).format(f=listed, s=rec.sentence)
    if style < 0.85 or d.unseen:
        return d.pattern(P.EXTRACT_SCHEMA).format(j=json.dumps(rec.schema), s=rec.sentence)
    return d.pattern(P.EXTRACT_BARE).format(s=rec.sentence)


def extraction(d: Draw) -> list[Message]:
    rec = record(d)
    return [user(extract_ask(d, rec)), assistant(as_json(rec))]


def extraction_text(d: Draw) -> Document:
    """Plain text: a sentence and its JSON, now and then after examples with the same fields."""
    form = d.pattern(P.EXTRACT_TEXT)
    doc: Document = []
    for _ in range(d.rng.choice((1, 1, 2, 3))):
        rec = record(d)
        doc += [*answered(form.format(s=rec.sentence), as_json(rec)), (d.rng.choice(("\n\n", "\n")), PLAIN)]
    return [*doc[:-1], (END_OF_TEXT, 1.0)]


# ---- choices ----------------------------------------------------------------------------------------------------

class Choice(NamedTuple):
    text: str
    options: list[str]
    answer: str
    kind: str
    item: str


def case(options: list[str], answer: str, r: random.Random) -> tuple[list[str], str]:
    return ([o.capitalize() for o in options], answer.capitalize()) if r.random() < 0.2 else (options, answer)


def single_category_items() -> dict[str, str]:
    """item → category, for items that stand in one category only."""
    seen: dict[str, list[str]] = {}
    for category, items in W.CATEGORIES.items():
        for item in items:
            seen.setdefault(item, []).append(category)
    return {item: found[0] for item, found in seen.items() if len(found) == 1}


KIND_OF = single_category_items()


def choice(d: Draw) -> Choice:
    r = d.rng
    kind = r.choices(("sentiment", "category", "topic"), (5, 4, 3))[0]
    if kind == "sentiment":
        answer = r.choice(list(W.SENTIMENT))
        options = r.sample(list(W.SENTIMENT), 3)
        if r.random() < 0.75:
            text = d.pattern(P.REVIEWS).format(x=d.product(), c=d.city(), n=d.name(), w=r.choice(W.SENTIMENT[answer]))
        else:
            text = r.choice(W.FEELINGS[answer]).format(x="the " + d.product()) + "."
            text = text[0].upper() + text[1:]
    elif kind == "category":
        item = r.choice(list(KIND_OF))
        answer = KIND_OF[item]
        options = r.sample([c for c in W.CATEGORIES if c != answer], r.choice((2, 2, 2, 1, 3))) + [answer]
        r.shuffle(options)
        text = item
    else:
        answer = r.choice(list(W.TOPICS))
        options = r.sample([t for t in W.TOPICS if t != answer], 2) + [answer]
        r.shuffle(options)
        text = r.choice(W.TOPICS[answer]).format(x="the " + d.product(), c=d.city()) + r.choice((".", ".", "!"))
    item = text
    options, answer = case(options, answer, r)
    return Choice(text, options, answer, kind, item)


ASKS = {"sentiment": P.SENTIMENT_ASK, "category": P.CATEGORY_ASK, "topic": P.TOPIC_ASK}
TEXTS = {"sentiment": P.SENTIMENT_TEXT, "category": P.CATEGORY_TEXT, "topic": P.TOPIC_TEXT}


def choice_ask(d: Draw, c: Choice) -> str:
    listed = join(c.options, "or") if d.rng.random() < 0.8 else ", ".join(c.options)
    return d.pattern(ASKS[c.kind]).format(o=listed, s=c.text, i=c.text, a=a(c.text))


def choice_turn(d: Draw) -> list[Message]:
    c = choice(d)
    if c.kind == "sentiment" and d.rng.random() < 0.2:
        return [user(d.pattern(P.SENTIMENT_BARE).format(s=c.text)), assistant(c.answer.lower())]
    return [user(choice_ask(d, c)), assistant(c.answer)]


def choice_text(d: Draw) -> Document:
    """Plain text with no, one or a few examples in one form; the labels may be named at the top."""
    r = d.rng
    first = choice(d)
    form = d.pattern(TEXTS[first.kind])
    upper = first.answer[0].isupper()
    rounds = [first]
    for _ in range(r.choice((0, 0, 1, 2, 3))):
        while (other := choice(d)).kind != first.kind:
            pass
        rounds.append(other)
    doc: Document = []
    if r.random() < 0.3:
        doc.append((f"Choose from {', '.join(o.lower() for o in first.options)}.\n\n" if len(rounds) == 1 else "Choose the right label.\n\n", 0.0))
    for c in rounds:
        answer = c.answer.capitalize() if upper else c.answer.lower()
        doc += [*answered(form.format(s=c.text, i=c.text, I=c.text.capitalize(), a=a(c.text)), answer), ("\n", PLAIN)]
    return [*doc[:-1], (END_OF_TEXT, PLAIN)]


# ---- questions about fixed facts ----------------------------------------------------------------------------------

FAMILIES: dict[str, dict[str, str]] = {
    "capital": W.CAPITALS, "opposite": W.OPPOSITES, "colour": W.COLOURS, "sound": W.SOUNDS, "young": W.YOUNG, "after": W.AFTER,
    "day": W.NEXT_DAY, "home": W.HOMES, "kind": KIND_OF,
}
WEIGHTS = (7, 6, 4, 2, 2, 2, 1, 2, 5)


def family(d: Draw) -> str:
    return d.rng.choices(list(FAMILIES), WEIGHTS)[0]


def fact_question(d: Draw) -> list[Message]:
    name = family(d)
    k, v = d.rng.choice(list(FAMILIES[name].items()))
    ask = d.pattern(P.FACT_ASK[name]).format(k=k)
    if d.rng.random() < 0.3:
        return [user(f"{ask} {d.rng.choice(P.ONE_WORD)}"), assistant(v)]
    text = P.FACT_STATEMENTS[name].format(k=k, v=v)
    return [user(ask), assistant(text[0].upper() + text[1:])]


def few_shot(d: Draw) -> tuple[Document, str, list[tuple[str, str, str]]]:
    """Questions and answers in one form, about one family of facts or several. Also the form and its (family, key, value)s."""
    r = d.rng
    names = [family(d)] * 8 if r.random() < 0.6 else [family(d) for _ in range(8)]
    names = names[: r.choice((1, 2, 3, 3, 4, 4, 5, 6))]
    rounds: list[tuple[str, str, str]] = []
    for name in names:
        pairs = [(name, k, v) for k, v in FAMILIES[name].items() if (name, k, v) not in rounds]
        rounds.append(r.choice(pairs))
    pairs_only = len(set(names)) == 1 and r.random() < 0.3 and not d.unseen
    form = r.choice(P.PAIR_FORMS) if pairs_only else r.choice(P.FACT_FORMS[:3]) if r.random() < 0.6 else r.choice(P.FACT_FORMS)
    one_ask = {name: d.pattern(P.FACT_ASK[name]) for name in dict.fromkeys(names)} if r.random() < 0.6 else {}
    doc: Document = [("" if pairs_only else r.choice(P.PREAMBLES), 0.0)]
    for name, k, v in rounds:
        ask = "" if pairs_only else (one_ask.get(name) or d.pattern(P.FACT_ASK[name])).format(k=k)
        before, after = form.split("{v}")
        doc += [*answered(before.format(k=k, q=ask), v), (after[0], 0.5), (after[1:], PLAIN)]
    return [*doc[:-1], (END_OF_TEXT, PLAIN)], form, rounds


# ---- plain text --------------------------------------------------------------------------------------------------

def copying(d: Draw) -> Document:
    """A line of random words, twice or thrice: the shortest way to learn to copy."""
    r = d.rng
    makers = r.choice(((d.name,), (d.word,), (d.code,), (d.name, d.word, d.city, d.product, d.code, lambda: str(d.number(10, 99999)))))
    line = r.choice((" ", ", ", "\n")).join(r.choice(makers)() for _ in range(r.randint(3, 20)))
    gap = r.choice(("\n", " ", "; "))
    return [(line, 0.0), *((gap + line, 1.0) for _ in range(r.choice((1, 1, 2)))), (END_OF_TEXT, 0.0)]


def lookup(d: Draw) -> Document:
    """A table of made-up words and numbers, then the same rows in another order."""
    r = d.rng
    keys = list(dict.fromkeys(r.choice((d.name, d.word, d.city))() for _ in range(r.randint(2, 8))))
    link, gap = r.choice((": ", " -> ", " = ", " is ", " has ", ", ", " likes ")), r.choice(("\n", "; ", ". "))
    rows = [(k, r.choice((d.word, d.name, d.city, d.price, d.code))()) for k in keys]
    doc: Document = [(gap.join(f"{k}{link}{v}" for k, v in rows) + gap, 0.0)]
    for k, v in r.sample(rows, len(rows)):
        doc += [*answered(k + link, v), (gap, PLAIN)]
    return doc


def plain(d: Draw) -> Document:
    r = d.rng
    kind = r.random()
    if kind < 0.35:
        return [(story_text(d, d.name(), d.name()), 0.3), (END_OF_TEXT, 1.0)]
    if kind < 0.6:
        topic, tips = r.choice(list(P.TIPS.items()))
        n = r.choice((2, 3))
        text = f"Here are {W.NUMBERS[n - 1]} tips for {topic}:\n" + "\n".join(f"{i}. {name}." for i, (name, _) in enumerate(tips[:n], 1))
        name, sentence = r.choice(tips[:n])
        return [(text, 0.5), (f"\n\nNow, expand the tip \"{name}\" into a sentence:\n", 0.0), (sentence, 1.0), (END_OF_TEXT, 1.0)]
    if kind < 0.8:
        topic, sentence = r.choice(list(P.ABOUT.items()))
        return [(r.choice(("About {t}: ", "{T}. ", "Topic: {t}\nSentence: ", "A sentence about {t}: ")).format(t=topic, T=topic.capitalize()), 0.0), (sentence, 1.0), (END_OF_TEXT, 1.0)]
    known = facts(d, r.randint(2, 5))
    doc: Document = [(" ".join(f.say for f in known) + "\n", 0.0)]
    for f in r.sample(known, r.randint(1, len(known))):
        doc += [*answered(f"Q: {f.ask}\nA: ", f.value if r.random() < 0.5 else f.answer), ("\n", PLAIN)]
    return [*doc[:-1], (END_OF_TEXT, PLAIN)]


# ---- documents ---------------------------------------------------------------------------------------------------

def conversation(d: Draw, turns: int) -> tuple[list[Message], list[dict[str, Any]] | None]:
    """A conversation of about so many turns that mixes the tasks, with or without system prompt, persona and tools."""
    r = d.rng
    system = r.choice(P.SYSTEMS) if r.random() < 0.4 else ""
    messages: list[Message] = []
    ask_name: list[Message] = []
    if r.random() < 0.15:
        system, ask_name = persona(d)
    tools = toolbox(d) if r.random() < 0.3 else None
    known = facts(d, r.randint(1, 3)) if r.random() < 0.6 else []
    if known:
        messages += told(d, known)
    makers: list[tuple[Callable[[Draw], list[Message]], int]] = [
        (small_talk, 3), (fact_question, 3), (listing, 2), (about, 2), (repeat, 2), (extraction, 3), (choice_turn, 3), (tip, 1), (story, 1)]
    if not tools:
        makers.append((no_tool, 1))
    for _ in range(turns):
        if tools and r.random() < 0.6:
            messages += tool_turn(d, tools)
        elif known and r.random() < 0.35:
            messages += asked(d, r.choice(known))
        else:
            messages += r.choices([m for m, _ in makers], [w for _, w in makers])[0](d)
    if known:
        messages += asked(d, r.choice(known))
    if ask_name:
        messages += ask_name
    return ([{"role": "system", "content": system}] if system else []) + messages, list(tools.values()) if tools else None


def weighed(messages: list[Message], tools: list[dict[str, Any]] | None = None) -> Document:
    return [(text, 1.0 if said else 0.0) for text, said in segments(messages, tools)]


def document(d: Draw) -> Document:
    """One document of the training mixture."""
    r = d.rng
    kind = r.choices(("recall", "extract", "tools", "choice", "few", "choice_text", "mixed", "long", "copy", "lookup", "plain", "extract_text", "other"),
                     (19, 20, 9, 6, 8, 4, 11, 2, 6, 5, 4, 4, 3))[0]
    system = [{"role": "system", "content": r.choice(P.SYSTEMS)}] if r.random() < 0.25 else []
    if kind == "recall":
        return weighed(system + recall(d)[0])
    if kind == "extract":
        return weighed(system + [m for _ in range(r.choice((1, 2, 2, 3))) for m in extraction(d)])
    if kind == "tools":
        tools = toolbox(d)
        return weighed(system + [m for _ in range(r.choice((1, 2, 3))) for m in tool_turn(d, tools)], list(tools.values()))
    if kind == "choice":
        return weighed(system + [m for _ in range(r.choice((1, 2, 3, 4))) for m in choice_turn(d)])
    if kind == "mixed":
        return weighed(*conversation(d, r.randint(1, 5)))
    if kind == "long":
        return weighed(*conversation(d, r.randint(8, 16)))
    if kind == "other":
        return weighed(system + [m for _ in range(r.choice((1, 2, 3))) for m in r.choice((small_talk, listing, about, tip, story, repeat, fact_question))(d)])
    if kind == "few":
        return few_shot(d)[0]
    return {"choice_text": choice_text, "copy": copying, "lookup": lookup, "plain": plain, "extract_text": extraction_text}[kind](d)


def training_text(seed: int, *, vary: bool = False) -> Callable[[], Document]:
    """A source of training documents: the same ones for the same seed. vary: many sentences are put together at random."""
    d = Draw(random.Random(f"train-{seed}"), unseen=False, varied=vary)
    return lambda: document(d)
