"""The checkpoint folder that ships: its tokenizer, its template and its sizes, as plain transformers sees them."""

import json
import random

import pytest
from tokenizers import pre_tokenizers

from ramify.runtime.bundled import MODEL_DIR, corpus
from ramify.runtime.bundled.chat import render
from ramify.runtime.bundled.words import Draw

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(MODEL_DIR)


def test_the_folder_is_small_and_of_the_promised_sizes():
    config = json.loads((MODEL_DIR / "config.json").read_text())
    assert sum(f.stat().st_size for f in MODEL_DIR.iterdir()) <= 12_000_000
    assert (config["vocab_size"], config["head_dim"], config["max_position_embeddings"]) == (4096, 64, 8192)
    assert config["tie_word_embeddings"] and config["num_attention_heads"] > config["num_key_value_heads"]


def test_every_byte_is_a_token_and_any_text_comes_back(tokenizer):
    assert len(tokenizer) == 4096
    vocabulary = tokenizer.get_vocab()
    assert all(character in vocabulary for character in pre_tokenizers.ByteLevel.alphabet())
    for text in ("", "naïve café 東京 🎉\u0000\t\r\n  x", " leading", "trailing ", "a  b   c\n\n\nd", 'say "hi" {"a": [1, 2.5]}',
                 "I'm don't It's"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_names_and_numbers_are_cut_alike_wherever_they_stand(tokenizer):
    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    for word in ("Velmo", "krusclesni", "Ackziortsmauford", "4711", "KX-481"):
        alone = ids(word)
        for before in ("My dog is called ", '{"name": "', "Q: ", "("):
            assert ids(before + word)[-len(alone):] == alone
            assert ids(before) + alone == ids(before + word)
    assert len(ids("4711")) == 4


def test_end_of_turn_ends_generation(tokenizer):
    config = transformers.GenerationConfig.from_pretrained(MODEL_DIR)
    assert config.eos_token_id == tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.bos_token is None
    ids = tokenizer("<tool_call>x</tool_call><|im_end|>")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<tool_call>x</tool_call>"


def test_the_template_writes_what_the_training_text_has(tokenizer):
    draw = Draw(random.Random(3), unseen=False)
    for _ in range(60):
        messages, tools = corpus.conversation(draw, 3)
        for prompt in (False, True):
            rendered = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt)
            assert rendered == render(messages, tools, add_generation_prompt=prompt)


def test_the_template_takes_arguments_as_text_and_content_in_parts(tokenizer):
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is 1"}, {"type": "text", "text": " + 2?"}]},
                {"role": "assistant", "content": None,
                 "tool_calls": [{"function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}]}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>user\nWhat is 1 + 2?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>\n')
