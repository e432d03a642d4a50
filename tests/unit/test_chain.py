"""One root cause, and the chain of what came of it, in words."""

from __future__ import annotations

from typing import Any

import pytest

from unit import fleet_builders as build
from unit.incident_world import IncidentWorld
from vagus_controller.core.causes import Cause, Trouble
from vagus_controller.core.chain import doubts, time_of_day, why
from vagus_controller.core.detect.quorum import Quorum
from vagus_controller.core.verdict import Kind, Verdict
from vagus_controller.views import Severity
from vagus_protocol.messages import Etcd, Process, Relay

THREE = {"austin": ("austin",), "tokyo": ("tokyo",), "berlin": ("berlin",)}
PAIR = ("austin", "tokyo")


def trouble(kind: Kind, subject: str, state: str, reason: str, at: float) -> Trouble:
    return Trouble(Verdict(kind, subject, state, Severity.WARNING, reason, (), at), at)


def test_the_chain_reads_from_cause_to_consequence() -> None:
    link = trouble(
        "link",
        "austin--tokyo/overlay",
        "relayed",
        "austin reaches tokyo through a DERP relay; round trip 38 ms → 210 ms",
        100.0,
    )
    quorum = trouble("quorum", "test", "churning", "4 leader changes in 5 min (one every 9 s), now austin", 160.0)
    load = trouble(
        "load",
        "tokyo",
        "spike",
        "load 25.0 on 4 cores (6.2 a core, usual 0.4) for 12 s: CPU, etcd takes 2.1 cores, tailscaled takes 1.4 cores",
        170.0,
    )
    cause = Cause("link", "pair", "austin--tokyo", "overlay")
    text = why(cause, [load, quorum, link], lambda each: each is link, lambda at: time_of_day(11_424.0 + at))
    assert text == (
        "overlay austin–tokyo relayed through a DERP relay since 03:12:04 UTC, round trip 38 ms → 210 ms "
        "→ 4 leader changes in 5 min → load 25 on tokyo, from etcd and tailscaled"
    )


class Story(IncidentWorld):
    """`relayed`: pairs whose overlay is; `takers`: node → the processes that take its CPU."""

    def __init__(self, **changes: Any) -> None:
        self.relayed: set[tuple[str, str]] = set()
        self.takers: dict[str, tuple[str, ...]] = {}
        super().__init__(THREE, members=("austin", "berlin", "tokyo"), **changes)

    def _links(self, name: str) -> tuple[Any, ...]:
        found = []
        for link in super()._links(name):
            pair = (min(name, link.peer), max(name, link.peer))
            relay = Relay.DERP if link.path == "overlay" and pair in self.relayed else None
            trip = 0.21 if relay is not None else 0.038
            found.append(
                build.link(link.peer, link.path, link.state.value, relay=relay, rtt_s=trip, reason=link.reason)
            )
        return tuple(found)

    def _speak(self) -> None:
        super()._speak()
        for name, takers in self.takers.items():
            processes = tuple(Process(name=each, count=1, cpu=2.0, rss_bytes=1) for each in takers)
            self.world.seq[name] += 1
            told = build.report(
                name,
                self.world.seq[name],
                links=self._links(name),
                system=build.system(runnable=40, load1=25.0, processes=processes),
                etcd=self._etcd(name),
            )
            self.fleet.on_report(told, self.now)
            self.load.on_report(name, told, self.now)

    def elect(self, times: int) -> None:
        for _ in range(times):
            self.term += 1
            self.run(6.0)


def test_a_relay_then_elections_then_load_is_one_incident_whose_root_is_the_relay() -> None:
    world = Story()
    world.run(130.0)
    world.relayed = {PAIR}
    world.run(20.0)
    world.elect(4)
    world.takers = {"tokyo": ("etcd", "tailscaled")}
    world.run(30.0)
    found = world.the_one()
    assert found.cause.kind == "link"
    assert found.cause.target == "austin--tokyo"
    words = found.why
    assert words.startswith("overlay austin–tokyo relayed through a DERP relay since ")
    assert "38 ms → 210 ms" in words
    assert words.index("relayed") < words.index("leader changes") < words.index("on tokyo, from etcd and tailscaled")


def test_load_by_something_else_is_no_consequence_of_a_relay() -> None:
    world = Story()
    world.relayed = {PAIR}
    world.run(20.0)
    world.takers = {"tokyo": ("ffmpeg",)}
    world.run(30.0)
    assert sorted(world.titles) == ["load spike on tokyo", "overlay between austin and tokyo is relayed"]


