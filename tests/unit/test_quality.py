"""Degraded and relayed paths: what counts as trouble, when another path is better, and what is done about it."""

from __future__ import annotations

import collections
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.fleet_builders import World as Many
from unit.fleet_builders import link, presence
from unit.pair_world import BLIND, CONNECTED, DOWN, HEALTHY, PAIR, UP, World
from vagus_controller.config import Failover as Settings
from vagus_controller.config import Quality
from vagus_controller.core.failover import Decision, Failover, Situation
from vagus_controller.core.quality import Reading
from vagus_protocol.messages import PathOffer, PeerOffer, Relay

AUTO = Quality(mode="auto", members="auto")
# Two paths that are much alike, and what may be wrong with one.
WELL = {"rtt_s": 0.040, "jitter_s": 0.001, "loss_10s": 0.0, "loss_60s": 0.0}
OTHER = {"rtt_s": 0.045, "jitter_s": 0.001, "loss_10s": 0.0, "loss_60s": 0.0}
TROUBLE: dict[str, dict[str, object]] = {
    "loses": {"loss_10s": 0.2, "loss_60s": 0.15},
    "round trip": {"rtt_s": 0.160},
    "jitters": {"jitter_s": 0.080},
    "relayed": {"relay": Relay.DERP, "rtt_s": 0.120},
}


def measured(quality: Quality = AUTO, **failover: object) -> World:
    """A pair on its overlay, whose paths have been well for long enough to know what is usual."""
    world = World(quality=quality, **failover)
    world.figures = {"overlay": dict(WELL), "backup": dict(OTHER)}
    world.pass_time(200)
    assert world.path == "overlay"
    return world


def kinds(decided: list[Decision]) -> list[str]:
    return [decision.kind for decision in decided]


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_path_in_trouble_is_left_for_a_better_one_after_a_while_and_not_before(trouble: str) -> None:
    world = measured()
    world.figures["overlay"] |= TROUBLE[trouble]
    assert kinds(world.pass_time(AUTO.for_s - 1)) == []
    (decision,) = world.pass_time(5)
    assert (decision.kind, decision.path, decision.degraded, decision.urgent) == ("failover", "backup", True, False)
    assert trouble in decision.reason
    assert "better by the margin" in decision.reason
    assert any(line.startswith("overlay: round trip") for line in decision.evidence)
    assert any("99 of 100 messages within" in line for line in decision.evidence)


@pytest.mark.parametrize("trouble", TROUBLE)
def test_it_goes_home_when_the_trouble_is_over(trouble: str) -> None:
    world = measured(failback_hold_s=60.0)
    world.figures["overlay"] |= TROUBLE[trouble]
    world.pass_time(AUTO.for_s + 5)
    assert world.path == "backup"
    assert kinds(world.pass_time(300)) == []
    world.figures["overlay"] = dict(WELL, relay=Relay.DIRECT)
    assert kinds(world.pass_time(59)) == []
    assert kinds(world.pass_time(5)) == ["failback"]


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_burst_is_no_trouble(trouble: str) -> None:
    world = measured()
    for _ in range(10):
        world.figures["overlay"] = WELL | TROUBLE[trouble]
        assert kinds(world.pass_time(10)) == []
        world.figures["overlay"] = dict(WELL)
        assert kinds(world.pass_time(20)) == []


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_backup_in_the_same_trouble_is_no_way_out(trouble: str) -> None:
    world = measured()
    for path, figures in (("overlay", WELL), ("backup", OTHER)):
        world.figures[path] = figures | TROUBLE[trouble]
    assert kinds(world.pass_time(300)) == []


def test_a_backup_that_is_only_a_little_better_is_no_way_out() -> None:
    world = measured()
    world.figures["overlay"] |= {"rtt_s": 0.090}
    world.figures["backup"] |= {"rtt_s": 0.075}
    assert kinds(world.pass_time(120)) == []


def test_a_backup_that_loses_is_no_way_out_of_a_relay() -> None:
    world = measured()
    world.figures["overlay"] |= {"rtt_s": 0.9, "relay": Relay.DERP}
    world.figures["backup"] |= {"loss_10s": 0.06, "loss_60s": 0.06}
    assert kinds(world.pass_time(120)) == []


