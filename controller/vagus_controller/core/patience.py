"""Who is late with its own work must not call others late (Lifeguard's local health): patience grows at once with our
own lateness, and comes back slowly."""

from __future__ import annotations

from typing import Final

# A tick that comes so late is a trouble of our own; each second of it makes us as much more patient, up to three times,
# and half of it is gone after `_CALM_S`.
_LATE_S: Final = 0.5
_MOST: Final = 2.0
_CALM_S: Final = 10.0


class Patience:
    def __init__(self, now: float, every_s: float) -> None:
        self._every_s = every_s
        self._at = now
        self._extra = 0.0

    def tick(self, now: float) -> float:
        """By how much patience with others is stretched; 1: by nothing. Called every `every_s`, if all is well."""
        late_s, self._at = max(now - self._at - self._every_s, 0.0), now
        calmer = self._extra * 0.5 ** ((late_s + self._every_s) / _CALM_S)
        self._extra = min(max(calmer, late_s if late_s > _LATE_S else 0.0), _MOST)
        return 1.0 + self._extra
