"""Whether two agents speak under one name.

A session is one life of an agent process, so one that has something new to say after another was heard is no earlier
life: both live. A broker lets one client of a name in: each throws the other out and comes back after a pause, so both
are heard seldom, by turns. A word of an earlier life may come late, or again from a broker's older image: it takes
three turns to be sure, or a session that goes on where it was when the other has fallen silent. And a machine's earlier
boot does not come back: who takes turns has not rebooted.
"""

from __future__ import annotations

import math
from typing import Final

# Turns of the agent that is not believed, each after a word of the other; after so long they are counted anew.
_ENOUGH: Final = 3
_WITHIN_S: Final = 60.0
# It is over when that agent was not heard for so long: it pauses for 5 s at most between two attempts. Or for twice as
# long as it was silent between its turns: each may have a broker to itself, and look for an earlier one now and then.
_LEAST_S: Final = 20.0
_MOST_S: Final = 100.0
_INTERVALS: Final = 4.0


class Rivals:
    """Of one node. `heard_at`: when the agent that is not believed had something new to say; `spoke`: whether that was
    the last word; `words`: who they are."""

    __slots__ = ("_lasts_s", "_sure", "_turns", "heard_at", "spoke", "words")

    def __init__(self) -> None:
        self.heard_at = -math.inf
        self.spoke = False
        self.words = ""
        self._turns = 0
        self._sure = False
        self._lasts_s = _LEAST_S

    def heard(self, since: float, other_boot: bool, now: float) -> bool:
        """The one that is not believed speaks; `since`: the other one is; whether it is sure that there are two."""
        if now - self.heard_at > max(_WITHIN_S, self._lasts_s):
            self._turns, self._sure, self._lasts_s = 0, False, _LEAST_S
        gap = now - max(self.heard_at, since)
        self._lasts_s = min(max(self._lasts_s, 2 * gap), _MOST_S)
        self._turns += not self.spoke
        self._sure = self._sure or self._turns >= _ENOUGH
        self.spoke, self.heard_at = True, now
        machines = "two machines: a cloned SD card, or a copied configuration"
        self.words = machines if other_boot else "two agents on one machine"
        return self._sure

    def believed(self) -> None:
        """It goes on where it was, and the other one is silent."""
        self.spoke, self._sure = False, True

    def last(self, interval_s: float, now: float) -> bool:
        """Whether there are two."""
        return self._sure and now - self.heard_at <= max(self._lasts_s, _INTERVALS * interval_s)
