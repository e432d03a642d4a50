"""The policy inside the brain: what flaps, what is forbidden, and what a restart must not forget."""

from __future__ import annotations

import pytest

from unit.test_brain import Floor
from vagus_controller.config import Window
from vagus_controller.core.brain import TICK_S

NAME = "a--b"
# A Sunday, 03:00 UTC.
SUNDAY_AT_3 = 1_795_316_400.0


def checks(floor: Floor) -> dict[str, tuple[str, str]]:
    return {check.what: (check.result, check.text) for check in floor.brain.explain(NAME, floor.now)}


def flap(floor: Floor, cycles: int, half_s: float = 20.0) -> None:
    for _ in range(cycles):
        floor.kill("overlay", NAME)
        floor.run(half_s)
        floor.mend()
        floor.run(half_s)


def moves(floor: Floor) -> list[str]:
    return [entry.action for entry in floor.outbox.ledger.values() if entry.action in ("failover", "failback")]


def test_a_pair_whose_overlay_flaps_settles_on_the_backup_and_the_others_stay_at_home() -> None:
    floor = Floor()
    flap(floor, 90)
    assert moves(floor) == ["failover", "failback", "failover"]
    assert {name: floor.pair(name).assigned for name in (NAME, "a--c", "b--c")} == {
        NAME: "backup",
        "a--c": "overlay",
        "b--c": "overlay",
    }
    assert "damped" in floor.entries("hold", NAME)[-1].reason
    assert floor.pair(NAME).status == "waiting"
    assert "cannot move" not in floor.brain.summary(floor.now)  # calm is no emergency
    result, text = checks(floor)["flap damping"]
    assert result == "block"
    assert "moves again in" in text


def test_a_restart_does_not_set_a_damped_pair_free() -> None:
    floor = Floor()
    flap(floor, 5)
    before = moves(floor)
    floor.start(floor.brain.saved(floor.now), session="s2")
    floor.run(60)
    assert moves(floor) == before
    assert checks(floor)["flap damping"][0] == "block"


def test_a_damped_pair_leaves_a_dead_path_all_the_same() -> None:
    floor = Floor()
    flap(floor, 5)
    floor.kill("backup", NAME)
    floor.run(2)
    assert floor.pair(NAME).assigned == "overlay"


def test_a_person_moves_a_damped_pair() -> None:
    floor = Floor()
    flap(floor, 5)
    floor.commands.failback(NAME, floor.now, who="ann", reason="the router was replaced")
    floor.answer()
    floor.run(TICK_S)
    assert floor.pair(NAME).assigned == "overlay"


def test_in_a_maintenance_window_nothing_moves_by_itself_and_it_does_when_it_is_over() -> None:
    floor = Floor(windows=(Window(at="sun 02:00-04:00", scope="node", target="a", reason="new disk"),))
    floor.kill("overlay", NAME, "b--c")
    floor.report()
    for wall, moved in ((SUNDAY_AT_3, {"b--c"}), (SUNDAY_AT_3 + 3600, {"b--c", NAME})):
        floor.brain.tick(floor.now, wall)
        floor.answer()
        assert {name for name in (NAME, "a--c", "b--c") if floor.pair(name).assigned == "backup"} == moved
    (hold,) = floor.entries("hold", NAME)
    assert "maintenance of node a, sun 02:00-04:00 UTC: new disk" in hold.reason


def test_why_is_asked_of_pairs_that_there_are() -> None:
    floor = Floor()
    assert checks(floor)["assigned"] == ("info", "overlay (default)")
    assert floor.brain.explain("b--a", floor.now) == floor.brain.explain(NAME, floor.now)
    for unknown in ("a--z", "a", "a--a", ""):
        with pytest.raises(KeyError):
            floor.brain.explain(unknown, floor.now)