def test_a_backup_that_is_not_proven_is_no_way_out_however_fast() -> None:
    world = measured()
    world.figures["overlay"] |= TROUBLE["loses"]
    world.figures["backup"] |= {"proven_s": 30.0}
    assert kinds(world.pass_time(120)) == []


def test_by_default_a_person_decides_and_it_is_told_once() -> None:
    world = measured(Quality())
    world.figures["overlay"] |= TROUBLE["loses"]
    told = world.pass_time(120)
    assert kinds(told) == ["recommend"]
    assert world.path == "overlay"
    assert world.failover.stuck() == []  # a degraded path is no emergency
    world.figures["overlay"] = dict(WELL)
    world.pass_time(60)
    assert world.failover.waiting(PAIR) is None


def test_off_is_off() -> None:
    world = measured(Quality(mode="off", members="off"))
    world.figures["overlay"] |= TROUBLE["loses"] | TROUBLE["relayed"]
    assert kinds(world.pass_time(300)) == []
    world.both(DOWN)
    assert world.kinds() == ["failover"]


def test_a_person_s_switchover_is_left_alone() -> None:
    world = measured()
    by_hand = Decision(kind="switchover", pair=PAIR, path="backup", origin="operator", reason="works", was="overlay")
    world.failover.record(by_hand, world.now)
    world.failover.confirmed(PAIR, world.now)
    world.figures["backup"] |= TROUBLE["loses"]
    assert kinds(world.pass_time(300)) == []


def test_a_person_s_failback_is_not_undone_at_once_by_old_trouble() -> None:
    world = measured()
    world.figures["overlay"] |= TROUBLE["loses"]
    world.pass_time(AUTO.for_s + 5)
    assert world.path == "backup"
    by_hand = Decision(kind="failback", pair=PAIR, path="overlay", origin="default", reason="mended", was="backup")
    world.failover.record(by_hand, world.now)
    world.failover.confirmed(PAIR, world.now)
    assert kinds(world.pass_time(AUTO.for_s - 1)) == []
    assert kinds(world.pass_time(5)) == ["failover"]


def test_members_move_sooner_by_etcd_s_timers_and_by_default() -> None:
    world = World()
    world.members = frozenset(PAIR)
    world.figures = {"overlay": WELL | {"rtt_s": 0.120}, "backup": dict(OTHER)}
    assert kinds(world.pass_time(9)) == []
    (decision,) = world.pass_time(5)
    assert decision.kind == "failover"
    assert "etcd members, whose timers bear 100 ms" in decision.reason


@pytest.mark.parametrize(
    ("heartbeat_s", "election_s", "moves"), [(0.1, 1.0, True), (0.3, 3.0, False), (0.05, 3.0, True)]
)
def test_what_members_bear_follows_from_their_timers(heartbeat_s: float, election_s: float, moves: bool) -> None:
    world = World(quality=Quality(etcd_heartbeat_s=heartbeat_s, etcd_election_s=election_s))
    world.members = frozenset(PAIR)
    world.figures = {"overlay": WELL | {"rtt_s": 0.120}, "backup": dict(OTHER)}
    assert bool(world.pass_time(60)) == moves


def test_half_the_loss_is_trouble_between_members() -> None:
    for members in (True, False):
        world = measured()
        world.members = frozenset(PAIR) if members else frozenset()
        world.figures["overlay"] |= {"loss_10s": 0.03, "loss_60s": 0.03}
        assert bool(world.pass_time(120)) == members


def test_of_a_path_that_has_not_carried_for_long_chance_makes_more() -> None:
    """4.6 points of loss are beyond chance in a minute of probes, and not in half of one."""
    world = World(quality=AUTO)
    world.figures = {"overlay": WELL | {"loss_10s": 0.05, "loss_60s": 0.056}, "backup": OTHER | {"loss_60s": 0.01}}
    assert kinds(world.pass_time(AUTO.for_s + 5)) == []
    assert kinds(world.pass_time(60)) == ["failover"]


def test_an_interval_that_no_agent_has_is_survived() -> None:
    world = Many("a", "b")
    for node, peer in (PAIR, PAIR[::-1]):
        offers = tuple(PathOffer(name=path, idle_interval_s=5e-324) for path in ("overlay", "backup"))
        world.tell(presence(node, peer, paths=offers))
    policy = Failover(Settings(quality=AUTO))
    for _ in range(3):
        world.pass_time(2.0)
        for node, peer in (PAIR, PAIR[::-1]):
            world.report(node, links=tuple(link(peer, path, rtt_s=0.01) for path in ("overlay", "backup")))
        policy.quality.observe(world.fleet, PAIR, ["overlay", "backup"], "overlay", False, world.now)
    assert policy.quality.reading(PAIR, "overlay") is not None


