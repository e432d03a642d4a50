"""Which paths failed their trials, and when they may be tried again: after 10 s, doubled by every further failure; but
within a minute where the pair is on a dead path meanwhile."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from vagus_controller.core.fleet import Pair
from vagus_controller.core.verdict import seconds

_RETRY_S: Final = 10.0
_MOST_RETRY_S: Final = 600.0
# By who has nothing to lose.
_MOST_RETRY_OF_DEAD_S: Final = 60.0
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

    def until(self, dead: bool = False) -> float:
        return self.at + min(retry_s(self.count), _MOST_RETRY_OF_DEAD_S if dead else _MOST_RETRY_S)


class Trials:
    def __init__(self) -> None:
        self._failed: dict[tuple[Pair, str], _Failed] = {}

    def failed(self, pair: Pair, path: str, reason: str, now: float) -> None:
        before = self._failed.get((pair, path))
        self._failed[pair, path] = _Failed(before.count + 1 if before is not None else 1, now, reason)

    def succeeded(self, pair: Pair, path: str) -> None:
        self._failed.pop((pair, path), None)

    def obstacle(self, pair: Pair, path: str, now: float, *, dead: bool = False) -> str:
        """Why the path must not be tried yet, in words; "" when it may. `dead`: the path that would be left is."""
        failed = self._failed.get((pair, path))
        if failed is None or now >= failed.until(dead):
            return ""
        ago, left = now - failed.at, failed.until(dead) - now
        return f"it failed its trial {ago:.0f} s ago: {failed.reason}; tried again in {left:.0f} s"

    def words(self, pair: Pair, path: str, now: float, *, dead: bool = False) -> str:
        """What is remembered of the path's trials; "" when none failed since the last that succeeded."""
        failed = self._failed.get((pair, path))
        if failed is None:
            return ""
        times = "its last trial" if failed.count == 1 else f"its last {failed.count} trials"
        until = failed.until(dead)
        when = f"tried again in {seconds(until - now)}" if now < until else "it may be tried again"
        return f"failed {times}, {seconds(now - failed.at)} ago: {failed.reason}; {when}"
