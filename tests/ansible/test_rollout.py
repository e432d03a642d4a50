"""The next release goes out; one that is broken stops at the canary and goes back, by itself.

The tests are one story and run in their order: each begins with what the one before it left.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hosts import Hosts
from site_fleet import REPOSITORY, Fleet, build_release, changed, proven, words

OLD, NEW = "0.1.0", "0.2.0"
# A batch must be well for 4 s, within a minute: an incident that a crash opened is over 30 s after all is well again.
PATIENCE = {"vagus_rollout_steady_s": 4, "vagus_rollout_timeout_s": 60}
DAEMON, PROBE = "agent/vagus_agent/daemon.py", "protocol/vagus_protocol/probe.py"


def source(directory: Path, version: str, *changes: tuple[str, str, str]) -> Path:
    """This tree, as another version, with other words in some files: (file, what was there, what comes there)."""
    listed = subprocess.run(
        ["git", "-C", REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        if (REPOSITORY / name).is_file() and not name.startswith(("tests/", "docs/images/")):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, directory / name)
    itself = ("protocol/vagus_protocol/__init__.py", f'__version__ = "{OLD}"', f'__version__ = "{version}"')
    for name, was, becomes in (itself, *changes):
        text = (directory / name).read_text()
        assert was in text, f"{name} has no {was!r} any more: change this test"
        (directory / name).write_text(text.replace(was, becomes))
    return directory


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    @cache
    def build(version: str, *changes: tuple[str, str, str]) -> Path:
        out = tmp_path_factory.mktemp("dist")
        if version == OLD:
            return build_release(out)
        return build_release(out, source(tmp_path_factory.mktemp("source"), version, *changes))

    return build


@pytest.fixture(scope="module")
def fleet(booted: Callable[..., Hosts], releases: Callable[..., Path]) -> Fleet:
    made = Fleet(booted("vps", "tokyo", "austin"), releases(OLD))
    made.play("site.yml")
    calm(made)
    return made


def crashing(releases: Callable[..., Path], version: str) -> Path:
    """A release whose agent ends as soon as it has started."""
    start = "    async def run(self) -> int:\n        loop = "
    return releases(version, (DAEMON, start, start.replace("loop = ", "raise RuntimeError('broken')\n        loop = ")))


def calm(fleet: Fleet) -> None:
    """Waits until all is well, and no incident is open any more."""
    fleet.until("/links", proven, 120)
    fleet.until("/fleet", lambda view: not view["incidents"] and view["observer"]["state"] == "connected", 120)


def versions(fleet: Fleet) -> dict[str, str]:
    """What the controller says that each node runs, and what it runs itself."""
    view = fleet.ask("/fleet")
    return {node["name"]: node["version"] for node in view["nodes"]} | {"controller": view["version"]}


def lives(fleet: Fleet) -> dict[str, str]:
    return {host.name: host.ssh("systemctl show -P MainPID vagus-agent").stdout.strip() for host in fleet.nodes}


def roll_out(fleet: Fleet, release: Path, *options: str, canary: str = "austin") -> subprocess.CompletedProcess[str]:
    fleet.release = release
    fleet.write({**PATIENCE, "vagus_rollout_canary": canary})
    return fleet.play("rollout.yml", *options, check=False)


def moves(fleet: Fleet) -> list[dict[str, Any]]:
    return [entry for entry in fleet.ask("/ledger?limit=500") if entry["action"] in ("failover", "failback", "adopt")]


def test_an_agent_that_crashes_at_its_start_stops_at_the_canary_and_goes_back(
    fleet: Fleet, releases: Callable[..., Path]
) -> None:
    broken = crashing(releases, "0.1.1")
    born = lives(fleet)
    done = roll_out(fleet, broken)
    assert done.returncode != 0
    assert "0.1.1 was not healthy on austin: austin is " in words(done)
    assert "Gone back, and all is as it was before." in words(done)
    # The controller went first, was found healthy, and stays: it works with agents of the version before.
    assert versions(fleet) == {"tokyo": OLD, "austin": OLD, "controller": "0.1.1"}
    assert lives(fleet)["tokyo"] == born["tokyo"], "no other node was touched"
    assert fleet.hosts["austin"].ssh("readlink /opt/vagus/current").stdout.strip() == f"releases/{OLD}"
    calm(fleet)
    assert moves(fleet) == []


def test_an_agent_that_runs_and_whose_links_are_down_stops_at_the_canary_and_goes_back(
    fleet: Fleet, releases: Callable[..., Path]
) -> None:
    deaf = releases("0.1.2", (PROBE, 'MAGIC: Final = b"vgs1"', 'MAGIC: Final = b"vgs0"'))
    born = lives(fleet)
    done = roll_out(fleet, deaf)
    assert done.returncode != 0
    assert "0.1.2 was not healthy on austin: " in words(done)
    assert "austin--tokyo lost its standby: backup is " in words(done)
    assert "Gone back, and all is as it was before." in words(done)
    assert versions(fleet) == {"tokyo": OLD, "austin": OLD, "controller": "0.1.2"}
    assert lives(fleet)["tokyo"] == born["tokyo"]
    calm(fleet)
    assert moves(fleet) == []


def test_a_good_one_goes_to_all_and_moves_nothing(fleet: Fleet, releases: Callable[..., Path]) -> None:
    release, before = releases(NEW), versions(fleet)
    done = roll_out(fleet, release, "--check")
    assert done.returncode == 0, done.stdout[-4000:]
    assert versions(fleet) == before
    assert NEW not in fleet.vps.ssh("ls /opt/vagus/releases").stdout
    done = roll_out(fleet, release)
    assert done.returncode == 0, done.stdout[-4000:]
    assert versions(fleet) == {"tokyo": NEW, "austin": NEW, "controller": NEW}
    assert moves(fleet) == []
    for host in (*fleet.nodes, fleet.vps):
        assert host.ssh("readlink /opt/vagus/current").stdout.strip() == f"releases/{NEW}"


def test_again_it_has_nothing_to_do(fleet: Fleet) -> None:
    born = lives(fleet)
    assert set(changed(fleet.play("rollout.yml")).values()) == {0}
    assert set(changed(fleet.play("site.yml")).values()) == {0}
    assert lives(fleet) == born


def test_a_drill_is_told(fleet: Fleet) -> None:
    calm(fleet)
    done = fleet.play("drill.yml", "-e", "vagus_drill_pair=austin--tokyo", "-e", "vagus_drill_reason='a test'")
    assert "austin--tokyo: by backup and back; out " in words(done)
    (drill, *_) = fleet.ask("/drills")
    assert (drill["state"], drill["reason"]) == ("done", "a test")
    assert set(changed(done).values()) == {0}
    done = fleet.play("drill.yml", "-e", "vagus_drill_site=nowhere", check=False)
    assert done.returncode != 0
    assert "no site 'nowhere'" in words(done)


def test_a_release_that_turns_out_bad_later_is_taken_back_everywhere(fleet: Fleet) -> None:
    calm(fleet)
    done = fleet.play("rollback.yml", check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    deadline = time.monotonic() + 60
    while versions(fleet) != {"tokyo": OLD, "austin": OLD, "controller": "0.1.2"}:
        assert time.monotonic() < deadline, versions(fleet)
        time.sleep(1)
    calm(fleet)
    assert moves(fleet) == []
    assert set(changed(fleet.play("rollback.yml")).values()) == {0}, "a second time changes nothing"


def test_it_refuses_while_a_node_is_away_and_changes_nothing(fleet: Fleet, releases: Callable[..., Path]) -> None:
    tokyo = fleet.hosts["tokyo"]
    tokyo.ssh("systemctl stop vagus-agent")
    fleet.until("/fleet", lambda view: view["incidents"], 60)
    done = roll_out(fleet, releases("0.3.0"))
    assert done.returncode != 0
    assert "no rollout now: incident" in words(done)
    assert "tokyo is offline: its agent said goodbye" in words(done)
    assert set(changed(done).values()) == {0}
    assert "0.3.0" not in fleet.hosts["austin"].ssh("ls /opt/vagus/releases").stdout
    done = fleet.play("rollout.yml", "-e", "vagus_rollout_force=true", check=False)
    assert "it takes the reason" in words(done)
    tokyo.ssh("systemctl start vagus-agent")


def test_a_host_with_controller_and_agent_goes_last_and_as_a_whole(fleet: Fleet, releases: Callable[..., Path]) -> None:
    fleet.whole, fleet.release = True, releases("0.3.0")
    fleet.write(PATIENCE)
    fleet.play("site.yml", "-e", "vagus_activate=true")
    fleet.until("/nodes", lambda nodes: len(nodes) == 3 and all(node["online"] for node in nodes))
    before = dict.fromkeys(("vps", "tokyo", "austin", "controller"), "0.3.0")
    assert versions(fleet) == before
    calm(fleet)
    done = roll_out(fleet, crashing(releases, "0.3.1"), canary="vps")
    assert done.returncode != 0
    assert "0.3.1 was not healthy on vps: " in words(done)
    assert "Gone back, and all is as it was before." in words(done)
    assert versions(fleet) == before
    assert fleet.vps.ssh("readlink /opt/vagus/current").stdout.strip() == "releases/0.3.0"
    calm(fleet)
    done = roll_out(fleet, releases("0.4.0"), canary="")
    assert done.returncode == 0, done.stdout[-4000:]
    assert versions(fleet) == dict.fromkeys(before, "0.4.0")
    assert moves(fleet) == []
