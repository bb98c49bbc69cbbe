"""How a request's events wait for their reader: merged where it wants few, complete in every case."""

from __future__ import annotations

import pytest

from ramify.runtime.bundled import MODEL_DIR
from ramify.runtime.errors import EngineError
from ramify.runtime.protocol import CacheReport, Delta, Finish, Finished, Timings, Usage, pack_ids, unpack_ids
from ramify.runtime.streams import MOST_WAITING, Asked, Pending, Stream
from ramify.runtime.text.tokenizer import Tokenizer
from ramify.runtime.wire import SequenceEnd, SubmitScore


def pending(interval: int) -> Pending:
    """Only its queue is looked at."""
    return Pending(SubmitScore(key=1, ids=b"", choices=()), Asked(), {}, interval=interval)


def delta(number: int, index: int = 0) -> Delta:
    return Delta(index, f"{number} ", pack_ids((number,)))


def finished(index: int = 0) -> Finished:
    end = {"prompt_ids": b"", "output_ids": b"", "held": b"", "tail": "", "finish": Finish("length"), "usage": Usage()}
    return Finished(index=index, text="", timings=Timings(), cache=CacheReport(), seed=0, **end)


def said(waiting: Pending, index: int = 0) -> list[list[int]]:
    return [unpack_ids(one.ids) for one in waiting.events if isinstance(one, Delta) and one.index == index]


@pytest.mark.parametrize("interval", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_the_first_token_comes_at_once_and_then_so_many_together(interval: int, count: int) -> None:
    waiting = pending(interval)
    for number in range(count):
        waiting.put(delta(number))
        assert said(waiting)[0] == [0]
    waiting.put(finished())
    pieces = said(waiting)
    assert [number for piece in pieces for number in piece] == list(range(count)), "in order, nothing lost"
    assert all(len(piece) == interval for piece in pieces[1:-1])
    assert "".join(one.text for one in waiting.events if isinstance(one, Delta)) == "".join(f"{n} " for n in range(count))
    assert isinstance(waiting.events[-1], Finished)


def test_samples_are_held_apart() -> None:
    waiting = pending(3)
    for number in range(5):
        for index in range(2):
            waiting.put(delta(10 * index + number, index))
    waiting.put(finished(0))
    assert said(waiting, 0) == [[0], [1, 2, 3], [4]]
    assert said(waiting, 1) == [[10], [11, 12, 13], [14]]


def test_what_was_held_comes_before_an_error() -> None:
    waiting = pending(10)
    for number in range(4):
        waiting.put(delta(number))
    waiting.put(EngineError("lost"))
    assert said(waiting) == [[0], [1, 2, 3]]
    assert isinstance(waiting.events[-1], EngineError)


def test_who_waits_for_the_end_gets_the_end_alone() -> None:
    waiting = pending(0)
    for number in range(4):
        waiting.put(delta(number))
    waiting.put(finished())
    assert [type(one) for one in waiting.events] == [Finished]


@pytest.mark.parametrize("interval", [1, 4])
def test_behind_a_reader_that_does_not_read_events_are_bounded_and_nothing_is_lost(interval: int) -> None:
    waiting = pending(interval)
    for number in range(2000):
        waiting.put(delta(number))
    waiting.put(finished())
    assert len(waiting.events) <= MOST_WAITING + 1
    assert [number for piece in said(waiting) for number in piece] == list(range(2000))


def test_a_text_that_nobody_sees_before_its_end_is_the_one_that_is_streamed() -> None:
    tokenizer = Tokenizer.load(MODEL_DIR)
    ids = [*tokenizer.encode("Größe: 10 €, na so was. 🙂").tolist(), *tokenizer.encode("🙂").tolist()[:1]]
    usage = {"usage": Usage(prompt=1), "timings": Timings(), "cache": CacheReport()}
    end = SequenceEnd(key=1, index=0, num_output=len(ids), finish=Finish("length"), **usage)
    found = []
    for asked in (Asked(), Asked(stop=("never said",))):
        for unseen in (False, True):
            stream = Stream(0, tokenizer, asked, unseen=unseen)
            seen = [stream.push(token, None) for token in ids]
            assert all(one is None for one in seen) == (unseen and not asked.stop)
            stream.close(len(ids))
            found.append(stream.finished(end, b"", 0, asked))
    assert found[0].text.startswith("Größe: 10 €, na so was. 🙂") and all(one == found[0] for one in found)
