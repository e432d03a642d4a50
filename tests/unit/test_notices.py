"""One event, one notice: what is told to whom and when, over restarts, other leaders, quiet hours and maintenance."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unit.incident_world import TICK_S, IncidentWorld
from vagus_controller.config import Channel, Notify, Window
from vagus_controller.core.notices import Notice, Notices, Saved
from vagus_controller.core.windows import Windows
from vagus_controller.views import Severity

CITIES = {"austin": ("austin-1", "austin-2"), "tokyo": ("tokyo-1", "tokyo-2"), "berlin": ("berlin-1", "berlin-2")}
# A Sunday, 12:00 UTC.
NOON = 1_899_979_200.0
HOUR = 3600.0


def channel(name: str = "ops", **changes: Any) -> Channel:
    return Channel(name=name, url="json://127.0.0.1", **changes)


class Desk:
    """The world's incidents, told to channels. `wall`: what the clock says at the world's start."""

    def __init__(self, *channels: Channel, windows: tuple[Window, ...] = (), wall: float = NOON) -> None:
        self.world = IncidentWorld(CITIES)
        self.channels = channels or (channel(),)
        self.windows = windows
        self.ahead = wall - self.world.now
        self.leads = True
        self.told: list[Notice] = []
        self.notices = self.life()

    def life(self) -> Notices:
        settings = Notify(channel=self.channels)
        where = self.world.site_of
        return Notices(
            settings, Windows(self.windows), lambda node: where.get(node, ""), "harbour", "https://v.example"
        )

    def run(self, seconds: float) -> list[Notice]:
        before = len(self.told)
        for _ in range(round(seconds / TICK_S)):
            changed = self.world.tick()
            now = self.world.now
            self.told += self.notices.tick(changed, now, now + self.ahead, leads=self.leads)
        return self.told[before:]

    def restart(self) -> None:
        saved = msgspec.json.decode(msgspec.json.encode(self.notices.saved(self.world.now)), type=Saved)
        self.world.restart()
        self.notices = self.life()
        self.notices.restore(saved, self.world.incidents.every(self.world.now), self.world.now)


def whats(notices: list[Notice]) -> list[str]:
    return [notice.what for notice in notices]


def test_the_clock_is_a_sunday_noon() -> None:
    assert Windows((Window(at="sun 12:00-12:01", reason="x"),)).over("", "", NOON)


def test_a_dead_node_is_told_once_and_its_return_once_with_how_long_it_took() -> None:
    desk = Desk()
    desk.world.down = {"tokyo-1"}
    [notice] = desk.run(120)
    assert notice.title == "[harbour] critical: tokyo-1 is down"
    assert notice.severity is Severity.CRITICAL
    lines = notice.text.splitlines()
    assert lines[0].startswith("Cause: tokyo-1: node down: silent, and no peer reaches it")
    assert lines[1].startswith("With it: link down: ")
    assert any(line.startswith("vagus: ") for line in lines)
    assert lines[-1] == f"https://v.example/incidents/{notice.incident}"
    desk.world.heal()
    [over] = desk.run(120)
    assert over.what == "over"
    assert over.title.startswith("[harbour] over after ")
    assert over.title.endswith(": tokyo-1 is down")
    assert over.severity is Severity.OK


def test_what_vagus_did_is_told() -> None:
    desk = Desk()
    desk.world.cut("overlay")
    [notice] = desk.run(60)
    assert "vagus: moved 15 pairs to backup" in notice.text.splitlines()


def test_worse_is_told_better_is_not() -> None:
    desk = Desk()
    pair = (("austin-1", "tokyo-1"), "overlay")
    desk.world.sick = {pair: "degraded"}
    assert whats(desk.run(20)) == ["began"]
    desk.world.sick = {pair: "down"}
    [worse] = desk.run(20)
    assert worse.title.startswith("[harbour] worse, critical: ")
    desk.world.sick = {pair: "degraded"}
    assert desk.run(20) == []
    desk.world.sick = {pair: "down"}
    assert desk.run(20) == [], "that was told"


def test_what_comes_back_is_told_as_such() -> None:
    desk = Desk()
    desk.world.cut("overlay")
    desk.run(20)
    desk.world.heal()
    desk.run(60)
    desk.world.cut("overlay")
    desk.run(20)
    assert whats(desk.told) == ["began", "over", "back"]
    assert desk.told[-1].title.startswith("[harbour] again, ")
    assert len({notice.incident for notice in desk.told}) == 1


def test_what_lasts_is_repeated_until_somebody_acknowledges_it() -> None:
    desk = Desk(channel(repeat_s=60.0), channel("never", repeat_s=0.0))
    desk.world.down = {"tokyo-1"}
    desk.run(30)
    again = desk.run(130)
    assert [(notice.channel, notice.what) for notice in again] == [("ops", "lasts")] * 2
    desk.world.incidents.acknowledge(again[0].incident, "ines", desk.world.now, 0.0)
    assert desk.run(300) == []


@pytest.mark.parametrize(
    ("routing", "titles"),
    [
        ({"severities": ("critical",)}, ["tokyo-1 is down"]),
        ({"severities": ("warning",)}, ["load spike on berlin-1"]),
        ({"kinds": ("load", "quorum")}, ["load spike on berlin-1"]),
        ({"sites": ("tokyo",)}, ["tokyo-1 is down"]),
        ({"sites": ("austin",)}, []),
    ],
)
def test_routing(routing: dict[str, Any], titles: list[str]) -> None:
    desk = Desk(channel(**routing))
    desk.world.down, desk.world.busy = {"tokyo-1"}, {"berlin-1"}
    assert sorted(notice.title.partition(": ")[2] for notice in desk.run(60)) == sorted(titles)


def test_what_is_about_the_whole_fleet_is_told_to_every_sites_channel() -> None:
    desk = Desk(channel(sites=("tokyo",)), channel("a", sites=("austin",)))
    desk.world.cut("overlay")
    assert sorted(notice.channel for notice in desk.run(60)) == ["a", "ops"]


def test_quiet_hours_let_only_the_critical_pass_and_the_rest_waits_if_it_lasts() -> None:
    desk = Desk(channel(quiet=("* 11:00-12:05",)))
    desk.world.busy = {"berlin-1"}
    desk.world.sick = {(("austin-1", "tokyo-1"), "overlay"): "degraded"}
    assert desk.run(60) == []
    desk.world.down = {"tokyo-2"}
    [critical] = desk.run(60)
    assert "tokyo-2 is down" in critical.title
    desk.world.sick.clear()
    assert desk.run(90) == []
    later = desk.run(180)
    assert [notice.title for notice in later] == ["[harbour] warning: load spike on berlin-1"]


def test_in_maintenance_nothing_is_told_and_afterwards_what_lasts() -> None:
    windows = (Window(at="sun 12:00-12:03", reason="new power", scope="site", target="tokyo"),)
    desk = Desk(windows=windows)
    desk.world.down = {"tokyo-1"}
    desk.world.busy = {"berlin-1"}
    assert [notice.title for notice in desk.run(60)] == ["[harbour] warning: load spike on berlin-1"]
    assert whats(desk.run(150)) == ["began"]


def test_what_maintenance_began_and_ended_is_never_told() -> None:
    desk = Desk(windows=(Window(at="sun 12:00-12:05", reason="new power", scope="node", target="tokyo-1"),))
    desk.world.down = {"tokyo-1"}
    desk.run(60)
    desk.world.heal()
    assert desk.run(600) == []


def test_no_recovery_where_none_is_wanted() -> None:
    desk = Desk(channel(recovery=False))
    desk.world.down = {"tokyo-1"}
    desk.run(30)
    desk.world.heal()
    desk.run(90)
    assert whats(desk.told) == ["began"]


def test_a_resolved_one_is_told_with_its_note() -> None:
    desk = Desk()
    desk.world.down = {"tokyo-1"}
    [began] = desk.run(30)
    desk.world.incidents.resolve(began.incident, "it is sold", "ines", desk.world.now, 0.0)
    [over] = desk.run(30)
    assert over.title.startswith("[harbour] resolved by ines after ")
    assert "Note: it is sold" in over.text
    assert desk.run(300) == []


# --- other leaders --------------------------------------------------------------------------------------------------


def test_a_standby_tells_nothing_and_does_not_repeat_when_it_leads() -> None:
    desk = Desk()
    desk.leads = False
    desk.world.down = {"tokyo-1"}
    assert desk.run(120) == []
    desk.leads = True
    assert desk.run(120) == []
    desk.world.heal()
    assert whats(desk.run(120)) == ["over"]


def test_what_began_as_the_leader_died_is_told_by_the_next() -> None:
    desk = Desk()
    desk.leads = False
    desk.world.down = {"tokyo-1"}
    desk.run(25)
    assert desk.world.open
    desk.leads = True
    assert whats(desk.run(60)) == ["began"]


# --- restarts -------------------------------------------------------------------------------------------------------


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(("down", "overlay", "node overlay", "busy")),
    st.lists(st.floats(0.5, 90.0), min_size=1, max_size=4),
    st.booleans(),
)
def test_a_restart_at_any_moment_tells_nothing_twice(kind: str, moments: list[float], heals: bool) -> None:
    desk = Desk()
    world = desk.world
    if kind == "down":
        world.down = {"tokyo-1"}
    elif kind == "busy":
        world.busy = {"tokyo-1"}
    else:
        world.cut("overlay", *(("tokyo-1",) if kind == "node overlay" else ()))
    for moment in moments:
        desk.run(moment)
        desk.restart()
    desk.run(60)
    assert whats(desk.told) == ["began"]
    if heals:
        world.heal()
        desk.run(10)
        desk.restart()
        desk.run(10)
        desk.restart()
        desk.run(90)
        assert whats(desk.told) == ["began", "over"]


def test_what_waits_for_the_morning_is_told_after_a_restart_too() -> None:
    desk = Desk(channel(quiet=("* 11:00-12:05",)))
    desk.world.busy = {"berlin-1"}
    desk.run(60)
    desk.restart()
    assert desk.run(60) == []
    desk.restart()
    assert whats(desk.run(240)) == ["began"]


def test_an_incident_that_becomes_part_of_another_is_not_told_again() -> None:
    desk = Desk()
    for peer in ("austin-1", "austin-2", "berlin-1", "berlin-2", "tokyo-1"):
        desk.world.dead.add(((min(peer, "tokyo-2"), "tokyo-2"), "overlay"))
        desk.run(20)
    first = desk.told[0].incident
    desk.run(60)
    told = [notice.incident for notice in desk.told]
    assert len(told) == len(set(told)), "each of them once"
    assert desk.world.the_one().id == first
    desk.world.heal()
    assert [(notice.what, notice.incident) for notice in desk.run(60)] == [("over", first)]
