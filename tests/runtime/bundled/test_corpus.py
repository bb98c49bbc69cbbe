"""The text of the bundled model: the same for the same seed, and truly without what is held out."""

import json
import os
import random
import re
import subprocess
import sys

import pytest

from ramify.runtime.bundled import corpus, patterns, words
from ramify.runtime.bundled.chat import render, segments
from ramify.runtime.bundled.held_out import TASKS, held_out

DOCUMENTS = 4000


@pytest.fixture(scope="module")
def documents() -> list[str]:
    source = corpus.training_text(1)
    return ["".join(text for text, _ in source()) for _ in range(DOCUMENTS)]


def pattern_groups() -> dict[str, tuple[str, ...]]:
    """The groups of sentence patterns that are split, by name."""
    groups = {name: value for name, value in vars(patterns).items() if isinstance(value, tuple)}
    for name in ("CLAUSES", "FACT_ASK"):
        groups |= {f"{name}.{key}": value for key, value in getattr(patterns, name).items()}
    return groups


def as_regex(pattern: str) -> re.Pattern[str]:
    """What a sentence made from the pattern looks like."""
    parts = re.split(r"\{\w+\}", pattern)
    return re.compile(r"(?<![^\W\d_])" + r"[^.!?\n]+?".join(re.escape(part) for part in parts))


def test_the_same_seed_gives_the_same_text_and_another_seed_another():
    def first(seed):
        source = corpus.training_text(seed)
        return [source() for _ in range(50)]

    assert first(0) == first(0)
    assert first(0) != first(1)


def test_the_text_does_not_depend_on_the_hash_seed_of_the_process():
    script = ("from ramify.runtime.bundled.corpus import training_text; import hashlib; source = training_text(0); "
              "print(hashlib.sha256(repr([source() for _ in range(300)]).encode()).hexdigest())")

    def text_of(hash_seed):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True).stdout

    assert text_of("1") == text_of("2")


def test_held_out_items_depend_on_task_and_seed_only():
    for task in TASKS:
        assert held_out(task, 20) == held_out(task, 30)[:20]
        assert held_out(task, 5, seed=1) != held_out(task, 5, seed=2)


def test_words_and_numbers_that_are_held_out_never_occur_in_training(documents):
    known = words.fixed_words()
    for text in documents:
        for word in set(re.findall(r"[^\W\d_]{2,}|\d{2,}", text)):
            assert word.lower() in known or not words.held_out(word), (word, text)


def test_every_entity_of_a_held_out_item_is_held_out():
    for item in held_out("extraction", 100):
        for value in json.loads(item.expected).values():
            for word in re.findall(r"[^\W\d_]+|\d{2,}", re.sub(r"^(New|Old|Upper|Lower|Port|San) ", "", str(value))):
                assert words.held_out(word) or word in words.ADJECTIVES, item.expected


def test_one_pattern_in_five_is_held_out_and_the_usual_wording_is_trained():
    for name, group in pattern_groups().items():
        trained, unseen = words.split_patterns(group)
        assert set(trained) | set(unseen) == set(group) and not set(trained) & set(unseen), name
        assert len(unseen) == -(-len(group) // 5) and trained[0] == group[0], name
        assert len(set(group)) == len(group) or name == "PREAMBLES", name


def test_held_out_sentence_patterns_never_occur_in_training(documents):
    whole = "\n".join(documents)
    for name in ("FOUR", "FOUR_PRICE", "ADD_ASK", "CALLED_ASK", "LIVE_ASK", "AGE_ASK", "EXTRACT_SCHEMA"):
        for pattern in words.split_patterns(getattr(patterns, name))[1]:
            longest = max(re.split(r"\{\w+\}", pattern), key=len)
            if len(longest) > 24:
                assert longest not in whole, pattern


def test_held_out_items_are_made_of_held_out_patterns():
    asks = [as_regex(p) for p in words.split_patterns(patterns.ADD_ASK)[1]]
    for item in held_out("calculator", 50):
        assert any(ask.search(item.messages[-1]["content"]) for ask in asks)


def test_the_expected_answers_stand_in_the_prompts():
    for item in held_out("recall", 100):
        assert any(item.expected in m["content"] for m in item.messages if m["role"] == "user")
    for item in held_out("choice", 100):
        assert item.expected in item.choices and len(item.choices) == 3
    for item in held_out("few_shot", 100):
        assert item.expected and not item.text.endswith(" ")


def test_the_assistant_alone_counts_for_the_loss():
    for text, said in segments([corpus.user("Hi"), corpus.assistant("Hello!")]):
        assert said == (text == "Hello!<|im_end|>")


def test_rendering_is_append_only():
    source = words.Draw(random.Random(5), unseen=False)
    for _ in range(50):
        messages, tools = corpus.conversation(source, 4)
        whole = render(messages, tools)
        for k in range(1, len(messages) + 1):
            part = render(messages[:k], tools)
            assert whole.startswith(part)
            if k < len(messages) and messages[k]["role"] == "assistant":
                assert whole.startswith(render(messages[:k], tools, add_generation_prompt=True))