def test_equal_loss_on_both_paths_moves_nobody_whatever_chance_makes_of_it() -> None:
    """5 % each way on both paths for two hours, between members: windows of 300 probes differ by chance."""
    world = measured()
    world.members = frozenset(PAIR)
    dice = random.Random(1)
    fates: dict[str, collections.deque[bool]] = {path: collections.deque(maxlen=300) for path in ("overlay", "backup")}
    moves = []
    for _ in range(3600):
        for path, window in fates.items():
            window.extend(dice.random() < 1 - 0.95**2 for _ in range(10))
            loss_10s = sum(list(window)[-50:]) / 50
            world.figures[path] |= {"loss_10s": loss_10s, "loss_60s": sum(window) / len(window)}
        moves += world.pass_time(2)
    assert moves == []


def test_what_is_slow_from_the_start_is_usual() -> None:
    world = World(quality=AUTO)
    world.figures = {"overlay": WELL | {"rtt_s": 0.180}, "backup": dict(OTHER)}
    assert kinds(world.pass_time(600)) == []


def test_a_slower_route_becomes_usual_only_over_hours() -> None:
    world = measured()
    world.figures["backup"] |= {"rtt_s": 0.100}
    world.figures["overlay"] |= {"rtt_s": 0.100}
    quality = world.failover.quality
    world.pass_time(60)
    assert quality.troubles(PAIR, "overlay")
    world.pass_time(3600)
    assert quality.troubles(PAIR, "overlay")
    world.pass_time(6 * 3600)
    assert quality.troubles(PAIR, "overlay") == ()


def test_a_home_that_is_still_relayed_is_not_gone_home_to_while_the_backup_is_better() -> None:
    world = measured(failback_hold_s=10.0)
    world.pass_time(5, DOWN)
    assert world.path == "backup"
    world.figures["overlay"] |= TROUBLE["relayed"]
    assert kinds(world.pass_time(120)) == []
    world.figures["backup"] |= {"rtt_s": 0.3}
    assert kinds(world.pass_time(30)) == ["failback"]


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.02, 0.05, 0.1, 0.3, 0.9])
def test_reach_is_the_round_trip_and_the_wait_for_what_is_sent_again(loss: float) -> None:
    reading = Reading(rtt_s=0.05, jitter_s=0.0, loss_10s=loss, loss_60s=loss, relayed=False)
    if loss <= 0.01:
        assert reading.reach_s == 0.05
    elif loss == 0.1:
        assert reading.reach_s == pytest.approx(0.05 + 0.2)  # sent twice: one wait
    else:
        assert reading.reach_s > 0.05


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1e-4, 10), st.floats(0, 5))
def test_reach_never_falls_with_loss_or_time(one: float, other: float, rtt_s: float, jitter_s: float) -> None:
    less, more = sorted((one, other))
    low = Reading(rtt_s, jitter_s, less, less, relayed=False)
    high = low._replace(loss_60s=more)
    assert 0 < low.reach_s <= high.reach_s <= math.inf
    assert high._replace(rtt_s=rtt_s * 2).reach_s >= high.reach_s


# --- many pairs at once ------------------------------------------------------------------------------------------


def calm_situation() -> Situation:
    return Situation(
        controller=CONNECTED,
        quorum=HEALTHY,
        quorum_lost_since=None,
        members=frozenset(),
        links={},
        paused=lambda node: "",
    )


def fleet_in_trouble(share: float, count: int = 9) -> tuple[list[Decision], int]:
    """All decisions of two minutes in a fleet where that share of the pairs loses packets on the overlay, and how many
    pairs there are."""
    many = Many(*(f"n{index}" for index in range(count)))
    failover = Failover(Settings(quality=AUTO, max_moves=10_000))
    pairs = [(a, b) for a in many.names for b in many.names if a < b]
    bad = set(pairs[: round(share * len(pairs))])
    situation = calm_situation()
    decided = []
    for second in range(0, 320, 2):
        for name in many.names:
            told = []
            for peer in many.peers(name):
                worse = TROUBLE["loses"] if second > 200 and tuple(sorted((name, peer))) in bad else {}
                told += [link(peer, "overlay", **(WELL | worse)), link(peer, "backup", **OTHER)]
            many.report(name, links=tuple(told))
        now = many.pass_time(2.0)
        for decision in failover.evaluate(many.fleet, situation, now, failover.restless(many.fleet)):
            decided.append(decision)
            if decision.moves:
                failover.record(decision, now)
                failover.confirmed(decision.pair, now)
    return decided, len(pairs)


