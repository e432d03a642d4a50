"""A controller that dies in the middle of what a person asked for, and one that takes over: a plan is brought to its
end, a pause holds, a drill is over, and a person can read all of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.fleet_helpers import (
    FOUR,
    Since,
    Wire,
    begin,
    desired_of,
    ends_go,
    fleet,
    heal,
    holds,
    pair,
    pair_name,
    pairs,
    running,
    settled_on,
    state,
    until,
    until_settled,
    until_well,
)
from lab.harness import Lab
from lab.harness.services import FLEET
from lab.test_drill import DRILL
from lab.test_fencing import asking, second, told
from vagus_protocol import topics

PAIR = ("pi1", "pi2")
AWAY_S = 1.0
REASON = "the overlay gets new keys"
PLAN = {"path": "backup", "scope": "fleet", "reason": REASON}


@pytest.fixture(scope="module")
def fleet_of_four() -> Iterator[Lab]:
    with running(FOUR) as lab:
        yield lab


def on_trial(lab: Lab, desireds: dict[str, bytes], path: str) -> set[str]:
    """The pairs that the newest desireds put on trial for `path`."""
    found = set()
    for node, payload in desireds.items():
        words = desired_of(lab, node, payload).assignments.items()
        found |= {pair_name(node, peer) for peer, word in words if word.trial and word.path == path}
    return found


def killed_once(lab: Lab, many: bool, start: Callable[[], object]) -> bool:
    """SIGKILLs the controller when pairs are put on trial for the backup after `start`: the canary alone, or `many`."""
    fired = threading.Event()
    desireds: dict[str, bytes] = {}

    with Wire(lab, "controller", f"{topics.ROOT}/{FLEET}/nodes/+/desired") as wire:

        def look(heard: Any) -> None:
            where = topics.parse(heard.topic)
            if fired.is_set() or not isinstance(where, topics.NodeTopic) or not heard.payload:
                return
            desireds[where.node] = heard.payload
            if not heard.retained and len(on_trial(lab, desireds, "backup")) >= (2 if many else 1):
                fired.set()
                lab.kill_controller()

        wire.on_heard = look
        start()
        return fired.wait(20)


@contextlib.contextmanager
def next_leader(lab: Lab, how: str, epoch: int) -> Iterator[None]:
    """The controller is dead that led under `epoch`. "again": it starts again; "without its database"; or a "standby"
    leads, and is asked."""
    if how == "standby":
        # The one that waited all the time was started before.
        with asking(lab, lab.urls["second"]):
            until(lambda: fleet(lab)["epoch"] > epoch, "the standby leads")
            yield
        return
    time.sleep(AWAY_S)
    if how == "without its database":
        for file in (lab["vps"].directory / "controller").glob("vagus.db*"):
            file.unlink()
    lab.start_controller()
    until(lambda: fleet(lab)["epoch"] > epoch, "it leads")
    yield


@contextlib.contextmanager
def standing_by(lab: Lab, how: str) -> Iterator[None]:
    """With `how` "standby", a second controller that waits; afterwards the first one leads again."""
    if how != "standby":
        yield
        return
    with second(lab, "second-brain") as url:
        until(lambda: told(lab, url, "connected"), "the second one is connected")
        yield
        with asking(lab, url):
            epoch = fleet(lab)["epoch"]
    lab.start_controller()
    until(lambda: fleet(lab)["epoch"] > epoch, "the first one leads again")


@pytest.mark.parametrize("how", ["again", "without its database", "standby"])
@pytest.mark.parametrize("when", ["canary", "rest"])
def test_a_switchover_of_the_fleet_is_brought_to_its_end_by_whoever_leads_next(
    fleet_of_four: Lab, when: str, how: str
) -> None:
    lab = fleet_of_four
    until_well(lab)
    every, epoch = pairs(lab), fleet(lab)["epoch"]
    with standing_by(lab, how):
        assert killed_once(lab, when == "rest", lambda: begin(lab, "plans", PLAN)), (
            f"nothing was put on trial: {state(lab)}"
        )
        with next_leader(lab, how, epoch):
            until_settled(lab, "backup", every)
            assert {one["status"] for one in fleet(lab)["pairs"]} == {"held"}, "what a person asked for is held"
            if when == "canary":
                done = until(lambda: [one for one in lab.api("/api/v1/plans") if one["state"] == "done"], "it is told")
                assert REASON in done[0]["reason"]
                line = next(one for one in lab.api("/api/v1/ledger?limit=200") if one["action"] == "plan")
                assert [one for one in lab.api("/api/v1/ledger?limit=200") if one["outcome"] == "under way"] == []
                assert line["outcome"] == f"done: {len(every)} of {len(every)} pairs moved"
            heal(lab)
    until_well(lab)


@pytest.mark.parametrize("how", ["again", "without its database", "standby"])
def test_nothing_moves_under_a_pause_after_a_takeover(fleet_of_four: Lab, how: str) -> None:
    lab = fleet_of_four
    until_well(lab)
    epoch = fleet(lab)["epoch"]
    with standing_by(lab, how):
        body = {"scope": "fleet", "reason": "somebody is in the rack", "for_s": 3600}
        lab.api("/api/v1/pauses", method="POST", body=body)
        lab.kill_controller()
        with next_leader(lab, how, epoch):
            until_well(lab)
            [pause] = fleet(lab)["pauses"]
            assert pause["reason"] == "somebody is in the rack"
            assert 3500 < pause["expires_s"] <= 3600
            since = Since(lab)
            lab.cut("overlay", *PAIR)
            until(lambda: pair(lab, *PAIR)["status"] == "waiting", lambda: f"it waits: {state(lab)}")
            assert "paused: the fleet by" in pair(lab, *PAIR)["reason"]
            holds(lambda: ends_go(lab, "overlay", [PAIR]), 3.0, "nothing moves while paused")
            assert since.moves(PAIR) == set()
            lab.api(f"/api/v1/pauses/{pause['id']}", method="DELETE")
            until_settled(lab, "backup", [PAIR])
            heal(lab)
            assert fleet(lab)["pauses"] == []
    until_well(lab)


@pytest.mark.parametrize("how", ["again", "without its database"])
def test_a_drill_whose_controller_dies_leaves_nothing_and_is_told_as_aborted(fleet_of_four: Lab, how: str) -> None:
    lab = fleet_of_four
    until_well(lab)
    epoch = fleet(lab)["epoch"]
    assert killed_once(lab, False, lambda: begin(lab, "drills", DRILL)), state(lab)
    with next_leader(lab, how, epoch):
        until(lambda: settled_on(lab, "overlay"), lambda: f"all at home: {state(lab)}")
        last = pair(lab, *PAIR)["drill"]
        assert last is not None
        assert not last["ok"]
        assert "its controller ended in the middle of it" in last["words"]
        lines = [one for one in lab.api("/api/v1/ledger?limit=200") if one["action"] == "drill"]
        assert lines[0]["outcome"] == "aborted"
        assert not [one for one in lines if one["outcome"] == "under way"]
        assert lab.api("/api/v1/drills")[0]["state"] == "stopped"
    until_well(lab)
