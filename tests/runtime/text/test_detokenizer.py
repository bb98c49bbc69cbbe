"""Detokenizer: text as it comes, equal to the whole decoded, never half a character, and traced back to ids."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from text_families import Loaded

from ramify.runtime.text.detokenizer import Detokenizer, Kept

EMOJI = "\U0001f600"
NAMES = ["chatml", "inst"]


def by_bytes(loaded: Loaded, data: bytes) -> list[int]:
    """One token for each byte."""
    table = loaded.tokenizer.token_bytes
    single = {spelled: i for i, spelled in reversed(list(enumerate(table))) if len(spelled) == 1}
    return [single[bytes([byte])] for byte in data]


def pushed(loaded: Loaded, ids: list[int], cuts: list[int], **options: bool) -> tuple[list[str], Detokenizer]:
    detokenizer = Detokenizer(loaded.tokenizer, **options)
    borders = sorted({0, len(ids), *(cut for cut in cuts if cut < len(ids))})
    texts = [detokenizer.push(ids[a:b]) for a, b in pairwise(borders)]
    return [*texts, detokenizer.flush()], detokenizer


ids_and_cuts = st.tuples(st.lists(st.integers(0, 460), max_size=40), st.lists(st.integers(0, 40)))
noise = st.one_of(st.binary(max_size=30), st.text(max_size=10).map(lambda s: s.encode("utf-8", "surrogatepass")))


@pytest.mark.parametrize("name", NAMES)
@given(case=ids_and_cuts)
def test_any_split_of_any_ids_gives_the_whole_decoded(families: dict[str, Loaded], name: str, case: tuple) -> None:
    loaded = families[name]
    for skip in (True, False):
        texts, detokenizer = pushed(loaded, *case, skip_special=skip, drop_space=loaded.tokenizer.scheme.strips)
        assert "".join(texts) == loaded.tokenizer.decode(case[0], skip_special=skip)
        assert detokenizer.length == len("".join(texts))


@pytest.mark.parametrize("name", NAMES)
@given(data=noise, cuts=st.lists(st.integers(0, 40)))
@example(data=b"\xf0\x9f\x98", cuts=[1, 2])
@example(data=b"\xe0\x80\xed\xa0\x80\xf5\xff", cuts=[1])
def test_any_bytes_come_out_as_python_decodes_them(families: dict[str, Loaded], name: str, data: bytes, cuts: list[int]) -> None:
    texts, _ = pushed(families[name], by_bytes(families[name], data), cuts)
    assert "".join(texts) == data.decode("utf-8", errors="replace")


@given(data=noise)
def test_no_more_than_three_bytes_are_ever_held(families: dict[str, Loaded], data: bytes) -> None:
    loaded = families["chatml"]
    detokenizer = Detokenizer(loaded.tokenizer)
    for count, token in enumerate(by_bytes(loaded, data), start=1):
        detokenizer.push([token])
        settled = [data[: max(count - held, 0)].decode("utf-8", errors="replace") for held in range(4)]
        assert detokenizer.length in [len(text) for text in settled]


def test_a_character_comes_out_with_its_last_token(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    detokenizer = Detokenizer(loaded.tokenizer)
    assert [detokenizer.push([token]) for token in by_bytes(loaded, ("a" + EMOJI).encode())] == ["a", "", "", "", EMOJI]
    assert detokenizer.ends == [1, 1, 1, 1, 2]
    assert detokenizer.flush() == ""


def test_special_tokens_are_skipped_only_if_asked(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    ids = loaded.tokenizer.encode("a<think>b<|im_end|>").tolist()
    assert pushed(loaded, ids, [])[0] == ["a<think>b", ""]
    assert pushed(loaded, ids, [], skip_special=False)[0] == ["a<think>b<|im_end|>", ""]


def test_one_space_at_the_start_is_dropped_only_if_asked(families: dict[str, Loaded]) -> None:
    loaded = families["inst"]
    ids = loaded.tokenizer.encode("hello").tolist()
    assert "".join(pushed(loaded, ids, [])[0]) == " hello"
    assert "".join(pushed(loaded, ids, [], drop_space=True)[0]) == "hello"


@pytest.mark.parametrize("name", NAMES)
@given(case=ids_and_cuts, position=st.integers(0, 60))
def test_ids_that_stay_spell_a_beginning_of_the_cut_text_and_no_longer_run_would(
    families: dict[str, Loaded], name: str, case: tuple, position: int
) -> None:
    loaded = families[name]
    ids = case[0]
    texts, detokenizer = pushed(loaded, ids, case[1])
    text = "".join(texts)[:position]
    kept = detokenizer.keep(position)
    spelled = [loaded.tokenizer.spell([i for i in ids[:n] if i not in loaded.tokenizer.special_ids]) for n in range(len(ids) + 1)]
    assert spelled[kept.count].decode("utf-8", errors="replace") == text[: kept.end]
    assert kept.count == 0 or ids[kept.count - 1] not in loaded.tokenizer.special_ids
    for count in range(kept.count + 1, len(ids) + 1):
        try:
            longer = spelled[count].decode()
        except UnicodeDecodeError:
            continue
        assert not text.startswith(longer) or ids[count - 1] in loaded.tokenizer.special_ids


def test_what_stays_never_ends_within_a_character_nor_with_a_stop_token(families: dict[str, Loaded]) -> None:
    loaded = families["chatml"]
    end = loaded.tokenizer.token_id("<|im_end|>")
    assert end is not None
    detokenizer = Detokenizer(loaded.tokenizer)
    detokenizer.push([*by_bytes(loaded, ("ab" + EMOJI).encode()), end])
    assert detokenizer.keep(3) == Kept(6, 3)
    assert detokenizer.keep(2) == Kept(2, 2)
    half = Detokenizer(loaded.tokenizer)
    half.push([*by_bytes(loaded, b"a\xf0\x9f"), end])
    assert half.flush() == "\ufffd"
    assert half.keep(2) == Kept(3, 2)
    assert half.keep(1) == Kept(1, 1)


def test_text_behind_the_last_id_that_stays_is_the_tail(families: dict[str, Loaded]) -> None:
    """A stop string that began inside a token: the text before it is kept as text."""
    loaded = families["chatml"]
    ids = [*by_bytes(loaded, b"x"), *loaded.tokenizer.encode("answer").tolist()]
    texts, detokenizer = pushed(loaded, ids, [])
    kept = detokenizer.keep(3)
    assert "".join(texts)[:3] == "xan"
    assert loaded.tokenizer.decode(ids[: kept.count]) + "".join(texts)[kept.end : 3] == "xan"


def test_nothing_at_all_is_kept_of_nothing(families: dict[str, Loaded]) -> None:
    detokenizer = Detokenizer(families["chatml"].tokenizer)
    assert (detokenizer.push([]), detokenizer.flush(), detokenizer.keep(5)) == ("", "", Kept(0, 0))
