"""Guessing passwords is slow, and nobody can lock out who was here before.

Each attempt takes one from a bucket that fills again with time; a success gives it back. Who brings the mark of a
device that signed in as this user before has a bucket of its own. All others share two: the one of their address, and
the one of the account, which bounds guesses from many addresses. So an attacker who empties an account's bucket keeps
strangers out, not the browser that the operator uses.
"""

from __future__ import annotations

from typing import Final

ADDRESS: Final = (10.0, 30.0)
ACCOUNT: Final = (20.0, 30.0)
DEVICE: Final = (10.0, 30.0)
_MOST: Final = 10_000


class Buckets:
    """Of many keys; each holds `burst` attempts, and gets one back every `refill_s`."""

    def __init__(self, burst: float, refill_s: float) -> None:
        self._burst = burst
        self._refill_s = refill_s
        # key → (attempts taken, when); the longest unused first
        self._taken: dict[str, tuple[float, float]] = {}

    def _level(self, key: str, now: float) -> float:
        taken, at = self._taken.get(key, (0.0, now))
        return max(0.0, taken - (now - at) / self._refill_s)

    def wait_s(self, key: str, now: float) -> float:
        """Seconds until an attempt is allowed; 0: now."""
        return max(0.0, (self._level(key, now) + 1 - self._burst) * self._refill_s)

    def take(self, key: str, now: float, count: float = 1.0) -> None:
        level = self._level(key, now) + count
        self._taken.pop(key, None)
        if level > 0:
            self._taken[key] = (level, now)
        while len(self._taken) > _MOST:
            del self._taken[next(iter(self._taken))]

    def give_back(self, key: str, now: float) -> None:
        self.take(key, now, -1.0)


class Throttle:
    def __init__(self) -> None:
        self._addresses = Buckets(*ADDRESS)
        self._accounts = Buckets(*ACCOUNT)
        self._devices = Buckets(*DEVICE)

    def _buckets(self, account: str, address: str, device: str) -> list[tuple[Buckets, str]]:
        if device:
            return [(self._devices, device)]
        return [(self._addresses, address), (self._accounts, account)]

    def begin(self, account: str, address: str, device: str, now: float) -> float:
        """Seconds until this attempt is allowed; when 0, it is counted. `device`: "" for none that is known."""
        buckets = self._buckets(account, address, device)
        wait = max(bucket.wait_s(key, now) for bucket, key in buckets)
        if wait == 0:
            for bucket, key in buckets:
                bucket.take(key, now)
        return wait

    def succeeded(self, account: str, address: str, device: str, now: float) -> None:
        """What `begin` counted, with the same arguments, was no guess."""
        for bucket, key in self._buckets(account, address, device):
            bucket.give_back(key, now)


class Failures:
    """Failed sign-ins as lines of the ledger: the first at once, then at most one a minute, with their number."""

    _EVERY_S: Final = 60.0

    def __init__(self) -> None:
        self._count = 0
        self._told_at = float("-inf")

    def add(self, account: str, address: str, now: float) -> str:
        """A line to write, or ""."""
        self._count += 1
        if now - self._told_at < self._EVERY_S:
            return ""
        last = f"as {account} from {address}"
        words = f"failed {last}" if self._count == 1 else f"{self._count} failed since the last line, the last {last}"
        self._count, self._told_at = 0, now
        return words
