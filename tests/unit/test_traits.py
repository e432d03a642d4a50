"""How a link that carries does it badly, told apart by what both ends count and measure."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.fleet_builders import World, link, report, system
from vagus_controller.core.detect.link import Links
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import Severity
from vagus_protocol.messages import Link, LinkState, Relay

A, B = "austin", "tokyo"
PAIR = (A, B)
USUAL_S = 0.038


class Wire(World):
    """Two ends that report every 2 s and probe each other 5 times a second, over a wire that does what it is told."""

    def __init__(self) -> None:
        super().__init__(A, B)
        self.links = Links(self.config)
        self.sent = {A: 0, B: 0}
        self.heard = {A: 0, B: 0}
        self.late = {A: 0, B: 0}
        # of each end: what else it says of the link, and of itself
        self.says: dict[str, dict[str, Any]] = {A: {}, B: {}}
        self.is_so: dict[str, dict[str, Any]] = {A: {}, B: {}}

    def pass_for(
        self, seconds: float, *, there: float = 0.0, back: float = 0.0, late: float = 0.0, **both: Any
    ) -> Verdict:
        """`there`, `back`: the shares that are lost from austin to tokyo, and back; `late`: that come after later
        ones, at tokyo."""
        for _ in range(round(seconds / 2)):
            self.pass_time(2.0)
            for name, lost in ((A, back), (B, there)):
                self.sent[name] += 10
                self.heard[name] += round(10 * (1 - lost))
            self.late[B] += round(10 * late)
            for name, peer in (PAIR, PAIR[::-1]):
                said = {
                    "sent": self.sent[name],
                    "heard": self.heard[name],
                    "reordered": self.late[name],
                    "rtt_s": USUAL_S,
                    "loss_10s": 0.0,
                    "loss_60s": 0.0,
                    "since_s": 60.0,
                }
                told = link(peer, **(said | both | self.says[name]))
                self.seq[name] += 1
                # All is well with the other path, so that nothing but figures may change.
                paths = (told, link(peer, "backup"))
                self.tell(report(name, self.seq[name], links=paths, **self.is_so[name]))
            found = self.links.evaluate(self.fleet, self.now)
        return found[PAIR, "overlay"]


@pytest.fixture
def wire() -> Wire:
    found = Wire()
    assert found.pass_for(300).state == "up"
    return found


def test_loss_in_one_direction_is_named_with_it(wire: Wire) -> None:
    verdict = wire.pass_for(60, there=0.2, state="degraded")
    assert verdict.state == "one-way-loss"
    assert "20% lost from austin to tokyo, 0% from tokyo to austin" in verdict.reason
    assert wire.pass_for(60).state == "up"
    verdict = wire.pass_for(60, back=0.3, state="degraded")
    assert "30% lost from tokyo to austin" in verdict.reason


def test_loss_in_both_directions_has_none(wire: Wire) -> None:
    assert wire.pass_for(60, there=0.2, back=0.2, state="degraded").state == "degraded"


@pytest.mark.parametrize(("back", "most", "least"), [(0.25, 1, 0), (0.0, 40, 40)])
def test_loss_by_chance_is_not_named_one_way_and_loss_one_way_is_in_time(back: float, most: int, least: int) -> None:
    """Every probe is lost by itself, as a wire does it; somebody is told some 12 s after it began."""
    named = in_time = 0
    for seed in range(40):
        wire, rng, found = Wire(), random.Random(seed), set[str]()
        wire.pass_for(60)
        for second in range(0, 60, 2):
            there, back_ = (sum(rng.random() < share for _ in range(10)) / 10 for share in (0.25, back))
            found.add(wire.pass_for(2, there=there, back=back_, state="degraded").state)
            in_time += second == 10 and "one-way-loss" in found
        named += "one-way-loss" in found
    assert least <= named <= most
    assert in_time <= most
    assert in_time >= 0.9 * least


@pytest.mark.parametrize(("loses_now", "state"), [(0.5, "degraded"), (0.0, "one-way")])
def test_an_end_that_lost_a_whole_burst_makes_it_one_way_only_while_the_other_loses_nothing(
    wire: Wire, loses_now: float, state: str
) -> None:
    """The other end is degraded in both: by what it loses, or by what it lost a minute ago."""
    wire.pass_for(10, there=0.3, back=0.3, state="degraded", reason="15 of 40 lost")
    wire.says[A] = {"state": "down", "reason": "5 of 5 burst probes lost", "since_s": 4.0}
    verdict = wire.pass_for(8, there=0.3, back=0.3, state="degraded", reason="15 of 40 lost", loss_10s=loses_now)
    assert verdict.state == state
    assert "tokyo sees it degraded: " in verdict.reason
    assert "5 of 5 burst probes lost" in verdict.reason


def test_an_agent_that_does_not_count_is_judged_without(wire: Wire) -> None:
    assert wire.pass_for(60, there=0.2, state="degraded", sent=0, heard=0).state == "degraded"


def test_a_link_that_is_dead_one_way_is_one_way(wire: Wire) -> None:
    verdict = wire.pass_for(20, there=1.0, state="down")
    assert verdict.state == "one-way"
    assert "nothing gets from austin to tokyo" in verdict.reason
    assert wire.pass_for(20, there=1.0, back=1.0, state="down").state == "down"
    assert wire.pass_for(20).state == "up"


def test_tailscale_says_direct_and_no_packet_passes(wire: Wire) -> None:
    verdict = wire.pass_for(8, there=1.0, back=1.0, state="down", since_s=5.0, relay=Relay.DIRECT)
    assert verdict.state == "down", "it trusts a path for some seconds"
    wire.says[B] = {"relay": Relay.IDLE}
    verdict = wire.pass_for(20, there=1.0, back=1.0, state="down", since_s=30.0, relay=Relay.DIRECT)
    assert (verdict.state, verdict.severity) == ("direct-but-dead", Severity.CRITICAL)
    assert "austin's Tailscale calls tokyo direct, and no packet of ours passes" in verdict.reason
    assert wire.links.dead() == [PAIR]
    verdict = wire.pass_for(4, there=1.0, back=1.0, state="down", since_s=40.0, relay=Relay.IDLE)
    assert verdict.state == "down", "it says so no more"
    wire.says[B] = {}
    assert wire.pass_for(20).state == "up"


def test_a_step_of_the_round_trip_against_the_links_own(wire: Wire) -> None:
    assert wire.pass_for(10, rtt_s=0.21).state == "up", "not for long enough"
    verdict = wire.pass_for(20, rtt_s=0.21)
    assert (verdict.state, verdict.severity) == ("slow", Severity.WARNING)
    assert "round trip 38 ms → 210 ms" in verdict.reason
    assert wire.pass_for(30).state == "up"


def test_a_link_that_was_always_slow_is_not(wire: Wire) -> None:
    fresh = Wire()
    assert fresh.pass_for(600, rtt_s=0.21).state == "up"


def test_a_relay_tells_its_step(wire: Wire) -> None:
    verdict = wire.pass_for(30, rtt_s=0.21, relay=Relay.DERP)
    assert verdict.state == "relayed"
    assert "round trip 38 ms → 210 ms" in verdict.reason


def test_riding_the_backup_is_no_relay(wire: Wire) -> None:
    verdict = wire.pass_for(10, relay=Relay.RIDING_BACKUP)
    assert (verdict.state, verdict.severity) == ("riding-backup", Severity.WARNING)
    assert "not independent" in verdict.reason


def test_large_packets_that_get_lost_one_way(wire: Wire) -> None:
    wire.says[A] = {"large_lost_s": 20.0}
    verdict = wire.pass_for(4)
    assert (verdict.state, verdict.severity) == ("black-hole", Severity.CRITICAL)
    assert "from austin to tokyo" in verdict.reason
    wire.says[A] = {"large_lost_s": 20.0, "loss_10s": 0.3}
    assert wire.pass_for(4, state="degraded").state == "degraded", "they are lost like all others"
    wire.says[A] = {}
    assert wire.pass_for(4).state == "up"


def test_reordering(wire: Wire) -> None:
    verdict = wire.pass_for(40, late=0.2)
    assert verdict.state == "reordering"
    assert "what austin sends arrives at tokyo" in verdict.reason
    assert wire.pass_for(60).state == "up"


BUSY = {"system": system(runnable=25, load1=25.0)}


def test_a_peer_that_is_slow_since_it_is_overloaded(wire: Wire) -> None:
    wire.is_so[B] = BUSY
    verdict = wire.pass_for(10, state="degraded", reason="7% of the last minute's probes lost")
    assert verdict.state == "overloaded"
    assert verdict.reason.startswith("tokyo is slow to answer, since it is overloaded: its own report says load 25")
    wire.is_so[B] = {}
    assert wire.pass_for(10, state="degraded").state == "degraded"


def test_a_busy_peer_is_no_excuse_for_a_path_that_was_bad_before(wire: Wire) -> None:
    assert wire.pass_for(60, state="degraded").state == "degraded"
    wire.is_so[B] = BUSY
    assert wire.pass_for(10, state="degraded").state == "degraded"


def test_a_busy_peer_whose_link_is_well_is_none_of_the_links(wire: Wire) -> None:
    wire.is_so[B] = BUSY
    assert wire.pass_for(60).state == "up"


COUNTS = st.sampled_from((0, 1, 5, 1000, 2**63 - 1))
SAID = st.builds(
    Link,
    peer=st.just(B),
    path=st.just("overlay"),
    state=st.sampled_from(LinkState),
    since_s=st.sampled_from((0.0, 5.0, 1e12)),
    rtt_s=st.sampled_from((None, 0.0, 0.03, 0.3, 1e12)),
    loss_10s=st.sampled_from((None, 0.0, 0.5)),
    loss_60s=st.sampled_from((None, 0.0, 0.5, 1.0)),
    proven_s=st.sampled_from((None, 0.1)),
    relay=st.sampled_from((None, *Relay)),
    sent=COUNTS,
    heard=COUNTS,
    reordered=COUNTS,
    large_lost_s=st.sampled_from((None, None, 0.0, 1e12)),
)
STORY = st.lists(
    st.tuples(st.sampled_from(PAIR), SAID, st.sampled_from((0.0, 0.01, 2.0, 30.0, 1e6)), st.integers(-1, 2)),
    max_size=40,
)


@given(STORY)
def test_whatever_the_ends_say_it_says_the_same_twice_and_it_passes(story: list[Any]) -> None:
    worlds = World(A, B), World(A, B)
    links = [Links(world.config) for world in worlds]
    found: list[list[tuple[str, str]]] = [[], []]
    for (node, told, pause, ahead), (number, world) in itertools.product(story, enumerate(worlds)):
        world.pass_time(pause)
        world.seq[node] = max(world.seq[node] + ahead, 0)
        peer = B if node == A else A
        links_told = (link(peer, "overlay", told.state.value, **_fields(told)),)
        world.tell(report(node, world.seq[node], links=links_told))
        verdict = links[number].evaluate(world.fleet, world.now)[PAIR, "overlay"]
        found[number].append((verdict.state, verdict.reason))
    assert found[0] == found[1]
    # Whatever it was: a quarter of an hour of a good wire, and it is well.
    world = worlds[0]
    for count in range(450):
        world.pass_time(2.0)
        for name, peer in (PAIR, PAIR[::-1]):
            world.seq[name] += 1
            said = link(peer, rtt_s=0.0, loss_10s=0.0, loss_60s=0.0, sent=10 * count + 1, heard=10 * count + 1)
            world.tell(report(name, world.seq[name], session="new", links=(said,)))
        last = links[0].evaluate(world.fleet, world.now)[PAIR, "overlay"]
    assert last.state == "up", last.reason


def _fields(told: Link) -> dict[str, Any]:
    names = ("since_s", "rtt_s", "loss_10s", "loss_60s", "proven_s", "relay", "sent", "heard", "reordered")
    return {name: getattr(told, name) for name in (*names, "large_lost_s")}
