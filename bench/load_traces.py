"""Generated loads of Raspberry Pis with four cores, by seed: what their agents would report, and what was true.

A node is tasks in continuous time, each with a beginning, an end, and whether it wants the CPU or waits for a disk. The
counts that a report carries are those of the very moment of the report, as /proc/stat gives them; load1 is what the
kernel makes of the same tasks at its own moments, in its own fixed point. So both lag and noise are as they are.

    ordinary   background by the time of day, bursts of a second or two, hourly cron jobs of 30-90 s, boots with a storm
               of 60-150 s, and on every fourth node legitimate work: always, in working hours, or each night
    spikes     8 to 30 tasks more than that: at once, or growing within 20-60 s, for 1.5 to 10 minutes, each of a kind
               with the figures that go with it

Ordinary loads are nothing to wake anybody for; an alert during one of them is false.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

CORES: Final = 4
REPORT_S: Final = 2.0
DAY_S: Final = 86400.0
# The kernel's: every 5 s and one tick of 250 a second, 11 bits of fraction (include/linux/sched/loadavg.h).
LOAD_FREQ_S: Final = 5.004
_FIXED: Final = 2048
_EXP_1, _EXP_15 = 1884, 2037

KINDS: Final = ("cpu", "process", "io", "memory", "throttled", "undervoltage", "steal", "blocked", "retransmits")
PROCESSES: Final = ("tailscaled", "etcd", "k3s")
Array = Any


class Spike(NamedTuple):
    """`rise_s`: 0 for a step. `lasts_s`: from the first task to the last."""

    at: float
    lasts_s: float
    rise_s: float
    tasks: int
    kind: str
    process: str


class Node(NamedTuple):
    """A report each: its moment (seconds of a monotonic clock), counts, load averages and uptime."""

    at: Array
    running: Array
    blocked: Array
    load1: Array
    load15: Array
    uptime: Array
    spikes: list[Spike]
    busy: bool


class _Tasks:
    """Intervals, gathered in pieces."""

    def __init__(self) -> None:
        self._pieces: dict[bool, list[tuple[Array, Array]]] = {False: [], True: []}

    def add(self, starts: Array, lengths: Array, *, blocked: bool) -> None:
        self._pieces[blocked].append((starts, starts + lengths))

    def work(self, rng: Any, starts: Array, ends: Array, waits: float) -> None:
        """Tasks that are there from start to end: mostly one state for a second or two, then another."""
        for start, end in zip(starts, ends, strict=True):
            cuts = np.cumsum(rng.exponential(2.0, max(4, int((end - start) * 0.8) + 8)))
            edges = np.concatenate(([0.0], cuts[cuts < end - start], [end - start])) + start
            state = rng.random(len(edges) - 1)
            for blocked, chosen in ((True, state < waits), (False, (state >= waits) & (state < 0.95))):
                self.add(edges[:-1][chosen], np.diff(edges)[chosen], blocked=blocked)

    def counter(self, *, blocked: bool, but: list[tuple[float, float]]) -> tuple[Array, Array]:
        """Sorted beginnings and ends, without what ran into a time at which the machine was off."""
        starts = np.concatenate([piece[0] for piece in self._pieces[blocked]] or [np.empty(0)])
        ends = np.concatenate([piece[1] for piece in self._pieces[blocked]] or [np.empty(0)])
        for off, on in but:
            kept = (ends <= off) | (starts >= on)
            starts, ends = starts[kept], ends[kept]
        return np.sort(starts), np.sort(ends)


def _count(tasks: tuple[Array, Array], at: Array) -> Array:
    return np.searchsorted(tasks[0], at, side="right") - np.searchsorted(tasks[1], at, side="right")


def node(seed: int, number: int, days: float) -> Node:
    """Node `number` of the fleet of this seed; every fourth is busy."""
    rng = np.random.default_rng((seed, number))
    busy = number % 4 == 3
    span = days * DAY_S
    tasks = _Tasks()
    _background(rng, tasks, span, busy)
    _cron(rng, tasks, span)
    boots = [(0.0, 0.0)] if rng.random() < 0.1 else []
    for _ in range(rng.poisson(0.15 * days)):
        off = float(rng.uniform(0.02, 0.98) * span)
        boots.append((off, off + float(rng.uniform(20.0, 60.0))))
    boots.sort()
    for _, on in boots:
        count = int(rng.integers(8, 21))
        starts = on + rng.uniform(0.0, 10.0, count)
        tasks.work(rng, starts, on + rng.uniform(60.0, 150.0) * rng.uniform(0.7, 1.0, count), 0.35)
    spikes = list(_spikes(rng, span, boots))
    for spike in spikes:
        _spike(rng, tasks, spike)
    return _reports(rng, tasks, boots, spikes, span, busy)


def _background(rng: Any, tasks: _Tasks, span: float, busy: bool) -> None:
    """Arrivals whose rate follows the day; most are short, a few last."""
    shape = str(rng.choice(("always", "working hours", "nights"))) if busy else "none"
    means = {"always": (3.0, 6.0), "working hours": (1.5, 3.5)}.get(shape, (0.3, 1.2))
    mean, length = rng.uniform(*means), 2.5 if means[1] > 2.0 else 0.7
    swing, noon = rng.uniform(0.2, 0.7), rng.uniform(0.0, DAY_S)
    rate = mean / length * (1 + swing)
    at = rng.uniform(0.0, span, rng.poisson(rate * span))
    day = 1 + swing * np.cos((at - noon) / DAY_S * 2 * np.pi)
    if shape == "working hours":
        # Less than what counts as a spike: nobody can tell more from one before it has come every day.
        hours = (at / 3600.0) % 24
        edge = np.clip(np.minimum(hours - 8.0, 17.0 - hours) * 6, 0.0, 1.0)
        day = day * (0.15 + 0.85 * edge)
    at = at[rng.random(len(at)) * (1 + swing) < day]
    lasts = rng.choice((0.4, 4.0, 20.0), len(at), p=(0.9, 0.09, 0.01)) * rng.exponential(1.0, len(at)) * length / 0.92
    waits = rng.random(len(at)) < 0.12
    tasks.add(at[~waits], lasts[~waits], blocked=False)
    tasks.add(at[waits], lasts[waits], blocked=True)
    if shape == "nights":
        hour, count, long = rng.uniform(0.0, 6.0), int(rng.integers(3, 5)), rng.uniform(1200.0, 5400.0)
        for day_number in range(int(span / DAY_S) + 1):
            start = (day_number * 24 + hour) * 3600.0 + rng.uniform(0.0, 60.0)
            tasks.work(rng, np.full(count, start), np.full(count, start + long), 0.3)
    # A fork of many for a moment: kubelet's rounds, compactions, probes of containers.
    for start in rng.uniform(0.0, span, rng.poisson(span / 150.0)):
        count = int(rng.integers(2, 9))
        tasks.add(start + rng.uniform(0.0, 0.4, count), rng.uniform(0.2, 2.5, count), blocked=False)


def _cron(rng: Any, tasks: _Tasks, span: float) -> None:
    minute, most = rng.uniform(0.0, 3600.0), int(rng.integers(3, 7))
    for hour in range(int(span / 3600.0) + 1):
        start = hour * 3600.0 + minute + rng.uniform(0.0, 8.0)
        count = int(rng.integers(2, most + 1))
        tasks.work(rng, np.full(count, start), np.full(count, start + rng.uniform(30.0, 90.0)), 0.25)


def _spikes(rng: Any, span: float, boots: list[tuple[float, float]]) -> Iterator[Spike]:
    at = 3600.0 + float(rng.uniform(0.0, 10_000.0))
    while at < span - 1500.0:
        lasts = float(rng.uniform(90.0, 600.0))
        rise = float(rng.uniform(20.0, 60.0)) if rng.random() < 0.3 else 0.0
        kind = str(rng.choice(KINDS))
        spike = Spike(at, lasts + rise, rise, int(rng.integers(8, 31)), kind, str(rng.choice(PROCESSES)))
        if not any(off - 1200.0 < at < on + 600.0 for off, on in boots):
            yield spike
        at += spike.lasts_s + 2400.0 + float(rng.exponential(18_000.0))


def _spike(rng: Any, tasks: _Tasks, spike: Spike) -> None:
    starts = spike.at + np.sort(rng.uniform(0.0, 1.0, spike.tasks)) * max(spike.rise_s, 0.5)
    waits = {"io": 0.8, "blocked": 0.93, "memory": 0.5}.get(spike.kind, 0.05)
    tasks.work(rng, starts, np.full(spike.tasks, spike.at + spike.lasts_s), waits)


def _reports(
    rng: Any, tasks: _Tasks, boots: list[tuple[float, float]], spikes: list[Spike], span: float, busy: bool
) -> Node:
    running, blocked = (tasks.counter(blocked=each, but=boots) for each in (False, True))
    ticks = np.arange(rng.uniform(0.0, LOAD_FREQ_S), span, LOAD_FREQ_S)
    active = _count(running, ticks) + _count(blocked, ticks)
    at = (
        np.arange(0.0, span, REPORT_S)
        + rng.uniform(0.0, REPORT_S)
        + rng.uniform(0.0, 0.02, int(np.ceil(span / REPORT_S)))
    )
    uptime = at + (float(rng.uniform(1e5, 1e6)) if not boots or boots[0][1] > 0 else 0.0)
    kept = np.ones(len(at), bool)
    restarts = set()
    for off, on in boots:
        uptime = np.where(at >= on, at - on, uptime)
        # The agent is among the last to come up.
        kept &= (at < off) | (at >= on + 8.0)
        restarts.add(int(np.searchsorted(ticks, on)))
    load1, load15 = _averages(active, restarts)
    at, uptime = at[kept], uptime[kept]
    seen = np.maximum(np.searchsorted(ticks, at, side="right") - 1, 0)
    return Node(at, _count(running, at), _count(blocked, at), load1[seen], load15[seen], uptime, spikes, busy)


def _averages(active: Array, restarts: set[int]) -> tuple[Array, Array]:
    """load1 and load15 as /proc/loadavg shows them after each of the kernel's updates (kernel/sched/loadavg.c)."""
    one = fifteen = int(active[:200].mean() * _FIXED) if 0 not in restarts else 0
    ones, fifteens = [], []
    for number, tasks in enumerate(active.tolist()):
        if number in restarts:
            one = fifteen = 0
        one = _next(one, _EXP_1, tasks * _FIXED)
        fifteen = _next(fifteen, _EXP_15, tasks * _FIXED)
        ones.append(one)
        fifteens.append(fifteen)
    shown = [(np.array(values) + _FIXED // 200) * 100 // _FIXED / 100 for values in (ones, fifteens)]
    return shown[0], shown[1]


def _next(load: int, exp: int, active: int) -> int:
    grown = load * exp + active * (_FIXED - exp)
    return (grown + _FIXED - 1) // _FIXED if active >= load else grown // _FIXED


def figures(spike: Spike | None, cores: int = CORES) -> dict[str, Any]:
    """What else the reports carry, of a machine without PSI: the signs of the spike's kind, or of an ordinary time."""
    signs: dict[str, Any] = {
        "cpu_user": 0.15, "cpu_system": 0.04, "cpu_iowait": 0.01, "cpu_steal": 0.0, "cpu_idle": 0.8,
        "device": "mmcblk0", "disk_busy": 0.03, "await_s": 0.004, "memory_left": 0.5, "retransmits": 0.3,
        "temperature_c": 55.0, "throttled": False, "undervoltage": False, "relayed": False,
        "processes": {"tailscaled": 0.05, "etcd": 0.1, "k3s": 0.25},
    }  # fmt: skip
    if spike is None:
        return signs
    if spike.kind in ("cpu", "process", "throttled", "undervoltage"):
        signs |= {"cpu_user": 0.93, "cpu_system": 0.05, "cpu_idle": 0.01, "temperature_c": 74.0}
    if spike.kind == "process":
        signs["processes"] = signs["processes"] | {spike.process: min(3.4, 0.12 * spike.tasks + 1.0)}
    elif spike.kind == "io":
        signs |= {"cpu_user": 0.08, "cpu_iowait": 0.72, "cpu_idle": 0.1, "disk_busy": 0.99, "await_s": 1.4}
    elif spike.kind == "memory":
        signs |= {"cpu_user": 0.2, "cpu_system": 0.4, "cpu_iowait": 0.3, "memory_left": 0.015, "disk_busy": 0.9,
                  "await_s": 0.3}  # fmt: skip
    elif spike.kind == "throttled":
        signs |= {"throttled": True, "temperature_c": 84.0}
    elif spike.kind == "undervoltage":
        signs |= {"undervoltage": True, "throttled": True, "temperature_c": 58.0}
    elif spike.kind == "steal":
        signs |= {"cpu_user": 0.3, "cpu_steal": 0.6, "cpu_idle": 0.02}
    elif spike.kind == "blocked":
        # A server that does not answer: the tasks sleep, no disk of this machine works, the CPU is idle.
        signs |= {"cpu_iowait": 0.15, "cpu_idle": 0.7}
    elif spike.kind == "retransmits":
        signs |= {"cpu_user": 0.5, "cpu_system": 0.4, "cpu_idle": 0.05, "retransmits": 400.0, "relayed": True}
    return signs
