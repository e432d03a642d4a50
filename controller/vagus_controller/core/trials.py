"""Which paths failed their trials, and when they may be tried again: after 10 s, doubled by every further failure."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from vagus_controller.core.fleet import Pair
from vagus_controller.core.verdict import seconds

_RETRY_S: Final = 10.0
_MOST_RETRY_S: Final = 600.0
# _RETRY_S doubled so often is beyond _MOST_RETRY_S.
_MOST_DOUBLINGS: Final = 6


def retry_s(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    return min(_RETRY_S * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), _MOST_RETRY_S)


class _Failed(Struct, frozen=True):
    """Failures in a row, the last of them at `at`."""

    count: int
    at: float
    reason: str

    @property
    def until(self) -> float:
        return self.at + retry_s(self.count)


class Trials:
    def __init__(self) -> None:
        self._failed: dict[tuple[Pair, str], _Failed] = {}

    def failed(self, pair: Pair, path: str, reason: str, now: float) -> None:
        before = self._failed.get((pair, path))
        self._failed[pair, path] = _Failed(before.count + 1 if before is not None else 1, now, reason)

    def succeeded(self, pair: Pair, path: str) -> None:
        self._failed.pop((pair, path), None)

    def obstacle(self, pair: Pair, path: str, now: float) -> str:
        """Why the path must not be tried yet, in words; "" when it may."""
        failed = self._failed.get((pair, path))
        if failed is None or now >= failed.until:
            return ""
        ago, left = now - failed.at, failed.until - now
        return f"it failed its trial {ago:.0f} s ago: {failed.reason}; tried again in {left:.0f} s"

    def words(self, pair: Pair, path: str, now: float) -> str:
        """What is remembered of the path's trials; "" when none failed since the last that succeeded."""
        failed = self._failed.get((pair, path))
        if failed is None:
            return ""
        times = "its last trial" if failed.count == 1 else f"its last {failed.count} trials"
        when = f"tried again in {seconds(failed.until - now)}" if now < failed.until else "it may be tried again"
        return f"failed {times}, {seconds(now - failed.at)} ago: {failed.reason}; {when}"
