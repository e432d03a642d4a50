"""Pauses: what they cover, how they end, and requests that make no sense."""

from __future__ import annotations

import math

import pytest

from unit.pair_world import World
from vagus_controller.core.pauses import Pauses, as_orders
from vagus_controller.views import Refused


def test_pauses_cover_end_and_survive_a_restart() -> None:
    world = World()
    pauses = Pauses()
    pause = pauses.add(world.fleet, "node", "a", "works", "ann", 60.0, 100.0)
    assert pauses.on(world.fleet, "a") == "node a by ann: works"
    assert pauses.on(world.fleet, "b") == ""
    restored = Pauses()
    restored.restore(as_orders(pauses.standing, 130.0), 5.0)
    assert restored.on(world.fleet, "a") == "node a by ann: works"
    assert restored.expire(34.0) == []
    assert [over.id for over in restored.expire(35.0)] == [pause.id]
    pauses.end(pause.id)
    with pytest.raises(KeyError):
        pauses.end(pause.id)


@pytest.mark.parametrize(
    ("scope", "target", "for_s", "told"),
    [
        ("planet", "", 60.0, "is no scope"),
        ("fleet", "", 0.0, "1 s to 30 days"),
        ("fleet", "", -1.0, "1 s to 30 days"),
        ("fleet", "", 1e9, "1 s to 30 days"),
        ("fleet", "", math.nan, "1 s to 30 days"),
        ("fleet", "", math.inf, "1 s to 30 days"),
        ("fleet", "a", 60.0, "leave 'a' out, or pause that site or node"),
        ("node", "", 60.0, "which node?"),
        ("site", "", 60.0, "which site?"),
    ],
)
def test_a_pause_without_sense_is_refused_in_words(scope: str, target: str, for_s: float, told: str) -> None:
    pauses = Pauses()
    with pytest.raises(Refused, match=told.replace("?", r"\?")):
        pauses.add(World().fleet, scope, target, "", "ann", for_s, 0.0)
    assert pauses.standing == []


def test_a_name_that_nobody_has_is_not_found() -> None:
    for scope in ("node", "site"):
        with pytest.raises(KeyError):
            Pauses().add(World().fleet, scope, "nowhere", "", "ann", 60.0, 0.0)


def test_a_pause_within_one_that_stands_is_refused_and_a_longer_or_other_one_is_not() -> None:
    world = World()
    pauses = Pauses()
    pauses.add(world.fleet, "node", "a", "works", "ann", 600.0, 0.0)
    with pytest.raises(Refused, match="pause 1 by ann covers node a for 5 min already: end that one first"):
        pauses.add(world.fleet, "node", "a", "more works", "bob", 60.0, 300.0)
    pauses.add(world.fleet, "node", "a", "more works", "bob", 3600.0, 300.0)
    pauses.add(world.fleet, "node", "b", "works", "ann", 60.0, 300.0)
    pauses.add(world.fleet, "site", "site-a", "works", "ann", 60.0, 300.0)
    pauses.add(world.fleet, "fleet", "", "works", "ann", 60.0, 300.0)
    assert len(pauses.standing) == 5
    pauses.expire(600.0)
    pauses.end(2)
    pauses.add(world.fleet, "node", "a", "short works", "ann", 60.0, 700.0)


def test_pauses_are_bounded() -> None:
    world = World()
    pauses = Pauses()
    for longer in range(200):
        pauses.add(world.fleet, "fleet", "", "works", "ann", 60.0 + longer, 0.0)
    with pytest.raises(Refused, match="stand already: end some"):
        pauses.add(world.fleet, "fleet", "", "works", "ann", 600.0, 0.0)
