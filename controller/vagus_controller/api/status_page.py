"""The public status page: what `[http.public_status]` chooses, as HTML that needs no login, no script and no API.

Only words from the configuration, words of this file, numbers and times reach the page, and titles of incidents where
they are asked for. It is made anew at most every few seconds, whatever the traffic.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import ipaddress
import time
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response

from vagus_controller.api.page import shell
from vagus_controller.chart_views import Charts
from vagus_controller.config import PublicStatus, StatusGroup
from vagus_controller.core.detect.link import DEAD
from vagus_controller.views import FleetView, NodeView, Operator, PairView

FRESH_S: Final = 5.0
UPTIME_FRESH_S: Final = 600.0
_HOUR_S: Final = 3600
_DAY_S: Final = 86400
# No report comes, and no peer reaches it.
_GONE: Final = "node down"
# It ended its agent, or nobody can tell. One that is cut off is reached by its peers: it works.
_UNTOLD: Final = ("offline", "unknown")


class Standing(IntEnum):
    """The worse, the greater."""

    WELL = 0
    UNKNOWN = 1
    DISRUPTED = 2
    PARTLY_OUT = 3
    OUT = 4


_WORDS: Final = {
    Standing.WELL: ("ok", "Working"),
    Standing.UNKNOWN: ("unknown", "Not known"),
    Standing.DISRUPTED: ("warning", "Disrupted"),
    Standing.PARTLY_OUT: ("warning", "Partly out"),
    Standing.OUT: ("critical", "Out"),
}
_OVERALL: Final = {
    Standing.WELL: "Everything works",
    Standing.UNKNOWN: "The state of some parts is not known",
    Standing.DISRUPTED: "Some connections are disrupted",
    Standing.PARTLY_OUT: "Some parts are out",
    Standing.OUT: "Something is out",
}
# Shape and word say it too; the shapes are those of dom.js.
_SHAPES: Final = {
    "ok": '<circle class="fill" cx="8" cy="8" r="7"/><path class="cut" d="M4.9 8.3l2.2 2.2 4.1-4.6"/>',
    "unknown": '<circle class="line" cx="8" cy="8" r="5.5" stroke-dasharray="2.4 2.2"/>',
    "warning": '<path class="fill round" d="M8 1.6L15 14H1z"/><path class="cut" d="M8 6v3.7M8 11.8v.2"/>',
    "critical": '<path class="fill round" d="M5.1 1h5.8L15 5.1v5.8L10.9 15H5.1L1 10.9V5.1z"/>'
    '<path class="cut" d="M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8"/>',
}


def members(fleet: FleetView, group: StatusGroup) -> tuple[NodeView, ...]:
    return tuple(node for node in fleet.nodes if node.name in group.nodes or node.site in group.sites)


def standing(fleet: FleetView, nodes: tuple[NodeView, ...]) -> Standing:
    """How these nodes are, for those who use what runs there."""
    if fleet.observer.state != "connected" or not nodes:
        return Standing.UNKNOWN
    gone = sum(node.liveness.state == _GONE for node in nodes)
    if gone:
        return Standing.OUT if gone == len(nodes) else Standing.PARTLY_OUT
    names = {node.name for node in nodes}
    if any(_is_dark(pair) for pair in fleet.pairs if names & set(pair.nodes)):
        return Standing.DISRUPTED
    untold = any(node.liveness.state in _UNTOLD for node in nodes)
    return Standing.UNKNOWN if untold else Standing.WELL


def _is_dark(pair: PairView) -> bool:
    """Its traffic goes by a path that carries nothing."""
    dead = {path.path for path in pair.paths if path.verdict.state in DEAD}
    return bool(dead & set(pair.observed))


def uptime(present: list[set[int]], hours: set[int]) -> float | None:
    """The mean share of `hours` in which each node reported, from its first on; None: nothing is known."""
    shares = []
    for mine in present:
        known = {hour for hour in hours if mine and hour >= min(mine)}
        if known:
            shares.append(len(mine & known) / len(known))
    return sum(shares) / len(shares) if shares else None


def render(status: PublicStatus, fleet: FleetView, uptimes: dict[str, float | None], at: float) -> str:
    """The whole page. `uptimes`: of each group by its name."""
    standings = [(group, standing(fleet, members(fleet, group))) for group in status.group]
    worst = max((each for _, each in standings), default=standing(fleet, fleet.nodes))
    severity = _WORDS[worst][0]
    rows = "".join(_row(status, group, how, uptimes.get(group.name)) for group, how in standings)
    title = html.escape(status.title)
    return shell(
        "status",
        title=title,
        severity=severity,
        icon=_icon(severity, 40),
        overall=_OVERALL[worst],
        groups=f'<ul class="groups card">{rows}</ul>' if rows else "",
        incidents=_incidents(fleet) if status.incidents else "",
        at=_moment(at),
    )


def _row(status: PublicStatus, group: StatusGroup, how: Standing, share: float | None) -> str:
    severity, word = _WORDS[how]
    counted = ""
    if status.uptime_days:
        told = "Uptime not known yet" if share is None else f"{_percent(share)} up, {status.uptime_days} days"
        counted = f'<span class="muted">{told}</span>'
    name = f'<span class="name">{html.escape(group.name)}</span>'
    return f'<li>{name}{counted}<span class="word {severity}">{_icon(severity, 18)}{word}</span></li>'


def _percent(share: float) -> str:
    """Never rounded up to 100."""
    return "100 %" if share == 1 else f"{int(share * 10_000) / 100:.2f} %"


def _incidents(fleet: FleetView) -> str:
    rows = "".join(
        f"<li>{_icon(_severity(each.severity), 18)}<span>{html.escape(_told(each.title))}"
        f' <span class="muted">since {_moment(each.at)}</span></span></li>'
        for each in fleet.incidents[:20]
    )
    body = f'<ul class="incidents">{rows}</ul>' if rows else '<p class="empty">None.</p>'
    return (
        f'<section class="card" aria-labelledby="incidents"><h2 id="incidents">Current incidents</h2>{body}</section>'
    )


def _told(title: str) -> str:
    """As a sentence begins, and without any address: a certificate is told with where it is shown."""
    words = " ".join("…" if _is_address(word) else word for word in title.split(" "))
    return words[:1].upper() + words[1:]


def _is_address(word: str) -> bool:
    bare = word.strip(",;.()")
    for text in (bare, bare.rpartition(":")[0], bare.strip("[]"), bare.rpartition(":")[0].strip("[]")):
        with contextlib.suppress(ValueError):
            ipaddress.ip_interface(text)
            return True
    return False


def _severity(name: str) -> str:
    return name if name in _SHAPES else "unknown"


def _icon(severity: str, size: int) -> str:
    return (
        f'<svg class="icon {severity}" viewBox="0 0 16 16" width="{size / 16}rem" height="{size / 16}rem" '
        'aria-hidden="true">'
        f"{_SHAPES[severity]}</svg>"
    )


def _moment(at: float) -> str:
    when = datetime.fromtimestamp(at, UTC)
    return f'<time datetime="{when:%Y-%m-%dT%H:%M:%SZ}">{when:%-d %B %Y, %H:%M} UTC</time>'


class StatusPage:
    """The page as it was made last."""

    def __init__(self, status: PublicStatus, operator: Operator, charts: Charts) -> None:
        self._status = status
        self._operator = operator
        self._charts = charts
        self._text = ""
        self._made = -FRESH_S
        self._uptimes: dict[str, float | None] = {}
        self._counted = -UPTIME_FRESH_S
        self._counting: asyncio.Task[None] | None = None

    def text(self, now: float, at: float) -> str:
        """`now`: monotonic; `at`: wall clock."""
        if now - self._made >= FRESH_S:
            fleet = self._operator.fleet()
            if self._status.uptime_days and self._counting is None and now - self._counted >= UPTIME_FRESH_S:
                self._counted = now
                self._counting = asyncio.create_task(self._count(fleet, at))
            self._text = render(self._status, fleet, self._uptimes, at)
            self._made = now
        return self._text

    async def _count(self, fleet: FleetView, at: float) -> None:
        try:
            self._uptimes = await asyncio.to_thread(self._counted_uptimes, fleet, at)
        finally:
            self._counting = None

    def _counted_uptimes(self, fleet: FleetView, at: float) -> dict[str, float | None]:
        """From the hours in which the archive has anything of a node; hours in which it has nothing of any of them are
        the controller's own absence."""
        end = int(at) // _HOUR_S * _HOUR_S
        start = end - self._status.uptime_days * _DAY_S
        groups = {group.name: [node.name for node in members(fleet, group)] for group in self._status.group}
        present = {}
        for name in {name for names in groups.values() for name in names}:
            told = self._charts.node_history(name, start, end, _HOUR_S)
            lag = next((column for column in told.columns if column.metric == "agent_lag"), None)
            values = lag.mean if lag is not None else []
            present[name] = {hour for hour, value in zip(told.at, values, strict=False) if value is not None}
        hours = set().union(*present.values()) if present else set()
        return {group: uptime([present[name] for name in names], hours) for group, names in groups.items()}


def status_routes(status: PublicStatus | None, operator: Operator, charts: Charts) -> tuple[HTTPRouteHandler, ...]:
    """None when it is off."""
    if status is None:
        return ()
    made = StatusPage(status, operator, charts)

    @get("/status", include_in_schema=False, opt={"public": True})
    async def public_status() -> Response[str]:
        text = made.text(time.monotonic(), time.time())
        return Response(text, media_type="text/html", headers={"Cache-Control": f"public, max-age={int(FRESH_S)}"})

    return (public_status,)
