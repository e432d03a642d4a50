"""What is judged only when it changed is judged as if everything were looked at each time."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.fleet_builders import PATHS, World, event, goodbye, last_will, link, links, member, presence, report
from vagus_controller.core.detect import link as link_module
from vagus_controller.core.detect.link import Links
from vagus_controller.core.detect.liveness import Liveness
from vagus_protocol.codec import encode
from vagus_protocol.messages import Relay

NAMES = ("a", "b", "c")


class Step(NamedTuple):
    node: str
    kind: str
    peer: str
    path: str
    state: str
    relay: Relay | None
    pause_s: float


STEPS = st.builds(
    Step,
    st.sampled_from(NAMES),
    st.sampled_from(("report", "report", "report", "report", "again", "event", "birth", "alone", "goodbye", "will")),
    st.sampled_from(NAMES),
    st.sampled_from((*PATHS, "lte")),
    st.sampled_from(("up", "up", "up", "degraded", "suspect", "down", "unknown")),
    st.sampled_from((None, None, Relay.DIRECT, Relay.DERP)),
    st.sampled_from((0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 11.0)),
)


def tell(world: World, step: Step, events: int) -> None:
    others = world.peers(step.node)
    told = link(step.peer, step.path, step.state, relay=step.relay)
    match step.kind:
        case "report":
            every = tuple(told if (each.peer, each.path) == (step.peer, step.path) else each for each in links(*others))
            world.seq[step.node] += 1
            message = report(step.node, world.seq[step.node], links=every)
            world.fleet.on_report(message, world.now, encode(message))
        case "again":
            world.report(step.node)
        case "event" if step.peer != step.node:
            world.tell(event(step.node, step.peer, told, seq=events, age_s=step.pause_s))
        case "birth":
            world.tell(presence(step.node, *others))
        case "alone":
            world.tell(presence(step.node, *(peer for peer in others if peer != step.peer)))
        case "goodbye":
            world.tell(goodbye(step.node))
        case "will":
            world.tell(last_will(step.node))


@given(st.lists(STEPS, max_size=40))
def test_links_and_liveness_miss_nothing(story: list[Step]) -> None:
    world = World(*NAMES)
    some, every = Links(world.config), Links(world.config)
    liveness = Liveness(world.config)
    for count, step in enumerate(story):
        tell(world, step, count)
        world.pass_time(step.pause_s)
        every._forget_gone(world.fleet)
        expected = {}
        for pair in world.fleet.pairs():
            expected |= every.evaluate(world.fleet, world.now, pair)
        assert some.evaluate(world.fleet, world.now) == expected
        dead = {pair for (pair, _), verdict in expected.items() if verdict.state in ("down", "one-way")}
        assert some.dead() == sorted(dead)
        anew = Liveness(world.config).evaluate(world.fleet, world.now)
        found = liveness.evaluate(world.fleet, world.now)
        assert {name: (verdict.state, verdict.reason, verdict.evidence) for name, verdict in found.items()} == {
            name: (verdict.state, verdict.reason, verdict.evidence) for name, verdict in anew.items()
        }
        assert set(found) == set(world.fleet.nodes)


def test_a_fleet_that_changes_at_once_is_judged_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_MOST", 3)
    world = World("a", "b", "c", "d", "e")
    found = Links(world.config)
    for name in world.names:
        world.report(name, links=links(*world.peers(name), state="down"))
    turns = []
    while len(found.verdicts) < 20:
        found.evaluate(world.fleet, world.now)
        turns.append(len(found.judged))
    assert turns == [3, 3 + 3, 3 + 3, 1 + 3]
    assert {verdict.state for verdict in found.verdicts.values()} == {"down"}
    world.reports()
    for _ in range(4):
        found.evaluate(world.fleet, world.pass_time(0.1))
    assert {verdict.state for verdict in found.verdicts.values()} == {"up"}
    found.evaluate(world.fleet, world.pass_time(0.1))
    assert found.judged == [], "all is well: nothing to look at"


def test_a_report_that_is_kept_as_bytes_reads_the_same() -> None:
    world = World("a", "b")
    for seq in (1, 2, 3):
        message = report("a", seq, links=links("b"), etcd=member("a", "b"), lag_s=0.001 * seq)
        world.fleet.on_report(message, world.now, encode(message))
        state = world.fleet.nodes["a"]
        assert state.runs_etcd
        assert world.fleet.link("a", "b", "overlay") is not None
        assert state.report == message


def test_only_what_is_more_than_figures_stirs() -> None:
    world = World("a", "b")
    world.reports()
    _, mark = world.fleet.stirred(0)
    world.report("a", links=tuple(link("b", path, rtt_s=0.5, proven_s=0.3) for path in PATHS), lag_s=0.2)
    assert world.fleet.stirred(mark) == ([], mark)
    changes: list[dict[str, object]] = [
        {"links": (link("b", state="down"), link("b", "backup"))},
        {"links": (link("b", relay=Relay.DERP), link("b", "backup"))},
        {"links": (link("b"), link("b", "lte"))},
        {"links": (link("c"), link("b", "backup"))},
        {"links": (link("b"),)},
        {"links": links("b"), "interval_s": 10.0},
        {"links": links("b"), "etcd": member("a")},
    ]
    for change in changes:
        world.report("a", **change)
        names, mark = world.fleet.stirred(mark)
        assert names == ["a"], change
        world.report("a", links=links("b"))
        _, mark = world.fleet.stirred(mark)


def test_a_silent_end_that_is_believed_by_a_late_event_is_looked_at_until_that_is_old_too() -> None:
    world = World("a", "b")
    found = Links(world.config)
    world.reports()
    world.run(9.0, "b")
    world.tell(event("a", "b", *links("b")))
    world.run(4.0, "b")
    found.evaluate(world.fleet, world.now)
    assert {verdict.reason for verdict in found.verdicts.values()} == {"both ends see it up"}
    world.run(7.0, "b")
    found.evaluate(world.fleet, world.now)
    assert {verdict.reason for verdict in found.verdicts.values()} == {"b sees it up; a is silent"}
