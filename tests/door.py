"""Accounts for an application under test: one operator and one viewer, and the operator's bearer token."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from vagus_controller.accounts import book as books
from vagus_controller.accounts.access import Access
from vagus_controller.accounts.book import Book, User
from vagus_controller.accounts.files import AccountsFile
from vagus_controller.accounts.passwords import hash_password
from vagus_controller.config import Http

PASSWORD = "a-password-for-the-tests"
VIEWER, VIEWER_PASSWORD = "vera", "a-password-for-who-looks-on"


def no_audit(*_who: Any, **_more: Any) -> None:
    pass


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


# A hash takes its time, on purpose: once is enough.
_hashed = cache(hash_password)


def _with_users(book: Book) -> Book:
    for name, role, password in (("operator", "operator", PASSWORD), (VIEWER, "viewer", VIEWER_PASSWORD)):
        about = {"name": name, "role": role, "password": _hashed(password), "serial": name, "made_at": 1e9}
        book = books.add_user(book, msgspec.convert(about, User))
    return book


def door(
    directory: Path,
    token: str,
    audit: Callable[..., object] = no_audit,
    clock: Callable[[], float] = time.time,
    **http: Any,
) -> tuple[Access, Http]:
    """With the users `operator` and `vera`, whose passwords are above; what is there already is kept."""
    settings = Http(token_file=str(directory / "token"), **http)
    file = AccountsFile(settings.accounts)
    if not file.exists():
        file.change(_with_users)
    access = Access(settings, token, audit, clock)
    access.start()
    return access, settings
