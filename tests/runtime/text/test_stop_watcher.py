"""Stops: found across token borders, held back no more than needed, the same however the text is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.runtime.errors import InvalidRequest
from ramify.runtime.text.stops import Match, StopWatcher


def watch(watcher: StopWatcher, pieces: list[str]) -> tuple[str, Match | None]:
    """(all text that was shown, the stop)."""
    shown = ""
    for piece in pieces:
        text, match = watcher.push(piece)
        shown += text
        if match is not None:
            return shown, match
    return shown + watcher.flush(), None


def naive(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The text before the stop whose end comes first (of several, the one that begins first), and the stop."""
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            longest = max(ended, key=len)
            return text[: end - len(longest)], longest
    return text, None


def cut(text: str, borders: list[int]) -> list[str]:
    places = sorted({0, len(text), *(border for border in borders if border < len(text))})
    return [text[a:b] for a, b in pairwise(places)]


letters = st.text("ab\u00e9", max_size=30)
stops_drawn = st.lists(st.text("ab\u00e9", min_size=1, max_size=5), min_size=1, max_size=4)


@given(text=letters, stops=stops_drawn, borders=st.lists(st.integers(0, 30)), keep=st.booleans())
def test_any_cut_of_a_text_stops_where_the_naive_search_does(text: str, stops: list[str], borders: list[int], keep: bool) -> None:
    before, stop = naive(text, stops)
    shown, match = watch(StopWatcher(stops, keep_stop=keep), cut(text, borders))
    assert shown == before + (stop or "" if keep else "")
    assert match == (None if stop is None else Match(stop, len(shown)))


@given(text=letters, stops=stops_drawn)
def test_only_what_may_begin_a_stop_is_held_back(text: str, stops: list[str]) -> None:
    watcher = StopWatcher(stops)
    shown = ""
    for count, char in enumerate(text, start=1):
        piece, match = watcher.push(char)
        shown += piece
        if match is not None:
            break
        held = text[len(shown) : count]
        beginnings = [n for n in range(count + 1) for stop in stops if n < len(stop) and text[:count].endswith(stop[:n])]
        assert len(held) == max(beginnings, default=0)


def test_without_stops_everything_is_shown_at_once() -> None:
    watcher = StopWatcher()
    assert watcher.push("anything") == ("anything", None)
    assert watcher.flush() == ""


def test_a_stop_across_three_pieces_is_cut_off_or_kept() -> None:
    pieces = ["Hello\n", "Hu", "man: hi"]
    assert watch(StopWatcher(["\nHuman:"]), pieces) == ("Hello", Match("\nHuman:", 5))
    assert watch(StopWatcher(["\nHuman:"], keep_stop=True), pieces) == ("Hello\nHuman:", Match("\nHuman:", 12))


def test_what_turned_out_to_be_no_stop_is_shown_after_all() -> None:
    watcher = StopWatcher(["\nHuman:"])
    assert watcher.push("a\nHu") == ("a", None)
    assert watcher.push("nger") == ("\nHunger", None)
    assert watcher.push("\nHum") == ("", None)
    assert watcher.flush() == "\nHum"


def test_an_empty_stop_is_refused() -> None:
    for watcher in ({"stop": [""]}, {"stop_regex": [""]}):
        with pytest.raises(InvalidRequest) as caught:
            StopWatcher(**watcher)
        assert caught.value.code == "invalid_stop"


# ------------------------------------------------------------------------------------------------------------ regexes


@given(text=letters, borders=st.lists(st.integers(0, 30)), keep=st.booleans())
def test_a_regex_stops_at_the_same_place_for_any_cut(text: str, borders: list[int], keep: bool) -> None:
    def watcher() -> StopWatcher:
        return StopWatcher(["\u00e9\u00e9\u00e9"], ["a+b+a", "b\u00e9$"], keep_stop=keep, window=8)

    assert watch(watcher(), cut(text, borders)) == watch(watcher(), list(text))


def test_a_regex_match_is_cut_off_or_kept() -> None:
    text = ["The total is ", "4", "2 EUR", " and more"]
    assert watch(StopWatcher(stop_regex=[r"\d+ (EUR|USD)"]), text) == ("The total is ", Match(r"\d+ (EUR|USD)", 13))
    assert watch(StopWatcher(stop_regex=[r"\d+ (EUR|USD)"], keep_stop=True), text)[0] == "The total is 42 EUR"


def test_a_regex_sees_the_beginning_of_the_text_only_there() -> None:
    assert watch(StopWatcher(stop_regex=["^x"], window=4), ["aaaaaaaaax"]) == ("aaaaaaaaax", None)
    assert watch(StopWatcher(stop_regex=["^x"], window=4), ["xa"]) == ("", Match("^x", 0))


def test_a_regex_match_longer_than_the_window_is_not_found() -> None:
    assert watch(StopWatcher(stop_regex=["a[^b]*b"], window=4), ["axxxxxxb"])[1] is None
    assert watch(StopWatcher(stop_regex=["a[^b]*b"], window=8), ["axxxxxxb"]) == ("", Match("a[^b]*b", 0))


def test_the_text_of_a_regex_is_held_back_as_far_as_its_window() -> None:
    watcher = StopWatcher(stop_regex=["never"], window=4)
    assert watcher.push("abcdef") == ("abc", None)
    assert watcher.flush() == "def"


def test_a_word_boundary_is_known_one_character_late_and_cut_in_the_right_place() -> None:
    assert watch(StopWatcher(stop_regex=[r"END\b."]), ["so ENDS END! x"]) == ("so ENDS ", Match(r"END\b.", 8))


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(", "a" * 3000])
def test_a_regex_that_cannot_run_in_linear_time_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        StopWatcher(stop_regex=[pattern])
    assert (caught.value.code, caught.value.param) == ("unsupported_regex", "stop_regex")
