"""Accounts for an application under test: one operator and one viewer, and the operator's bearer token."""

from __future__ import annotations

import time
from collections.abc import Callable
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
        users = (("operator", "operator", PASSWORD), (VIEWER, "viewer", VIEWER_PASSWORD))
        for name, role, password in users:
            user = msgspec.convert(
                {"name": name, "role": role, "password": hash_password(password), "serial": name, "made_at": 1e9}, User
            )

            def add(book: Book, user: User = user) -> Book:
                return books.add_user(book, user)

            file.change(add)
    access = Access(settings, token, audit, clock)
    access.start()
    return access, settings
