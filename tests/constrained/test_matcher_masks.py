"""Matchers and masks: positions in a grammar, end tokens, batches."""

from __future__ import annotations

import os
import random

import msgspec
import numpy as np
import pytest
from grammar_bench import STOP, constraint_of, make_bench

from ramify.constrained.masks import Masks, allowed_tokens, allows
from ramify.constrained.matcher import Matcher
from ramify.constrained.spec import Choice, Ebnf, JsonObject, Regex
from ramify.constrained.store import Envelope, GrammarStore
from ramify.constrained.vocabulary import Vocabulary
from ramify.runtime.errors import ConstraintError, EngineError


def test_it_is_a_matcher(bench):
    assert isinstance(bench.matcher(JsonObject()), Matcher)


def test_a_stop_id_is_allowed_exactly_where_the_grammar_may_end(bench):
    matcher = bench.matcher(Regex("a{1,2}"))
    for may_end, others in ((False, [97]), (True, [97]), (True, [])):
        row = bench.masks.fill([matcher])[0]
        assert matcher.may_end is may_end
        assert allowed_tokens(row, bench.vocabulary.size).tolist() == [*others, *([STOP] if may_end else [])]
        assert not may_end or not matcher.is_terminated
        if others:
            assert matcher.accept(97)
    assert matcher.accept(STOP)
    assert matcher.is_terminated and matcher.may_end
    assert not matcher.accept(97) and not matcher.accept(STOP)


def test_a_refused_token_changes_nothing(bench):
    matcher = bench.matcher(Regex("ab"))
    for token in (98, STOP, 257, 289, 290, 10_000, -1):
        assert not matcher.accept(token)
    assert matcher.accepted == 0
    assert matcher.accept(bench.vocabulary.tokens.index(b"ab"))
    assert matcher.accepted == 1 and matcher.may_end


def test_rollback_takes_tokens_back_the_end_token_included(bench):
    matcher = bench.matcher(JsonObject())
    masks = []
    for token in [*b'{"a": [1, "x', STOP][:-1]:
        masks.append(bench.masks.fill([matcher]).copy())
        assert matcher.accept(token)
    for mask in reversed(masks):
        matcher.rollback(1)
        assert (bench.masks.fill([matcher]) == mask).all()
    assert matcher.accept(ord("{")) and matcher.accept(ord("}")) and matcher.accept(STOP)
    matcher.rollback(1)
    assert not matcher.is_terminated and matcher.may_end
    matcher.rollback(2)
    assert matcher.accepted == 0
    with pytest.raises(ValueError, match="0 were accepted"):
        matcher.rollback(1)
    with pytest.raises(ValueError):
        matcher.rollback(-1)


def test_a_fork_goes_its_own_way_with_its_own_history(bench):
    matcher = bench.matcher(Regex("(ab|ac)d"))
    assert matcher.accept(97)
    fork = matcher.fork()
    assert matcher.accept(98) and fork.accept(99)
    assert not matcher.accept(99)
    fork.rollback(2)
    assert fork.accepted == 0 and matcher.accepted == 2
    assert fork.accept(97) and fork.accept(98) and matcher.accept(100) and fork.accept(100)


def test_random_accepts_rollbacks_and_forks_agree_with_replaying_the_tokens(bench):
    grammar = bench.compile(
        constraint_of({"type": "object", "properties": {"a": {"type": "number"}, "b": {"enum": ["x", "yy"]}}})
    )
    rng = random.Random(0)
    matcher, history = bench.store.matcher(grammar), []
    for _ in range(300):
        allowed = allowed_tokens(bench.masks.fill([matcher])[0], bench.vocabulary.size)
        if history and (matcher.is_terminated or rng.random() < 0.3):
            count = rng.randint(1, len(history))
            matcher.rollback(count)
            del history[len(history) - count :]
        elif rng.random() < 0.2:
            matcher = matcher.fork()
        else:
            token = int(rng.choice(allowed))
            assert matcher.accept(token)
            history.append(token)
        replayed = bench.store.matcher(grammar)
        assert all(replayed.accept(token) for token in history)
        assert (replayed.may_end, replayed.is_terminated, replayed.accepted) == (
            matcher.may_end,
            matcher.is_terminated,
            len(history),
        )
        assert (bench.masks.fill([replayed]) == bench.masks.fill([matcher])).all()