def test_few_pairs_in_trouble_move() -> None:
    decided, pairs = fleet_in_trouble(0.2)
    assert kinds(decided) == ["failover"] * round(0.2 * pairs)


def test_when_too_many_would_move_on_degraded_evidence_none_does_and_it_says_so() -> None:
    decided, pairs = fleet_in_trouble(0.6)
    assert {decision.kind for decision in decided} == {"hold"}
    assert f"of {pairs} pairs would move or moved on degraded evidence alone" in decided[-1].reason
    assert "one cause" in decided[-1].reason


def test_one_pair_may_always_move_however_small_the_fleet() -> None:
    decided, _ = fleet_in_trouble(0.4, count=3)
    assert kinds(decided) == ["failover"]


# --- any schedule ------------------------------------------------------------------------------------------------

FIGURES = st.fixed_dictionaries(
    {
        "rtt_s": st.sampled_from([None, 0.001, 0.04, 0.09, 0.4, 3.0]),
        "jitter_s": st.sampled_from([None, 0.0, 0.02, 0.2]),
        "loss_10s": st.sampled_from([None, 0.0, 0.1, 1.0]),
        "loss_60s": st.sampled_from([None, 0.0, 0.03, 0.3, 1.0]),
        "relay": st.sampled_from([None, *Relay]),
    }
)
STATES = st.sampled_from([UP, UP, UP, DOWN])


@given(
    st.lists(st.tuples(FIGURES, FIGURES, STATES, STATES, st.integers(1, 90)), max_size=30),
    st.booleans(),
    st.sampled_from(["", "blind", "paused"]),
)
def test_whatever_the_figures_degraded_moves_are_few_and_only_to_what_is_up(
    story: list[tuple[dict[str, object], dict[str, object], object, object, int]], members: bool, forbidden: str
) -> None:
    world = World(quality=Quality(mode="auto", for_s=5.0), failback_hold_s=0.0)
    world.members = frozenset(PAIR) if members else frozenset()
    world.controller = BLIND if forbidden == "blind" else CONNECTED
    world.paused = forbidden if forbidden == "paused" else ""
    calm = []
    for overlay, backup, overlay_is, backup_is, lasts in story:
        world.figures = {"overlay": overlay, "backup": backup}
        for _ in range(lasts):
            world.now += 1
            world.both(overlay_is, backup_is)  # type: ignore[arg-type]
            for decision in world.decide():
                if decision.moves:
                    assert not forbidden
                    assert (overlay_is, backup_is)[decision.path == "backup"] is UP
                    if not decision.urgent:
                        calm.append(world.now)
    # The story is shorter than an hour; see test_damping.py for where the bound comes from.
    assert len(calm) <= 21


def test_of_several_better_paths_the_best_is_taken_and_of_the_proven_ones_only() -> None:
    paths = ("overlay", "backup", "lte", "fibre")
    figures = {
        "overlay": WELL | TROUBLE["loses"],
        "backup": OTHER | {"rtt_s": 0.2},
        "lte": OTHER | {"rtt_s": 0.1},
        "fibre": OTHER | {"rtt_s": 0.01, "proven_s": 40.0},
    }
    many = Many("a", "b")
    for node, peer in (PAIR, PAIR[::-1]):
        offers = (PeerOffer(name=peer, addresses=(), paths=paths),)
        many.tell(presence(node, peers=offers, paths=tuple(PathOffer(name=path) for path in paths), site="x"))
    failover = Failover(Settings(quality=AUTO))
    situation = calm_situation()
    decided = []
    for _ in range(40):
        for node, peer in (PAIR, PAIR[::-1]):
            many.report(node, links=tuple(link(peer, path, **figures[path]) for path in paths))
        now = many.pass_time(2.0)
        decided += failover.evaluate(many.fleet, situation, now, [PAIR])
        if decided:
            break
    assert [(decision.kind, decision.path) for decision in decided] == [("failover", "lte")]
