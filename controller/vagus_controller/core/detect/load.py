"""Load spikes, with their cause: streaming, a few numbers a node.

The signal is tasks that run or wait for a core or a disk, per core: the load average's own raw material, without its
minute of delay. Where the counts are absent it is worked back out of load1. A spike is a signal well above what is
usual for this node, for a few seconds; "usual" starts from load15 and follows slowly, in clipped steps, so that minutes
of a spike do not become usual, and never excuses more than `_USUAL_MOST`.
"""

from __future__ import annotations

import math
from typing import Final

from vagus_controller import config
from vagus_controller.config import Config
from vagus_controller.core.verdict import Hysteresis, Verdict, follow, seconds, some
from vagus_controller.views import Severity
from vagus_protocol.messages import LinkState, Relay, Report, System

# Tasks per core. A machine that is always this busy is at load, whatever is usual.
_USUAL_MOST: Final = 3.0
# Time constant of "usual": an hour of something makes it two thirds usual. A step pulls by at most _USUAL_CLIP.
_USUAL_TAU_S: Final = 3600.0
_USUAL_CLIP: Final = 1.5
# Signals beyond this add nothing; it keeps arithmetic on absurd reports finite.
_SIGNAL_MOST: Final = 1e6
# The kernel updates load1 every 5 s with this time constant (include/linux/sched/loadavg.h).
_LOAD1_TAU_S: Final = 60.0
_LOAD1_STEP_S: Final = 5.0
# After boot everything starts at once: this is no spike before it lasted so long.
_BOOT_S: Final = 120.0
_BOOT_ENTER_S: Final = 30.0
# A gap of more intervals than this between reports is no evidence of what went on in it.
_GAP_INTERVALS: Final = 5.0
# A normal verdict's words are renewed when the signal moved by this.
_WORDS_STEP: Final = 0.25

# What makes a cause: shares of time (PSI, CPU states), of memory, of a core.
_IO_SHARE: Final = 0.2
_MEMORY_PRESSURE: Final = 0.1
_MEMORY_LEFT: Final = 0.05
_STEAL_SHARE: Final = 0.1
_PROCESS_CORES: Final = 0.5


class _Series:
    """What is kept of one node. Signals are tasks per core."""

    __slots__ = ("at", "level", "load1", "load1_at", "raw", "shown", "spike", "usual", "verdict")

    def __init__(self, enter_s: float, leave_s: float) -> None:
        self.spike = Hysteresis(enter_s, leave_s)
        self.usual: float | None = None
        self.at: float | None = None
        self.level = 0.0
        self.shown = -1.0
        self.verdict: Verdict | None = None
        # where the signal must be worked out of load1: its last value used, and what came out
        self.load1: float | None = None
        self.load1_at = 0.0
        self.raw = 0.0


class LoadDetector:
    """`verdicts`: of every node that reported."""

    def __init__(self, config: Config) -> None:
        self.verdicts: dict[str, Verdict] = {}
        self._news: list[Verdict] = []
        self._settings = config.load
        self._series: dict[str, _Series] = {}

    def reconfigure(self, settings: config.Load) -> None:
        """Other thresholds from now on; a spike that is told stays until it ends by them."""
        self._settings = settings
        for series in self._series.values():
            series.spike.enter_s, series.spike.leave_s = settings.enter_for_s, settings.exit_for_s

    def take_news(self) -> list[Verdict]:
        """The verdicts that changed since it was called last."""
        news, self._news = self._news, []
        return news

    def on_report(self, node: str, report: Report, now: float) -> Verdict:
        """Take a report's sample; the node's verdict: normal, spike, or unknown without figures."""
        verdict = self._judge(node, report, now)
        if verdict is not self.verdicts.get(node):
            self.verdicts[node] = verdict
            self._news.append(verdict)
        return verdict

    def _judge(self, node: str, report: Report, now: float) -> Verdict:
        settings = self._settings
        series = self._series.get(node)
        if series is None:
            series = self._series[node] = _Series(settings.enter_for_s, settings.exit_for_s)
        system = report.system
        if system is None:
            series.spike = Hysteresis(settings.enter_for_s, settings.exit_for_s)
            series.at = series.load1 = None
            series.verdict = follow(
                series.verdict, "load", node, "unknown", Severity.UNKNOWN, "reports carry no system figures", (), now
            )
            return series.verdict
        enter_s = settings.enter_for_s
        if system.runnable is None:
            level = _from_load1(series, system, now)
            # One such figure stands for a whole kernel step, which must not pass for a lasting one.
            enter_s += _LOAD1_STEP_S
        else:
            level = min((system.runnable + (system.blocked or 0)) / system.cores, _SIGNAL_MOST)
        if system.uptime_s < _BOOT_S:
            enter_s = max(enter_s, _BOOT_ENTER_S)
        spike = series.spike
        spike.enter_s = enter_s
        usual = series.usual
        if usual is None:
            usual = min(system.load15 / system.cores, _USUAL_MOST)
        elif series.at is not None:
            step = now - series.at
            if step > _GAP_INTERVALS * max(report.interval_s, 1.0):
                spike.forget()
            elif step > 0.0:
                pull = max(-_USUAL_CLIP, min(_USUAL_CLIP, level - usual))
                usual = min(usual + pull * min(step / _USUAL_TAU_S, 1.0), _USUAL_MOST)
        series.usual = usual
        series.at = now
        series.level = level
        above = level - usual
        if spike.update(above >= settings.enter_per_core, above <= settings.exit_per_core, now):
            series.verdict = _spike(series, node, report, system, now)
            series.shown = -1.0
        elif series.shown < 0.0 or abs(level - series.shown) >= _WORDS_STEP:
            series.shown = level
            reason = f"{level:.1f} tasks a core, usual {usual:.1f}"
            series.verdict = follow(series.verdict, "load", node, "normal", Severity.OK, reason, (), now)
        assert series.verdict is not None
        return series.verdict


