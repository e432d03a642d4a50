"""Maintenance windows: times of the week, in UTC, in which nothing moves by itself on a node, at a site, or anywhere.

`at` is days and hours: "sun 02:00-04:00", "mon-fri 22:00-06:00" (over midnight, into the day after), "sat,sun
00:00-24:00", "* 03:00-03:30". Here alone the wall clock decides; one that was never set is not asked.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from vagus_controller import config

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MIN: Final = 24 * 60
_WEEK_MIN: Final = 7 * _DAY_MIN
# 1970-01-01, epoch second 0, was a Thursday.
_EPOCH_MIN: Final = _DAYS.index("thu") * _DAY_MIN
# 2025-01-01: a clock that is earlier was never set (a Raspberry Pi has no battery for it).
_SET_SINCE: Final = 1_735_689_600.0
_SHAPE: Final = re.compile(r"(\S+) +(\d\d):(\d\d)-(\d\d):(\d\d)")
_EXAMPLES: Final = '"sun 02:00-04:00", "mon-fri 22:00-06:00" or "* 03:00-03:30", in UTC'


class Span(NamedTuple):
    """Minutes of the week, from Monday 00:00; `end` may lie in the week after."""

    begin: int
    end: int


def parse(at: str) -> tuple[Span, ...] | str:
    """The spans of `at`, one a day; or why it is none, in words."""
    found = _SHAPE.fullmatch(at.strip().lower())
    if found is None:
        return f"must be days and hours such as {_EXAMPLES}"
    days = _days(found[1])
    if days is None:
        return f"{found[1]!r} names no days: use {', '.join(_DAYS)}, ranges such as mon-fri, lists with commas, or *"
    first, last = _minute(found[2], found[3]), _minute(found[4], found[5])
    if first is None or last is None or first == _DAY_MIN:
        return "hours run from 00:00 to 24:00"
    if first == last:
        return "begins and ends at the same minute; a whole day is 00:00-24:00"
    length = last - first if last > first else last + _DAY_MIN - first
    return tuple(Span(day * _DAY_MIN + first, day * _DAY_MIN + first + length) for day in days)


class Windows:
    def __init__(self, windows: tuple[config.Window, ...]) -> None:
        self.reconfigure(windows)

    def reconfigure(self, windows: tuple[config.Window, ...]) -> None:
        """Other windows from now on."""
        self._windows: list[tuple[config.Window, tuple[Span, ...]]] = []
        for window in windows:
            spans = parse(window.at)
            if isinstance(spans, str):
                raise ValueError(f"{window.at!r} {spans}")
            self._windows.append((window, spans))

    def over(self, node: str, site: str, wall: float | None) -> str:
        """The window that covers the node of `site` at `wall`, in words; "" when none does."""
        if wall is None or not self.knows(wall):
            return ""
        minute = (int(wall // 60) + _EPOCH_MIN) % _WEEK_MIN
        for window, spans in self._windows:
            covered = window.scope == "fleet" or window.target == (site if window.scope == "site" else node)
            if covered and any(span.begin <= minute < span.end or minute + _WEEK_MIN < span.end for span in spans):
                of = "the fleet" if window.scope == "fleet" else f"{window.scope} {window.target}"
                return f"maintenance of {of}, {window.at} UTC: {window.reason}"
        return ""

    @staticmethod
    def knows(wall: float | None) -> bool:
        """Whether that is a clock that somebody has set."""
        return wall is not None and wall >= _SET_SINCE

    def __bool__(self) -> bool:
        return bool(self._windows)


def _days(text: str) -> list[int] | None:
    if text == "*":
        return list(range(7))
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in _DAYS or (dash and last not in _DAYS):
            return None
        begin = _DAYS.index(first)
        count = (_DAYS.index(last) - begin) % 7 if dash else 0
        days.update((begin + step) % 7 for step in range(count + 1))
    return sorted(days)


def _minute(hours: str, minutes: str) -> int | None:
    minute = int(hours) * 60 + int(minutes)
    return minute if int(minutes) < 60 and minute <= _DAY_MIN else None
