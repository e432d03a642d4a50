"""Flap damping and the hold before failback, in virtual time."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.pair_world import DEGRADED, DOWN, PAIR, SUSPECT, UP, World
from vagus_controller import config
from vagus_controller.core.damping import DEATH_PENALTY, MOVE_PENALTY, Damping, ceiling
from vagus_controller.core.failover import Decision, Failover, Memory
from vagus_controller.core.verdict import Verdict
from vagus_controller.views import Severity
from vagus_protocol.messages import LinkState

SETTINGS = config.Damping()


def moves(decided: list[Decision]) -> list[Decision]:
    return [decision for decision in decided if decision.moves]


@pytest.mark.parametrize("failback_hold_s", [60.0, 5.0, 0.0])
@pytest.mark.parametrize("half_cycle_s", [20, 40])
def test_a_link_that_flaps_for_an_hour_settles_on_the_backup(half_cycle_s: int, failback_hold_s: float) -> None:
    world = World(failback_hold_s=failback_hold_s)
    world.pass_time(60)
    decided: list[tuple[float, Decision]] = []
    began = world.now
    while world.now - began < 3600:
        for state in (DOWN, UP):
            decided += [(world.now, decision) for decision in moves(world.pass_time(half_cycle_s, state))]
    assert world.path == "backup"
    assert len(decided) <= 3
    assert all(at - began <= 4 * half_cycle_s for at, _ in decided)
    assert world.failover.damping.reusable_in(PAIR, world.now) > 0


def test_it_goes_home_when_the_flapping_is_over_and_says_until_then_why_not() -> None:
    world = World(failback_hold_s=5.0)
    for _ in range(45):
        world.pass_time(20, DOWN)
        world.pass_time(20, UP)
    left = world.failover.damping.reusable_in(PAIR, world.now)
    assert 0 < left <= SETTINGS.longest_s
    quiet = world.pass_time(left - 5)
    assert moves(quiet) == []
    told = world.failover.waiting(PAIR)
    assert told is not None
    assert "damped" in told.reason
    assert "moves again in" in told.reason
    assert [decision.kind for decision in moves(world.pass_time(30))] == ["failback"]


def test_one_outage_is_not_damped() -> None:
    world = World(failback_hold_s=60.0)
    assert [decision.kind for decision in moves(world.pass_time(30, DOWN))] == ["failover"]
    assert [decision.kind for decision in moves(world.pass_time(62, UP))] == ["failback"]


def test_a_damped_pair_of_members_leaves_an_impaired_path_when_quorum_is_lost_and_no_other_pair_does() -> None:
    for quorum in (False, True):
        world = World(failback_hold_s=0.0, quorum_lost_for_s=3.0)
        for _ in range(30):
            world.pass_time(3, DOWN)
            world.pass_time(3, UP)
        assert world.path == "backup"
        assert world.failover.damping.reusable_in(PAIR, world.now) > 60
        impaired = Verdict("link", "a--b/backup", "degraded", Severity.WARNING, "loss 30 %", (), world.now)
        world.links[PAIR, "backup"] = impaired
        if quorum:
            world.quorum_lost_since = world.now
        early, late = moves(world.pass_time(2, UP, DEGRADED)), moves(world.pass_time(3, UP, DEGRADED))
        assert early == []
        assert [decision.path for decision in late] == (["overlay"] if quorum else [])
        assert world.path == ("overlay" if quorum else "backup")


def test_a_damped_pair_leaves_a_dead_path_at_once() -> None:
    world = World(failback_hold_s=0.0)
    for _ in range(30):
        world.pass_time(3, DOWN)
        world.pass_time(3, UP)
    assert world.path == "backup"
    assert world.failover.damping.reusable_in(PAIR, world.now) > 0
    for overlay, backup, path in ((UP, DOWN, "overlay"), (DOWN, UP, "backup"), (DEGRADED, DOWN, "overlay")):
        world.now += 1
        world.both(overlay, backup)
        (decision,) = world.decide()
        assert (decision.urgent, decision.path, world.path) == (True, path, path)


def test_the_hold_doubles_with_each_failback_that_does_not_last_and_is_forgotten_by_one_that_does() -> None:
    world = World(failback_hold_s=10.0, damping=config.Damping(half_life_s=1.0))
    for hold in (10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600):
        world.pass_time(5, DOWN)
        assert world.path == "backup"
        assert moves(world.pass_time(hold - 1, UP)) == []
        assert [decision.kind for decision in moves(world.pass_time(3, UP))] == ["failback"]
    world.pass_time(3601, UP)
    world.pass_time(5, DOWN)
    assert [decision.kind for decision in moves(world.pass_time(12, UP))] == ["failback"]


def test_a_failback_that_is_taken_back_is_none_that_did_not_last() -> None:
    world = World(failback_hold_s=10.0, damping=config.Damping(half_life_s=1.0))
    world.pass_time(5, DOWN)
    world.pass_time(10)
    world.now += 2
    world.both()
    (home,) = world.wishes()
    world.failover.record(home, world.now)
    world.failover.rolled_back(PAIR, "no echo", world.now)
    assert world.path == "backup"
    world.pass_time(15, DOWN)
    assert world.failover.damping.hold_s(PAIR) == 10.0
    assert [decision.kind for decision in moves(world.pass_time(12))] == ["failback"]


def test_deaths_of_home_count_only_when_it_had_been_well() -> None:
    world = World(failback_hold_s=60.0)
    world.pass_time(1, DOWN)
    before = world.failover.damping.penalty(PAIR, world.now)
    world.pass_time(5, DOWN)
    assert world.failover.damping.penalty(PAIR, world.now) < before
    world.pass_time(5, UP)
    world.pass_time(1, DOWN)
    assert world.failover.damping.penalty(PAIR, world.now) > before


def test_a_person_s_moves_cost_nothing() -> None:
    world = World()
    world.both()
    for path in ("backup", "overlay") * 10:
        by_hand = Decision(kind="switchover", pair=PAIR, path=path, origin="operator", reason="works", was=world.path)
        world.failover.record(by_hand, world.now)
        world.failover.confirmed(PAIR, world.now)
    assert world.failover.damping.penalty(PAIR, world.now) == 0


def test_a_restart_forgets_nothing() -> None:
    world = World(failback_hold_s=5.0, max_moves=7)
    for _ in range(3):
        world.pass_time(20, DOWN)
        world.pass_time(20, UP)
    saved = msgspec.json.encode(world.failover.snapshot(world.now))
    other = Failover(world.failover.settings)
    # Another life of the machine: its monotonic clock begins anew.
    other.restore(msgspec.json.decode(saved, type=Memory), 3.0)
    before, after = world.failover.damping, other.damping
    assert after.penalty(PAIR, 3.0) == pytest.approx(before.penalty(PAIR, world.now))
    assert after.reusable_in(PAIR, 3.0) == pytest.approx(before.reusable_in(PAIR, world.now))
    assert after.reusable_in(PAIR, 3.0) > 0
    assert after.hold_s(PAIR) == before.hold_s(PAIR) == 10.0
    assert len(other.snapshot(3.0).moves_s) == len(world.failover.snapshot(world.now).moves_s) > 0
    assert other.snapshot(3.0) == world.failover.snapshot(world.now)


def test_what_is_over_is_not_kept() -> None:
    damping = Damping(SETTINGS, 60.0)
    damping.moved(PAIR, 0.0, home=False)
    damping.moved(PAIR, 100.0, home=True)
    assert damping.snapshot(200.0)
    assert damping.snapshot(100.0 + SETTINGS.longest_hold_s + 3600) == {}


@given(
    st.lists(st.tuples(st.sampled_from(["home", "away", "death"]), st.floats(0, 4000, allow_nan=False)), max_size=80),
    st.sampled_from([SETTINGS, config.Damping(half_life_s=900.0), config.Damping(longest_s=700.0)]),
)
def test_a_penalty_is_bounded_decays_and_is_never_damped_for_longer_than_it_says(
    story: list[tuple[str, float]], chosen: config.Damping
) -> None:
    damping = Damping(chosen, 60.0)
    now = 0.0
    for what, wait in story:
        now += wait
        before = damping.penalty(PAIR, now)
        if what == "death":
            damping.died(PAIR, now)
        else:
            damping.moved(PAIR, now, home=what == "home")
        cost = DEATH_PENALTY if what == "death" else MOVE_PENALTY
        assert damping.penalty(PAIR, now) == pytest.approx(min(before + cost, ceiling(chosen)))
        left = damping.reusable_in(PAIR, now)
        assert 0 <= left <= chosen.longest_s + 1e-6
        assert (left > 0) or damping.penalty(PAIR, now) <= chosen.suppress
        assert damping.reusable_in(PAIR, now + left + 1e-3) == 0
        if left > 2:
            assert damping.reusable_in(PAIR, now + 1) == pytest.approx(left - 1)
        assert 60.0 <= damping.hold_s(PAIR) <= chosen.longest_hold_s


STATES = st.sampled_from([UP, DOWN, DEGRADED, SUSPECT, LinkState.UNKNOWN])


@given(st.lists(st.tuples(STATES, STATES, st.integers(1, 90)), max_size=60), st.integers(1, 12))
def test_under_any_schedule_the_moves_of_a_pair_are_bounded_by_the_limit_and_leave_nothing_alive_in_haste(
    story: list[tuple[LinkState, LinkState, int]], max_moves: int
) -> None:
    world = World(failback_hold_s=0.0, max_moves=max_moves, moves_window_s=3600.0)
    made: list[float] = []
    for overlay, backup, lasts in story:
        for _ in range(lasts):
            world.now += 1
            world.both(overlay, backup)
            for decision in moves(world.decide()):
                made.append(world.now)
                assert (overlay, backup)[decision.path == "backup"] in (UP, DEGRADED)
                if decision.urgent:
                    assert (overlay, backup)[decision.was == "backup"] is DOWN
    assert all(sum(begin <= at < begin + 3600 for at in made) <= max_moves for begin in made)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 300)), min_size=1, max_size=8))
def test_however_a_path_comes_and_goes_a_pair_moves_few_times_an_hour(cycles: list[tuple[int, int]]) -> None:
    """With damping alone: no hold before failback, and none that doubles."""
    world = World(failback_hold_s=0.0, max_moves=100_000, damping=config.Damping(longest_hold_s=0.0))
    made: list[float] = []
    began = world.now
    while world.now - began < 1.5 * 3600:
        for down, up in cycles:
            for state in [DOWN] * down + [UP] * up:
                world.now += 2
                world.both(state)
                made += [world.now for decision in world.decide() if decision.moves]
    # Free with at most `suppress`, a pair is damped by the third move; it is free again below `reuse`, 425 s of decay
    # later at the soonest, and damped by the second move then.
    most = 3 + 2 * math.ceil(3600 / (SETTINGS.half_life_s * math.log2(SETTINGS.suppress / SETTINGS.reuse)))
    assert all(sum(begin <= at < begin + 3600 for at in made) <= most for begin in made)
