"""Compiled grammars on disk: what one start has compiled, the next ones read.

A file is named by everything that its content depends on: the constraint, the vocabulary, the limits, the versions of the grammar
engines and the sources of this package. It belongs to that name alone:

    mark, 8 bytes | blake2b of name and envelope, 32 bytes | envelope (`store.Envelope`, encoded)

What is not such a file (cut off, changed, put there by somebody else) is as good as none, and is replaced. Files are written
whole or not at all, so that any number of processes may share the folder. When it grows beyond its bound, the files that were
used longest ago are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import time
from functools import cached_property
from importlib import metadata
from pathlib import Path

import msgspec

from . import limits
from .spec import Constraint
from .store import Envelope

_MARK = b"RAMIFYG1"
_CHECKSUM_BYTES = 32
_SUFFIX, _UNFINISHED = ".grammar", ".part"
_READERS = ("xgrammar", "llguidance", "jsonschema-rs", "google-re2")
"""Packages whose version may change what a constraint becomes."""
_LARGEST_SHARE = 4
"""A file may take a quarter of the bound."""
_LOOK_EVERY = 64
"""Files written until the folder is looked at again: other processes write there too."""
_ABANDONED_S = 3600.0


class DiskCache:
    """Compiled grammars for one vocabulary in a folder, which other vocabularies, versions and processes share.

    Raises nothing for what a disk does: a file that cannot be read is not there, one that cannot be written is not kept. Calls
    block while the disk works, and may come from any thread.
    """

    def __init__(
        self, folder: Path, *, vocabulary: str, settings: tuple[float, ...] = (), capacity_bytes: int = limits.DISK_BYTES
    ):
        """folder: made when something is written; one that others than this user may write to is not used. vocabulary: its
        fingerprint. settings: limits of compilation that were set. capacity_bytes: of all files together."""
        self.folder = folder
        self._vocabulary = vocabulary
        self._settings = settings
        self._capacity_bytes = capacity_bytes
        self._written = 0
        self._bytes = 0

    def get(self, constraint: Constraint) -> bytes | None:
        """The encoded envelope that was kept for a constraint; makes it the most recently used. A file that does not hold one
        is removed."""
        file = self._file(constraint)
        try:
            if not self._is_ours():
                return None
            data = file.read_bytes()
        except OSError:
            return None
        grammar = self._checked(file.name, data)
        with contextlib.suppress(OSError):
            if grammar is None:
                file.unlink()
            else:
                os.utime(file)
        return grammar

    def put(self, constraint: Constraint, grammar: bytes) -> None:
        """Keeps an encoded envelope, and removes old files where there are too many bytes."""
        file = self._file(constraint)
        data = _MARK + _checksum(file.name, grammar) + grammar
        if len(data) > self._capacity_bytes // _LARGEST_SHARE:
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_ours():
                return
            self._write(file, data)
            self._bytes += len(data)
            if self._written % _LOOK_EVERY == 0 or self._bytes > self._capacity_bytes:
                self._trim()
            self._written += 1

    def _is_ours(self) -> bool:
        """Whether nobody but this user can have written what lies in the folder. Raises OSError where there is none."""
        found = os.stat(self.folder)
        return not hasattr(os, "geteuid") or (found.st_uid == os.geteuid() and not found.st_mode & 0o022)

    def _write(self, file: Path, data: bytes) -> None:
        handle, unfinished = tempfile.mkstemp(suffix=_UNFINISHED, dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
            os.replace(unfinished, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
            raise

    def _trim(self) -> None:
        """Removes what writers left unfinished, and, beyond the bound, the files used longest ago until a quarter is free."""
        found: list[tuple[int, int, str]] = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # another process may remove it at the same time
                    stat = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(_SUFFIX):
                        found.append((stat.st_mtime_ns, stat.st_size, entry.path))
                    elif entry.name.endswith(_UNFINISHED) and stat.st_mtime < time.time() - _ABANDONED_S:
                        os.unlink(entry.path)
        self._bytes = sum(size for _, size, _ in found)
        if self._bytes <= self._capacity_bytes:
            return
        for _, size, path in sorted(found):
            if self._bytes <= self._capacity_bytes * 3 // 4:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            self._bytes -= size

    def _checked(self, name: str, data: bytes) -> bytes | None:
        """The envelope of a file's content, None where it is not one for this name and this vocabulary."""
        start = len(_MARK) + _CHECKSUM_BYTES
        grammar = data[start:]
        if data[:start] != _MARK + _checksum(name, grammar):
            return None
        try:
            envelope = Envelope.from_bytes(grammar)
        except msgspec.DecodeError:
            return None
        return grammar if envelope.vocabulary == self._vocabulary else None

    def _file(self, constraint: Constraint) -> Path:
        digest = hashlib.blake2b(self._scope + msgspec.msgpack.encode(constraint), digest_size=20)
        return self.folder / (digest.hexdigest() + _SUFFIX)

    @cached_property
    def _scope(self) -> bytes:
        """What all names have in common."""
        digest = hashlib.blake2b(digest_size=32)
        said = (self._vocabulary, *map(str, self._settings), sys.version, *map(_version, _READERS))
        digest.update("\0".join(said).encode())
        for source in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
        return digest.digest()


def _checksum(name: str, grammar: bytes) -> bytes:
    return hashlib.blake2b(grammar, digest_size=_CHECKSUM_BYTES, key=name.encode()).digest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
