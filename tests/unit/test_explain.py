"""`why`: what is told of a pair is what decides about it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from unit.pair_world import BLIND, DEGRADED, DOWN, PAIR, SUSPECT, UP, World
from vagus_controller.config import Window
from vagus_controller.core.explain import explain
from vagus_controller.core.failover import Decision
from vagus_controller.views import CheckView
from vagus_protocol.messages import LinkState


def looked_at(world: World) -> dict[str, CheckView]:
    checks = explain(world.failover, world.fleet, world.situation, PAIR, world.now)
    found = {check.what: check for check in checks}
    assert len(found) == len(checks)
    return found


def test_a_pair_that_is_well_passes_everything() -> None:
    world = World()
    world.both()
    world.decide()
    checks = looked_at(world)
    assert checks["assigned"].text == "overlay (default)"
    assert "up for" in checks["overlay at a"].text
    assert "last reply" in checks["backup at b"].text
    assert {check.result for check in checks.values()} == {"pass", "info"}
    assert list(checks)[-10:] == [
        *("wish", "controller", "opt-out", "pause", "maintenance window", "limit of moves", "degraded share"),
        *("flap damping", "approval", "plan under way"),
    ]


def test_an_unproven_way_out_says_which_end_misses_what() -> None:
    world = World()
    world.both(DOWN, DOWN)
    world.decide()
    checks = looked_at(world)
    assert checks["overlay alive"].result == "block"
    assert "down at both ends" in checks["overlay alive"].text
    assert checks["backup proven"].result == "block"
    assert "a sees backup down" in checks["backup proven"].text
    assert checks["wish"].result == "block"


def test_each_guard_says_that_it_blocks_and_why() -> None:
    world = World(max_moves=0, windows=(Window(at="* 00:00-24:00", reason="new routers"),))
    world.controller, world.paused, world.wall = BLIND, "works", 1_800_000_000.0
    world.present("b", automatic=False)
    world.both(DOWN)
    checks = looked_at(world)
    expected = {
        "controller": "doubt",
        "opt-out": "b's own configuration forbids automatic moves",
        "pause": "paused: works",
        "maintenance window": "new routers",
        "limit of moves": "the limit",
    }
    for guard, words in expected.items():
        assert checks[guard].result == "block", guard
        assert words in checks[guard].text


def test_the_way_home_a_failed_trial_and_damping_say_when() -> None:
    world = World(failback_hold_s=60.0)
    world.both(DOWN)
    (away,) = world.decide()
    assert away.kind == "failover"
    world.pass_time(20)
    assert looked_at(world)["way home"].text == "overlay has been good for 19 s of 60 s"
    world.pass_time(39)
    (home,) = world.pass_time(2) or world.pass_time(1)
    assert home.kind == "failback"
    world.both(DOWN)
    world.failover.record(world.wishes()[0], world.now)
    assert looked_at(world)["wish"].text == "none while a move is on trial"
    assert "on trial; overlay is what it goes back to" in looked_at(world)["assigned"].text
    world.failover.rolled_back(PAIR, "b had no echo", world.now)
    world.now += 4
    world.both(DOWN)
    checks = looked_at(world)
    assert checks["backup trials"].text == "failed its last trial, 4.0 s ago: b had no echo; tried again in 6.0 s"
    assert checks["backup proven"].result == "block"
    assert checks["flap damping"].result == "pass"  # what leaves a dead path is not damped
    assert "moves again in" in checks["flap damping"].text


def test_it_says_who_must_approve_and_what_it_waits_for() -> None:
    world = World(mode="recommend", failback_hold_s=0.0)
    world.both(DOWN)
    world.busy = "plan 3"
    checks = looked_at(world)
    assert "failover.mode is recommend" in checks["approval"].text
    assert checks["plan under way"].result == "pass"
    world.both()
    assert looked_at(world)["plan under way"].text == "waits for the plan under way: plan 3"


STATES = st.sampled_from([UP, DOWN, DEGRADED, SUSPECT, LinkState.UNKNOWN])


@given(
    st.lists(st.tuples(st.sampled_from("ab"), STATES, STATES, st.integers(0, 40)), max_size=25),
    st.sampled_from(["", "works"]),
    st.sampled_from(["", "plan 3"]),
    st.booleans(),
    st.integers(0, 3),
)
def test_what_is_told_is_what_is_decided_and_telling_changes_nothing(
    words: list[tuple[str, LinkState, LinkState, int]], paused: str, busy: str, automatic: bool, max_moves: int
) -> None:
    world = World(failback_hold_s=10.0, max_moves=max_moves)
    world.paused, world.busy = paused, busy
    world.present("a", automatic=automatic)
    for node, overlay, backup, wait in words:
        world.now += wait
        world.say(node, overlay, backup)
        # Taken in by an evaluation whose decisions nobody carries out.
        wished = {decision.pair: decision for decision in world.wishes()}.get(PAIR)
        before = msgspec.json.encode(world.failover.snapshot(world.now))
        checks = looked_at(world)
        assert checks == looked_at(world)
        assert before == msgspec.json.encode(world.failover.snapshot(world.now))
        guards = list(checks)[list(checks).index("controller") :]
        blocked = [what for what in guards if checks[what].result == "block"]
        if wished is not None and wished.moves:
            assert not blocked
            assert checks["wish"].text.startswith(f"{wished.kind} to {wished.path}")
            assert checks[f"{wished.path} proven"].result == "pass"
            carry_out(world, wished)
        elif " to " in checks["wish"].text.split(":")[0] and not checks["wish"].text.startswith("to stay"):
            assert blocked


def carry_out(world: World, decision: Decision) -> None:
    world.failover.record(decision, world.now)
    world.failover.confirmed(decision.pair, world.now)
