"""The fleet as views: what the page, the API and vagusctl show, and the one sentence that says how it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from vagus_controller.config import Config
from vagus_controller.core.detect.link import proven_by
from vagus_controller.core.failover import Failover, Pair
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.plans import Plans
from vagus_controller.core.verdict import RANK, Verdict
from vagus_controller.views import (
    AgentView,
    FleetView,
    IncidentBrief,
    LastDrill,
    LinkEnd,
    NodeView,
    PairView,
    PathSetting,
    PathView,
    PauseView,
    PeerSetting,
    QuorumView,
    Severity,
    Steering,
    VerdictView,
)


class Sources(Struct, frozen=True, kw_only=True):
    config: Config
    fleet: Fleet
    failover: Failover
    plans: Plans
    # pair → its last drill
    drills: Mapping[Pair, LastDrill] = {}
    observer: Verdict
    nodes: Mapping[str, Verdict]
    loads: Mapping[str, Verdict]
    links: Mapping[tuple[Pair, str], Verdict]
    # pairs with a path that is dead
    dead: list[Pair]
    # pairs with a path that is unproven, or that an end knows an obstacle of
    hindered: list[Pair] = []
    quorum: QuorumView
    pauses: tuple[PauseView, ...]
    incidents: tuple[IncidentBrief, ...] = ()
    epoch: int
    leads: bool
    standing: str
    broker: str
    version: str
    started: float
    now: float
    at: float


class Canvas:
    """views.Canvas."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.names: Sequence[str] = sorted(sources.fleet.nodes)
        self.pairs: Sequence[Pair] = sources.fleet.pairs()

    @property
    def head(self) -> FleetView:
        return _head(self._sources)

    def node(self, name: str) -> NodeView:
        return _node(self._sources, name)

    def pair(self, pair: Pair) -> PairView:
        return _pair(self._sources, pair)

    def whole(self) -> FleetView:
        return replace(self.head, nodes=tuple(map(self.node, self.names)), pairs=tuple(map(self.pair, self.pairs)))

    def stirred(self, since: int) -> tuple[list[str], list[Pair], int]:
        fleet = self._sources.fleet
        names, count = fleet.stirred(since)
        pairs = (pair for name in names for pair in fleet.pairs_of(name) if fleet.has(pair))
        moved = (pair for pair in self._sources.failover.intents if fleet.has(pair))
        return names, list(dict.fromkeys((*moved, *pairs))), count


def _head(sources: Sources) -> FleetView:
    text, severity = summary(sources)
    return FleetView(
        fleet=sources.config.fleet,
        controller=sources.config.name,
        version=sources.version,
        epoch=sources.epoch,
        mode=sources.config.failover.mode,
        summary=text,
        severity=severity,
        observer=shown(sources.observer, sources.now),
        broker=sources.broker,
        uptime_s=sources.now - sources.started,
        at=sources.at,
        nodes=(),
        pairs=(),
        quorum=sources.quorum,
        pauses=sources.pauses,
        incidents=sources.incidents,
        leads=sources.leads,
        standing=sources.standing,
    )


def shown(verdict: Verdict, now: float) -> VerdictView:
    return VerdictView(
        kind=verdict.kind,
        subject=verdict.subject,
        state=verdict.state,
        severity=verdict.severity,
        reason=verdict.reason,
        evidence=verdict.evidence,
        since_s=max(now - verdict.since, 0.0),
    )


