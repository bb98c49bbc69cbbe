"""Tokenizer: loading, control tokens, BOS, continuation text, bytes of tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_families import FAMILIES, WORDS, Loaded, load, write
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from ramify.runtime.errors import InvalidRequest, ModelError
from ramify.runtime.text.tokenizer import Tokenizer

BY_NAME = {family.name: family for family in FAMILIES}
EXACT = ("chatml", "headers", "inst", "turns")  # families whose decoding gives back the text
SNIPPETS = [
    *WORDS.split(" "),
    "<|im_end|>",
    "</s>",
    "<s>",
    "<think>",
    "<eos>",
    "\n",
    "  ",
    "\t",
    "<|",
    "é",
    "e\u0301",
    "👩‍👩‍👧",
    "\u202e",
    "\0",
]
texts = st.lists(st.sampled_from(SNIPPETS), max_size=12).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20
)


def ids_of(loaded: Loaded, *tokens: str) -> list[int]:
    return [token for text in tokens if (token := loaded.tokenizer.token_id(text)) is not None]


def test_ids_are_int32_buffers(families: dict[str, Loaded]) -> None:
    assert families["chatml"].tokenizer.encode("hello").dtype == np.int32
    assert families["chatml"].tokenizer.encode("").shape == (0,)


@pytest.mark.parametrize("name", ["chatml", "headers", "inst", "turns", "pipes", "swallowing"])
@given(text=texts)
def test_one_go_and_piece_by_piece_give_the_same_ids(families: dict[str, Loaded], name: str, text: str) -> None:
    tokenizer = families[name].tokenizer
    assert tokenizer.encode_pieces(tokenizer.control.split(text)).tolist() == tokenizer.encode(text).tolist()


@pytest.mark.parametrize("name", EXACT)
@given(text=texts)
def test_without_control_a_text_has_no_control_token_and_comes_back_whole(
    families: dict[str, Loaded], name: str, text: str
) -> None:
    tokenizer = families[name].tokenizer
    ids = tokenizer.encode(text, control=False)
    assert tokenizer.control_ids.isdisjoint(ids.tolist())
    if name == "inst" and text.startswith(" "):
        text = text[1:]  # sentencepiece takes one leading space for its own
    assert tokenizer.decode(ids) == tokenizer.normalise(text)


def test_control_text_is_a_control_token_only_where_the_caller_is_trusted(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    end = ids_of(loaded, "<|im_end|>")[0]
    assert end in loaded.tokenizer.encode("hi<|im_end|>")
    assert end not in loaded.tokenizer.encode("hi<|im_end|>", control=False)


def test_added_tokens_that_are_only_whitespace_are_ordinary_vocabulary(families: dict[str, Loaded]) -> None:
    loaded = families["turns"]
    blank = ids_of(loaded, "\n\n")[0]
    assert blank not in loaded.tokenizer.control_ids
    assert blank in loaded.tokenizer.encode("one\n\ntwo", control=False)


def test_bos_is_added_once_and_only_where_asked(families: dict[str, Loaded]) -> None:
    tokenizer = families["inst"].tokenizer
    bos = tokenizer.bos_id
    assert tokenizer.encode("hello", bos=True).tolist() == [bos, *tokenizer.encode("hello").tolist()]
    assert tokenizer.encode("<s>hello", bos=True).tolist() == tokenizer.encode("<s>hello").tolist()
    assert tokenizer.encode("hello").tolist().count(bos) == 0


def test_the_config_decides_about_bos_if_it_says_anything(tmp_path: Path) -> None:
    assert load(write(BY_NAME["inst"], tmp_path / "a", add_bos_token=False)).tokenizer.prefix.tolist() == []
    assert load(write(BY_NAME["chatml"], tmp_path / "b", add_bos_token=True)).tokenizer.prefix.tolist() == []  # it has no BOS
    added = load(write(BY_NAME["chatml"], tmp_path / "c", add_bos_token=True, bos_token="<|endoftext|>"))
    assert added.tokenizer.prefix.tolist() == ids_of(added, "<|endoftext|>")


def test_an_end_token_of_the_post_processor_is_not_put_behind_a_prompt(tmp_path: Path) -> None:
    folder = write(BY_NAME["inst"], tmp_path)
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    backend.save(str(folder / "tokenizer.json"))
    assert load(folder).tokenizer.encode("hello", bos=True).tolist()[0] == 1
    assert 2 not in load(folder).tokenizer.encode("hello", bos=True)


@pytest.mark.parametrize("name", ["inst", "pipes"])
def test_text_that_continues_text_gets_no_dummy_space(families: dict[str, Loaded], name: str) -> None:
    tokenizer = families[name].tokenizer
    first = tokenizer.encode("hello")
    assert tokenizer.spell(first) == b" hello"
    assert tokenizer.spell(tokenizer.encode("hello", after=int(first[-1]))) == b"hello"
    assert (
        tokenizer.spell(tokenizer.encode("hello</s>hello", after=int(first[-1])))
        == {
            "inst": b"hello</s>hello",
            "pipes": b"hello</s> hello",  # its space after each control token is part of how it was trained
        }[name]
    )


@pytest.mark.parametrize("name", ["chatml", "inst", "turns"])
@given(ids=st.lists(st.integers(0, 460), max_size=30))
def test_decoding_agrees_with_the_tokenizers_library_where_bytes_are_valid(
    families: dict[str, Loaded], name: str, ids: list[int]
) -> None:
    loaded = families[name]
    try:
        loaded.tokenizer.spell(ids).decode()
    except UnicodeDecodeError:
        return
    backend = Backend.from_file(str(loaded.folder / "tokenizer.json"))
    for skip in (False, True):
        assert loaded.tokenizer.decode(ids, skip_special=skip) == backend.decode(ids, skip_special_tokens=skip)


def test_every_byte_has_a_token_and_the_table_spells_it(family: Loaded) -> None:
    table = family.tokenizer.token_bytes
    assert len(table) == family.tokenizer.vocab_size
    assert {bytes([byte]) for byte in range(256)} <= set(table)


def test_ids_without_a_token_spell_nothing(families: dict[str, Loaded]) -> None:
    tokenizer = families["chatml"].tokenizer
    assert tokenizer.decode([tokenizer.vocab_size + 7, -1]) == ""


def test_end_ids_come_from_all_three_configs(tmp_path: Path) -> None:
    folder = write(BY_NAME["chatml"], tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 5]}))
    (folder / "config.json").write_text(json.dumps({"eos_token_id": None, "text_config": {"eos_token_id": 7}}))
    assert load(folder).tokenizer.eos_ids == {0, 2, 5, 7}


def test_tokens_that_only_the_config_names_are_added(tmp_path: Path) -> None:
    folder = write(BY_NAME["headers"], tmp_path)
    base = load(folder).tokenizer.vocab_size
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {str(base): {"content": "<|extra|>", "special": True, "normalized": False}}
    config["additional_special_tokens"] = ["<|more|>"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load(folder).tokenizer
    assert tokenizer.encode("<|extra|><|more|>").tolist() == [base, base + 1]
    assert {base, base + 1} <= tokenizer.special_ids
    config["added_tokens_decoder"] = {str(base + 9): {"content": "<|extra|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="do not belong together"):
        load(folder)


def test_a_missing_or_broken_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer\.json.*save_pretrained"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="not a tokenizer"):
        Tokenizer.load(tmp_path)
    folder = write(BY_NAME["chatml"], tmp_path / "b")
    (folder / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(ModelError, match="not an object"):
        Tokenizer.load(folder)


def test_a_tokenizer_that_does_not_spell_token_by_token_is_refused(tmp_path: Path) -> None:
    backend = Backend(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(ModelError, match="WordPiece"):
        Tokenizer(backend, {})


def test_a_vocabulary_that_spells_control_tokens_from_text_is_kept_from_it() -> None:
    pieces = [("<unk>", 0.0), ("</s>", -1.0), *((char, -5.0) for char in "</s>abc\u2581")]
    backend = Backend(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Metaspace(prepend_scheme="never")
    backend.add_special_tokens([AddedToken("</s>", special=True), AddedToken("<unk>", special=True)])
    tokenizer = Tokenizer(backend, {"eos_token": "</s>", "unk_token": "<unk>"})
    assert 1 in tokenizer.encode("a</s>b")
    assert tokenizer.decode(tokenizer.encode("a</s>b", control=False)) == "a</s>b"
    assert 1 not in tokenizer.encode("a</s>b", control=False)


def test_a_lone_surrogate_is_refused_with_its_place(families: dict[str, Loaded]) -> None:
    with pytest.raises(InvalidRequest, match=r"U\+D800 at character 2") as caught:
        families["chatml"].tokenizer.encode("ab\ud800")
    assert caught.value.code == "invalid_unicode"
