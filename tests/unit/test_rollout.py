"""Whether a rollout may begin, and whether a batch is healthy: on pictures of a real brain, as the API gives them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from unit import fleet_builders as build
from unit.test_brain import NODES, Floor
from vagus_controller.views import CauseView, IncidentBrief, PlanView, Severity

PLUGINS = Path(__file__).parents[2] / "ansible/plugins"
OLD, NEW = "0.1.0", "0.2.0"


def plugin(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PLUGINS / "module_utils" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


rollout = plugin("vagus_rollout")
drill = plugin("vagus_drill")


class Fleet(Floor):
    """Three nodes on 0.1.0 under a real brain. `lives`: of each agent; `gone`: agents that do not run."""

    def __init__(self, **failover: Any) -> None:
        self.lives = dict.fromkeys(NODES, 1)
        self.versions = dict.fromkeys(NODES, OLD)
        self.gone: set[str] = set()
        self.incidents: list[IncidentBrief] = []
        super().__init__(**failover)

    def say(self, node: str, leaf: Any, message: Any) -> None:
        changes: dict[str, Any] = {"session": f"{node}-s{self.lives[node]}"}
        if leaf == "presence" and message.online:
            changes["version"] = self.versions[node]
        super().say(node, leaf, msgspec.structs.replace(message, **changes))

    def report(self, *nodes: str) -> None:
        here = [node for node in nodes or NODES if node not in self.gone]
        if here:
            super().report(*here)

    def answer(self, *nodes: str) -> None:
        super().answer(*(node for node in nodes or NODES if node not in self.gone))

    def stop(self, node: str) -> None:
        self.gone.add(node)
        self.say(node, "presence", build.goodbye(node))

    def start(self, saved: bytes = b"", session: str = "s1", node: str = "", version: str = NEW) -> None:
        if not node:
            super().start(saved, session)
            return
        self.gone.discard(node)
        self.lives[node] += 1
        self.versions[node] = version
        self.say(node, "presence", build.presence(node, *(peer for peer in NODES if peer != node)))

    def upgrade(self, *nodes: str, version: str = NEW, seconds: float = 3.0) -> None:
        for node in nodes:
            self.stop(node)
        self.run(1)
        for node in nodes:
            self.start(node=node, version=version)
        self.run(seconds)

    def opens(self, number: int, title: str) -> None:
        cause = CauseView(kind="liveness", scope="node", target="c", path="")
        brief = IncidentBrief(
            id=number,
            title=title,
            severity=Severity.CRITICAL,
            at=0.0,
            age_s=9.0,
            cause=cause,
            did="",
            troubles=1,
            acknowledged_by="",
        )
        self.incidents.append(brief)

    @property
    def picture(self) -> dict[str, Any]:
        """What the API answers, by its own encoding."""
        view = msgspec.structs.replace(self.brain.fleet_view(self.now), incidents=tuple(self.incidents), version=OLD)
        found = {
            "fleet": view,
            "plans": self.brain.plans.views(self.now),
            "drills": self.brain.drills.views(self.now),
        }
        decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
        return decoded


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def troubles(fleet: Fleet, before: dict[str, Any], *nodes: str, controller: str = "") -> list[str]:
    found: list[str] = rollout.troubles(before, fleet.picture, dict.fromkeys(nodes, NEW), controller)
    return found


# --- is it healthy ---------------------------------------------------------------------------------------------------


def test_a_batch_that_came_back_on_the_new_version_is_healthy(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a", "b")
    assert troubles(fleet, before, "a", "b") == []


def test_a_restart_moves_nothing(fleet: Fleet) -> None:
    """Why no pause is needed: the node says goodbye, all its paths fall silent at once, and it comes back."""
    before = fleet.picture
    fleet.stop("a")
    fleet.kill("overlay", "a--b", "a--c")
    fleet.kill("backup", "a--b", "a--c")
    fleet.run(30)
    fleet.mend()
    fleet.start(node="a")
    fleet.run(30)
    now = fleet.picture
    for was, pair in zip(before["fleet"]["pairs"], now["fleet"]["pairs"], strict=True):
        assert (pair["assigned"], pair["origin"], pair["status"]) == (was["assigned"], "default", "settled")
    assert not fleet.entries("failover")
    assert not fleet.entries("failback")
    assert troubles(fleet, rollout.portrait(before), "a") == []


def test_what_goes_through_ansible_is_plain_json(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    assert msgspec.json.decode(msgspec.json.encode(before)) == before


def test_a_node_on_another_version_is_not(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a", version="0.1.9")
    assert troubles(fleet, before, "a") == ["a runs 0.1.9, not 0.2.0"]


def test_a_report_of_its_former_life_proves_nothing(fleet: Fleet) -> None:
    """The new agent has said that it is there; what its links do is yet to come."""
    before = rollout.portrait(fleet.picture)
    fleet.stop("a")
    fleet.start(node="a")
    assert troubles(fleet, before, "a") == ["a has not reported since its restart"]
    fleet.run(2)
    assert troubles(fleet, before, "a") == []


def test_a_node_that_does_not_come_back_is_not(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    fleet.stop("a")
    fleet.run(5)
    (first, *_) = troubles(fleet, before, "a")
    assert first == "a is offline: its agent said goodbye: stopped"


def test_a_node_that_falls_silent_is_not(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a")
    fleet.gone.add("a")
    fleet.run(20)
    (first, *_) = troubles(fleet, before, "a")
    assert first.startswith("a is ")
    assert "last report" in first


def test_a_node_that_nobody_knows_is_not(fleet: Fleet) -> None:
    assert troubles(fleet, rollout.portrait(fleet.picture), "z") == ["z is not known to the controller"]


def test_links_that_stay_down_are_told_with_what_was_lost(fleet: Fleet) -> None:
    """An agent that runs and reports, and whose links are down."""
    before = rollout.portrait(fleet.picture)
    for path in ("overlay", "backup"):
        fleet.kill(path, "a--b", "a--c")
    fleet.upgrade("a")
    found = troubles(fleet, before, "a")
    assert len(found) == 4
    assert "overlay carries a--b, and is down: a sees overlay down" in "; ".join(found)
    assert "a--c lost its standby: backup is down: a sees backup down" in "; ".join(found)


def test_a_lost_standby_is_told_wherever_it_is(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a")
    fleet.kill("backup", "b--c")
    fleet.run(2)
    (found,) = troubles(fleet, before, "a")
    assert found.startswith("b--c lost its standby: backup is down")


def test_a_standby_that_was_not_there_before_is_not_missed(fleet: Fleet) -> None:
    fleet.kill("backup", "a--b")
    fleet.run(3)
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a")
    assert troubles(fleet, before, "a") == []


def test_a_pair_that_was_moved_meanwhile_is_told(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a")
    fleet.kill("overlay", "b--c")
    fleet.event("b", "c")
    fleet.event("c", "b")
    fleet.run(3)
    assert any(
        each.startswith("b--c was moved from overlay to backup: overlay is down")
        for each in troubles(fleet, before, "a")
    )


def test_a_kernel_that_does_not_follow_any_more_is_told(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a")
    picture = fleet.picture
    pair = next(each for each in picture["fleet"]["pairs"] if each["name"] == "a--b")
    pair["observed"] = ["", "overlay"]
    assert rollout.troubles(before, picture, {"a": NEW}) == ["a sends a--b by none of its paths, not by overlay"]


def test_another_node_that_is_lost_meanwhile_is_told(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a")
    fleet.stop("c")
    fleet.run(2)
    assert troubles(fleet, before, "a")[0] == "c is offline: its agent said goodbye: stopped"


def test_a_pair_that_vanishes_is_told(fleet: Fleet) -> None:
    before, picture = rollout.portrait(fleet.picture), fleet.picture
    picture["fleet"]["pairs"] = [each for each in picture["fleet"]["pairs"] if each["name"] != "a--b"]
    assert rollout.troubles(before, picture, {}) == ["a--b is gone: its ends do not name each other any more"]


def test_only_incidents_that_have_opened_since_count(fleet: Fleet) -> None:
    fleet.opens(7, "disk of c is full")
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a")
    assert troubles(fleet, before, "a") == []
    fleet.opens(8, "load spike on a")
    assert troubles(fleet, before, "a") == ["incident 8 has opened: load spike on a"]
    fleet.incidents[-1] = msgspec.structs.replace(fleet.incidents[-1], troubles=0)
    assert troubles(fleet, before, "a") == [], "nothing of it lasts"


def test_a_blind_controller_finds_nobody_healthy(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a")
    fleet.brain.on_session(False, "the broker is gone", fleet.now)
    fleet.now += 1
    fleet.brain.tick(fleet.now)
    assert troubles(fleet, before, "a")[0].startswith("the controller is in doubt about itself: no broker session")


def test_the_controllers_own_version(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    assert troubles(fleet, before, controller=NEW) == ["the controller runs 0.1.0, not 0.2.0"]
    assert troubles(fleet, before, controller=OLD) == []


# --- until when ------------------------------------------------------------------------------------------------------


def watch(fleet: Fleet, *nodes: str, before: dict[str, Any] | None = None) -> Any:
    before = before or rollout.portrait(fleet.picture)
    versions = dict.fromkeys(nodes, NEW)
    return rollout.Watch(before, versions, "", steady_s=10.0, timeout_s=60.0, began=fleet.now)


def follow(fleet: Fleet, watching: Any, seconds: float = 300.0) -> tuple[str, float]:
    """What it comes to, and after how long."""
    end = fleet.now + seconds
    while fleet.now < end:
        state = watching.see(fleet.picture, "", fleet.now)
        if state != "wait":
            return state, fleet.now - watching.began
        fleet.run(2)
    raise AssertionError("it never came to an end")


def test_it_is_healthy_when_all_has_been_well_for_a_while(fleet: Fleet) -> None:
    watching = watch(fleet, "a")
    fleet.upgrade("a")
    state, took = follow(fleet, watching)
    assert state == "healthy"
    assert 10 <= took < 20


def test_it_fails_at_the_end_of_its_patience_with_the_last_reasons(fleet: Fleet) -> None:
    watching = watch(fleet, "a")
    fleet.stop("a")
    state, took = follow(fleet, watching)
    assert state == "failed"
    assert 60 <= took < 64
    assert "a is offline: its agent said goodbye: stopped" in watching.why()


def test_an_agent_that_crashes_again_and_again_is_never_healthy(fleet: Fleet) -> None:
    """Well for some seconds after each start: long enough for one look, never for the while."""
    watching = watch(fleet, "a")
    fleet.stop("a")
    state = "wait"
    for _ in range(20):
        fleet.start(node="a")
        for _ in range(3):
            fleet.run(2)
            state = watching.see(fleet.picture, "", fleet.now)
            if state == "failed":
                break
        if state == "failed":
            break
        fleet.gone.add("a")
        fleet.run(1)
    assert state == "failed"
    assert any("a has started" in each for each in watching.why())


def test_a_bad_moment_begins_the_while_anew(fleet: Fleet) -> None:
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a")
    watching = watch(fleet, "a", before=before)
    assert watching.see(fleet.picture, "", 1000.0) == "wait"
    assert watching.see(None, "the controller cannot be reached", 1009.0) == "wait"
    assert watching.why() == ["the controller cannot be reached"]
    assert watching.see(fleet.picture, "", 1011.0) == "wait"
    assert watching.see(fleet.picture, "", 1020.0) == "wait"
    assert watching.see(fleet.picture, "", 1021.0) == "healthy"


def test_a_controller_that_cannot_be_asked_finds_nobody_healthy(fleet: Fleet) -> None:
    watching = watch(fleet, "a")
    began = watching.began
    assert watching.see(None, "the controller at X cannot be reached", began) == "wait"
    assert watching.see(None, "the controller at X cannot be reached", began + 60) == "failed"
    assert watching.why() == ["the controller at X cannot be reached"]


# --- may it begin ----------------------------------------------------------------------------------------------------


def test_a_calm_fleet_may_be_upgraded(fleet: Fleet) -> None:
    assert rollout.doubt(fleet.picture) == ""
    assert rollout.hindrances(fleet.picture, list(NODES)) == []
    assert rollout.outdated(fleet.picture, list(NODES), NEW) == list(NODES)
    fleet.upgrade("b")
    assert rollout.outdated(fleet.picture, list(NODES), NEW) == ["a", "c"]


def test_an_open_incident_is_in_the_way(fleet: Fleet) -> None:
    fleet.opens(7, "overlay is dead everywhere")
    assert rollout.hindrances(fleet.picture, ["a"]) == ["incident 7 is open: overlay is dead everywhere"]


def test_a_failover_is_in_the_way_until_it_is_home(fleet: Fleet) -> None:
    fleet.kill("overlay", "a--b")
    fleet.event("a", "b")
    fleet.event("b", "a")
    found = rollout.hindrances(fleet.picture, ["c"])
    assert any(each.startswith("a--b is moving: overlay is down") for each in found), found
    fleet.run(3)
    (found,) = rollout.hindrances(fleet.picture, ["c"])
    assert found.startswith("a--b is failed over to backup: overlay is down")
    fleet.mend()
    fleet.run(30)
    assert rollout.hindrances(fleet.picture, ["c"]) == []


def test_what_a_person_holds_on_the_backup_is_not_in_the_way(fleet: Fleet) -> None:
    fleet.commands.switchover("a--b", "backup", fleet.now, who="ann", reason="work")
    fleet.run(5)
    assert fleet.pair("a--b").status == "held"
    assert rollout.hindrances(fleet.picture, ["a"]) == []
    before = rollout.portrait(fleet.picture)
    fleet.upgrade("a")
    assert troubles(fleet, before, "a") == []


def test_a_plan_under_way_is_in_the_way(fleet: Fleet) -> None:
    made: PlanView = fleet.plan("ann", path="backup", scope="fleet", reason="work")
    found = rollout.hindrances(fleet.picture, ["a"])
    assert found[0] == f"a plan is under way: {made.what} (ann)"


def test_a_drill_is_in_the_way(fleet: Fleet) -> None:
    fleet.brain.drills.ask([("a", "b")], "a--b", fleet.now, who="ann", reason="", automatic=False)
    assert "a drill is under way: a--b (ann)" in rollout.hindrances(fleet.picture, ["c"])


def test_a_node_that_is_not_there_is_in_the_way(fleet: Fleet) -> None:
    fleet.stop("a")
    fleet.run(1)
    assert rollout.hindrances(fleet.picture, ["a", "z"]) == [
        "a is offline: its agent said goodbye: stopped",
        "z is not known to the controller: site.yml installs what is new",
    ]


def test_a_blind_controller_judges_nothing(fleet: Fleet) -> None:
    fleet.brain.on_session(False, "the broker is gone", fleet.now)
    fleet.now += 1
    fleet.brain.tick(fleet.now)
    assert rollout.doubt(fleet.picture).startswith("the controller is in doubt about itself: no broker session")


@pytest.mark.parametrize(
    ("given", "reason", "mistake"),
    [
        ("", "", ""),
        (None, "", ""),
        (False, "", ""),
        ("false", "", ""),
        ("the router is known to be dead", "the router is known to be dead", ""),
        (True, "", "it takes the reason"),
        ("True", "", "it takes the reason"),
        ("yes", "", "it takes the reason"),
    ],
)
def test_force_takes_a_reason(given: object, reason: str, mistake: str) -> None:
    found, wrong = rollout.reason_to_force(given)
    assert found == reason
    assert (mistake in wrong) if mistake else wrong == ""


def test_the_canary_goes_first_and_the_controllers_host_last() -> None:
    assert rollout.order(["vps", "a", "b", "c"], "", ["vps"]) == ["a", "b", "c", "vps"]
    assert rollout.order(["vps", "a", "b", "c"], "c", ["vps"]) == ["c", "a", "b", "vps"]
    assert rollout.order(["vps", "a"], "vps", ["vps"]) == ["vps", "a"]


# --- drills ----------------------------------------------------------------------------------------------------------


def drilled(fleet: Fleet, *pairs: tuple[str, str]) -> dict[str, Any]:
    fleet.brain.drills.ask(pairs, "fleet", fleet.now, who="ann", reason="", automatic=False)
    for _ in range(200):
        fleet.run(0.5)
        found: dict[str, Any] = fleet.picture["drills"][0]
        if found["state"] != "under way":
            return found
    raise AssertionError("the drill has no end")


def test_a_drill_is_told_pair_by_pair(fleet: Fleet) -> None:
    done = drilled(fleet, ("a", "b"), ("b", "c"))
    assert drill.failure(done) == ""
    assert drill.told(done) == [
        "a--b: by backup and back; out not measured, back not measured",
        "b--c: by backup and back; out not measured, back not measured",
    ]


def test_a_drill_that_an_end_does_not_verify_has_failed(fleet: Fleet) -> None:
    fleet.manner["b"] = "failed"
    done = drilled(fleet, ("a", "b"))
    assert drill.failure(done) == "the drill was stopped with a--b: b: no packet came back; it is on overlay"
    assert drill.told(done)[0].startswith("a--b: aborted: ")


def test_a_drill_of_nothing_has_failed(fleet: Fleet) -> None:
    each = {"pair": "a--b", "path": "", "state": "skipped", "reason": "no standby", "gap_s": None, "gap_back_s": None}
    done = {"state": "done", "outcome": "", "pairs": [each]}
    assert drill.failure(done) == "nothing was drilled: a--b: skipped: no standby"
    assert drill.failure({**done, "state": "stopped", "outcome": "stopped: paused"}) == "the drill was stopped: paused"
    measured = {**each, "state": "ok", "path": "backup", "gap_s": 0.0, "gap_back_s": 0.04}
    assert drill.told({**done, "pairs": [measured]}) == ["a--b: by backup and back; out below 20 ms, back 40 ms"]
