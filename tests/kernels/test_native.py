"""How the C++ is compiled: once, whole or not at all, and without it there is a reason."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ramify.kernels import native


def make_compiler(folder: Path, script: str) -> str:
    """A program that stands in for a compiler; `$out` is the file that it shall write, `$said` its command line."""
    path = folder / "c++"
    path.write_text('#!/bin/sh\nsaid="$*"\nwhile [ "$1" != "-o" ]; do shift; done\nout="$2"\n' + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_without_a_compiler_there_is_a_reason(tmp_path: Path) -> None:
    assert native.find_compiler(path=str(tmp_path)) is None
    with pytest.raises(native.BuildError, match=r"no C\+\+ compiler"):
        native.build(tmp_path / "cache", None)


def test_a_compiler_that_fails_leaves_its_complaint_and_no_file(tmp_path: Path) -> None:
    compiler = make_compiler(tmp_path, 'touch "$out"; echo "x.cpp:1: error: no such thing" >&2; exit 1\n')
    with pytest.raises(native.BuildError, match="no such thing"):
        native.build(tmp_path / "cache", compiler)
    assert list((tmp_path / "cache").glob("*.so")) == []


def test_a_binary_is_compiled_once_and_kept(tmp_path: Path) -> None:
    compiler = make_compiler(tmp_path, f'case "$said" in *-shared*) echo made >> {tmp_path}/calls;; esac; echo binary > "$out"\n')
    found = native.find_compiler(path=str(tmp_path))
    assert found == compiler
    first = native.build(tmp_path / "cache", compiler)
    assert native.build(tmp_path / "cache", compiler) == first and first.read_text() == "binary\n"
    assert (tmp_path / "calls").read_text() == "made\n"


def test_another_compiler_makes_another_binary(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    compilers = [make_compiler(tmp_path / name, 'echo binary > "$out"\n') for name in "ab"]
    assert len({native.build(tmp_path / "cache", compiler) for compiler in compilers}) == 2


def test_a_folder_that_cannot_be_written_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        native.build(tmp_path / "file" / "cache", make_compiler(tmp_path, 'echo binary > "$out"\n'))
