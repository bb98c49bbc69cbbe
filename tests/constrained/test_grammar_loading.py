"""The thread that reads grammars: in order, each once, and whatever goes wrong reaches who asked."""

from __future__ import annotations

import queue
import threading

import msgspec
import pytest

from ramify.constrained.loading import GrammarLoader
from ramify.constrained.spec import Regex
from ramify.constrained.store import Envelope, GrammarStore
from ramify.runtime.errors import EngineError


class Loading:
    """A loader, and what it has announced."""

    def __init__(self, bench, **sizes):
        self.store = GrammarStore(bench.vocabulary.to_bytes(), **sizes)
        self.announced: queue.Queue[int] = queue.Queue()
        self.loader = GrammarLoader(self.store, self.announced.put)

    def next(self) -> int:
        return self.announced.get(timeout=60)


@pytest.fixture
def loading(bench):
    made = Loading(bench)
    yield made
    made.loader.close()


@pytest.mark.parametrize("engine", ["xgrammar", "llguidance"])
def test_a_grammar_is_read_once_and_then_has_matchers_at_once(bench, loading, engine):
    grammar = bench.compiler.only(engine).compile(Regex("ab"))
    ticket = loading.loader.want(grammar)
    assert ticket is not None and loading.loader.want(grammar) == ticket
    assert loading.next() == ticket
    assert loading.loader.want(grammar) == ticket, "what is read is not kept before it is taken"
    loading.loader.take(ticket)
    assert loading.loader.want(grammar) is None
    matcher = loading.store.matcher(grammar)
    assert matcher.accept(97) and matcher.accept(98) and matcher.may_end
    assert loading.announced.empty()


def test_grammars_are_read_in_the_order_in_which_they_were_wanted(bench, loading):
    grammars = [bench.compile(Regex(letter * 3)) for letter in "abcde"]
    tickets = [loading.loader.want(grammar) for grammar in grammars]
    assert [loading.next() for _ in grammars] == tickets
    for ticket, grammar, letter in zip(tickets, grammars, b"abcde", strict=True):
        loading.loader.take(ticket)
        assert loading.store.matcher(grammar).accept(letter)


def test_a_grammar_that_cannot_be_read_raises_when_it_is_taken_and_is_tried_anew(bench, loading):
    good = bench.compile(Regex("a"))
    broken = [
        msgspec.structs.replace(Envelope.from_bytes(good), payload=b"c-{}", key="1"),
        msgspec.structs.replace(Envelope.from_bytes(good), payload=b"t-root ::= (", key="2"),
        msgspec.structs.replace(Envelope.from_bytes(good), payload=b"lznothing", engine="llguidance", key="3"),
        msgspec.structs.replace(Envelope.from_bytes(good), engine="other", key="4"),
    ]
    for one in broken:
        for _ in range(2):
            ticket = loading.loader.want(one.to_bytes())
            assert ticket is not None and loading.next() == ticket
            with pytest.raises(Exception, match=r".+"):
                loading.loader.take(ticket)
    ticket = loading.loader.want(good)
    assert loading.next() == ticket
    loading.loader.take(ticket)
    assert loading.store.matcher(good).accept(97)


def test_what_is_no_grammar_of_this_vocabulary_is_refused_without_being_read(bench, loading):
    with pytest.raises(EngineError, match="cannot be read"):
        loading.loader.want(b"\xff")
    other = msgspec.structs.replace(Envelope.from_bytes(bench.compile(Regex("a"))), vocabulary="0" * 32)
    with pytest.raises(EngineError, match="another vocabulary"):
        loading.loader.want(other.to_bytes())
    assert loading.announced.empty()


def test_a_grammar_that_was_dropped_is_read_again(bench):
    loading = Loading(bench, capacity=1)
    for letter in "aba":
        ticket = loading.loader.want(bench.compile(Regex(letter)))
        assert ticket is not None and loading.next() == ticket
        loading.loader.take(ticket)
    loading.loader.close()


def test_closing_ends_the_thread_after_what_was_wanted_before(bench):
    before = set(threading.enumerate())
    loading = Loading(bench)
    [thread] = [one for one in threading.enumerate() if one not in before]
    ticket = loading.loader.want(bench.compile(Regex("a")))
    loading.loader.close()
    assert loading.next() == ticket
    thread.join(60)
    assert not thread.is_alive()
