"""Vocabularies: the bytes behind token ids, from real tokenizer files of both kinds."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from ramify.constrained.engines import ENGINES, ConstraintCompiler
from ramify.constrained.grammar import Chars, chars
from ramify.constrained.masks import Masks, allowed_tokens
from ramify.constrained.spec import Choice, JsonSchema, Regex
from ramify.constrained.spelling import spellable
from ramify.constrained.store import GrammarStore
from ramify.constrained.vocabulary import Vocabulary, fingerprint
from ramify.runtime.errors import ConstraintError, ModelError

TEXTS = ["the quick brown fox jumps over the lazy dog " * 4, "naïve café — 漢字かな 😀😀", '{"name": "x", "n": [1, 2]}' * 3]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False)])
    return tokenizer


def byte_fallback() -> Tokenizer:
    pieces = ["<unk>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "a", "b", "é", "▁a", "▁▁"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = [("▁", "a"), ("▁", "▁")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


def test_a_byte_level_vocabulary_spells_what_the_tokenizer_encodes():
    tokenizer = byte_level()
    vocabulary = Vocabulary.from_tokenizer(tokenizer.to_str(), stop_ids=[0])
    for text in [*TEXTS, "\x00\x7f\n\t\u2028", "\U0010ffff"]:
        ids = tokenizer.encode(text).ids
        assert b"".join(vocabulary.tokens[i] for i in ids) == text.encode()


def test_a_byte_fallback_vocabulary_spells_what_the_tokenizer_encodes():
    tokenizer = byte_fallback()
    vocabulary = Vocabulary.from_tokenizer(tokenizer.to_str(), stop_ids=[1])
    for text in ["▁a", "ab", "漢\n", "é"]:
        ids = tokenizer.encode(text).ids
        assert b"".join(vocabulary.tokens[i] for i in ids) == text.replace("▁", " ").encode()


def test_a_unigram_vocabulary_is_read_from_its_list_of_pieces():
    described = {
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁the", -1.0], ["<0x0A>", -2.0]]},
        "added_tokens": [{"id": 0, "content": "<unk>", "special": True}],
        "decoder": {"type": "Metaspace", "replacement": "▁"},
    }
    assert Vocabulary.from_tokenizer(json.dumps(described), stop_ids=[0]).tokens == [b"", b" the", b"\n"]


def test_added_tokens_are_control_tokens_that_no_text_spells():
    tokenizer = byte_level()
    vocabulary = Vocabulary.from_tokenizer(tokenizer.to_str(), stop_ids=[0])
    called = tokenizer.token_to_id("<tool_call>")
    assert vocabulary.tokens[0] == b"" and vocabulary.tokens[called] == b"\xff<tool_call>"  # 0 is the stop id
    assert vocabulary.controls == {"<tool_call>": called} and vocabulary.specials == {}


@pytest.mark.parametrize("more", [-100, 0, 111])
def test_rows_of_logits_may_be_shorter_or_longer_than_the_tokenizer(more):
    tokenizer = byte_level()
    size = tokenizer.get_vocab_size() + more
    vocabulary = Vocabulary.from_tokenizer(tokenizer.to_str(), stop_ids=[0, 10_000], size=size)
    assert vocabulary.size == size
    assert len(vocabulary.tokens) == min(size, tokenizer.get_vocab_size())
    assert vocabulary.stop_ids == [0]


def test_bytes_and_back():
    vocabulary = Vocabulary.from_tokens([b"a", b"\xff", b""], stop_ids=[2], size=64)
    data = vocabulary.to_bytes()
    assert Vocabulary.from_bytes(data) == vocabulary
    assert fingerprint(data) != fingerprint(Vocabulary.from_tokens([b"b", b"\xff", b""], stop_ids=[2], size=64).to_bytes())


def test_without_an_end_token_constrained_output_is_refused():
    with pytest.raises(ModelError, match="end token"):
        Vocabulary.from_tokens([b"a"], stop_ids=[7])


@pytest.mark.parametrize("text", ["{}", "[1]", "no json", '{"model": {"vocab": 3}}'])
def test_a_file_that_is_no_tokenizer_is_refused(text):
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Vocabulary.from_tokenizer(text, stop_ids=[0])


def test_a_decoder_that_does_not_give_bytes_is_refused():
    described = {"model": {"type": "WordPiece", "vocab": {"a": 0, "##b": 1}}, "decoder": {"type": "WordPiece"}}
    with pytest.raises(ModelError, match="WordPiece"):
        Vocabulary.from_tokenizer(json.dumps(described), stop_ids=[0])


def test_a_vocabulary_with_all_bytes_spells_everything():
    tokens = [bytes([b]) for b in range(256)] + [b""]
    assert spellable(Vocabulary.from_tokens(tokens, stop_ids=[256])) is None


def test_a_vocabulary_without_all_bytes_spells_its_characters():
    vocabulary = Vocabulary.from_tokens([b"a", b"b", "é".encode(), b"xyz", b"", b"\xe6"], stop_ids=[4])
    assert spellable(vocabulary) == Chars(((0x61, 0x62), (0xE9, 0xE9))) == chars([(0xE9, 0xE9), (0x61, 0x62)])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_grammar_is_confined_to_what_the_vocabulary_can_spell(engine):
    vocabulary = Vocabulary.from_tokens([b"a", b"b", b"ac", b""], stop_ids=[3])
    compiler, store = ConstraintCompiler(vocabulary.to_bytes()).only(engine), GrammarStore(vocabulary.to_bytes())
    matcher = store.matcher(compiler.compile(Regex("[abc]{2}|zz")))
    mask = Masks(vocabulary.size).fill([matcher])
    assert mask is not None and allowed_tokens(mask[0], 4).tolist() == [0, 1]
    with pytest.raises(ConstraintError) as error:
        compiler.compile(Choice(("cc", "dd")))
    assert error.value.code == "unsatisfiable_grammar"


@pytest.mark.parametrize("engine", ENGINES)
def test_strings_of_an_automaton_are_confined_too_with_their_escapes(engine):
    """A line end in a string needs a backslash and an n, not a line end."""
    tokens = [b'"', b"a", b"b", b"\\", b"n", b""]
    vocabulary = Vocabulary.from_tokens(tokens, stop_ids=[5])
    compiler, store = ConstraintCompiler(vocabulary.to_bytes()).only(engine), GrammarStore(vocabulary.to_bytes())
    schema = {"type": "string", "allOf": [{"pattern": "^[a\nz]+$"}, {"pattern": "[\nz]"}], "not": {"const": "a\n"}}
    grammar = compiler.compile(JsonSchema(json.dumps(schema)))

    def allowed_after(text: bytes) -> set[bytes]:
        matcher = store.matcher(grammar)
        assert all(matcher.accept(tokens.index(bytes([byte]))) for byte in text)
        mask = Masks(vocabulary.size).fill([matcher])
        assert mask is not None
        return {tokens[token] for token in allowed_tokens(mask[0], 6)}

    assert allowed_after(b'"') == {b"a", b"\\"}
    assert allowed_after(b'"\\') == {b"n"}
    assert allowed_after(b'"a\\n') == {b"a", b"\\"}
    assert allowed_after(b'"\\n') == {b"a", b"\\", b'"'}
    with pytest.raises(ConstraintError) as error:
        compiler.compile(JsonSchema(json.dumps({"type": "string", "pattern": "z", "not": {"const": "a"}})))
    assert error.value.code == "unsatisfiable_grammar"