def summary(sources: Sources) -> tuple[str, Severity]:
    """The fleet's health in one sentence, the worst first, and its severity."""
    if sources.observer.state != "connected":
        return f"This controller is in doubt about itself: {sources.observer.reason}", sources.observer.severity
    if not sources.fleet.nodes:
        return "No node has reported yet", Severity.UNKNOWN
    parts: list[tuple[Severity, str]] = []
    quorum = sources.quorum.verdict
    if quorum.severity in (Severity.WARNING, Severity.CRITICAL, Severity.UNKNOWN):
        parts.append((quorum.severity, f"etcd quorum is {quorum.state.replace('-', ' ')}"))
    # A node that nobody can tell of is not well: "all is well" is a claim.
    away = [name for name, verdict in sources.nodes.items() if verdict.severity not in (Severity.OK, Severity.INFO)]
    if away:
        worst = max((sources.nodes[name].severity for name in away), key=RANK.index)
        parts.append((worst, f"{_names(away)}: {sources.nodes[away[0]].state.replace('-', ' ')}"))
    impaired = sources.dead
    moved = sorted(pair for pair, intent in sources.failover.intents.items() if intent.origin != "default")
    stuck = sources.failover.stuck()
    if impaired:
        covered = all(pair in moved and pair not in stuck for pair in impaired)
        text = f"{_pairs(impaired)} {'has' if len(impaired) == 1 else 'have'} a dead path"
        parts.append((Severity.WARNING, text + (", traffic goes by another" if covered else "")))
    elif moved:
        text = f"{_pairs(moved)} {'is' if len(moved) == 1 else 'are'} off the first path, and all paths answer"
        parts.append((Severity.INFO, text))
    doubtful = [pair for pair in sources.hindered if pair not in impaired]
    if doubtful:
        text = f"{_pairs(doubtful)} {'has' if len(doubtful) == 1 else 'have'} a path that is not proven for all traffic"
        parts.append((Severity.WARNING, text))
    if stuck:
        waiting = sources.failover.waiting(stuck[0])
        parts.append(
            (Severity.CRITICAL, f"{_pairs(stuck)} cannot move: {waiting.brief if waiting is not None else ''}")
        )
    busy = [
        name for name, verdict in sources.loads.items() if verdict.severity in (Severity.WARNING, Severity.CRITICAL)
    ]
    if busy:
        parts.append((sources.loads[busy[0]].severity, f"load spike on {_names(busy)}"))
    lasts = [one for one in sources.incidents if one.troubles]
    if lasts and all(severity in (Severity.OK, Severity.INFO) for severity, _ in parts):
        # A path that is degraded, say: what is an open incident is not well, whatever else there is to tell.
        more = f" and {_count(len(lasts) - 1, 'more incident')}" if len(lasts) > 1 else ""
        parts.append((lasts[0].severity, f"{lasts[0].title}{more}"))
    if not parts:
        found = [_count(len(sources.fleet.nodes), "node"), _count(len(sources.fleet.pairs()), "pair")]
        if quorum.state != "none":
            found.append(f"quorum {quorum.state}")
        return f"All is well: {', '.join(found)}", Severity.OK
    parts.sort(key=lambda part: -RANK.index(part[0]))
    return "; ".join(text for _, text in parts[:3]), parts[0][0]


def _node(sources: Sources, name: str) -> NodeView:
    state = sources.fleet.nodes[name]
    presence, report, observed = state.presence, state.report, state.observed
    unknown = VerdictView(
        kind="load", subject=name, state="unknown", severity=Severity.UNKNOWN, reason="no report yet", since_s=0.0
    )
    load = sources.loads.get(name)
    liveness = sources.nodes.get(name)
    return NodeView(
        name=name,
        site=state.site,
        online=presence is not None and presence.online,
        liveness=shown(liveness, sources.now) if liveness is not None else unknown,
        load=shown(load, sources.now) if load is not None else unknown,
        version=presence.version if presence is not None else "",
        reflex=presence.reflex if presence is not None else "",
        addresses=presence.addresses if presence is not None else (),
        paths=tuple(path.name for path in presence.paths) if presence is not None else (),
        report_age_s=sources.now - state.report_at if report is not None and state.report_at is not None else None,
        broker=report.broker if report is not None else "",
        reports_lost=state.lost_reports,
        epoch=observed.epoch if observed is not None else 0,
        generation=observed.generation if observed is not None else 0,
        observed=observed.paths if observed is not None else {},
        drift=observed.drift if observed is not None else (),
        report=report,
    )


