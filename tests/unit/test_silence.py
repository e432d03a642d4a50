"""When the observer is the one in trouble: nothing is told, and nothing is done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.incident_world import IncidentWorld

CITIES = {"austin": ("austin-1", "austin-2"), "tokyo": ("tokyo-1",), "berlin": ("berlin-1",)}
MEMBERS = ("austin-1", "berlin-1", "tokyo-1")


def quiet(world: IncidentWorld) -> None:
    assert world.told == [], [each.title for each in world.told]
    assert all(intent.path == "overlay" for intent in world.failover.intents.values())


def deaf(world: IncidentWorld, seconds: float) -> None:
    """The controller hears nobody for so long, and knows it."""
    world.fleet.on_session(False, world.now, "the broker closed the connection")
    world.mute = set(world.names)
    world.run(seconds)
    world.fleet.on_session(True, world.now, "connected again")
    world.mute = set()


@pytest.mark.parametrize("seconds", [1.0, 5.0, 20.0])
def test_a_broker_that_restarts(seconds: float) -> None:
    world = IncidentWorld(CITIES, members=MEMBERS)
    deaf(world, seconds)
    world.run(60.0)
    quiet(world)


def test_agents_that_come_back_one_after_the_other() -> None:
    world = IncidentWorld(CITIES, members=MEMBERS)
    deaf(world, 5.0)
    world.mute = set(world.names)
    for name in world.names:
        world.run(2.0)
        world.mute.discard(name)
    world.run(60.0)
    quiet(world)


def test_a_controller_that_restarts() -> None:
    world = IncidentWorld(CITIES, members=MEMBERS)
    world.restart()
    world.run(60.0)
    quiet(world)


@pytest.mark.parametrize("seconds", [10.0, 3600.0, 86_400.0])
def test_a_laptop_that_sleeps(seconds: float) -> None:
    """Its monotonic clock goes on, as on some systems; what it hears first was said while it slept."""
    world = IncidentWorld(CITIES, members=MEMBERS)
    world.world.pass_time(seconds)
    world.fleet.on_sleep(seconds, world.now)
    world.run(60.0)
    quiet(world)


@pytest.mark.parametrize("step", [-86_400.0, -30.0, 30.0, 86_400.0 * 365])
def test_a_wall_clock_that_jumps(step: float) -> None:
    world = IncidentWorld(CITIES, members=MEMBERS)
    world.incidents.tick(world.now, 1_900_000_000.0 + step)
    world.run(60.0)
    quiet(world)
    world.down = {"tokyo-1"}
    world.run(40.0)
    assert world.the_one().duration_s < 60.0, "durations are of the monotonic clock"


def test_a_blind_controller_says_that_and_nothing_else() -> None:
    world = IncidentWorld(CITIES, members=MEMBERS)
    world.mute = set(world.names)
    world.run(120.0)
    assert world.titles == ["the controller is blind"]
    assert any("another controller" in doubt for doubt in world.the_one().doubts)
    world.mute = set()
    world.run(120.0)
    assert {each.cause.kind for each in world.told} == {"controller"}


@given(st.lists(st.tuples(st.sampled_from(("deaf", "restart", "sleep", "run")), st.floats(0.5, 25.0)), max_size=5))
def test_whatever_happens_to_the_observer_alone(story: list[tuple[str, float]]) -> None:
    world = IncidentWorld(CITIES, members=MEMBERS)
    for what, seconds in story:
        if what == "deaf":
            deaf(world, seconds)
        elif what == "restart":
            world.restart()
        elif what == "sleep":
            world.world.pass_time(seconds)
            world.fleet.on_sleep(seconds, world.now)
        world.run(round(seconds * 2) / 2 if what == "run" else 30.0)
    world.run(60.0)
    assert {each.cause.kind for each in world.told} <= {"controller"}
    assert world.open == ()
