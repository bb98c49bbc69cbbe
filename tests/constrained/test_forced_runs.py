"""What a grammar forces, and the tokens that it is written with."""

from __future__ import annotations

import json
import random

import pytest
from grammar_bench import STOP, Bench, constraint_of

from ramify.constrained.engines import ENGINES
from ramify.constrained.forced import Canonical
from ramify.constrained.masks import allowed_tokens
from ramify.constrained.matcher import Matcher
from ramify.constrained.spec import Choice, JsonObject, Regex
from ramify.constrained.store import GrammarStore
from ramify.constrained.vocabulary import Vocabulary
from ramify.runtime.bundled import MODEL_DIR
from ramify.runtime.text.tokenizer import Tokenizer

RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "café ☕": {"enum": ["alpha", "alpine"]},
        "n": {"type": "integer", "minimum": 10, "maximum": 99},
        "end": {"const": "the very same 😀 words"},
    },
    "required": ["name", "café ☕", "n", "end"],
    "additionalProperties": False,
}
CONSTRAINTS = [constraint_of(RECORD), Regex("(ab|ac)d{3}e?"), Choice(("yes indeed", "yes", "no")), JsonObject()]


def greedy(tokens: list[bytes]):
    """A tokenizer that takes the longest token each time."""
    ids = {token: number for number, token in enumerate(tokens) if token}
    longest = max(map(len, ids))

    def encode(text: str) -> list[int]:
        data, found = text.encode(), []
        while data:
            piece = next(data[:size] for size in range(min(longest, len(data)), 0, -1) if data[:size] in ids)
            found.append(ids[piece])
            data = data[len(piece) :]
        return found

    return encode


@pytest.fixture(scope="module")
def forcing(bench) -> GrammarStore:
    return GrammarStore(bench.vocabulary.to_bytes(), encode=greedy(bench.vocabulary.tokens))


def allowed(bench: Bench, matcher: Matcher) -> list[int]:
    row = bench.masks.fill([matcher])
    assert row is not None
    return allowed_tokens(row[0], bench.vocabulary.size).tolist()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: type(c).__name__)
def test_a_forced_text_is_what_every_text_of_the_grammar_goes_on_with(bench, constraint, engine):
    rng, seen = random.Random(1), 0
    grammar = bench.compiler.only(engine).compile(constraint)
    for _ in range(30):
        matcher = bench.store.matcher(grammar)
        for _ in range(40):
            text = matcher.forced_text().encode()
            seen += len(text) > 1
            ahead, left = matcher.fork(), text
            while left:
                assert not ahead.may_end
                for token in allowed(bench, ahead):
                    spelled = bench.vocabulary.tokens[token]
                    assert spelled.startswith(left) or left.startswith(spelled)
                assert ahead.accept(left[0])
                left = left[1:]
            tokens = allowed(bench, matcher)
            assert matcher.accept(rng.choice(tokens))
            if matcher.is_terminated:
                break
    assert seen or isinstance(constraint, JsonObject)


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: type(c).__name__)
def test_along_a_run_one_token_is_allowed_and_it_is_the_tokenizers(bench, forcing, constraint):
    rng = random.Random(2)
    grammar = bench.compile(constraint)
    runs = 0
    for _ in range(30):
        matcher, plain = forcing.matcher(grammar), bench.store.matcher(grammar)
        for _ in range(60):
            tokens = allowed(bench, matcher)
            if matcher.forced:
                assert tokens == [matcher.forced[0]]
                others = [t for t in range(0, 256, 17) if t not in tokens]
                assert not any(matcher.accept(token) for token in [*others, STOP])
                runs += 1
            else:
                assert tokens == allowed(bench, plain)
            token = rng.choice(tokens)
            before = matcher.forced
            assert matcher.accept(token) and plain.accept(token)
            if len(before) > 1:
                assert matcher.forced == before[1:]
            if matcher.is_terminated:
                break
    assert runs or isinstance(constraint, JsonObject)


def test_rollback_and_fork_keep_the_place_in_a_run(bench, forcing):
    rng = random.Random(3)
    grammar = bench.compile(constraint_of(RECORD))
    matcher = forcing.matcher(grammar)
    states: list[tuple[tuple[int, ...], list[int]]] = []
    for _ in range(400):
        if matcher.is_terminated or (states and rng.random() < 0.3):
            back = rng.randint(1, len(states))
            matcher.rollback(back)
            states = states[: len(states) - back + 1]
            assert (matcher.forced, allowed(bench, matcher)) == states.pop()
            continue
        if rng.random() < 0.2:
            matcher = matcher.fork()
        states.append((matcher.forced, allowed(bench, matcher)))
        assert matcher.accept(rng.choice(states[-1][1]))
    assert len({state for state, _ in states}) > 1


def test_a_token_that_a_longer_one_could_take_the_place_of_is_not_part_of_a_run():
    tokens = [b"a", b"b", b"ab", b"abc", b'"', b'":', b" "]
    canonical = Canonical(Vocabulary.from_tokens([*tokens, b""], stop_ids=[7]), greedy(tokens))
    assert canonical.run('a"') == (0,), '`"` may yet become `":`'
    assert canonical.run('a":') == (0, 5)
    assert canonical.run("ab") == (), "`abc` begins with all of it"
    assert canonical.run("ab ab") == (2, 6)
    assert canonical.run(" ") == (6,)


def test_a_tokenizer_that_writes_another_text_forces_nothing():
    tokens = [b"a", b"b"]
    for ids in ([1, 0], [0, 0], [9], [0, 2]):
        canonical = Canonical(Vocabulary.from_tokens([*tokens, b""], stop_ids=[2]), lambda text, ids=ids: ids)
        assert canonical.run("ab") in ((), (0,))


def test_the_bundled_tokenizer_writes_its_own_tokens():
    tokenizer = Tokenizer.load(MODEL_DIR)
    described = (MODEL_DIR / "tokenizer.json").read_text(encoding="utf-8")
    vocabulary = Vocabulary.from_tokenizer(described, stop_ids=tokenizer.eos_ids)
    canonical = Canonical(vocabulary, lambda text: tokenizer.encode(text, control=False, after=-1))
    texts = [json.dumps({"name": "Ada", "größe": [1, 2.5, None], "x": "<|im_end|>"}, ensure_ascii=False), "}", '", "age": ']
    for text in texts:
        run = canonical.run(text)
        whole = tokenizer.encode(text, control=False, after=-1).tolist()
        assert list(run) == whole[: len(run)]
        assert not tokenizer.control_ids & set(run)
        spelled = b"".join(vocabulary.tokens[token] for token in run)
        assert text.encode().startswith(spelled) and len(text.encode()) - len(spelled) <= 12


def test_masks_of_free_and_forced_rows_are_filled_together(bench, forcing):
    grammar = bench.compile(Regex("abc[0-9]+"))
    begun, free = forcing.matcher(grammar), forcing.matcher(grammar)
    while free.forced:
        assert free.accept(free.forced[0])
    mask = bench.masks.fill([begun, None, free])
    assert mask is not None and (mask[1] == -1).all()
    assert allowed_tokens(mask[0], bench.vocabulary.size).tolist() == [begun.forced[0]]
    digits = allowed_tokens(mask[2], bench.vocabulary.size)
    assert set(range(ord("0"), ord("9") + 1)) <= set(digits.tolist())
