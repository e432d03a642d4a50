"""Who forgets, wakes late, repeats or doubles himself changes nothing: both ends of every pair agree but for a moment,
no old decision is applied again, and a person finds what happened among the events.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Iterator

import pytest

from lab.fleet_helpers import (
    Since,
    Wire,
    desired_of,
    desired_topic,
    ends_go,
    failback,
    fleet,
    holds,
    kernel_goes,
    node,
    pair_name,
    retained,
    until,
    until_settled,
    until_well,
)
from lab.harness import Lab
from lab.harness.hosts import PathName
from lab.harness.namespaces import Process
from lab.harness.services import CONTROLLER, command, to_toml, write_private

PAIR = ("pi1", "pi2")
# For so long two ends may differ, on a machine that is busy: their messages are on the way, or a host boots.
MOMENT_S = 3.0


class Watch(contextlib.AbstractContextManager["Watch"]):
    """Asks both kernels of the pair, over and over, which way they go."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.apart_s = 0.0
        self.seen: set[tuple[str, ...]] = set()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)

    def _run(self) -> None:
        apart: float | None = None
        while not self._end.wait(0.2):
            ways = tuple(self._way(*ends) for ends in (PAIR, PAIR[::-1]))
            now = time.monotonic()
            if "" in ways:
                apart = None  # a host is down
                continue
            self.seen.add(ways)
            apart = None if ways[0] == ways[1] else apart or now
            self.apart_s = max(self.apart_s, 0.0 if apart is None else now - apart)

    def _way(self, host: str, peer: str) -> str:
        paths: tuple[PathName, ...] = ("overlay", "backup")
        with contextlib.suppress(Exception):
            return next((path for path in paths if kernel_goes(self._lab, host, peer, path)), "")
        return ""


@contextlib.contextmanager
def second(lab: Lab, name: str) -> Iterator[str]:
    """Another controller of the fleet, with a store of its own; its URL. `lab.api` stays with the first."""
    host = lab["vps"]
    directory = host.directory / "second"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    over = {"name": name, "http": {"port": 8119}, "store": {"url": f"sqlite:///{directory}/vagus.db"}}
    config = directory / "controller.toml"
    write_private(config, to_toml(lab.controller_settings(over)))
    process: Process = host.spawn([*command("vagus-controller"), "run", "--config", str(config)], name="second")
    try:
        until(lambda: host.listens(8119), "the second controller listens")
        if "second" not in lab.urls:
            lab.urls["second"] = lab.publish(host, 8119)
        yield lab.urls["second"]
    finally:
        process.thaw()
        process.kill()


@contextlib.contextmanager
def asking(lab: Lab, url: str) -> Iterator[None]:
    """`lab.api` asks the controller at `url`."""
    before = lab.urls["controller"]
    lab.urls["controller"] = url
    try:
        yield
    finally:
        lab.urls["controller"] = before


def leads(lab: Lab, url: str) -> bool:
    """By its own last word on it."""
    with asking(lab, url):
        words = [one["text"] for one in lab.api("/api/v1/events?limit=1000") if one["kind"] == "leadership"]
    return bool(words) and str(words[0]).startswith("leads")


def told(lab: Lab, url: str, text: str) -> bool:
    with asking(lab, url):
        return any(text in one["text"] for one in lab.api("/api/v1/events?limit=1000"))


def move(lab: Lab, path: str) -> None:
    if path == "overlay":
        failback(lab, *PAIR)
    else:
        body = {"pair": pair_name(*PAIR), "path": path, "reason": "a test"}
        lab.api("/api/v1/switchover", method="POST", body=body)
        until_settled(lab, "backup", [PAIR])


def epochs(lab: Lab) -> set[int]:
    return {desired_of(lab, name, payload).epoch for name, payload in retained(lab, "desired").items()}


# --- controllers ---------------------------------------------------------------------------------------------------


def test_of_two_controllers_with_one_name_one_leads_and_both_complain(lab: Lab) -> None:
    first, since = lab.urls["controller"], Since(lab)
    complaint = f"another controller calls itself {CONTROLLER} too"
    with Watch(lab) as watch, second(lab, CONTROLLER) as twin:
        for url in (first, twin):
            until(lambda url=url: told(lab, url, complaint), f"{url} complains")  # type: ignore[misc]
        until(lambda: leads(lab, first) != leads(lab, twin), "one of them leads")
        leader = first if leads(lab, first) else twin
        until(lambda: len(epochs(lab)) == 1, "everybody is told under one epoch")
        epoch = epochs(lab)
        holds(lambda: leads(lab, leader), 6.0, "the lead went to and fro")
        assert epochs(lab) == epoch
        with asking(lab, leader):
            lab.cut("overlay", *PAIR)
            until_settled(lab, "backup", [PAIR])
        assert epochs(lab) == epoch
    until(lambda: leads(lab, first), "the one that is left leads")
    assert ends_go(lab, "backup", [PAIR])
    until_settled(lab, "backup", [PAIR])
    assert watch.apart_s < MOMENT_S
    assert not since.events("reflex"), "an agent believed that nobody leads"