def test_a_mask_agrees_with_accepting_each_token(bench):
    grammar = bench.compile(constraint_of({"type": ["object", "string"], "properties": {"é": {"type": "boolean"}}}))
    for prefix in (b"", b'"', b'"\\', b"{", b'{"\xc3', '{"é": t'.encode(), b'"\xf0\x9f', b'"\xed'):
        matcher = bench.store.matcher(grammar)
        assert all(matcher.accept(byte) for byte in prefix)
        row = bench.masks.fill([matcher])[0]
        assert [t for t in range(290) if allows(row, t)] == [t for t in range(290) if matcher.fork().accept(t)]


def test_added_tokens_and_padding_are_never_allowed(bench):
    matcher = bench.matcher(Ebnf("root ::= [^a]*"))
    allowed = set(allowed_tokens(bench.masks.fill([matcher])[0], 290).tolist())
    assert 257 not in allowed and not any(t in allowed for t in range(278, 290))
    assert STOP in allowed and ord("b") in allowed


def test_outputs_are_always_valid_unicode(bench):
    grammar = bench.compile(Ebnf("root ::= [^a]{3}"))
    matcher = bench.store.matcher(grammar)
    assert matcher.accept(0xED) and not matcher.accept(0xA0)  # the first half of an encoded surrogate
    for seed in range(20):
        assert bench.walk(grammar, random.Random(seed)) is not None  # decodes strictly


def test_rows_without_a_grammar_are_all_ones(bench):
    a, b = bench.matcher(Regex("a")), bench.matcher(Regex("b"))
    mask = bench.masks.fill([None, a, None, b, a])
    assert mask.dtype == np.int32 and mask.shape == (5, 10)
    assert (mask[[0, 2]] == -1).all()
    assert [allowed_tokens(row, 290).tolist() for row in mask[[1, 3, 4]]] == [[97], [98], [97]]
    assert bench.masks.fill([None, None]) is None
    assert bench.masks.fill([]) is None


def test_a_terminated_row_does_not_disturb_the_others(bench):
    done, going = bench.matcher(Regex("a")), bench.matcher(Regex("b"))
    assert done.accept(97) and done.accept(STOP)
    mask = bench.masks.fill([done, going])
    assert (mask[0] == -1).all()
    assert allowed_tokens(mask[1], 290).tolist() == [98]


def test_a_batch_is_filled_by_one_native_call_without_new_threads(bench):
    matchers = [bench.matcher(Regex("[a-z]+")) for _ in range(16)]
    calls = []

    class Counting:
        def fill(self, members, mask, rows):
            calls.append(list(rows))
            matchers[0].filler.fill([m.inner for m in members], mask, rows)

    class Wrapped:
        is_terminated, filler = False, Counting()

        def __init__(self, inner):
            self.inner = inner

    before = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
    mask = bench.masks.fill([Wrapped(m) for m in matchers])
    after = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
    # One `filler` object is one engine, so sixteen rows are one call.
    assert calls == [list(range(16))]
    assert before == after
    assert all((mask[i] == mask[0]).all() for i in range(16))


def test_a_store_keeps_recent_grammars_and_reads_others_again(bench):
    store = GrammarStore(bench.vocabulary.to_bytes(), capacity=2)
    grammars = [bench.compile(Regex(c)) for c in "abc"]
    for grammar, letter in [*zip(grammars, b"abc", strict=True)] * 2:
        assert store.matcher(grammar).accept(letter)
    small = GrammarStore(bench.vocabulary.to_bytes(), capacity_bytes=1)
    assert small.matcher(grammars[0]).accept(97) and small.matcher(grammars[1]).accept(98)


