"""The tasks behind the load average.

Every 5 s and a tick the kernel takes load1 ← load1 · e + tasks · (1 - e), e = 1884/2048 (kernel/sched/loadavg.c), and
shows it with two decimals. Two values of it that follow each other give the tasks back, to about ± 0.12. A value that
stays the same over an update is the count itself. What changes more often than that is no kernel's, but a smooth
average over a minute (other systems, containers): that is undone as such.
"""

from __future__ import annotations

import math
from typing import Final

UPDATE_S: Final = 5.004
_KEPT: Final = 1884 / 2048
# An update is missed when none was seen for so long: load1 has not moved by a hundredth.
_STILL_S: Final = 7.1
# Updates that come sooner after each other than reports of every 2 s can make them seem.
_SMOOTH_S: Final = 2.9
_SMOOTH_TAU_S: Final = 60.0
# Two reports that come together tell nothing apart.
_AGAIN_S: Final = 0.1
# After a longer silence there is nothing to work back.
_FORGET_S: Final = 60.0


class Load1:
    """`tasks`: at the newest update; `least`: of each of the three newest."""

    __slots__ = ("_at", "_seen", "_value", "least", "tasks")

    def __init__(self) -> None:
        # load1; when an update of it was counted last, and when it was looked at last
        self._value: float | None = None
        self._at = self._seen = 0.0
        self.tasks = 0.0
        self.least: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def forget(self) -> None:
        self._value = None
        self.least = (0.0, 0.0, 0.0)

    def take(self, load1: float, now: float) -> float:
        """Seconds for which the newest count stands; 0.0: load1 tells nothing new."""
        before, gap = self._value, now - self._seen
        if before is not None and 0.0 <= gap < _AGAIN_S:
            return 0.0
        self._seen = now
        if before is None or gap < 0.0 or gap > _FORGET_S:
            self._value, self._at, self.tasks = load1, now, load1
            return 0.0
        since = now - self._at
        if load1 == before:
            if since < _STILL_S:
                return 0.0
            stands = max(1, round(since / UPDATE_S - 0.4)) * UPDATE_S
            self._at += stands
            tasks = load1
        else:
            if since < _SMOOTH_S:
                stands, kept = since, math.exp(-since / _SMOOTH_TAU_S)
            else:
                # What came before the last look changed nothing.
                updates = max(1, round(gap / UPDATE_S))
                stands, kept = updates * UPDATE_S, _KEPT if updates == 1 else _KEPT**updates
            tasks = max(0.0, (load1 - before * kept) / (1.0 - kept))
            self._value, self._at = load1, now
        self.tasks = tasks
        self.least = (self.least[1], self.least[2], tasks)
        return stands
