"""A fleet on a virtual clock, with the controller's detectors and incidents: say what breaks, and the rest follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations

from unit import fleet_builders as build
from vagus_controller.config import Failover as FailoverSettings
from vagus_controller.core.causes import judge
from vagus_controller.core.decision import Decision, Situation
from vagus_controller.core.detect.link import Links
from vagus_controller.core.detect.liveness import Liveness
from vagus_controller.core.detect.load import LoadDetector
from vagus_controller.core.detect.quorum import Quorum
from vagus_controller.core.failover import Failover
from vagus_controller.core.fleet import Pair
from vagus_controller.core.incidents import Incidents
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import IncidentView, LedgerEntry, Severity
from vagus_protocol.messages import Link, PeerOffer

TICK_S = 0.5
EVERY_S = 2.0
WALL = 1_900_000_000.0


class IncidentWorld:
    """`sites`: site → its nodes; `pairs`: who knows whom (all, unless told). Nodes report every 2 s, and at once when a
    link of theirs changes.

    `dead`: (pair, path) that carry nothing; `sick`: those whose ends say otherwise; `down`: nodes that do nothing;
    `mute`: nodes without a broker; `stopped`: agents that said goodbye; `busy`: nodes at load; `members`: of etcd;
    `unfit`: what failed its drill; `alarms`: of etcd.
    """

    def __init__(
        self, sites: dict[str, tuple[str, ...]], members: tuple[str, ...] = (), pairs: Iterable[Pair] | None = None
    ) -> None:
        self.site_of = {node: site for site, nodes in sites.items() for node in nodes}
        self.names = tuple(sorted(self.site_of))
        known = list(pairs) if pairs is not None else list(combinations(self.names, 2))
        self.pairs = [(min(pair), max(pair)) for pair in known]
        self.peers = {
            name: [peer for pair in self.pairs if name in pair for peer in pair if peer != name] for name in self.names
        }
        self.members = members
        self.dead: set[tuple[Pair, str]] = set()
        self.sick: dict[tuple[Pair, str], str] = {}
        self.down: set[str] = set()
        self.mute: set[str] = set()
        self.stopped: set[str] = set()
        self.busy: set[str] = set()
        self.etcd: dict[str, str] = {}
        self.unfit: dict[Pair, str] = {}
        self.alarms: tuple[str, ...] = ()
        self.term = 2
        self.world = build.World(*self.names)
        self.config = self.world.config
        self.fleet = self.world.fleet
        self.failover = Failover(FailoverSettings())
        self.links = Links(self.config)
        self.liveness = Liveness(self.config)
        self.load = LoadDetector(self.config)
        self.quorum = Quorum(self.config)
        self.ids = 0
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.told: list[IncidentView] = []
        self.incidents = self.life()
        self._said: dict[str, tuple[tuple[str, str, str], ...]] = {}
        self._seq = 0
        for name in self.names:
            self.fleet.on_presence(self.presence(name), self.now)
        self.run(20.0)

    def life(self) -> Incidents:
        return Incidents(
            self.fleet,
            self.failover,
            lambda: self.quorum.members(self.fleet),
            self.new_id,
            lambda: self.unfit,
            self.quorum.missing,
        )

    def new_id(self, above: int) -> int:
        self.ids = max(self.ids, above) + 1
        return self.ids

    @property
    def now(self) -> float:
        return self.world.now

    def presence(self, name: str):  # type: ignore[no-untyped-def]
        offers = tuple(PeerOffer(name=peer, addresses=(), paths=build.PATHS) for peer in self.peers[name])
        return build.presence(name, peers=offers, site=self.site_of[name], etcd_member=name in self.members)

    # --- what is so ------------------------------------------------------------------------------------------------

    def cut(self, path: str, *nodes: str) -> None:
        """All links over the path, or those with an end in `nodes`."""
        self.dead |= {(pair, path) for pair in self.pairs if not nodes or set(nodes) & set(pair)}

    def heal(self) -> None:
        for name in self.stopped:
            self.fleet.on_presence(self.presence(name), self.now)
        for each in (self.dead, self.sick, self.down, self.mute, self.stopped, self.busy, self.etcd):
            each.clear()

    def stop(self, name: str) -> None:
        self.stopped.add(name)
        self.fleet.on_presence(build.goodbye(name), self.now)

    def _links(self, name: str) -> tuple[Link, ...]:
        found = []
        for peer in self.peers[name]:
            pair = (min(name, peer), max(name, peer))
            for path in build.PATHS:
                silent = peer in self.down or peer in self.stopped or (pair, path) in self.dead
                state = "down" if silent else self.sick.get((pair, path), "up")
                found.append(build.link(peer, path, state, reason="no answer" if silent else ""))
        return tuple(found)

    def _speak(self) -> None:
        beat = round((self.now - 100.0) / TICK_S) % round(EVERY_S / TICK_S) == 0
        for name in self.names:
            if name in self.down or name in self.mute or name in self.stopped:
                continue
            links = self._links(name)
            said = tuple((link.peer, link.path, link.state.value) for link in links)
            if not beat and said == self._said.get(name):
                continue
            self._said[name] = said
            self.world.seq[name] += 1
            busy = name in self.busy
            report = build.report(
                name,
                self.world.seq[name],
                links=links,
                system=build.system(runnable=40 if busy else 1, blocked=0),
                etcd=self._etcd(name) if name in self.members else None,
            )
            self.fleet.on_report(report, self.now)
            self.load.on_report(name, report, self.now)

    def _etcd(self, name: str):  # type: ignore[no-untyped-def]
        others = [member for member in self.members if member != name]
        how = self.etcd.get(name, "reads")
        if how == "reads":
            return build.member(name, *others, term=self.term, alarms=self.alarms)
        return build.member(name, *others, read_s=None, read_error="timed out", leader_id="", term=self.term)

    # --- time ------------------------------------------------------------------------------------------------------

    def tick(self) -> list[IncidentView]:
        self.world.pass_time(TICK_S)
        self._speak()
        observer = self.liveness.controller(self.fleet, self.now)
        self.liveness.evaluate(self.fleet, self.now)
        self.links.evaluate(self.fleet, self.now)
        quorum = self.quorum.evaluate(self.fleet, self.now)
        news = (observer, quorum, *self.liveness.news, *self.load.take_news(), *self.links.news)
        for verdict in news:
            self.verdicts[verdict.kind, verdict.subject] = verdict
        self.decide()
        self.incidents.verdicts(news)
        told = self.incidents.tick(self.now, WALL + self.now)
        self.told += told
        return told

    def decide(self) -> None:
        """Moves that need no proof of how: each begins and is confirmed at once."""
        situation = Situation(
            controller=self.liveness.controller(self.fleet, self.now),
            quorum=self.quorum._verdict or next(iter(self.verdicts.values())),
            quorum_lost_since=None,
            members=self.quorum.members(self.fleet),
            links=self.links.verdicts,
            paused=lambda _: "",
        )
        for decision in self.failover.evaluate(self.fleet, situation, self.now, self.fleet.pairs()):
            self._seq += 1
            if decision.moves:
                self.failover.record(decision, self.now)
                self.failover.confirmed(decision.pair, self.now)
            self.incidents.acted(self.entry(decision), self.now)

    def entry(self, decision: Decision) -> LedgerEntry:
        return LedgerEntry(
            id=self._seq,
            at=WALL + self.now,
            who="vagus",
            action=decision.kind,
            subject="--".join(decision.pair),
            reason=decision.reason,
            evidence=decision.evidence,
            outcome="done at both ends" if decision.moves else "",
        )

    def run(self, seconds: float, each: Callable[[], None] | None = None) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.tick()
            if each is not None:
                each()

    def restart(self) -> None:
        """The controller dies and comes back: its incidents from what it saved, everything else from what nodes say."""
        saved = self.incidents.saved(self.now)
        self.links, self.liveness = Links(self.config), Liveness(self.config)
        self.load, self.quorum = LoadDetector(self.config), Quorum(self.config)
        self.verdicts.clear()
        self.incidents = self.life()
        assert self.incidents.restore(saved, self.now) == ""

    # --- what is asked ---------------------------------------------------------------------------------------------

    @property
    def open(self) -> tuple[IncidentView, ...]:
        return self.incidents.open(self.now)

    @property
    def titles(self) -> list[str]:
        return [each.title for each in self.open]

    def the_one(self) -> IncidentView:
        assert len(self.open) == 1, self.titles
        return self.open[0]

    def bad(self) -> set[tuple[str, str]]:
        """Every verdict that is bad now, by the rule of what is."""
        return {key for key, verdict in self.verdicts.items() if judge(verdict) == "bad"}

    def severities(self) -> dict[int, Severity]:
        return {each.id: each.severity for each in self.open}
