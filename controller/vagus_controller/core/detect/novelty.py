"""A value that a series has not shown for long: streaming, any unit, a few hundred bytes a series.

Two deviations are followed: of the value from its slow mean, and of its fast mean from what was at this hour of the
day. Each is a find when it goes beyond the record of its kind and direction by a margin. Records are forgotten
slowly, so that what was normal long ago is no excuse for ever, and whatever the distribution, records become rare by
themselves: of n values that are alike, the last is one with probability 1/n. So there is no scale to set and nothing to
fit. After a find the next one must go further for a while: one event, one find.
"""

from __future__ import annotations

from array import array
from math import inf, nan
from typing import Final

# A score from here on is a find: so much beyond the record. The fast mean must go further than the value.
THRESHOLD: Final = 1.2
_DAY_HARDER: Final = 1.2 / 1.3
_FAST: Final = 0.15
_SLOW: Final = 0.002
_DAY: Final = 0.03
_HOURS: Final = 24
_HOUR_S: Final = 3600.0
# Of a record, per sample.
_KEPT: Final = 1.0 - 0.0005
# Samples before the first find.
_LEARN: Final = 250
# For so many seconds after a find the next one must go so much further, and for longer somewhat further.
_STILL_S: Final = 60_000.0
_STILL: Final = 2.0
_WARY_S: Final = 3 * 86_400.0
_WARY: Final = 1.3
# Values beyond are cut: arithmetic stays finite.
_MOST: Final = 1e12


class Novelty:
    """`usual`: the slow mean. `count`: samples that were learned."""

    __slots__ = ("_above", "_after", "_before", "_below", "_day", "_fast", "_found", "count", "usual")

    def __init__(self) -> None:
        self.usual = 0.0
        self._fast = 0.0
        # of each hour of the day; nan: not seen yet
        self._day = array("f", [nan] * _HOURS)
        # records: of the value above and below its slow mean, of the fast mean above and below that of the hour
        self._above = self._below = self._after = self._before = 0.0
        self.count = 0
        self._found = -inf

    def take(self, value: float, now: float) -> float:
        """Learn a sample; how far it is beyond the record, 0.0 when it is no find. `now`: seconds, of any clock."""
        if not -_MOST <= value <= _MOST:
            return 0.0
        count = self.count = self.count + 1
        if count == 1:
            self.usual = self._fast = value
        day, hour = self._day, int(now // _HOUR_S) % _HOURS
        usual = day[hour]
        off = value - self.usual
        self.usual += off * (_SLOW if count * _SLOW > 1.0 else 1.0 / count)
        fast = self._fast = self._fast + _FAST * (value - self._fast)
        if usual == usual:
            day[hour] = usual + _DAY * (value - usual)
        else:
            day[hour], usual = value, self.usual
        score = 0.0
        above, below = self._above * _KEPT, self._below * _KEPT
        if off > above:
            score = off / above if above > 0.0 else THRESHOLD
            above = off
        elif -off > below:
            score = -off / below if below > 0.0 else THRESHOLD
            below = -off
        self._above, self._below = above, below
        off = fast - usual
        above, below = self._after * _KEPT, self._before * _KEPT
        if off > above:
            more = off / above * _DAY_HARDER if above > 0.0 else THRESHOLD
            score = more if more > score else score
            above = off
        elif -off > below:
            more = -off / below * _DAY_HARDER if below > 0.0 else THRESHOLD
            score = more if more > score else score
            below = -off
        self._after, self._before = above, below
        if score < THRESHOLD or count <= _LEARN:
            return 0.0
        since = now - self._found
        if 0.0 <= since < _WARY_S:
            score /= _STILL if since < _STILL_S else _WARY
            if score < THRESHOLD:
                return 0.0
        self._found = now
        return score

    def score(self, value: float) -> float:
        """How far the value is beyond the record; nothing is learned."""
        off = value - self.usual
        record = self._above if off > 0.0 else self._below
        if self.count <= _LEARN or not -_MOST <= value <= _MOST:
            return 0.0
        return abs(off) / record if record > 0.0 else (THRESHOLD if off else 0.0)
