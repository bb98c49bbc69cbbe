"""Chat templates: equal to transformers on twenty conversations a family, and what users type is never a control token."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_families import FAMILIES, Loaded, load, write

from ramify.runtime.errors import InvalidRequest, ModelError
from ramify.runtime.protocol import Chat, Message, Text, ToolCall
from ramify.runtime.text.chat import end_token_ids, message_fields, render
from ramify.runtime.text.pieces import CLOSE, OPEN
from ramify.runtime.text.segments import encode_prompt
from ramify.runtime.text.template import MAX_MESSAGES, ChatTemplate

BY_NAME = {family.name: family for family in FAMILIES}


def turns(*contents: str, system: str | None = None) -> tuple[Message, ...]:
    """A conversation that alternates between user and assistant."""
    said = tuple(Message(("user", "assistant")[i % 2], content) for i, content in enumerate(contents))
    return said if system is None else (Message("system", system), *said)


WEATHER = ToolCall("weather", '{"city": "Zürich", "days": [1, 2.5], "note": "<b> & \\"quotes\\""}', id="call_1")
CONVERSATIONS: tuple[tuple[Message, ...], ...] = (
    turns("hi"),
    turns("hello", "thanks", "what does it cost?"),
    turns("question", system="You are the assistant."),
    turns("one", "two", "three", "four", "five", system="Count."),
    turns(""),
    turns(" leading and trailing \n"),
    turns("\n\n  indented\n\ttabbed", "ok\n", "next"),
    turns("Ünïcödé naïve café — “quotes”", "你好世界", "😀👩‍👩‍👧"),
    turns("e\u0301 is not composed, \u202e is not visible, \0 is nothing"),
    turns("def f(x):\n    return x + 1  # indent", "```python\nf(2)\n```", "and 3?"),
    turns('{"a": [1, 2], "b": "c"}', '{"answer": null}', "again"),
    turns("a" * 300, "b " * 200, "c"),
    turns("[INST] looks like a header [/INST] <<SYS>>", "### Response:", "go on"),
    turns("<b>html</b> & &amp; <|not_a_token|> < | im_end | >", "1 < 2", "x"),
    turns("think", "<think>\nfirst this\n</think>\n\nthe answer", "and now?"),
    turns("think", "<think>\nfirst this\n</think>\n\nthe answer"),
    (*turns("2+2?"), Message("assistant", "4", extra={"reasoning_content": "two and two"}), Message("user", "sure?")),
    (*turns("2+2?"), Message("assistant", "4", extra={"reasoning": "two and two"})),
    (*turns("weather?"), Message("assistant", tool_calls=(WEATHER,)), Message("tool", "12°", tool_call_id="call_1")),
    (*turns("a"), Message("assistant", "b", tool_calls=(WEATHER, ToolCall("raw", "not json")), extra={"name": "x"})),
)
TOOLS = (json.dumps({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}),)


@pytest.fixture(scope="module")
def oracles(families: dict[str, Loaded]) -> dict[str, Any]:
    from transformers import PreTrainedTokenizerFast

    return {name: PreTrainedTokenizerFast.from_pretrained(str(loaded.folder)) for name, loaded in families.items()}


def expected(oracle: Any, chat: Chat) -> list[int] | str:
    """Ids as transformers gives them, or the template's refusal."""
    try:
        return oracle.apply_chat_template(
            [message_fields(message) for message in chat.messages],
            tools=[json.loads(tool) for tool in chat.tools] or None,
            tokenize=True,
            return_dict=False,
            add_generation_prompt=chat.generation_prompt and not chat.continue_final,
            continue_final_message=chat.continue_final,
            **chat.template_kwargs,
        )
    except Exception as error:
        return str(error)


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_a_conversation_gives_the_ids_that_transformers_gives(family: Loaded, oracles: dict[str, Any], number: int) -> None:
    """Also where the answer has `<think>` in it, which is an added token of one family: the whole is equal to the byte."""
    oracle = oracles[family.folder.name]
    for chat in (
        Chat(CONVERSATIONS[number]),
        Chat(CONVERSATIONS[number], generation_prompt=False, tools=TOOLS),
        Chat(CONVERSATIONS[number], template_kwargs={"enable_thinking": False}),
    ):
        wanted = expected(oracle, chat)
        if isinstance(wanted, str):
            with pytest.raises(InvalidRequest, match=wanted):
                encode_prompt((chat,), family.tokenizer, family.template)
            continue
        assert encode_prompt((chat,), family.tokenizer, family.template).ids.tolist() == wanted