@pytest.mark.parametrize(("before", "root"), [(5.0, "load"), (60.0, "quorum")])
def test_load_by_nobody_knows_whom_is_a_consequence_only_of_what_was_there_long_before(
    before: float, root: str
) -> None:
    world = Story()
    world.etcd = dict.fromkeys(world.names, "fails")
    world.run(before)
    world.takers = {"tokyo": ()}
    world.run(40.0)
    assert world.the_one().cause.kind == root


def test_a_hog_on_a_member_is_the_root_of_the_elections_that_follow() -> None:
    world = Story()
    world.takers = {"berlin": ("stress",)}
    world.run(10.0)
    world.elect(4)
    found = world.the_one()
    assert found.cause.kind == "load"
    assert found.why.startswith("load ")
    assert "from stress" in found.why
    assert "leader changes" in found.why


def test_a_dead_node_says_what_is_not_known_and_what_would_tell() -> None:
    world = Story()
    world.down = {"tokyo"}
    world.run(40.0)
    found = world.the_one()
    assert found.why.startswith("tokyo node down since ")
    assert "4 links down" in found.why
    assert "quorum at risk" in found.why
    assert any("no power" in doubt and "boot id" in doubt for doubt in found.doubts)


def test_a_link_between_two_that_reach_others_is_between_them() -> None:
    world = Story()
    world.dead = {(PAIR, "overlay")}
    world.run(20.0)
    assert any("both reach others over overlay" in doubt for doubt in world.the_one().doubts)


def test_two_nodes_alone_cannot_tell_whose_end_it_is() -> None:
    world = IncidentWorld({"x": ("a",), "y": ("b",)})
    world.dead = {(("a", "b"), "overlay")}
    world.run(20.0)
    assert any("which end is at fault" in doubt for doubt in world.the_one().doubts)


def test_what_is_not_decided_by_time_is_said() -> None:
    world = Story()
    world.takers = {"berlin": ("stress",)}
    world.run(4.0)
    world.etcd = dict.fromkeys(world.names, "fails")
    world.run(30.0)
    found = world.the_one()
    assert found.cause.kind == "load"
    assert any("was first" in doubt for doubt in found.doubts), found.doubts


def test_what_was_said_stands_over_a_restart_and_at_the_end() -> None:
    world = Story()
    world.down = {"tokyo"}
    world.run(40.0)
    before = world.the_one().why
    world.restart()
    world.run(1.0)
    assert world.the_one().why[:20] == before[:20]
    world.heal()
    world.run(120.0)
    assert world.told[-1].state == "over"
    assert world.told[-1].why.startswith("tokyo node down")


@pytest.mark.parametrize(
    ("reason", "doubt"),
    [
        ("127.0.0.1:2379 refused the connection", "why etcd on db-3 ended: its log"),
        ("no answer from 127.0.0.1:2379 in 2 s", "whether etcd on db-3 stands still"),
        (None, "how etcd on db-3 is: no agent there is heard"),
    ],
)
def test_a_missing_member_says_what_is_not_known_of_it(reason: str | None, doubt: str) -> None:
    world = build.World("db-1", "db-2", "db-3")
    quorum = Quorum(world.config)
    for name in world.names:
        told = build.member(name, *world.peers(name))
        world.report(name, etcd=told if reason is None or name != "db-3" else Etcd(answering=False, reason=reason))
    if reason is None:
        world.tell(build.goodbye("db-3"))
    found = Trouble(quorum.evaluate(world.fleet, world.now), world.now)
    said = doubts(world.fleet, Cause("quorum", "fleet"), [found], lambda _: True)
    assert len(said) == 1, said
    assert said[0].startswith(doubt)
    chain = why(Cause("quorum", "fleet"), [found], lambda _: True, lambda _: "12:00:00")
    gone = {"whether": "frozen, or starved", "why": "not running"}.get(doubt.partition(" ")[0])
    who = f"db-3 failing (db-3 {gone})" if gone else "db-3 unheard"
    assert chain == f"etcd quorum at risk: 2 of 3 members read: one more failure loses quorum, {who} since 12:00:00 UTC"


@pytest.mark.parametrize(("wall", "words"), [(0.0, "00:00:00"), (86_399.9, "23:59:59"), (-1.0, "23:59:59")])
def test_time_of_day(wall: float, words: str) -> None:
    assert time_of_day(wall) == words
