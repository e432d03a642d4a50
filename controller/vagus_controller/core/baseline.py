"""A path's usual round trip, learned: one figure, whatever the time."""

from __future__ import annotations

import math
from typing import Final

# A round trip becomes a path's usual one: a faster one soon, a slower one only over hours, or trouble that lasts would
# soon be usual; in its first minutes any. After `_LEARN_S` the baseline is one.
_FALL_S: Final = 30.0
_RISE_S: Final = 6 * 3600.0
_LEARN_S: Final = 120.0
# A round trip of 2 ms that becomes 4 is nobody's trouble.
LEAST_EXCESS_S: Final = 0.03


class Baseline:
    __slots__ = ("_learned_s", "_rtt_s")

    def __init__(self) -> None:
        self._rtt_s: float | None = None
        self._learned_s = 0.0

    @property
    def rtt_s(self) -> float | None:
        """None: not learned yet."""
        return self._rtt_s if self._learned_s >= _LEARN_S else None

    def learn(self, rtt_s: float, step: float) -> None:
        """It took so long, for the last `step` seconds."""
        if self._rtt_s is None:
            self._rtt_s = rtt_s
            return
        rises = rtt_s > self._rtt_s and self._learned_s >= _LEARN_S
        self._rtt_s += (rtt_s - self._rtt_s) * (1.0 - math.exp(-step / (_RISE_S if rises else _FALL_S)))
        self._learned_s += step

    def exceeded(self, rtt_s: float, times: float) -> bool:
        """Whether it is so many times the usual one, and by more than nobody would notice."""
        usual = self.rtt_s
        return usual is not None and rtt_s >= max(usual * times, usual + LEAST_EXCESS_S)
