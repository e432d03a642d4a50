"""argon2, off the event loop: one thread for browsers that were here before, and one for all others, who queue."""

from __future__ import annotations

import asyncio
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import argon2

# OWASP's parameters for a server that has other work: 19 MiB, one core, some 30 ms on a PC and 150 ms on a Pi 4.
_HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# Of nobody: it takes as long to check as another.
_NOBODY: Final = (
    f"$argon2id$v=19$m={_HASHER.memory_cost},t={_HASHER.time_cost},p={_HASHER.parallelism}${'A' * 22}${'A' * 43}"
)
_MAX_WAITING: Final = 16


class Busy(Exception):
    """As many passwords are being checked as may be."""


def hash_password(password: str) -> str:
    return _HASHER.hash(_normal(password))


def is_password(password: str, stored: str) -> bool:
    try:
        return _HASHER.verify(stored, _normal(password))
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def needs_rehash(stored: str) -> bool:
    return _HASHER.check_needs_rehash(stored)


def _normal(password: str) -> bytes:
    """The same for all keyboards: an é may be one letter or two."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


class Passwords:
    def __init__(self) -> None:
        self._known = ThreadPoolExecutor(1, thread_name_prefix="vagus-password")
        self._others = ThreadPoolExecutor(1, thread_name_prefix="vagus-password")
        self._waiting = 0

    async def check(self, password: str, stored: str | None, *, known: bool = False) -> bool:
        """Raises Busy. `stored` None: of nobody; takes as long, and is False."""
        if known:
            return await self._run(self._known, password, stored)
        if self._waiting >= _MAX_WAITING:
            raise Busy
        self._waiting += 1
        try:
            return await self._run(self._others, password, stored)
        finally:
            self._waiting -= 1

    async def _run(self, where: ThreadPoolExecutor, password: str, stored: str | None) -> bool:
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(where, is_password, password, stored or _NOBODY)
        return right and stored is not None

    async def hash(self, password: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._known, hash_password, password)