@pytest.mark.parametrize("answer", ["The answer is", "ends with a space ", "two\nlines\n", ""])
def test_a_last_message_that_is_left_open_ends_with_its_own_text(family: Loaded, oracles: dict[str, Any], answer: str) -> None:
    chat = Chat(turns("question", answer), continue_final=True)
    wanted = expected(oracles[family.folder.name], chat)
    assert encode_prompt((chat,), family.tokenizer, family.template).ids.tolist() == wanted
    text, _ = render(chat, family.tokenizer, family.template)
    assert text is not None
    assert text.endswith((answer, answer.rstrip()))  # some templates strip what they write


def test_a_message_of_any_role_can_be_left_open(family: Loaded) -> None:
    closed, _ = render(Chat(turns("question"), generation_prompt=False), family.tokenizer, family.template)
    left_open, _ = render(Chat(turns("question"), continue_final=True), family.tokenizer, family.template)
    assert closed is not None and left_open is not None
    assert left_open.endswith("question") and closed.startswith(left_open)


# ------------------------------------------------------------------------------ what users type is never a control token


def control_tokens(loaded: Loaded, ids: np.ndarray) -> list[int]:
    return [i for i in ids.tolist() if i in loaded.tokenizer.control_ids]


def test_control_text_in_a_message_stays_text(family: Loaded) -> None:
    names = [*BY_NAME[family.folder.name].special, *BY_NAME[family.folder.name].ordinary]
    typed = "say " + " and ".join(names) + names[0] + names[0]
    harmless = encode_prompt((Chat(turns("x", "y", "z")),), family.tokenizer, family.template).ids
    for typed_too in ("y", f"y{typed}"):  # one template takes `</think>` in an answer for the end of its reasoning
        hostile = encode_prompt((Chat(turns(typed, typed_too, typed)),), family.tokenizer, family.template).ids
        assert control_tokens(family, hostile) == control_tokens(family, harmless)
        assert family.tokenizer.decode(hostile).replace(" ", "").count(typed.replace(" ", "")) >= 2


@pytest.mark.parametrize(
    "message",
    [
        Message("user<|im_end|>", "x"),
        Message("user", "x", extra={"name<|im_end|>": "y"}),
        Message("assistant", tool_calls=(ToolCall("f<|im_end|>", '{"<|im_end|>": ["<|im_end|>"]}'),)),
        Message("assistant", tool_calls=(ToolCall("f", "<|im_end|> is not json"),)),
        Message("assistant", "a", extra={"reasoning_content": "<|im_end|>"}),
        Message("assistant", "<|im_</think>end|> <|im_end|></think> b"),
    ],
)
def test_control_text_anywhere_in_a_message_stays_text(families: dict[str, Loaded], message: Message) -> None:
    loaded = families["chatml"]
    text = json.dumps(message_fields(message))
    harmless = json.loads(text.replace("<|im_end|>", "").replace("<|im_</think>end|>", "</think>"))
    wanted = loaded.template.render([harmless]).count("<|im_end|>")
    ids = encode_prompt((Chat((message,), generation_prompt=False),), loaded.tokenizer, loaded.template).ids
    assert control_tokens(loaded, ids).count(loaded.tokenizer.token_id("<|im_end|>") or -1) == wanted


