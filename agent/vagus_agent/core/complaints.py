"""Which complaints are told: a stranger who sends nonsense must not fill the log."""

from __future__ import annotations

from typing import Final

# The same complaint is told at most this often, and so many different ones about one thing.
_AGAIN_S: Final = 60.0
_MOST: Final = 10


class Complaints:
    def __init__(self) -> None:
        # what about → complaint → when
        self._told: dict[str, dict[str, float]] = {}

    def worth(self, about: str, text: str, now: float) -> str | None:
        """What to put before `text` ("" mostly), or None when it is not to be told now."""
        told = {known: at for known, at in self._told.get(about, {}).items() if now - at < _AGAIN_S}
        self._told[about] = told
        if text in told or len(told) >= _MOST:
            return None
        told[text] = now
        return "(more of this is not told for a minute) " if len(told) == _MOST else ""
