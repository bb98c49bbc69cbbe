"""Compiled grammars on disk: what a later start finds, and what it does not believe."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from pathlib import Path

import msgspec
import pytest
from grammar_bench import constraint_of

from ramify.constrained import disk_cache
from ramify.constrained.compiler import GrammarCompiler
from ramify.constrained.disk_cache import DiskCache
from ramify.constrained.spec import JsonSchema, Regex
from ramify.constrained.store import Envelope
from ramify.constrained.vocabulary import Vocabulary, fingerprint
from ramify.runtime.errors import ConstraintError

RECORD = constraint_of({"type": "object", "properties": {"a": {"type": "string"}, "b": {"enum": [1, 2]}}, "required": ["a"]})


@pytest.fixture(scope="module")
def names(bench) -> str:
    """The fingerprint of the vocabulary."""
    return fingerprint(bench.vocabulary.to_bytes())


@pytest.fixture
def cache(tmp_path: Path, names: str) -> DiskCache:
    return DiskCache(tmp_path / "grammars", vocabulary=names)


def files(cache: DiskCache) -> list[Path]:
    return sorted(cache.folder.iterdir()) if cache.folder.exists() else []


def envelope(vocabulary: str, size: int = 10, key: str = "0") -> bytes:
    return Envelope("xgrammar", key, vocabulary, bytes(size)).to_bytes()


def compile_all(vocabulary: bytes, folder: Path | None, constraints: list) -> tuple[list[bytes | str], int]:
    """What a compiler's life answers, refusals by their code, and how many compile processes it had."""

    async def life() -> tuple[list[bytes | str], int]:
        compiler = GrammarCompiler(vocabulary, workers=1, folder=folder)
        answers: list[bytes | str] = []
        try:
            for constraint in constraints:
                try:
                    answers.append(await compiler.compile(constraint))
                except ConstraintError as error:
                    answers.append(error.code)
            return answers, len(compiler.pids)
        finally:
            await compiler.close()

    return asyncio.run(life())


def test_the_second_start_compiles_nothing_and_answers_the_same(bench, tmp_path):
    folder, asked = tmp_path / "grammars", [RECORD, Regex("a+"), Regex("b{3}"), RECORD]
    first, workers = compile_all(bench.vocabulary.to_bytes(), folder, asked)
    assert workers == 1 and len(list(folder.iterdir())) == 3
    second, workers = compile_all(bench.vocabulary.to_bytes(), folder, asked)
    assert workers == 0 and second == first
    assert bench.accepts(second[2], "bbb")

    # What is refused is refused anew by each start: it may have been for want of time.
    refused = [JsonSchema('{"type":"nothing"}')]
    code, workers = compile_all(bench.vocabulary.to_bytes(), folder, refused)
    assert workers == 1 and isinstance(code[0], str) and len(list(folder.iterdir())) == 3


def test_what_was_kept_is_found_and_nothing_else(cache, names):
    kept = {Regex(letter): envelope(names, key=letter) for letter in "abc"}
    for constraint, grammar in kept.items():
        cache.put(constraint, grammar)
    assert {constraint: cache.get(constraint) for constraint in kept} == kept
    assert cache.get(Regex("d")) is None
    assert cache.get(JsonSchema('"a"')) is None
    assert cache.get(msgspec.structs.replace(RECORD, strict=False)) is None


def test_other_vocabularies_limits_engines_and_sources_find_nothing(cache, names, monkeypatch):
    cache.put(RECORD, envelope(names))
    other = fingerprint(Vocabulary.from_tokens([b"a", b""], stop_ids=[1]).to_bytes())
    assert DiskCache(cache.folder, vocabulary=other).get(RECORD) is None
    assert DiskCache(cache.folder, vocabulary=names, settings=(1.0, 2)).get(RECORD) is None
    assert DiskCache(cache.folder, vocabulary=names).get(RECORD) is not None
    monkeypatch.setattr(disk_cache, "_version", lambda package: "another")
    assert DiskCache(cache.folder, vocabulary=names).get(RECORD) is None


