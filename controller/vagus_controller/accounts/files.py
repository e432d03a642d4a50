"""The two files: `accounts.json`, which people change (here, and by `vagus-controller users`), and `sessions.json`,
which only the daemon writes. Neither is in the store: a database that is damaged, full or far away keeps nobody out.

A change of accounts is made under a lock, upon what the file holds at that moment, and is on disk before it counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from vagus_controller.accounts.book import Book
from vagus_controller.accounts.sessions import Notes
from vagus_runtime.settings import ConfigError, read_secret

ACCOUNTS: Final = "accounts.json"
SESSIONS: Final = "sessions.json"
VERSION: Final = 1

T = TypeVar("T", Book, Notes)


class AccountsFile:
    def __init__(self, directory: Path) -> None:
        self.path = directory / ACCOUNTS
        self._stamp: tuple[int, ...] | None = None
        self._last = Book()

    def exists(self) -> bool:
        return os.path.lexists(self.path)

    def changed(self) -> bool:
        """Whether the file is another one than `read` or `change` saw last."""
        return self._look() != self._stamp

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def read(self) -> Book:
        """What was read last, at first an empty book, when there is no file. Raises ConfigError."""
        self._stamp = self._look()
        if self.exists():
            self._last = _read(self.path, Book)
        return self._last

    def remember(self, book: Book) -> Book:
        """Where there is no file."""
        self._last = book
        return book

    def change(self, change: Callable[[Book], Book]) -> tuple[Book, Book]:
        """What was, and what is now. Raises ConfigError, OSError, and whatever `change` raises."""
        with _locked(self.path):
            old = self.read()
            new = change(old)
            write(self.path, msgspec.json.format(msgspec.json.encode(new), indent=1) + b"\n")
            self._stamp, self._last = self._look(), new
        return old, new


def read_notes(directory: Path) -> Notes:
    """Raises ConfigError."""
    path = directory / SESSIONS
    return _read(path, Notes) if path.exists() else Notes()


def _read(path: Path, kind: type[T]) -> T:
    try:
        found = msgspec.json.decode(read_secret(path), type=kind)
    except msgspec.MsgspecError as error:
        raise ConfigError([f"{path}: damaged ({error}): bring it back from a copy, or move it away"]) from None
    if found.v > VERSION:
        raise ConfigError([f"{path}: written by a newer vagus-controller; run that one, or move the file away"])
    return found


def write(path: Path, data: bytes) -> None:
    """All or nothing, mode 0600, on disk when this returns. Raises OSError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            _give_to_owner(stream.fileno(), path)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        with _directory(path) as directory:
            os.fsync(directory)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def _give_to_owner(descriptor: int, path: Path) -> None:
    """What root writes must stay readable to the daemon, which runs as the owner of the file or its directory."""
    if os.geteuid() == 0:
        owner = os.stat(path if path.exists() else path.parent)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Across processes. Of the directory: the file itself is replaced by each change."""
    with _directory(path) as directory:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
