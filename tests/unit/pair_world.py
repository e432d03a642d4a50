"""A pair of nodes that say what a test wants, in virtual time."""

from __future__ import annotations

import msgspec

from vagus_controller import config
from vagus_controller.core.failover import Decision, Failover, Situation
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import Severity
from vagus_protocol.messages import Link, LinkState, PathOffer, PeerOffer, Presence, Report

PAIR = ("a", "b")
UP, DOWN, DEGRADED, SUSPECT = LinkState.UP, LinkState.DOWN, LinkState.DEGRADED, LinkState.SUSPECT
CONNECTED = Verdict("controller", "fleet", "connected", Severity.OK, "hears everybody", (), 0.0)
BLIND = Verdict("controller", "fleet", "blind", Severity.WARNING, "hears nobody", (), 0.0)
HEALTHY = Verdict("quorum", "etcd", "healthy", Severity.OK, "3 of 3", (), 0.0)


class World:
    """A pair a–b over overlay and backup; `say` is one report of one end."""

    def __init__(self, **failover: object) -> None:
        cfg = config.Config(fleet="t", name="c", mqtt=config.Mqtt(brokers=()), fleet_key_file="")
        self.now = 1000.0
        self.fleet = Fleet(cfg)
        self.failover = Failover(msgspec.structs.replace(config.Failover(), **failover))
        self.fleet.on_session(True, self.now, "")
        self.seq = 0
        self.controller = CONNECTED
        self.paused = ""
        self.quorum_lost_since: float | None = None
        self.links: dict[tuple[tuple[str, str], str], Verdict] = {}
        self.busy = ""
        self.planned: frozenset[tuple[str, str]] = frozenset()
        self.members: frozenset[str] = frozenset()
        self.wall: float | None = None
        # path → what both ends measure of it, as fields of Link
        self.figures: dict[str, dict[str, object]] = {}
        for node in PAIR:
            self.present(node)

    def present(self, node: str, *, automatic: bool = True) -> None:
        """The node's birth."""
        peer = "b" if node == "a" else "a"
        birth = Presence(
            v=1,
            node=node,
            session="s",
            online=True,
            boot_id="1",
            site=f"site-{node}",
            automatic=automatic,
            paths=(PathOffer(name="overlay"), PathOffer(name="backup")),
            peers=(PeerOffer(name=peer, addresses=(), paths=("overlay", "backup")),),
        )
        self.fleet.on_presence(birth, self.now)

    def say(
        self,
        node: str,
        overlay: LinkState = UP,
        backup: LinkState = UP,
        *,
        peer_overlay: LinkState | None = None,
        proven_s: float = 0.1,
    ) -> None:
        self.seq += 1
        peer = "b" if node == "a" else "a"
        links = tuple(
            msgspec.structs.replace(
                Link(peer=peer, path=path, state=state, proven_s=age, peer_state=heard, reason="said so", since_s=0.5),
                **self.figures.get(path, {}),
            )
            for path, state, age, heard in (
                ("overlay", overlay, 0.1 if overlay is not DOWN else 3.0, peer_overlay),
                ("backup", backup, proven_s, UP),
            )
        )
        report = Report(v=1, node=node, session="s", seq=self.seq, boot_id="1", interval_s=2.0, links=links)
        self.fleet.on_report(report, self.now)

    def both(self, overlay: LinkState = UP, backup: LinkState = UP) -> None:
        self.say("a", overlay, backup)
        self.say("b", overlay, backup)

    def decide(self) -> list[Decision]:
        """What is decided now; every move succeeds at once."""
        decisions = self.wishes()
        for decision in decisions:
            if decision.moves:
                self.failover.record(decision, self.now)
                self.failover.confirmed(decision.pair, self.now)
        return decisions

    def wishes(self) -> list[Decision]:
        """What is decided now; nothing is done about it."""
        return self.failover.evaluate(self.fleet, self.situation, self.now, [PAIR])

    @property
    def situation(self) -> Situation:
        return Situation(
            controller=self.controller,
            quorum=HEALTHY,
            quorum_lost_since=self.quorum_lost_since,
            members=self.members if self.quorum_lost_since is None else frozenset(PAIR),
            links=self.links,
            paused=lambda node: self.paused,
            busy=self.busy,
            planned=self.planned,
            wall=self.wall,
        )

    def pass_time(self, seconds: float, overlay: LinkState = UP, backup: LinkState = UP) -> list[Decision]:
        """Both ends say the same every second for so long; what was decided meanwhile."""
        decided = []
        for _ in range(round(seconds)):
            self.now += 1.0
            self.both(overlay, backup)
            decided += self.decide()
        return decided

    @property
    def path(self) -> str:
        return self.failover.intent(self.fleet, PAIR).path

    def kinds(self) -> list[str]:
        return [decision.kind for decision in self.decide()]