def test_both_forms_of_a_compiled_grammar_are_read(bench, monkeypatch):
    from ramify.constrained import xgrammar_backend

    schema = constraint_of({"type": "object", "properties": {"a": {"type": "string", "format": "email"}}})
    forms = set()
    for cheap_s in (0.0, 1e9):
        monkeypatch.setattr(xgrammar_backend, "_CHEAP_S", cheap_s)
        grammar = bench.compiler.only("xgrammar").compile(schema)
        forms.add(Envelope.from_bytes(grammar).payload[:1])
        store = GrammarStore(bench.vocabulary.to_bytes())
        matcher = store.matcher(grammar)
        assert all(matcher.accept(byte) for byte in b'{"a": "x@y.zz"}') and matcher.may_end
    assert forms == {b"t", b"c"}


def test_a_grammar_of_another_vocabulary_is_an_engine_error(bench):
    other = Vocabulary.from_tokens([b"a", b""], stop_ids=[1])
    with pytest.raises(EngineError, match="another vocabulary"):
        GrammarStore(other.to_bytes()).matcher(bench.compile(Regex("a")))
    with pytest.raises(EngineError, match="cannot be read"):
        bench.store.matcher(b"\xff")
    unknown = msgspec.structs.replace(Envelope.from_bytes(bench.compile(Regex("a"))), engine="other", key="0")
    with pytest.raises(EngineError, match="'other'"):
        bench.store.matcher(unknown.to_bytes())


def test_several_stop_ids_all_end_the_output():
    vocabulary = Vocabulary.from_tokens([bytes([b]) for b in range(256)] + [b"", b"x"], stop_ids=[256, 257], size=258)
    two = make_bench(vocabulary)
    matcher = two.matcher(Regex("x?"))
    assert allowed_tokens(two.masks.fill([matcher])[0], 258).tolist() == [ord("x"), 256, 257]
    for stop in (256, 257):
        fork = matcher.fork()
        assert fork.accept(stop) and fork.is_terminated
    assert Masks(258).words == 9


# ---- choices, objects, EBNF -----------------------------------------------------------------------------------------


def test_choices_are_exact_whatever_they_contain(bench):
    options = ("a", "ab", "abc", 'say "hi"', "two\nlines", "tab\t\\", "😀 é", " ", "[a-z]*", "a")
    grammar = bench.compile(Choice(options))
    assert all(bench.accepts(grammar, option) for option in options)
    assert not any(bench.accepts(grammar, text) for text in ("", "abcd", "say", "two", "x", "aa", "  "))
    assert {bench.walk(grammar, random.Random(seed)) for seed in range(200)} <= set(options)


@pytest.mark.parametrize("options", [(), ("a", ""), ("\ud800",)])
def test_a_choice_that_no_output_stands_for_is_refused(bench, options):
    with pytest.raises(ConstraintError) as error:
        bench.compile(Choice(options))
    assert error.value.code == "invalid_grammar"


def test_a_json_object_is_any_object_and_nothing_else(bench):
    grammar = bench.compile(JsonObject())
    assert all(bench.accepts(grammar, text) for text in ("{}", '{"a": {"b": [1, -2.5e3, "\\n", null]}}', '{"é😀": true}'))
    assert not any(
        bench.accepts(grammar, text) for text in ("[]", "1", '{"a":1}', "{ }", '{"a": 01}', '{"a": "\n"}', '{"a": "\\ud800"}')
    )
    assert bench.accepts(grammar, '{"a": "\\ud83d\\ude00"}')


GOOD_EBNF = {
    'root ::= "a" | "b" root': (["a", "ba", "bba"], ["b", "ab", ""]),
    'root ::= root "a" | "b"': (["b", "ba", "baa"], ["a", ""]),
    'root ::= item{2,3}\nitem ::= [0-9]+ ";"': (["1;2;", "12;3;4;"], ["1;", "1;2;3;4;", "1"]),
    'root ::= (("x" | "y")? "z")*': (["", "z", "xzyz"], ["x", "xy"]),
    'root ::= [^\\n"]+ # until a line end': (["é", "a b"], ["\n", '"', ""]),
    'root ::= "\\u00e9\\n\\"" [\\x41-\\x43]': (['é\n"B'], ['é\n"D']),
    'root ::= ""': ([""], ["a"]),
}


