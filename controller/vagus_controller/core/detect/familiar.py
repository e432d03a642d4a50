"""What a node's other figures usually are, and which of them are not as usual now: evidence for a spike's cause.

One report in ten seconds is learned from, and none while there is a spike. A figure is unusual when it is further from
usual than ever in its series' memory (`novelty.py`): this is said beside a spike and wakes nobody by itself, since of a
dozen figures of a thousand nodes one is always at a record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from vagus_controller.core.detect.novelty import THRESHOLD, Novelty
from vagus_protocol.messages import Report, System

_EVERY_S: Final = 10.0
_PROCESSES: Final = 4
# Samples before what a process takes is what it usually takes: five minutes.
_ENOUGH: Final = 30


class Figure(NamedTuple):
    name: str
    of: Callable[[System], float | None]
    words: Callable[[float], str]


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _milliseconds(value: float) -> str:
    return f"{value * 1000:.1f} ms"


def _slowest(system: System) -> float | None:
    return max((disk.await_s for disk in system.disk_io if disk.await_s is not None), default=None)


def _memory(system: System) -> float | None:
    if not system.memory_bytes or system.memory_available_bytes is None:
        return None
    return 1.0 - system.memory_available_bytes / system.memory_bytes


def _swap(system: System) -> float | None:
    return (
        system.swap_used_bytes / system.swap_bytes if system.swap_bytes and system.swap_used_bytes is not None else None
    )


FIGURES: Final = (
    Figure("temperature", lambda system: system.temperature_c, lambda value: f"{value:.0f} °C"),
    Figure("memory in use", _memory, _percent),
    Figure("swap in use", _swap, _percent),
    Figure("I/O wait", lambda system: system.cpu_iowait, _percent),
    Figure("steal", lambda system: system.cpu_steal, _percent),
    Figure("disk latency", _slowest, _milliseconds),
)
_LAG: Final = Figure("the agent's own lateness", lambda _: None, _milliseconds)
_RETRANSMITS: Final = Figure("TCP segments sent again", lambda _: None, lambda value: f"{value:.0f} a second")


class Familiar:
    """Of one node. `processes`: cores that each named process usually takes."""

    __slots__ = ("_newest", "_next", "_series", "processes")

    def __init__(self) -> None:
        self.processes: dict[str, float] = {}
        self._series: dict[str, Novelty] = {}
        self._newest: tuple[Report, System, float | None] | None = None
        self._next = 0.0

    def take(self, report: Report, system: System, retransmits: float | None, now: float, *, learn: bool) -> None:
        """`retransmits`: TCP segments sent again a second."""
        if not learn:
            self._newest = (report, system, retransmits)
            return
        self._newest = None
        if self._next - _EVERY_S <= now < self._next:
            return
        self._next = now + _EVERY_S
        for figure, value in _values(report, system, retransmits):
            series = self._series.get(figure.name)
            if series is None:
                series = self._series[figure.name] = Novelty()
            series.take(value, now)
        for process in system.processes[:_PROCESSES]:
            series = self._series.get("process:" + process.name)
            if series is None:
                if len(self._series) >= len(FIGURES) + 2 + _PROCESSES:
                    continue
                series = self._series["process:" + process.name] = Novelty()
            series.take(process.cpu, now)
            if series.count >= _ENOUGH:
                self.processes[process.name] = series.usual

    def unusual(self) -> list[str]:
        """What the newest report told that is not as usual, in words."""
        if self._newest is None:
            return []
        lines = []
        for figure, value in _values(*self._newest):
            series = self._series.get(figure.name)
            if series is not None and series.score(value) >= THRESHOLD:
                lines.append(f"{figure.name} {figure.words(value)}, usually {figure.words(series.usual)}")
        return lines


def _values(report: Report, system: System, retransmits: float | None) -> list[tuple[Figure, float]]:
    values = [(figure, figure.of(system)) for figure in FIGURES]
    values += [(_LAG, report.lag_s), (_RETRANSMITS, retransmits)]
    return [(figure, value) for figure, value in values if value is not None]
