"""Whether this machine's wall clock jumped, or the machine slept: told, so that nobody puzzles over it."""

from __future__ import annotations

from typing import Final

# NTP slews what is less than 128 ms, and steps what is more; a person sees seconds.
_JUMP_S: Final = 2.0


class Clocks:
    def __init__(self) -> None:
        self._wall_ahead: float | None = None
        self._slept_s = 0.0

    def look(self, wall: float, boot: float, now: float) -> str:
        """`wall`, `boot`, `now`: CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC, of one moment. In words, or ""."""
        ahead, slept = wall - boot, boot - now
        before, self._wall_ahead = self._wall_ahead, ahead
        slept_before, self._slept_s = self._slept_s, slept
        if before is None:
            return ""
        words = []
        if slept - slept_before > _JUMP_S:
            words.append(f"this machine slept for {slept - slept_before:.0f} s")
        if abs(ahead - before) > _JUMP_S:
            way = "forward" if ahead > before else "back"
            words.append(f"the wall clock jumped {way} by {abs(ahead - before):.0f} s; no decision depends on it")
        return "; ".join(words)
