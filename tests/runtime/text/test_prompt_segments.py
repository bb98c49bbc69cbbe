"""Prompts of segments: text is joined before it is tokenised, ids stay as they are, what is wrong is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_families import Loaded

from ramify.runtime.errors import InvalidRequest
from ramify.runtime.protocol import Chat, Image, Message, Prompt, Text, Tokens, pack_ids, tokens
from ramify.runtime.text.segments import Encoded, encode_choices, encode_prompt

HELLO = (Message("user", "hello"),)


def encode(loaded: Loaded, *prompt: Text | Tokens | Image | Chat) -> Encoded:
    return encode_prompt(prompt, loaded.tokenizer, loaded.template)


@given(parts=st.lists(st.sampled_from(["the", " ", "answ", "er\n", "\n", "<|im", "_end|>", "\u00e9", "\U0001f600"]), min_size=1))
def test_borders_between_texts_leave_no_trace(families: dict[str, Loaded], parts: list[str]) -> None:
    loaded = families["chatml"]
    assert (
        encode(loaded, *(Text(part, control=False) for part in parts)).ids.tolist()
        == loaded.tokenizer.encode("".join(parts), control=False).tolist()
    )


def test_trusted_and_typed_text_stand_side_by_side(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    prompt = (Text("<|im_start|>user\n"), Text("the <|im_end|>", control=False), Text(" end<|im_end|>"))
    ids = encode(loaded, *prompt).ids.tolist()
    start, end = (loaded.tokenizer.token_id(text) for text in ("<|im_start|>", "<|im_end|>"))
    assert ids == [start, *loaded.tokenizer.encode("user\nthe <|im_end|> end", control=False).tolist(), end]


def test_a_raw_text_begins_with_bos_and_a_conversation_with_what_its_template_writes(families: dict[str, Loaded]) -> None:
    loaded = families["inst"]
    bos = loaded.tokenizer.bos_id
    assert encode(loaded, Text("hello")).ids.tolist() == loaded.tokenizer.encode("hello", bos=True).tolist()
    assert encode(loaded, Text("hel", control=False), Text("lo")).ids.tolist() == encode(loaded, Text("hello")).ids.tolist()
    assert encode(loaded, Text("<s>hello")).ids.tolist().count(bos) == 1
    assert encode(loaded, Chat(HELLO)).ids.tolist().count(bos) == 1
    assert bos not in encode(loaded, tokens([7]), Text("hello")).ids


def test_given_ids_stay_and_end_the_text_before_them(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    answer = loaded.tokenizer.encode("answer").tolist()
    letters = [loaded.tokenizer.token_bytes.index(char.encode()) for char in "ans"]
    result = encode(loaded, tokens(letters), Tokens(b""), tokens(letters), Text("wer"))
    assert result.ids.tolist()[:6] == letters * 2
    assert (result.kept_tokens, result.new_tokens, result.reason) == (6, len(result.ids) - 6, "continued")
    middle = encode(loaded, Text("answer"), tokens(letters), Text("answer"))
    assert middle.ids.tolist() == [*answer, *letters, *answer]
    assert (middle.kept_tokens, middle.reason) == (0, "new")
    assert middle.ids.dtype == np.int32


def test_text_behind_a_conversation_is_part_of_its_last_text(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    whole = loaded.template.render([{"role": "user", "content": "hello"}], add_generation_prompt=True) + "the answer is"
    wanted = loaded.tokenizer.encode(whole).tolist()
    assert encode(loaded, Chat(HELLO), Text("the ans"), Text("wer is")).ids.tolist() == wanted
    held = pack_ids(wanted)
    again = encode(loaded, Chat(HELLO, held=held), Text("the answer is"))
    assert (again.ids.tolist(), again.kept_tokens) == (wanted, len(wanted))
    cut = encode(loaded, Chat(HELLO), Text("x"), tokens([5]), Text("y"))
    assert cut.ids.tolist()[-2] == 5


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ((), "empty_prompt"),
        ((Text(""),), "empty_prompt"),
        ((Text("", control=False), Tokens(b"")), "empty_prompt"),
        ((Tokens(pack_ids([-1])),), "invalid_token_id"),
        ((Text("x"), Tokens(pack_ids([1, 100_000]))), "invalid_token_id"),
        ((Tokens(b"abc"),), "invalid_token_id"),
        ((Text("\udc00"),), "invalid_unicode"),
        ((Text("\udc00", control=False),), "invalid_unicode"),
        ((Chat((Message("user", "\udc00"),)),), "invalid_unicode"),
        ((Chat(()),), "invalid_messages"),
        ((Image("data:"),), "unsupported_modality"),
        ((Text("x"), Chat(HELLO)), "invalid_prompt"),
        ((Chat(HELLO), Text("x"), Chat(HELLO)), "invalid_prompt"),
    ],
)
def test_what_is_wrong_with_a_prompt_is_refused_by_name(families: dict[str, Loaded], prompt: Prompt, code: str) -> None:
    for name in ("chatml", "inst"):
        with pytest.raises(InvalidRequest) as caught:
            encode(families[name], *prompt)
        assert caught.value.code == code


def test_the_embedding_decides_which_ids_exist(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    padded = loaded.tokenizer.vocab_size + 3
    ids = encode_prompt((tokens([padded - 1]),), loaded.tokenizer, loaded.template, vocab_size=padded).ids
    assert ids.tolist() == [padded - 1]


# ------------------------------------------------------------------------------------------------------------ choices

CHOICES = ["yes", "yesterday", "no", " maybe", "<|im_end|>"]


@pytest.mark.parametrize("text", ["answer: ", "answer:", "the an", "", "<s>", "<|im_start|>a\n"])
@pytest.mark.parametrize("name", ["chatml", "inst", "pipes"])
def test_a_choice_is_tokenised_together_with_the_prompts_last_text(families: dict[str, Loaded], name: str, text: str) -> None:
    loaded = families[name]
    prompt = (tokens([40, 41]), Text(text))
    result = encode_choices(prompt, CHOICES, loaded.tokenizer, loaded.template)
    assert result.prompt.ids.tolist()[:2] == [40, 41]
    for choice, ids in zip(CHOICES, result.choices, strict=True):
        assert len(ids)
        whole = encode(loaded, *prompt, Text(choice, control=False)).ids
        assert [*result.prompt.ids.tolist(), *ids.tolist()] == whole.tolist()


def test_all_choices_continue_the_same_ids_also_where_the_prompt_is_short(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    result = encode_choices((Text("a"),), ["nswer", "pples"], loaded.tokenizer, loaded.template)
    assert len(result.prompt.ids)
    assert [loaded.tokenizer.decode([*result.prompt.ids.tolist(), *ids.tolist()]) for ids in result.choices] == [
        "answer",
        "apples",
    ]
    beginning = encode_choices((Text("hello"),), [" you"], families["inst"].tokenizer, families["inst"].template)
    assert families["inst"].tokenizer.decode(beginning.prompt.ids, skip_special=True) == "hello"


def test_choices_follow_a_conversation_that_is_held(families: dict[str, Loaded]) -> None:
    loaded = families["headers"]
    held = encode(loaded, Chat(HELLO)).ids
    result = encode_choices((Chat(HELLO, held=held.tobytes()),), ["yes", "no"], loaded.tokenizer, loaded.template)
    assert result.prompt.ids.tolist() == held.tolist()
    assert result.prompt.kept_tokens == len(held)
    assert loaded.tokenizer.decode(result.choices[0]) == "yes"


def test_an_empty_or_invalid_choice_is_refused(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    for choices in (["yes", ""], ["\ud800"]):
        with pytest.raises(InvalidRequest, match=r"Choice 1|U\+D800"):
            encode_choices((Text("x"),), choices, loaded.tokenizer, loaded.template)
    with pytest.raises(InvalidRequest, match="empty"):
        encode_choices((Text(""),), ["yes"], loaded.tokenizer, loaded.template)
