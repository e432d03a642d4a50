"""Load spikes, with their cause: streaming, a few hundred bytes a node.

`surge.py` decides whether a node has much more to do than usual, `kinds.py` what that comes of; here reports become
samples. The signal is the mean count of tasks that run or are blocked since the last report, or the count at its
moment, or where there is neither what load1 says of it (`load1.py`). Tasks that wait for neither a core nor a disk are
in load1 alone: what is there of them counts too, once three updates of it agree.
"""

from __future__ import annotations

from typing import Final

from vagus_controller.config import Config
from vagus_controller.core.detect import kinds
from vagus_controller.core.detect.familiar import Familiar
from vagus_controller.core.detect.kinds import Context, Finding
from vagus_controller.core.detect.load1 import Load1
from vagus_controller.core.detect.surge import Surge
from vagus_controller.core.node import NodeState
from vagus_controller.core.verdict import Verdict, follow, seconds, some
from vagus_controller.views import Severity
from vagus_protocol.messages import Report, System

# Signals beyond this add nothing; it keeps arithmetic on absurd reports finite.
_LEVEL_MOST: Final = 1e6
# After boot everything starts at once: this is no spike before it is up for so long.
_BOOT_S: Final = 180.0
# A gap of more intervals than this between reports is no evidence of what went on in it.
_GAP_INTERVALS: Final = 5.0
# A normal verdict's words are renewed when the signal moved by this.
_WORDS_STEP: Final = 0.25
# What began so soon after the spike may have been there before.
_TOGETHER_S: Final = 6.0


class _Series:
    """What is kept of one node. Signals are tasks per core."""

    __slots__ = ("at", "familiar", "load1", "retransmits", "shown", "surge", "throttled_at", "uptime", "verdict")

    def __init__(self, config: Config, usual: float) -> None:
        self.surge = Surge(config.load, usual)
        self.load1 = Load1()
        self.familiar = Familiar()
        self.at: float | None = None
        self.uptime = 0.0
        self.shown = -1.0
        self.verdict: Verdict | None = None
        # since when the firmware throttles the processor
        self.throttled_at: float | None = None
        # TCP's counters at the last report, and what they came to
        self.retransmits = _Rate()


class _Rate:
    """TCP segments that are sent again, by two counters since boot."""

    __slots__ = ("again", "per_s", "sent", "share")

    def __init__(self) -> None:
        self.again: int | None = None
        self.sent: int | None = None
        self.per_s: float | None = None
        self.share: float | None = None

    def take(self, system: System, step: float) -> None:
        self.per_s = self.share = None
        again, sent = system.tcp_retransmits, system.tcp_segments
        if again is not None and self.again is not None and step > 0.0 and again >= self.again:
            self.per_s = (again - self.again) / step
            if sent is not None and self.sent is not None and sent > self.sent:
                self.share = min((again - self.again) / (sent - self.sent), 1.0)
        self.again, self.sent = again, sent


