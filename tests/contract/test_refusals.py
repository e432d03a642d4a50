"""What a person must not ask for is refused in a sentence that says what to do instead: vagusctl and the API, before a
real brain over a fleet in virtual time, with what it decides in a real store."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from typer.testing import CliRunner

from contract.brain_operator import BrainOperator
from contract.fleet_samples import TOKEN, Running
from contract.test_ctl import environment
from unit import fleet_builders as build
from unit.test_brain import Floor, Outbox
from vagus_controller.chronicle import Chronicle
from vagus_controller.ctl.client import Client, CtlError
from vagus_controller.ctl.main import app
from vagus_protocol.codec import encode
from vagus_protocol.messages import ControllerPresence


class _Outbox(Chronicle, Outbox):
    """Ledger and events as the daemon keeps them; the rest in memory."""

    def __init__(self, running: Running) -> None:
        Outbox.__init__(self)
        Chronicle.__init__(self, running.store, running.changes)


class Told(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def closed_clients() -> Iterator[None]:
    """A process that ends closes its connections; a command in this one does not."""
    made: list[Client] = []

    class Closed(Client):
        def __init__(self, url: str, token: str) -> None:
            super().__init__(url, token)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("vagus_controller.ctl.main"), "Client", Closed)
        yield
    for client in made:
        client._http.close()


class Place:
    """A fleet of a, b and c, its controller, and a person with both tools."""

    def __init__(self, running: Running, operator: BrainOperator, client: httpx.Client) -> None:
        self.running, self.client = running, client
        self.floor = operator.floor

    def ctl(self, *arguments: str) -> Told:
        """vagusctl in this process: `test_ctl.py` runs it as a person does."""
        with closed_clients():
            result = CliRunner().invoke(app, list(arguments), env=environment(self.running.url))
        if isinstance(result.exception, CtlError):
            return Told(result.exception.code, result.stdout, str(result.exception))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Told(result.exit_code, result.stdout, result.stderr)

    def refused(self, arguments: str, path: str, body: dict[str, Any], *words: str, status: int = 409) -> None:
        """Both ways are refused, in the same words; nothing is decided."""
        before = self.client.get("/ledger?limit=1000").json()
        done = self.ctl(*arguments.split())
        assert (done.returncode, done.stdout) == (1, ""), done
        told = done.stderr
        answer = self.client.post(path, json=body)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        for word in words:
            assert word in told, told
            assert word in answer.json()["detail"], answer.text
        assert self.client.get("/ledger?limit=1000").json() == before

    def ledger(self, action: str) -> list[Any]:
        return [entry for entry in self.client.get("/ledger?limit=1000").json() if entry["action"] == action]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    operator = BrainOperator()
    running = Running(tmp_path / "vagus.db", operator)
    operator.floor = Floor(_Outbox(running))
    operator.floor.answer()
    with (
        running,
        httpx.Client(
            base_url=f"{running.url}/api/v1", headers={"authorization": f"Bearer {TOKEN}"}, timeout=60
        ) as client,
    ):
        yield Place(running, operator, client)


def test_pairs_that_nobody_knows(place: Place) -> None:
    body = {"path": "backup", "pairs": ["a--z", "a--b"]}
    place.refused(
        "switchover a--z a--b --to backup", "/plans", body, "no pair 'a--z'; did you mean", "a--b", status=404
    )
    body = {"pair": "a--z", "path": "backup"}
    place.refused("switchover a--z --to backup", "/switchover", body, "no pair 'a--z'; did you mean", status=404)
    body = {"scope": "pair", "target": "x--z"}
    place.refused("drill x--z", "/drills", body, "no pair 'x--z'; did you mean", status=404)
    body = {"path": "backup", "scope": "node", "target": "z"}
    place.refused("switchover --node z --to backup", "/plans", body, "no node 'z'; there are: a, b, c", status=404)


def test_paths_that_a_node_does_not_offer(place: Place) -> None:
    words = ("'lte' is not a path between a and b; there are: overlay, backup",)
    place.refused("switchover a--b --to lte", "/switchover", {"pair": "a--b", "path": "lte"}, *words)
    place.refused("switchover a--b a--c --to lte", "/plans", {"path": "lte", "pairs": ["a--b", "a--c"]}, *words)
    place.refused("switchover --fleet --to lte", "/plans", {"path": "lte", "scope": "fleet"}, *words)
    place.floor.say("b", "presence", build.presence("b", "a", "c", peers=()))
    body = {"pair": "b--c", "path": "backup"}
    place.refused("switchover b--a --to overlay", "/switchover", {"pair": "b--a", "path": "overlay"}, "already")
    assert place.client.post("/switchover", json=body).status_code in (202, 409)


def test_plans_that_do_nothing_or_are_unclear(place: Place) -> None:
    body = {"path": "overlay", "scope": "fleet"}
    place.refused("switchover --fleet --to overlay", "/plans", body, "nothing to move to overlay", "already")
    place.refused("failback a--b", "/failback", {"pair": "a--b"}, "a--b is on its first path, overlay, already")
    for body in ({"path": "backup"}, {"path": "backup", "pairs": ["a--b"], "scope": "fleet"}):
        answer = place.client.post("/plans", json=body)
        assert answer.status_code == 409
        assert "name the pairs, or one of fleet, site and node" in answer.json()["detail"]
    for body in ({"pairs": ["a--b"]}, {"scope": "fleet"}):
        answer = place.client.post("/plans", json=body | {"path": "backup", "target": "a"})
        assert answer.status_code == 409
        assert "has no target: leave 'a' out, or plan for that site or node" in answer.json()["detail"]
    # Nodes without a site are none.
    place.floor.say("c", "presence", build.presence("c", "a", "b", site=""))
    place.floor.run(1)
    for path, asked in (("/plans", {"path": "backup"}), ("/drills", {})):
        answer = place.client.post(path, json={"scope": "site", "target": ""} | asked)
        assert (answer.status_code, answer.json()["detail"]) == (404, "no site ''; there are: a, b")


def test_a_switchover_to_an_unproven_backup_is_refused_and_forced_with_a_reason_that_the_ledger_keeps(
    place: Place,
) -> None:
    place.floor.kill("backup", "a--b")
    place.floor.run(1)
    body = {"pair": "a--b", "path": "backup"}
    unproven = "backup is not proven between a and b, because"
    place.refused("switchover a--b --to backup", "/switchover", body, unproven, "force it and give a reason")
    plan = {"path": "backup", "scope": "fleet"}
    place.refused("switchover --fleet --to backup", "/plans", plan, "1 of 3 pairs should not move: a--b", "force it")
    force = body | {"force": True}
    place.refused("switchover a--b --to backup --force", "/switchover", force, "a forced switchover needs a reason")
    force = plan | {"force": True}
    place.refused("switchover --fleet --to backup --force", "/plans", force, "a forced switchover needs a reason")
    dry = place.ctl("switchover", "--fleet", "--to", "backup", "--dry-run")
    assert dry.returncode == 0
    assert "it would be refused" in dry.stdout
    assert place.ledger("switchover") == []
    done = place.ctl("switchover", "a--b", "--to", "backup", "--force", "--reason", "the probe port is blocked")
    assert done.returncode == 0, done.stderr
    [entry] = place.ledger("switchover")
    assert entry["who"]
    assert "the probe port is blocked (forced although backup is not proven" in entry["reason"]


def test_a_move_of_what_is_on_trial_and_a_plan_beside_another(place: Place) -> None:
    body = {"path": "backup", "scope": "fleet", "reason": "work"}
    assert place.client.post("/plans", json=body).status_code == 202
    place.refused("failback a--b", "/failback", {"pair": "a--b"}, "a--b is on trial", "ask again in a few seconds")
    place.refused(
        "switchover a--c b--c --to backup",
        "/plans",
        {"path": "backup", "pairs": ["a--c", "b--c"]},
        "a plan is under way (switchover of 3 pairs to backup)",
        "ask again when it has ended, `vagusctl plans` shows it",
    )
    drill = {"scope": "pair", "target": "b--c"}
    place.refused("drill b--c", "/drills", drill, "a plan is under way", "ask again when it has ended")


def test_a_drill_during_an_incident(place: Place) -> None:
    floor = place.floor
    fleet = {"scope": "fleet"}
    floor.kill("backup", "a--b")
    floor.run(1)
    place.refused(
        "drill a--b", "/drills", {"scope": "pair", "target": "a--b"}, "only a proven standby is drilled", "why a--b"
    )
    floor.mend()
    floor.kill("overlay", "a--c")
    floor.report()
    floor.run(3)
    place.refused("drill --fleet", "/drills", fleet, "off the first path: a--c", "bring them home first")
    floor.mend()
    floor.run(60)
    assert place.ctl("pause", "--site", "a", "--for", "1h", "--reason", "new switch").returncode == 0
    place.refused(
        "drill b--c", "/drills", {"scope": "pair", "target": "b--c"}, "site a is paused by", "vagusctl resume 1"
    )
    assert place.ctl("resume", "--all").returncode == 0
    floor.now += 60
    floor.brain.tick(floor.now)
    place.refused("drill --fleet", "/drills", fleet, "in doubt about itself", "wait until it is connected and sure")


def test_pauses_that_contradict_each_other(place: Place) -> None:
    assert place.ctl("pause", "--node", "a", "--for", "2h", "--reason", "new disk").returncode == 0
    shorter = {"scope": "node", "target": "a", "for_s": 60}
    place.refused(
        "pause --node a --for 1m", "/pauses", shorter, "pause 1 by", "covers node a for 2 h already", "end that one"
    )
    answer = place.client.post("/pauses", json={"scope": "fleet", "target": "a", "for_s": 60})
    assert answer.status_code == 409
    assert "must be empty when the scope is the fleet" in answer.json()["detail"]
    place.refused(
        "pause --site b1 --for 1h", "/pauses", {"scope": "site", "target": "b1", "for_s": 9}, "no site 'b1'", status=404
    )
    for for_s in (-1, 0, 1e9, "inf"):
        answer = place.client.post("/pauses", json={"scope": "fleet", "for_s": for_s})
        assert answer.status_code == 400
        assert "for_s" in answer.json()["detail"]
    for words in ("-5m", "0", "1w", "soon", "1.5h"):
        told = place.ctl("pause", "--fleet", "--for", words)
        assert told.returncode == 2, told.stderr
    assert place.ctl("pause", "--fleet", "--for", "0s").returncode == 1
    assert place.ctl("pause", "--fleet", "--for", "1h").returncode == 0, "a wider one is no contradiction"
    assert "no pause 77; there are: 1, 2" in place.ctl("resume", "77").stderr


def test_nothing_to_approve(place: Place) -> None:
    words = ("nothing is recommended for a--b", "ask for a switchover")
    place.refused("approve a--b", "/pairs/a--b/approve", {}, *words)


def test_one_that_stands_by_sends_everybody_to_the_one_that_leads(place: Place) -> None:
    assert place.ctl("pause", "--node", "a", "--for", "2h").returncode == 0
    rival = ControllerPresence(v=1, controller="zz", session="zz", online=True, leader=True, epoch=99)
    place.floor.brain.on_message("vagus/1/test/controllers/zz", encode(rival), place.floor.now)
    words = ("this controller does not lead (zz leads under epoch 99", "ask the one that does")
    place.refused("switchover a--b --to backup", "/switchover", {"pair": "a--b", "path": "backup"}, *words)
    place.refused("switchover --fleet --to backup", "/plans", {"path": "backup", "scope": "fleet"}, *words)
    place.refused("failback a--b", "/failback", {"pair": "a--b"}, *words)
    place.refused("approve a--b", "/pairs/a--b/approve", {}, *words)
    place.refused("drill --fleet", "/drills", {"scope": "fleet"}, *words)
    place.refused("pause --fleet --for 1h", "/pauses", {"scope": "fleet", "for_s": 3600}, *words)
    for word in words:
        assert word in place.ctl("resume", "1").stderr


def test_what_was_asked_for_is_in_the_ledger_with_who_asked(place: Place) -> None:
    assert place.ctl("pause", "--node", "a", "--for", "2h", "--reason", "new disk").returncode == 0
    assert place.ctl("resume", "1").returncode == 0
    assert place.ctl("switchover", "a--b", "--to", "backup", "--reason", "new keys").returncode == 0
    found = place.client.get("/ledger?limit=1000").json()
    assert [entry["action"] for entry in found] == ["switchover", "resume", "pause"]
    assert len({entry["who"] for entry in found}) == 1
    assert "new keys" in found[0]["reason"]
    why = place.client.get("/why/a--b").json()
    assert why["ledger"][0]["action"] == "switchover"
    assert any(check["what"] == "assigned" and "on trial" in check["text"] for check in why["checks"])