def test_a_leader_that_wakes_after_another_took_over_changes_nothing(lab: Lab) -> None:
    first = lab.urls["controller"]
    before = max(epochs(lab))
    sleeper = lab.process("vps", "controller")
    with Watch(lab) as watch, second(lab, "second-brain") as other:
        until(lambda: told(lab, other, "session"), "the second one is connected")
        sleeper.freeze()
        try:
            until(lambda: leads(lab, other), "the second one takes over")
            with asking(lab, other):
                until_well(lab)
                move(lab, "backup")
        finally:
            sleeper.thaw()
        until(lambda: not leads(lab, first), "the old one stands by")
        assert told(lab, first, "stands by: second-brain leads under epoch")
        with asking(lab, other):
            holds(lambda: ends_go(lab, "backup", [PAIR]), 6.0, "an old decision was applied")
            until_settled(lab, "backup", [PAIR])
            assert leads(lab, other)
        assert min(epochs(lab)) > before
    until(lambda: leads(lab, first), "the first one takes over in its turn")
    until_settled(lab, "backup", [PAIR])
    assert watch.apart_s < MOMENT_S


# --- messages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("while_nobody_leads", [False, True], ids=["leader", "no leader"])
def test_old_desireds_published_again_for_both_ends_change_nothing(lab: Lab, while_nobody_leads: bool) -> None:
    move(lab, "backup")
    old = retained(lab, "desired")
    move(lab, "overlay")
    began = time.time()
    with Watch(lab) as watch:
        if while_nobody_leads:
            # It cannot know better than what the broker retains and the agents say.
            lab.kill_controller()
            for file in (lab["vps"].directory / "controller").glob("vagus.db*"):
                file.unlink()
        with Wire(lab) as wire:
            for name in PAIR:
                wire.publish(desired_topic(name), old[name], retain=True)
        if while_nobody_leads:
            for name in PAIR:
                lab.process(name, "agent").kill()
            lab.start_agents(*PAIR)
            lab.start_controller()

        def refused() -> set[str]:
            found = lab.api("/api/v1/events?limit=1000")
            return {one["subject"] for one in found if one["at"] >= began and "a replay" in one["text"]}

        until(lambda: refused() == set(PAIR), "both are told")
        until(lambda: not set(retained(lab, "desired").values()) & {old[name] for name in PAIR}, "it is overwritten")
        until_settled(lab, "overlay", [PAIR])
        holds(lambda: ends_go(lab, "overlay", [PAIR]), 2.0, "an old decision was applied")
    assert watch.seen == {("overlay", "overlay")}
    assert not [one for one in lab.api("/api/v1/ledger?limit=1000") if one["at"] >= began]


def _power_off(lab: Lab, name: str) -> None:
    lab.kill_host(name)
    until(lambda: node(lab, name)["liveness"]["state"] == "node down", "it is missed")


# --- agents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [False, True], ids=["assigned", "by reflex"])
def test_an_agent_from_an_old_disk_image_is_told_the_newest_and_named(lab: Lab, alone: bool) -> None:
    file = lab["pi1"].directory / "agent-state" / "state.json"
    move(lab, "backup")
    image = json.loads(file.read_bytes())
    assert image["assignments"]["pi2"] == "backup"
    if alone:
        image = {**image, "assignments": {**image["assignments"], "pi2": "overlay"}, "reflex": {"pi2": "backup"}}
    move(lab, "overlay")
    since = Since(lab)
    with Watch(lab) as watch:
        _power_off(lab, "pi1")
        file.write_text(json.dumps(image))
        lab.boot_host("pi1")
        until(lambda: since.events("fencing", "older than what it had accepted", "pi1"), "it is told by name")
        until_settled(lab, "overlay", [PAIR])
        until_well(lab)
    assert ("overlay", "backup") not in watch.seen, "the other end followed an old decision"
    assert ("backup", "backup") not in watch.seen
    assert watch.apart_s < MOMENT_S
    assert not since.moves(PAIR)


def test_an_agent_that_lost_its_state_is_told_the_newest_and_named(lab: Lab) -> None:
    move(lab, "backup")
    since = Since(lab)
    with Watch(lab) as watch:
        _power_off(lab, "pi1")
        shutil.rmtree(lab["pi1"].directory / "agent-state")
        lab.boot_host("pi1")
        until(lambda: since.events("fencing", "its state on disk is lost", "pi1"), "it is told by name")
        until_settled(lab, "backup", [PAIR])
        until(lambda: node(lab, "pi1")["liveness"]["state"] == "fresh", "it reports again")
    assert watch.apart_s < MOMENT_S
    assert ("overlay", "overlay") not in watch.seen
    assert not since.moves(PAIR)
    assert fleet(lab)["observer"]["state"] == "connected"