class LoadDetector:
    """`verdicts`: of every node that reported; `found`: what its spike comes of."""

    def __init__(self, config: Config) -> None:
        self.verdicts: dict[str, Verdict] = {}
        self.found: dict[str, tuple[Finding, ...]] = {}
        self._config = config
        self._news: list[Verdict] = []
        self._series: dict[str, _Series] = {}

    def reconfigure(self, config: Config) -> None:
        """Other thresholds from now on; a spike that is told stays until it ends by them."""
        self._config = config
        for series in self._series.values():
            series.surge.reconfigure(config.load)

    def take_news(self) -> list[Verdict]:
        """The verdicts that changed since it was called last."""
        news, self._news = self._news, []
        return news

    def on_report(self, node: str, report: Report, now: float) -> Verdict:
        """Take a report's sample; the node's verdict: normal, spike, or unknown without figures."""
        return self._tell(node, self._judge(node, report, now))

    def on_presence(self, state: NodeState | None, now: float) -> None:
        """An agent that said goodbye stopped, perhaps for good: its spike would last for ever."""
        series = self._series.get(state.name) if state is not None and state.said_goodbye else None
        if state is not None and series is not None and series.surge.active:
            self._tell(state.name, self._unknown(series, state.name, "its agent said goodbye", now))

    def _tell(self, node: str, verdict: Verdict) -> Verdict:
        if verdict is not self.verdicts.get(node):
            self.verdicts[node] = verdict
            self._news.append(verdict)
        return verdict

    def _judge(self, node: str, report: Report, now: float) -> Verdict:
        series = self._series.get(node)
        system = report.system
        if series is None:
            first = min(system.load15 / system.cores, _LEVEL_MOST) if system is not None else 0.0
            series = self._series[node] = _Series(self._config, first)
        if system is None:
            return self._unknown(series, node, "reports carry no system figures", now)
        before, series.at = series.at, now
        step = 0.0 if before is None else now - before
        rebooted, series.uptime = system.uptime_s < series.uptime, system.uptime_s
        if before is None or step < 0.0 or step > _GAP_INTERVALS * max(report.interval_s, 1.0) or rebooted:
            step = 0.0
            series.surge.forget()
            series.load1.forget()
        active = self._sample(series, system, step, now)
        series.retransmits.take(system, step)
        if not kinds.throttled(system):
            series.throttled_at = None
        elif series.throttled_at is None:
            series.throttled_at = now
        calm = series.surge.began is None
        series.familiar.take(report, system, series.retransmits.per_s, now, learn=calm)
        if active:
            series.verdict = self._spike(series, node, report, system, now)
            series.shown = -1.0
        else:
            self.found.pop(node, None)
            level = series.surge.level
            if series.shown < 0.0 or abs(level - series.shown) >= _WORDS_STEP:
                series.shown = level
                reason = f"{level:.1f} tasks a core, usual {series.surge.usual:.1f}"
                series.verdict = follow(series.verdict, "load", node, "normal", Severity.OK, reason, (), now)
        assert series.verdict is not None
        return series.verdict

    def _unknown(self, series: _Series, node: str, reason: str, now: float) -> Verdict:
        series.surge.active = False
        series.surge.forget()
        series.load1.forget()
        series.at = None
        series.shown = -1.0
        self.found.pop(node, None)
        series.verdict = follow(series.verdict, "load", node, "unknown", Severity.UNKNOWN, reason, (), now)
        return series.verdict

    def _sample(self, series: _Series, system: System, step: float, now: float) -> bool:
        """Whether there is a spike."""
        load1, surge = series.load1, series.surge
        stands = load1.take(system.load1, now)
        tasks: float
        if system.runnable is None and system.active_mean is None:
            # An update's count stands for the time since the one before, and is told once.
            tasks, step = load1.tasks, stands
            if step == 0.0 and not surge.active:
                surge.level = min(tasks / system.cores, _LEVEL_MOST)
                return False
        else:
            tasks = max(_counted(system), min(load1.least))
        level = min(tasks / system.cores, _LEVEL_MOST)
        moment = min(((system.runnable or 0) + (system.blocked or 0)) / system.cores, _LEVEL_MOST)
        ripe = system.uptime_s >= _BOOT_S
        # The kernel saw what was before us: what its load1 has risen by is new.
        before = max(system.load15, tasks - max(0.0, system.load1 - system.load15)) / system.cores
        return surge.update(self._config.load, level, step, now, moment=moment, before=before, ripe=ripe)

    def _spike(self, series: _Series, node: str, report: Report, system: System, now: float) -> Verdict:
        surge, storm = series.surge, series.retransmits
        began = surge.began if surge.began is not None else now
        hung = max(0.0, min(series.load1.least) - _counted(system))
        since = series.throttled_at
        context = Context(
            heated=since is not None and since - began > _TOGETHER_S,
            retransmits=storm.per_s,
            retransmit_share=storm.share,
            usual=series.familiar.processes,
            hung=hung if system.runnable is not None else 0.0,
        )
        found = kinds.find(report, system, context)
        self.found[node] = tuple(found)
        evidence = [*kinds.evidence(system), *series.familiar.unusual(), *kinds.impaired(report)]
        reason = (
            f"load {surge.level * system.cores:.1f} on {system.cores} cores ({surge.level:.1f} a core, "
            f"usual {surge.usual:.1f}) for {seconds(now - began)}: {'; '.join(each.words for each in found)}"
        )
        return follow(series.verdict, "load", node, "spike", Severity.WARNING, reason, some(evidence), now)


def _counted(system: System) -> float:
    """Tasks that run or are blocked: their mean since the last report, or as they are at this moment."""
    mean = system.active_mean
    return mean if mean is not None else float((system.runnable or 0) + (system.blocked or 0))