@pytest.mark.parametrize("grammar", GOOD_EBNF)
def test_ebnf_means_its_texts(bench, grammar):
    compiled = bench.compile(Ebnf(grammar))
    yes, no = GOOD_EBNF[grammar]
    assert [t for t in yes if not bench.accepts(compiled, t)] == []
    assert [t for t in no if bench.accepts(compiled, t)] == []


@pytest.mark.parametrize(
    "grammar", ["root ::= root", 'root ::= root "a"', 'root ::= "a" x\nx ::= y\ny ::= x', "root ::= []", 'root ::= "(" root ")"']
)
def test_ebnf_without_a_finite_text_is_unsatisfiable(bench, grammar):
    with pytest.raises(ConstraintError) as error:
        bench.compile(Ebnf(grammar))
    assert error.value.code == "unsatisfiable_grammar"


def test_a_dead_alternative_of_an_ebnf_is_never_entered(bench):
    compiled = bench.compile(Ebnf('root ::= "a" dead | "b"\ndead ::= "x" dead'))
    assert not bench.store.matcher(compiled).accept(97)
    assert bench.accepts(compiled, "b")


@pytest.mark.parametrize(
    "grammar",
    [
        *(
            "",
            "root ::=",
            'root ::= ("a"',
            'x ::= "a"',
            "root ::= y",
            'root ::= "a',
            'root = "a"',
            "(" * 5000,
            "root ::= " + "(" * 5000,
        ),
        *(
            'root ::= "a" (="b")',
            'root ::= Regex("a+")',
            "root ::= Token(5)",
            'root ::= TagDispatch(("a", x))\nx ::= "b"',
            "\ud800",
        ),
    ],
)
def test_ebnf_that_cannot_be_read_or_is_more_than_texts_is_invalid(bench, grammar):
    with pytest.raises(ConstraintError) as error:
        bench.compile(Ebnf(grammar))
    assert error.value.code == "invalid_grammar"


def test_masks_of_a_drafted_tree_are_those_of_each_path_alone(bench):
    rng, followed = random.Random(5), 0
    grammar = bench.compile(JsonObject())
    for _ in range(20):
        matcher = bench.store.matcher(grammar)
        for _ in range(rng.randrange(4)):
            matcher.accept(int(rng.choice(allowed_tokens(bench.masks.fill([matcher])[0], bench.vocabulary.size))))
        accepted = matcher.accepted
        parents = [rng.randrange(-1, at) for at in range(12)]
        tokens, masks, allowed = [], None, None
        for at in range(12):  # each token is drawn from the mask before it, or is any at all
            tokens.append(rng.randrange(290))
            if masks is not None and rng.random() < 0.8 and len(row := allowed_tokens(masks[parents[at] + 1], 290)):
                tokens[at] = int(rng.choice(row))
            masks, allowed = bench.masks.fill_tree(matcher, tokens, parents[: at + 1])
        assert matcher.accepted == accepted
        followed += int(allowed.sum())
        for at in range(-1, 12):
            path = []
            place = at
            while place >= 0:
                path.append(tokens[place])
                place = parents[place]
            alone = matcher.fork()
            good = all(alone.accept(token) for token in reversed(path))
            assert at < 0 or good == allowed[at]
            expected = bench.masks.fill([alone])[0] if good else np.zeros(bench.masks.words, np.int32)
            assert (masks[at + 1] == expected).all()
    assert followed > 50


def test_a_drafted_token_comes_behind_its_parent(bench):
    with pytest.raises(ValueError, match="a parent comes before"):
        bench.masks.fill_tree(bench.matcher(JsonObject()), [1, 2], [-1, 1])