@pytest.mark.parametrize("harm", ["cut", "emptied", "changed", "lengthened", "marked", "renamed", "foreign"])
def test_a_file_that_does_not_hold_what_its_name_says_is_removed_and_written_anew(cache, names, harm):
    grammar = envelope(names, 200)
    cache.put(RECORD, grammar)
    [file] = files(cache)
    whole = file.read_bytes()
    if harm == "cut":
        file.write_bytes(whole[:-1])
    elif harm == "emptied":
        file.write_bytes(b"")
    elif harm == "changed":
        rng = random.Random(0)
        for _ in range(50):
            place = rng.randrange(len(whole))
            file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :])
            assert cache.get(RECORD) is None and not file.exists()
        file.write_bytes(whole[::-1])
    elif harm == "lengthened":
        file.write_bytes(whole + b"\0")
    elif harm == "marked":
        file.write_bytes(b"RAMIFYG0" + whole[8:])
    elif harm == "renamed":  # whole, but another constraint's
        cache.put(Regex("a"), envelope(names, 100, key="a"))
        [other] = [one for one in files(cache) if one != file]
        os.replace(other, file)
    else:  # well made by whoever made it, for another vocabulary
        cache.put(RECORD, envelope("0" * 32))
    assert cache.get(RECORD) is None
    assert files(cache) == []
    cache.put(RECORD, grammar)
    assert cache.get(RECORD) == grammar


def test_the_files_used_longest_ago_go_first_beyond_the_bound(tmp_path, names):
    cache = DiskCache(tmp_path / "grammars", vocabulary=names, capacity_bytes=8000)
    asked = [Regex(letter) for letter in "abcdefg"]
    for age, constraint in enumerate(asked):
        cache.put(constraint, envelope(names, 900))
        os.utime(files_of(cache, constraint), (age, age))
    assert cache.get(asked[0]) is not None  # now the most recently used
    cache.put(Regex("h"), envelope(names, 900))
    found = [cache.get(one) is not None for one in asked]
    assert found[0] and not found[1] and found[1:] == sorted(found[1:]) and found[-1]
    assert cache.get(Regex("h")) is not None
    assert sum(file.stat().st_size for file in files(cache)) <= 8000

    cache.put(Regex("i"), envelope(names, 3000))
    assert cache.get(Regex("i")) is None, "one file may not push out all others"


def files_of(cache: DiskCache, constraint) -> Path:
    return cache._file(constraint)


def test_the_bound_holds_whatever_other_processes_write(tmp_path, names):
    one, other = (DiskCache(tmp_path / "grammars", vocabulary=names, capacity_bytes=50_000) for _ in range(2))
    for number in range(200):
        (one if number % 2 else other).put(Regex(f"{number}"), envelope(names, 1000))
    for cache in (one, other):
        cache.put(Regex("last"), envelope(names, 1000))
    assert sum(file.stat().st_size for file in files(one)) <= 100_000


def test_what_a_writer_left_unfinished_is_removed_later_and_other_files_are_let_be(cache, names):
    cache.put(RECORD, envelope(names))
    new, old, foreign = (cache.folder / name for name in ("new.part", "old.part", "README"))
    for file in (new, old, foreign):
        file.write_bytes(b"x")
    os.utime(old, (0, 0))
    again = DiskCache(cache.folder, vocabulary=names)
    again.put(Regex("a"), envelope(names))
    assert new.exists() and foreign.exists() and not old.exists()


def test_a_disk_that_does_not_work_is_no_error(tmp_path, names):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    for folder in (blocked, blocked / "below", Path("/proc/none/grammars")):
        cache = DiskCache(folder, vocabulary=names)
        cache.put(RECORD, envelope(names))
        assert cache.get(RECORD) is None
    assert blocked.read_bytes() == b""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users here")
def test_a_folder_that_others_may_write_to_is_not_used(cache, names):
    cache.put(RECORD, envelope(names))
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    cache.folder.chmod(0o777)
    assert cache.get(RECORD) is None
    cache.put(Regex("a"), envelope(names))
    assert len(files(cache)) == 1
    cache.folder.chmod(0o755)
    assert cache.get(RECORD) is not None


def test_many_writers_and_readers_of_one_file_see_it_whole_or_not_at_all(tmp_path, names):
    grammars = {envelope(names, 20_000, key=f"{number}") for number in range(4)}
    seen: set[bytes | None] = set()

    def work(grammar: bytes) -> None:
        cache = DiskCache(tmp_path / "grammars", vocabulary=names)
        for _ in range(40):
            cache.put(RECORD, grammar)
            seen.add(cache.get(RECORD))

    threads = [threading.Thread(target=work, args=(grammar,)) for grammar in grammars]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen <= grammars
    assert [file.suffix for file in (tmp_path / "grammars").iterdir()] == [".grammar"]