def _from_load1(series: _Series, system: System, now: float) -> float:
    """The tasks per core that moved load1 from its last value to this one; load1 itself at first."""
    if series.load1 is None or now < series.load1_at:
        series.load1, series.load1_at, series.raw = system.load1, now, system.load1 / system.cores
    elif now - series.load1_at >= _LOAD1_STEP_S:
        kept = math.exp(-(now - series.load1_at) / _LOAD1_TAU_S)
        tasks = (system.load1 - series.load1 * kept) / (1.0 - kept)
        series.load1, series.load1_at, series.raw = system.load1, now, max(0.0, tasks) / system.cores
    return min(series.raw, _SIGNAL_MOST)


def _spike(series: _Series, node: str, report: Report, system: System, now: float) -> Verdict:
    causes, evidence = _causes(system)
    evidence += _impaired(report)
    previous = series.verdict
    # The verdict's own start is when it was sure; the words count from when it began.
    lasted = series.spike.enter_s
    if previous is not None and previous.state == "spike":
        lasted += now - previous.since
    reason = (
        f"load {series.level * system.cores:.1f} on {system.cores} cores ({series.level:.1f} a core, "
        f"usual {series.usual or 0.0:.1f}) for {seconds(lasted)}: {'; '.join(causes)}"
    )
    return follow(previous, "load", node, "spike", Severity.WARNING, reason, some(evidence), now)


def _causes(system: System) -> tuple[list[str], list[str]]:
    """What the load comes of, the likeliest root first, and the figures behind it. Never empty."""
    causes: list[str] = []
    evidence: list[str] = []
    throttling = system.throttling
    if throttling is not None:
        if throttling.undervoltage:
            causes.append("under-voltage: the power supply or its cable is too weak")
        if throttling.throttled or throttling.frequency_capped or throttling.soft_temp_limit:
            heat = f" at {system.temperature_c:.0f} °C" if system.temperature_c is not None else ""
            causes.append(f"the CPU is throttled{heat}")
    if _short_of_memory(system):
        causes.append("memory pressure")
    if _waits_for_io(system):
        busiest = max(
            (disk for disk in system.disk_io if disk.busy is not None), key=lambda disk: disk.busy or 0.0, default=None
        )
        device = f", {busiest.device} is {busiest.busy:.0%} busy" if busiest is not None and busiest.busy else ""
        causes.append(f"I/O{device}")
    if system.cpu_steal is not None and system.cpu_steal >= _STEAL_SHARE:
        causes.append(f"the host takes {system.cpu_steal:.0%} of the CPU (steal)")
    greedy = sorted((each for each in system.processes if each.cpu >= _PROCESS_CORES), key=lambda each: -each.cpu)
    if greedy:
        causes.append("CPU, " + ", ".join(f"{each.name} takes {each.cpu:.1f} cores" for each in greedy))
    if not causes:
        causes.append("CPU, by processes that are not watched" if system.processes else "CPU")
    if system.cpu_iowait is not None:
        evidence.append(f"I/O wait {system.cpu_iowait:.0%} of CPU time")
    for name, pressure in (("cpu", system.psi_cpu), ("io", system.psi_io), ("memory", system.psi_memory)):
        if pressure is not None:
            evidence.append(f"pressure on {name}: {pressure.some:.0%} of the last 10 s")
    if system.blocked:
        evidence.append(f"{system.blocked} tasks blocked on I/O")
    return causes, evidence


def _short_of_memory(system: System) -> bool:
    if system.psi_memory is not None:
        return system.psi_memory.some >= _MEMORY_PRESSURE
    if not system.memory_bytes or system.memory_available_bytes is None:
        return False
    return system.memory_available_bytes < _MEMORY_LEFT * system.memory_bytes


def _waits_for_io(system: System) -> bool:
    if system.psi_io is not None and system.psi_io.some >= _IO_SHARE:
        return True
    if system.cpu_iowait is not None and system.cpu_iowait >= _IO_SHARE:
        return True
    # Blocked tasks outnumber the running ones.
    return (system.blocked or 0) > max(1, system.runnable or 0)


def _impaired(report: Report) -> list[str]:
    """Links that make software wait and retry: a hint at the cause, or at what suffers."""
    lines = []
    for link in report.links:
        if link.relay in (Relay.DERP, Relay.PEER_RELAY):
            lines.append(f"the link to {link.peer} over {link.path} is relayed ({link.relay.value})")
        elif link.state in (LinkState.DEGRADED, LinkState.DOWN):
            lines.append(f"the link to {link.peer} over {link.path} is {link.state.value}")
    return lines