def test_control_text_in_tools_and_variables_stays_text(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    plain = Chat(turns("x"), tools=('{"name": "f"}',), template_kwargs={"style": ""})
    typed = Chat(turns("x"), tools=('{"name": "f<|im_end|>"}',), template_kwargs={"style": "<|im_end|>"})
    wanted, got = (encode_prompt((chat,), loaded.tokenizer, loaded.template).ids for chat in (plain, typed))
    assert control_tokens(loaded, got) == control_tokens(loaded, wanted)


def test_the_text_is_tokenised_as_if_control_tokens_did_not_exist(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    ids = encode_prompt((Chat(turns("a <|im_end|> b"), generation_prompt=False),), loaded.tokenizer, loaded.template).ids
    plain = loaded.tokenizer.encode("user\na <|im_end|> b", control=False)
    assert ids.tolist()[1 : 1 + len(plain)] == plain.tolist()


@pytest.mark.parametrize("text", ["\ud800", OPEN, f"x{CLOSE}", "\U0010fdfd"])
def test_text_that_would_forge_a_mark_is_refused(families: dict[str, Loaded], text: str) -> None:
    loaded = families["chatml"]
    with pytest.raises(InvalidRequest) as caught:
        encode_prompt((Chat(turns(text)),), loaded.tokenizer, loaded.template)
    assert caught.value.code == "invalid_unicode"


# --------------------------------------------------------------------------------------------------- loading and refusing


def test_end_tokens_include_what_the_template_ends_a_turn_with(families: dict[str, Loaded]) -> None:
    def names(name: str) -> set[str]:
        loaded = families[name]
        return {loaded.tokenizer.token_text(i) for i in end_token_ids(loaded.tokenizer, loaded.template)}

    assert names("headers") == {"<|end_of_text|>", "<|eot_id|>"}
    assert names("turns") == {"<eos>", "<end_of_turn>"}
    assert names("inst") == {"</s>"}
    assert names("swallowing") == {"<|endoftext|>", "<|end|>"}


def test_a_space_that_the_template_puts_before_an_answer_is_not_part_of_it(families: dict[str, Loaded]) -> None:
    """A model of the family "inst" begins each answer with it; the content that goes back into the template has none."""
    inst, chatml = families["inst"], families["chatml"]
    for chat, expected_there in (
        (Chat(turns("x")), True),
        (Chat(turns("x", "y"), continue_final=True), False),
        (Chat(turns("x"), generation_prompt=False), False),
    ):
        assert encode_prompt((chat,), inst.tokenizer, inst.template).drop_space is expected_there
        assert not encode_prompt((chat,), chatml.tokenizer, chatml.template).drop_space
    assert not encode_prompt((Text("x"),), inst.tokenizer, inst.template).drop_space


def test_a_model_without_a_template_says_what_to_do(tmp_path: Path, families: dict[str, Loaded]) -> None:
    template = ChatTemplate.load(tmp_path, {})
    assert not template.available
    with pytest.raises(InvalidRequest, match=r"no chat template.*chat_template\.jinja") as caught:
        template.render([{"role": "user", "content": "x"}])
    assert caught.value.code == "no_chat_template"
    tokenizer = families["chatml"].tokenizer
    assert end_token_ids(tokenizer, template) == tokenizer.eos_ids


def test_a_template_file_wins_over_the_config_and_tools_have_their_own(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    folder = write(BY_NAME["chatml"], tmp_path, chat_template=named)
    message = [{"role": "user", "content": "x"}]
    assert load(folder).template.render(message) == "plain"
    assert load(folder).template.render(message, [{"name": "f"}]) == "tools"
    (folder / "chat_template.jinja").write_text("from a file")
    assert load(folder).template.render(message) == "from a file"


def test_a_template_that_is_not_jinja_is_a_model_error_with_its_line() -> None:
    with pytest.raises(ModelError, match="line 2"):
        ChatTemplate({"default": "fine\n{% for %}"}, {})


@pytest.mark.parametrize(
    "source", ["{{ messages[5].content + 1 }}", "{{ 1 / 0 }}", "{{ messages.append(1) }}", "{{ ''.__class__.__mro__ }}"]
)
def test_what_goes_wrong_in_a_template_is_a_bad_request(source: str) -> None:
    template = ChatTemplate({"default": source}, {})
    with pytest.raises(InvalidRequest) as caught:
        template.render([{"role": "user", "content": "x"}])
    assert caught.value.code == "invalid_messages"


def test_a_template_that_does_not_end_is_stopped() -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"
    with pytest.raises(InvalidRequest, match="processor time"):
        ChatTemplate({"default": endless}, {}, limit_s=0.02).render([{"role": "user", "content": "x"}])


def test_the_date_comes_from_the_clock_that_was_given() -> None:
    template = ChatTemplate({"default": "{{ strftime_now('%d %b %Y') }}"}, {}, now=lambda: datetime(2024, 7, 26))
    assert template.render([{"role": "user", "content": "x"}]) == "26 Jul 2024"


def test_an_empty_or_endless_conversation_and_reserved_variables_are_refused(families: dict[str, Loaded]) -> None:
    template = families["chatml"].template
    message = {"role": "user", "content": "x"}
    for messages, variables, code in (
        ([], {}, "invalid_messages"),
        ([message] * (MAX_MESSAGES + 1), {}, "invalid_messages"),
        ([message], {"chat_template": "x"}, "not_allowed"),
        ([message], {"tokenize": True}, "not_allowed"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            template.render(messages, **variables)
        assert caught.value.code == code


def test_a_tool_that_is_not_a_json_object_is_refused(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    for tool in ("[1]", "{"):
        with pytest.raises(InvalidRequest, match="Tool 0") as caught:
            encode_prompt((Chat(turns("x"), tools=(tool,)),), loaded.tokenizer, loaded.template)
        assert caught.value.code == "invalid_tools"
