"""Incidents of a real fleet: one for each cause, told once to a real web hook, over a killed controller as well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.fleet_helpers import FOUR, healed, holds, running, until
from lab.harness import Lab
from lab.harness.hosts import HERE

PORT = 8300
URL = "https://vagus.example"
# On a machine that is busy with something else every host of the lab is at load, and its links are degraded now and
# then: both are warnings, and no part of these tests.
CHANNEL = {"name": "ops", "url": f"json://127.0.0.1:{PORT}/hook", "severities": ["critical"]}


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with running(FOUR, controller={"http": {"url": URL}, "notify": {"channel": [CHANNEL]}}) as lab:
        host = lab.the("controller")
        host.python(HERE / "webhook.py", PORT, host.directory / "told", name="hook")
        until(lambda: host.listens(PORT), "the web hook listens")
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    with healed(shared) as lab:
        until(lambda: not critical(lab), lambda: f"no incident is left: {critical(lab)}", 120.0)
        yield lab


def critical(lab: Lab) -> list[Any]:
    return [each for each in lab.api("/api/v1/incidents") if each["severity"] == "critical"]


def told(lab: Lab) -> list[str]:
    file = lab.the("controller").directory / "told"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line)["title"] for line in lines]


def the_one(lab: Lab) -> Any:
    return until(lambda: critical(lab), "an incident")[0]


def stays_alone(lab: Lab, number: int, seconds: float) -> None:
    """The incident stays open, and no other one is critical."""

    def alone() -> bool:
        every = lab.api("/api/v1/incidents")
        assert number in {each["id"] for each in every}, every
        assert {each["id"] for each in every if each["severity"] == "critical"} <= {number}, every
        return True

    holds(alone, seconds, "")


def test_a_killed_node_is_one_incident_and_one_notice_over_a_killed_controller(lab: Lab) -> None:
    before = len(told(lab))
    lab.kill_host("pi3")
    found = the_one(lab)
    assert found["title"] == "pi3 is down"
    assert {each["subject"] for each in found["troubles"]} >= {"pi3", "pi1--pi3/overlay", "pi2--pi3/backup"}
    until(lambda: told(lab)[before:], "it is told")
    lab.kill_controller()
    lab.start_controller()
    until(lambda: critical(lab), "the controller knows it still")
    stays_alone(lab, found["id"], 15)
    assert told(lab)[before:] == ["[lab] critical: pi3 is down"]
    lab.boot_host("pi3")
    until(lambda: len(told(lab)[before:]) == 2, lambda: f"its return is told: {told(lab)} {critical(lab)}", 120.0)
    assert told(lab)[-1].startswith("[lab] over after ")
    assert told(lab)[-1].endswith(": pi3 is down")


def test_the_overlay_cut_everywhere_is_one_incident_and_one_notice(lab: Lab) -> None:
    before = len(told(lab))
    lab.cut("overlay")
    found = the_one(lab)
    assert found["title"] == "overlay is dead everywhere"
    until(lambda: told(lab)[before:], "it is told")
    stays_alone(lab, found["id"], 10)
    now = lab.api(f"/api/v1/incidents/{found['id']}")
    assert now["did"] == "moved 6 pairs to backup", now
    lab.mend("overlay")
    until(lambda: len(told(lab)[before:]) == 2, lambda: f"its end is told: {told(lab)} {critical(lab)}", 120.0)
    first, last = told(lab)[before:]
    assert first == "[lab] critical: overlay is dead everywhere"
    assert last.endswith(": overlay is dead everywhere")


def test_a_partition_is_one_incident_and_one_notice(lab: Lab) -> None:
    before = len(told(lab))
    for peer in ("pi2", "pi3"):
        lab.cut("overlay", "pi1", peer)
        lab.cut("backup", "pi1", peer)
    title = "every path between pi1 and pi2, pi3 is dead"
    until(lambda: the_one(lab)["title"].startswith(title), lambda: f"it is found: {critical(lab)}")
    until(lambda: told(lab)[before:], "it is told")
    stays_alone(lab, the_one(lab)["id"], 10)
    lab.mend("overlay")
    lab.mend("backup")
    until(lambda: len(told(lab)[before:]) == 2, lambda: f"its end is told: {told(lab)} {critical(lab)}", 120.0)
    assert told(lab)[before].startswith(f"[lab] critical: {title}")