def agent_view(fleet: Fleet, name: str) -> AgentView:
    """Raises KeyError for an unknown node."""
    state = fleet.nodes[name]
    presence, observed = state.presence, state.observed
    return AgentView(
        node=name,
        boot_id=state.boot_id or (presence.boot_id if presence is not None else ""),
        version=presence.version if presence is not None else "",
        reflex=presence.reflex if presence is not None else "",
        automatic=presence is None or presence.automatic,
        etcd_member=presence is not None and presence.etcd_member,
        paths=tuple(
            PathSetting(name=path.name, metered=path.metered, idle_interval_s=path.idle_interval_s)
            for path in (presence.paths if presence is not None else ())
        ),
        peers=tuple(
            PeerSetting(name=peer.name, addresses=peer.addresses, prefixes=peer.prefixes, paths=peer.paths)
            for peer in (presence.peers if presence is not None else ())
        ),
        steering=Steering(
            state=observed.state, reason=observed.reason, reflex=observed.reflex, trials=observed.verifications
        )
        if observed is not None
        else None,
    )


def _pair(sources: Sources, pair: Pair) -> PairView:
    failover, fleet = sources.failover, sources.fleet
    intent = failover.intent(fleet, pair)
    observed = []
    for node, peer in (pair, pair[::-1]):
        state = fleet.nodes.get(node)
        observed.append(state.observed.paths.get(peer, "") if state is not None and state.observed is not None else "")
    status, reason = "settled", intent.reason
    waiting = failover.waiting(pair)
    if waiting is not None:
        status, reason = ("recommended" if waiting.kind == "recommend" else "waiting"), waiting.reason
    elif intent.trial_from or sources.plans.moving(pair):
        status = "moving"
    elif intent.origin == "operator":
        status = "held"
    return PairView(
        name="--".join(pair),
        nodes=pair,
        assigned=intent.path,
        observed=(observed[0], observed[1]),
        status=status,
        origin=intent.origin,
        reason=reason,
        since_s=max(sources.now - intent.since, 0.0) if intent.since else sources.now - sources.started,
        paths=tuple(_path(sources, pair, path) for path in fleet.paths_of(pair)),
        drill=sources.drills.get(pair),
    )


def _path(sources: Sources, pair: Pair, path: str) -> PathView:
    verdict = sources.links.get((pair, path))
    fleet, (a, b) = sources.fleet, pair
    words = (fleet.link(a, b, path), fleet.link(b, a, path))
    fit, why_not = proven_by(fleet, pair, path, words, sources.now, sources.config.failover.proven_within_s)
    idle_interval_s, metered = None, False
    for node in pair:
        state = fleet.nodes.get(node)
        offer = state.path_offer(path) if state is not None else None
        if offer is not None:
            idle_interval_s = max(idle_interval_s or 0.0, offer.idle_interval_s)
            metered = metered or offer.metered
    first, second = words
    return PathView(
        path=path,
        verdict=shown(verdict, sources.now) if verdict is not None else _not_looked_at(pair, path),
        ends=(
            LinkEnd(node=a, link=first.link if first is not None else None),
            LinkEnd(node=b, link=second.link if second is not None else None),
        ),
        proven=fit,
        unproven=why_not,
        idle_interval_s=idle_interval_s,
        metered=metered,
    )


def _not_looked_at(pair: Pair, path: str) -> VerdictView:
    return VerdictView(
        kind="link",
        subject=f"{pair[0]}--{pair[1]}/{path}",
        state="unknown",
        severity=Severity.UNKNOWN,
        reason="not looked at yet",
        since_s=0.0,
    )


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _pairs(pairs: list[Pair]) -> str:
    return _names([f"{a}–{b}" for a, b in pairs])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
