"""Who takes the CPU, of all processes, while the machine is at load.

Named processes are watched always (`system.py`); who else it is would cost too much to ask all the time. So while tasks
queue, a few processes are looked at after each other, many times a report; a round of all of them tells what each took
since the round before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from vagus_protocol.messages import Process

# Looked at in one call: more are sooner round, and make the event loop later.
AT_ONCE: Final = 48
# Of a core; who takes less explains nothing.
_LEAST_CORES: Final = 0.3
_MOST_NAMED: Final = 3


class Look(NamedTuple):
    """One process: `started` tells a reused pid from the old one."""

    name: str
    started: int
    cpu_s: float
    rss_bytes: int


class _Seen(NamedTuple):
    look: Look
    at: float
    cores: float | None


class Busiest:
    """`found`: the busiest by name in the newest round; the same name's processes count as one."""

    def __init__(self, proc: str, look: Callable[[str], Look | None]) -> None:
        """`look`: at a process by its number in `proc`."""
        self.found: tuple[Process, ...] = ()
        self._proc = proc
        self._look = look
        self._left: list[str] = []
        self._before: dict[str, _Seen] = {}
        self._round: dict[str, _Seen] = {}

    def step(self, now: float, busy: bool) -> None:
        """Call often. When the machine is not `busy`, nothing is looked at, and nothing is known."""
        if not busy:
            if self._before or self._round:
                self.found, self._left, self._before, self._round = (), [], {}, {}
            return
        if not self._left:
            self._turn()
        for _ in range(min(AT_ONCE, len(self._left))):
            pid = self._left.pop()
            look = self._look(pid)
            if look is None:
                continue
            seen = self._before.get(pid)
            known = seen is not None and seen.look.started == look.started and now > seen.at
            cores = (look.cpu_s - seen.look.cpu_s) / (now - seen.at) if known and seen is not None else None
            self._round[pid] = _Seen(look, now, cores)

    def _turn(self) -> None:
        """A round is over, and another begins."""
        sums: dict[str, Process] = {}
        for seen in self._round.values():
            if seen.cores is None:
                continue
            name = seen.look.name
            group = sums.get(name)
            sums[name] = Process(
                name=name,
                count=1 + (group.count if group else 0),
                cpu=max(0.0, seen.cores) + (group.cpu if group else 0.0),
                rss_bytes=seen.look.rss_bytes + (group.rss_bytes if group else 0),
            )
        busiest = sorted(sums.values(), key=lambda each: -each.cpu)[:_MOST_NAMED]
        if self._before:
            self.found = tuple(each for each in busiest if each.cpu >= _LEAST_CORES)
        self._before, self._round = self._round, {}
        try:
            self._left = [entry for entry in os.listdir(self._proc) if entry.isdecimal()]
        except OSError:
            self._left = []
