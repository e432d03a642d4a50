"""Which incident is told to whom, when, and in which words: one event, one notice on each channel.

| an incident | and the channel | then it is told |
| --- | --- | --- |
| is open | gets such, and was told nothing of it | that it began |
| is worse than was told | gets such | that it is worse |
| came back | was told that it was over | that it is back |
| lasts, and nobody has acknowledged it | was told `repeat_s` ago | that it lasts |
| is over or resolved | was told of it | that, and how long it took |

In quiet hours and maintenance a notice waits, and is left out when it is not true any more by then. What was told while
another controller led is that one's: of an incident older than `_FORMER_S` we take it that it was told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec
from msgspec import Struct

from vagus_controller import config
from vagus_controller.core.causes import link_of, some_of
from vagus_controller.core.verdict import RANK, seconds
from vagus_controller.core.windows import Windows
from vagus_controller.views import IncidentView, Severity

What = Literal["began", "worse", "back", "lasts", "over"]

# A leader that dies within this of an incident may not have told it: rather twice than never.
_FORMER_S: Final = 30.0
# What was told of an incident that is over is known for so long, in case it comes back.
_REMEMBER_S: Final = 86_400.0
_LABEL: Final = {"worse": "worse, ", "back": "again, ", "lasts": "still ", "began": "", "over": ""}


class Notice(Struct, frozen=True, kw_only=True):
    """`incident` 0: a test."""

    channel: str
    incident: int
    what: What
    severity: Severity
    title: str
    text: str


class _Told(Struct, kw_only=True):
    """What a channel knows of an incident. Monotonic; saved as ages."""

    severity: Severity
    at: float
    over: bool = False


class Saved(Struct, kw_only=True):
    """(channel, incident, what it was told); the incidents that were news while we led."""

    told: list[tuple[str, int, _Told]] = []
    ours: list[int] = []


class Notices:
    """`site_of`: a node's site."""

    def __init__(
        self, settings: config.Notify, windows: Windows, site_of: Callable[[str], str], fleet: str, url: str
    ) -> None:
        self.reconfigure(settings)
        self._windows = windows
        self._site_of = site_of
        self._fleet = fleet
        self._url = url.rstrip("/")
        # those that are open, and those that are over and not yet told to be
        self._known: dict[int, IncidentView] = {}
        self._since: dict[int, float] = {}
        self._ours: set[int] = set()
        self._told: dict[tuple[str, int], _Told] = {}
        self._leads = False

    def reconfigure(self, settings: config.Notify) -> None:
        """Other channels from now on. One that is new hears of what is open, as far as it is for it."""
        self._channels = settings.channel
        self._quiet = {
            each.name: Windows(tuple(config.Window(at=at, reason="quiet hours") for at in each.quiet))
            for each in settings.channel
        }

    def tick(self, changed: Iterable[IncidentView], now: float, wall: float | None, *, leads: bool) -> list[Notice]:
        """What is to be told now. `wall`: epoch seconds, for quiet hours and maintenance alone."""
        for view in changed:
            if view.state == "merged":
                self._merge(view)
                continue
            self._known[view.id] = view
            self._since.setdefault(view.id, now)
            if leads:
                self._ours.add(view.id)
        if not leads:
            self._leads = False
            self._forget(now)
            return []
        if not self._leads:
            self._leads = True
            self._take_over(now)
        notices = [
            notice
            for view in self._known.values()
            for channel in self._channels
            if (notice := self._decide(channel, view, now, wall)) is not None
        ]
        self._forget(now)
        return notices

    def silence(self, channel: str, wall: float | None) -> str:
        """The quiet hours that the channel is in, in words; "" when it is in none."""
        return self._quiet[channel].over("", "", wall)

    # --- deciding ------------------------------------------------------------------------------------------------

    def _decide(self, channel: config.Channel, view: IncidentView, now: float, wall: float | None) -> Notice | None:
        told = self._told.get((channel.name, view.id))
        what = self._due(channel, view, told, now)
        if what is None:
            return None
        severity = told.severity if what == "over" and told is not None else view.severity
        if severity not in channel.quiet_severities and self.silence(channel.name, wall):
            return None
        if self._in_maintenance(view, wall):
            return None
        worst = view.severity if told is None else max(view.severity, told.severity, key=RANK.index)
        self._told[channel.name, view.id] = _Told(severity=worst, at=now, over=what == "over")
        if what == "over" and not channel.recovery:
            return None
        return self._words(channel.name, view, what)

    def _due(self, channel: config.Channel, view: IncidentView, told: _Told | None, now: float) -> What | None:
        if view.state != "open":
            return "over" if told is not None and not told.over else None
        wanted = view.severity in channel.severities and self._routed(channel, view)
        if told is None:
            return "began" if wanted else None
        if told.over:
            return "back" if wanted else None
        if not wanted:
            return None
        if RANK.index(view.severity) > RANK.index(told.severity):
            return "worse"
        repeats = channel.repeat_s > 0 and not view.acknowledged_by
        return "lasts" if repeats and now - told.at >= channel.repeat_s else None

    def _routed(self, channel: config.Channel, view: IncidentView) -> bool:
        if channel.kinds and view.cause.kind not in channel.kinds:
            return False
        sites = self._sites(view)
        return not channel.sites or not sites or not sites.isdisjoint(channel.sites)

    def _sites(self, view: IncidentView) -> set[str]:
        """The sites that it is about; none: the whole fleet."""
        cause = view.cause
        if cause.scope == "site":
            return {cause.target}
        return {self._site_of(node) for node in self._nodes(view)}

    def _nodes(self, view: IncidentView) -> list[str]:
        scope, target = view.cause.scope, view.cause.target
        if scope in ("sites", "apart"):
            return sorted({node for each in view.troubles if each.is_cause for node in link_of(each.subject)[0]})
        return target.split("--") if scope == "pair" else [target] if scope == "node" else []

    def _in_maintenance(self, view: IncidentView, wall: float | None) -> bool:
        """Whether a maintenance window covers what it is about, or one end of it."""
        ends = [(node, self._site_of(node)) for node in self._nodes(view)]
        site = view.cause.target if view.cause.scope == "site" else ""
        return any(self._windows.over(*end, wall) for end in ends or [("", site)])

    # --- other leaders, and what is past -------------------------------------------------------------------------

    def _take_over(self, now: float) -> None:
        for view in self._known.values():
            if view.id in self._ours or now - self._since[view.id] < _FORMER_S:
                continue
            for channel in self._channels:
                told = self._told.get((channel.name, view.id))
                if view.severity in channel.severities and self._routed(channel, view):
                    over = view.state != "open"
                    worst = view.severity if told is None else max(view.severity, told.severity, key=RANK.index)
                    self._told[channel.name, view.id] = _Told(severity=worst, at=now, over=over)
        self._ours.update(self._known)

    def _merge(self, view: IncidentView) -> None:
        """Who was told of it has been told of what it is part of."""
        self._known.pop(view.id, None)
        for channel in self._channels:
            told = self._told.pop((channel.name, view.id), None)
            into = view.merged_into
            if told is not None and into is not None:
                self._told.setdefault((channel.name, into), told)

    def _forget(self, now: float) -> None:
        over = [view.id for view in self._known.values() if view.state != "open"]
        for each in over:
            lasting = [told for channel in self._channels if (told := self._told.get((channel.name, each))) is not None]
            if not self._leads or all(told.over for told in lasting):
                del self._known[each]
                self._since.pop(each, None)
                self._ours.discard(each)
        self._told = {
            key: told for key, told in self._told.items() if key[1] in self._known or now - told.at < _REMEMBER_S
        }

    # --- what survives -------------------------------------------------------------------------------------------

    def saved(self, now: float) -> Saved:
        told = [
            (channel, incident, msgspec.structs.replace(told, at=now - told.at))
            for (channel, incident), told in self._told.items()
        ]
        return Saved(told=told, ours=sorted(self._ours))

    def restore(self, before: Saved, known: Iterable[IncidentView], now: float) -> None:
        """`known`: the incidents that are open, or have ended lately, as they were restored."""
        names = {channel.name for channel in self._channels}
        self._told = {
            (channel, incident): msgspec.structs.replace(told, at=now - told.at)
            for channel, incident, told in before.told
            if channel in names
        }
        self._ours = set(before.ours)
        for view in known:
            unfinished = any(told.over is False for (_, each), told in self._told.items() if each == view.id)
            if view.state == "open" or (unfinished and view.state != "merged"):
                self._known[view.id] = view
                self._since[view.id] = now - view.duration_s

    # --- in words ------------------------------------------------------------------------------------------------

    def _words(self, channel: str, view: IncidentView, what: What) -> Notice:
        if what == "over":
            how = f"resolved by {view.resolved_by}" if view.state == "resolved" else "over"
            title = f"{how} after {seconds(view.duration_s)}: {view.title}"
        else:
            title = f"{_LABEL[what]}{view.severity.value}: {view.title}"
        lines = []
        if what != "over":
            lines = [line for line in (self._cause(view), self._consequences(view)) if line]
            lines += [f"Why: {view.why}"] * bool(view.why)
            lines += [f"Not known: {doubt}" for doubt in view.doubts]
        if view.resolution and what == "over":
            lines.append(f"Note: {view.resolution}")
        lines.append(f"vagus: {view.did or 'moved nothing'}")
        if what != "over":
            lines.append(f"For {seconds(view.duration_s)}, incident {view.id}")
        if self._url:
            lines.append(f"{self._url}/incidents/{view.id}")
        severity = Severity.OK if what == "over" else view.severity
        return Notice(
            channel=channel,
            incident=view.id,
            what=what,
            severity=severity,
            title=f"[{self._fleet}] {title}",
            text="\n".join(lines),
        )

    def _cause(self, view: IncidentView) -> str:
        causes = [each for each in view.troubles if each.is_cause and not each.over]
        return f"Cause: {causes[0].subject}: {causes[0].state}: {causes[0].reason}" if causes else ""

    def _consequences(self, view: IncidentView) -> str:
        found: dict[str, list[str]] = {}
        for each in view.troubles[1:]:
            if not each.over:
                found.setdefault(f"{each.kind} {each.state}", []).append(each.subject)
        parts = [f"{what}: {some_of(subjects)}" for what, subjects in found.items()]
        hidden = view.troubles_total - len(view.troubles)
        return f"With it: {'; '.join(parts)}" + (f"; {hidden} more" if hidden > 0 else "") if parts else ""
