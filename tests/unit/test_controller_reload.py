"""The controller's configuration, read again: what counts at once, what waits, and what is not forgotten."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from unit import fleet_builders as build
from unit.pair_world import DOWN, UP, World
from unit.test_brain import HOLD_S, Floor
from unit.test_load import Machine
from vagus_controller import config
from vagus_controller.config import Config
from vagus_controller.core.brain import TICK_S
from vagus_controller.core.reload import plan

RUNNING = Config(fleet="f", name="c", mqtt=config.Mqtt(brokers=()), fleet_key_file="/k")

AT_ONCE: dict[str, dict[str, Any]] = {
    "liveness.silent_intervals": {"liveness": config.Liveness(silent_intervals=9.0)},
    "load.enter_per_core": {"load": config.Load(enter_per_core=3.0)},
    "failover.mode": {"failover": config.Failover(mode="recommend")},
    "failover.damping.half_life_s": {"failover": config.Failover(damping=config.Damping(half_life_s=9.0))},
    "failover.windows": {"failover": config.Failover(windows=(config.Window(at="* 03:00-04:00", reason="backup"),))},
    "drill.schedule": {"drill": config.Drill(schedule="0 4 * * 0")},
    "notify.channel": {"notify": config.Notify(channel=(config.Channel(name="ops", url="json://x"),))},
    "log_level": {"log_level": "debug"},
}
LATER: dict[str, dict[str, Any]] = {
    "fleet": {"fleet": "g"},
    "name": {"name": "d"},
    "mqtt.username": {"mqtt": config.Mqtt(brokers=(), username="a")},
    "fleet_key_file": {"fleet_key_file": "/other"},
    "failover.quality.mode": {"failover": config.Failover(quality=config.Quality(mode="auto"))},
    "nodes": {"nodes": ("a",)},
    "http.port": {"http": config.Http(port=1)},
    "http.oidc": {"http": config.Http(oidc=config.Oidc(issuer="i", client_id="c"))},
    "store.url": {"store": config.Store(url="sqlite:///x")},
    "history.max_mb": {"history": config.History(max_mb=1.0)},
    "home_assistant.enabled": {"home_assistant": config.HomeAssistant(enabled=True)},
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_this_counts_at_once(name: str) -> None:
    read = replace(RUNNING, **AT_ONCE[name])
    assert plan(RUNNING, read) == (read, (name,), ())


@pytest.mark.parametrize("name", LATER)
def test_this_needs_a_restart_and_is_told_by_its_name(name: str) -> None:
    assert plan(RUNNING, replace(RUNNING, **LATER[name])) == (RUNNING, (), (name,))


def test_every_table_is_one_or_the_other() -> None:
    told = {name.partition(".")[0] for name in (*AT_ONCE, *LATER)}
    assert told == {field.name for field in msgspec.structs.fields(Config)}


def test_of_a_file_with_both_each_is_told() -> None:
    read = replace(RUNNING, http=config.Http(port=1), load=config.Load(exit_for_s=1.0))
    assert plan(RUNNING, read) == (replace(RUNNING, load=read.load), ("load.exit_for_s",), ("http.port",))


def test_a_shorter_hold_counts_for_a_pair_that_waits_already() -> None:
    world = World(failback_hold_s=60.0)
    world.both(DOWN)
    assert [decision.path for decision in world.decide() if decision.moves] == ["backup"]
    for _ in range(10):
        world.now += 1
        world.both(UP)
        assert not [decision for decision in world.decide() if decision.moves]
    world.failover.reconfigure(replace(world.failover.settings, failback_hold_s=5.0))
    world.now += 1
    world.both(UP)
    assert [decision.path for decision in world.decide() if decision.moves] == ["overlay"]


def test_moves_that_were_made_still_count_against_a_new_limit() -> None:
    world = World(failback_hold_s=0.0)
    world.both(DOWN)
    assert world.decide()
    world.failover.reconfigure(config.Failover(max_moves=1, failback_hold_s=0.0))
    for _ in range(5):
        world.now += 1
        world.both(UP)
        assert not [decision for decision in world.decide() if decision.moves], "the one move was made already"


def test_a_spike_ends_by_the_new_threshold() -> None:
    machine = Machine()
    machine.run(60.0, runnable=1)
    assert machine.run(20.0, runnable=14)[-1] == "spike"
    machine.detector.reconfigure(
        replace(RUNNING, load=config.Load(enter_per_core=8.0, exit_per_core=4.0, exit_for_s=4.0))
    )
    assert machine.run(10.0, runnable=14)[-1] == "normal"


def test_the_brain_goes_on_with_all_it_knows() -> None:
    floor = Floor()
    floor.run(5)
    before = floor.brain.fleet_view(floor.now)
    floor.brain.reconfigure(replace(floor.brain.config, failover=config.Failover(mode="recommend")))
    after = floor.brain.fleet_view(floor.now)
    assert (before.mode, after.mode) == ("auto", "recommend")
    assert after.pairs == before.pairs
    assert after.nodes == before.nodes


def test_the_brain_waits_as_long_for_the_other_end_as_it_is_told_now() -> None:
    def state(confirm_within_s: float) -> str:
        floor = Floor()
        changed = config.Failover(confirm_within_s=confirm_within_s, failback_hold_s=HOLD_S)
        floor.brain.reconfigure(replace(floor.config, failover=changed))
        for _ in range(10):
            floor.now += TICK_S
            floor.report("b", "c")
            floor.kill("overlay", "a--b")
            floor.report("a")
            floor.dead.clear()
            floor.brain.tick(floor.now)
        return floor.pair("a--b").paths[0].verdict.state

    assert state(60.0) == "up", "it still waits for the other end's word"
    assert state(1.0) != "up"


def test_the_brain_doubts_itself_by_the_new_share() -> None:
    def observer(blind_share: float) -> str:
        floor = Floor()
        floor.brain.reconfigure(replace(floor.config, liveness=config.Liveness(blind_share=blind_share)))
        for _ in range(60):
            floor.now += TICK_S
            floor.report("a")
            floor.brain.tick(floor.now)
        return floor.brain.fleet_view(floor.now).observer.state

    assert (observer(0.6), observer(1.0)) == ("blind", "connected")


def test_the_brain_finds_load_by_the_new_threshold() -> None:
    def load(enter_per_core: float) -> str:
        floor = Floor()
        floor.brain.reconfigure(replace(floor.config, load=config.Load(enter_per_core=enter_per_core)))
        for _ in range(60):
            floor.now += TICK_S
            floor.seq += 1
            busy = build.report("a", floor.seq, links=floor.links("a"), system=build.system(runnable=20))
            floor.say("a", "report", busy)
            floor.brain.tick(floor.now)
        return next(each for each in floor.brain.fleet_view(floor.now).nodes if each.name == "a").load.state

    assert (load(1.4), load(50.0)) == ("spike", "normal")
