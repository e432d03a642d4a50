"""Short ways to say what nodes report, and a fleet on a virtual clock."""

from __future__ import annotations

from typing import Any

from vagus_controller.config import Broker, Config, Mqtt
from vagus_controller.core.fleet import Fleet, Notice
from vagus_controller.core.node import LAST_WILL
from vagus_protocol.messages import (
    Etcd,
    EtcdMember,
    Event,
    EventKind,
    Link,
    LinkState,
    Observed,
    ObservedState,
    PathOffer,
    PeerOffer,
    Presence,
    Report,
    System,
)

PATHS = ("overlay", "backup")


def config(**changes: Any) -> Config:
    settings: dict[str, Any] = {
        "fleet": "test",
        "name": "brain",
        "mqtt": Mqtt(brokers=(Broker(host="127.0.0.1"),)),
        "fleet_key_file": "/nowhere",
    }
    return Config(**(settings | changes))


def link(peer: str, path: str = "overlay", state: str = "up", **changes: Any) -> Link:
    if "proven_s" not in changes:
        changes["proven_s"] = 0.1 if state in ("up", "degraded") else None
    return Link(peer=peer, path=path, state=LinkState(state), **changes)


def links(*peers: str, state: str = "up") -> tuple[Link, ...]:
    return tuple(link(peer, path, state) for peer in peers for path in PATHS)


def system(**changes: Any) -> System:
    figures: dict[str, Any] = {
        "cores": 4,
        "load1": 1.6,
        "load5": 1.6,
        "load15": 1.6,
        "uptime_s": 86400.0,
        "runnable": 1,
        "blocked": 0,
    }
    return System(**(figures | changes))


def report(node: str, seq: int = 0, **changes: Any) -> Report:
    fields: dict[str, Any] = {"session": f"{node}-s1", "boot_id": f"{node}-b1", "interval_s": 2.0}
    return Report(v=1, node=node, seq=seq, **(fields | changes))


def presence(node: str, *peers: str, **changes: Any) -> Presence:
    fields: dict[str, Any] = {
        "session": f"{node}-s1",
        "boot_id": f"{node}-b1",
        "online": True,
        "site": node.split("-")[0],
        "paths": tuple(PathOffer(name=path) for path in PATHS),
        "peers": tuple(PeerOffer(name=peer, addresses=(), paths=PATHS) for peer in peers),
    }
    return Presence(v=1, node=node, **(fields | changes))


def last_will(node: str, **changes: Any) -> Presence:
    return Presence(v=1, node=node, online=False, reason=LAST_WILL, **({"session": f"{node}-s1"} | changes))


def goodbye(node: str) -> Presence:
    return Presence(v=1, node=node, online=False, reason="stopped", session=f"{node}-s1")


def event(node: str, peer: str, *told: Link, seq: int = 1, age_s: float = 0.0, session: str = "") -> Event:
    return Event(
        v=1,
        node=node,
        session=session or f"{node}-s1",
        seq=seq,
        kind=EventKind.LINK,
        text="link changed",
        age_s=age_s,
        peer=peer,
        links=told,
    )


def observed(node: str, **changes: Any) -> Observed:
    fields: dict[str, Any] = {"session": f"{node}-s1", "epoch": 1, "generation": 1, "state": ObservedState.APPLIED}
    return Observed(v=1, node=node, **(fields | changes))


def member(node: str, *others: str, learners: tuple[str, ...] = (), **changes: Any) -> Etcd:
    """A member's own endpoint that answers and reads; ids are "id-NODE", the leader is the first by name."""
    names = sorted((node, *others, *learners))
    fields: dict[str, Any] = {
        "answering": True,
        "member_id": f"id-{node}",
        "leader_id": f"id-{min((node, *others))}",
        "term": 2,
        "applied_index": 100,
        "read_s": 0.004,
        "members": tuple(EtcdMember(id=f"id-{name}", name=name, learner=name in learners) for name in names),
    }
    return Etcd(**(fields | changes))


class World:
    """A fleet whose nodes all know each other, connected at 100 s; `now` moves only when told."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.config = config(**settings)
        self.fleet = Fleet(self.config)
        self.now = 100.0
        self.names = names
        self.seq = dict.fromkeys(names, 0)
        self.event_seq = dict.fromkeys(names, 0)
        self.notices: list[Notice] = []
        self.fleet.on_session(True, self.now, "test")
        for name in names:
            self.tell(presence(name, *self.peers(name)))

    def peers(self, name: str) -> tuple[str, ...]:
        return tuple(other for other in self.names if other != name)

    def tell(self, message: Presence | Report | Event | Observed) -> list[Notice]:
        if isinstance(message, Event):
            self.event_seq[message.node] = message.seq
        take: Any = {
            Presence: self.fleet.on_presence,
            Report: self.fleet.on_report,
            Event: self.fleet.on_event,
            Observed: self.fleet.on_observed,
        }[type(message)]
        notices = list(take(message, self.now))
        self.notices += notices
        return notices

    def report(self, name: str, **changes: Any) -> list[Notice]:
        """The node's next report; all its links are up unless told otherwise."""
        self.seq[name] += 1
        said = {"links": links(*self.peers(name)), "event_seq": self.event_seq[name]}
        return self.tell(report(name, self.seq[name], **(said | changes)))

    def reports(self, *names: str, **changes: Any) -> None:
        for name in names or self.names:
            self.report(name, **changes)

    def pass_time(self, seconds: float) -> float:
        self.now += seconds
        return self.now

    def run(self, seconds: float, *names: str, **changes: Any) -> float:
        """Time passes while these nodes (or all) report every 2 s, the last time at the end of it."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 2.0, end)
            self.reports(*names, **changes)
        return self.now
