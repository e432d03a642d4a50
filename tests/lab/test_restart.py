"""Daemons and hosts that die at the worst moment and come back: nothing moves, nothing is forgotten."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.fleet_helpers import (
    FAILBACK_HOLD_S,
    FOUR,
    Heard,
    Since,
    Wire,
    desired_of,
    ends_go,
    fleet,
    holds,
    kernel_goes,
    node,
    pair,
    pair_name,
    pairs,
    problem,
    restart_agents,
    retained,
    running,
    state,
    table,
    until,
    until_settled,
    until_well,
)
from lab.harness import Lab, TcpStream, UdpStream
from lab.harness.services import FLEET, command, to_toml, write_private
from vagus_protocol import topics
from vagus_protocol.codec import decode
from vagus_protocol.messages import ControllerPresence

PAIR = ("pi1", "pi2")
# Silence that a restart may cost on a busy machine; what moves nothing costs none.
BLIP_S = 1.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with running(FOUR) as lab:
        yield lab


def database(lab: Lab) -> list[Path]:
    return list((lab["vps"].directory / "controller").glob("vagus.db*"))


def epochs(lab: Lab) -> set[int]:
    """The epochs of the retained desireds."""
    return {desired_of(lab, name, payload).epoch for name, payload in retained(lab, "desired").items()}


# --- the controller ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_its_database", [True, False], ids=["database", "no-database"])
def test_a_controller_killed_in_mid_failover_resumes_under_a_higher_epoch(lab: Lab, keeps_its_database: bool) -> None:
    # With the reflex off, only the restarted controller can bring it to an end.
    restart_agents(lab, settings={"reflex": "off"})
    try:
        until_well(lab)
        before = max(epochs(lab))
        fired = threading.Event()

        def first_word(heard: Heard) -> None:
            if not heard.retained and not fired.is_set():
                fired.set()
                lab.kill_controller()

        with Wire(lab, "controller", f"{topics.ROOT}/{FLEET}/nodes/+/desired") as wire:
            time.sleep(0.3)
            wire.on_heard = first_word
            lab.cut("overlay")
            assert fired.wait(20), "the controller decided nothing"
        if not keeps_its_database:
            for file in database(lab):
                file.unlink()
        lab.start_controller()
        until_settled(lab, "backup")
        assert min(epochs(lab)) > before
        assert fleet(lab)["epoch"] > before
        lab.mend("overlay")
        until_settled(lab, "overlay")
    finally:
        lab.mend("overlay")
        until_settled(lab, "overlay")
        restart_agents(lab)


@pytest.mark.parametrize("keeps_its_database", [True, False], ids=["database", "no-database"])
def test_a_controller_restarted_after_a_failover_moves_nothing(lab: Lab, keeps_its_database: bool) -> None:
    lab.cut("overlay", *PAIR)
    until_settled(lab, "backup", [PAIR])
    with UdpStream(lab, *PAIR) as udp:
        at = time.monotonic()
        tables = (table(lab, "pi1", "pi2"), table(lab, "pi2", "pi1"))
        lab.kill_controller()
        if not keeps_its_database:
            for file in database(lab):
                file.unlink()
        lab.start_controller()
        until_settled(lab, "backup", [PAIR])
        holds(lambda: ends_go(lab, "backup", [PAIR]), FAILBACK_HOLD_S + 1, "the pair left the backup")
        assert (table(lab, "pi1", "pi2"), table(lab, "pi2", "pi1")) == tables
        assert udp.gap(at).seconds < BLIP_S


def leaders(lab: Lab) -> list[str]:
    """The controllers that say that they lead."""
    with Wire(lab, "controller", f"{topics.ROOT}/{FLEET}/controllers/+") as wire:
        time.sleep(0.3)
        # The last word of each: a leader says it again to whoever comes new.
        words = {one.topic: decode(one.payload, ControllerPresence) for one in wire.heard}.values()
    return [word.controller for word in words if isinstance(word, ControllerPresence) and word.online and word.leader]


def test_a_second_controller_stands_by_and_takes_over_and_keeps_the_lead(lab: Lab) -> None:
    host = lab["vps"]
    directory = host.directory / "second"
    directory.mkdir()
    over = {"name": "second-brain", "http": {"port": 8119}, "store": {"url": f"sqlite:///{directory}/vagus.db"}}
    config = directory / "controller.toml"
    write_private(config, to_toml(lab.controller_settings(over)))
    second = host.spawn([*command("vagus-controller"), "run", "--config", str(config)], name="second")
    first = lab.urls["controller"]
    try:
        until(lambda: host.listens(8119), "the second controller listens")
        lab.urls["controller"] = lab.publish(host, 8119)
        until(lambda: all(one["report"] for one in fleet(lab)["nodes"]), "the second one hears the fleet")
        assert leaders(lab) == ["vps-brain"]
        # It listens before it has heard who leads, and says so; then it names the leader to whoever asks it to act.
        order = {"pair": pair_name(*PAIR), "path": "backup"}
        until(
            lambda: "vps-brain leads" in problem(lab, "/api/v1/switchover", order)[1], "the second one names the leader"
        )
        assert problem(lab, "/api/v1/switchover", order)[0] == 409
        before = max(epochs(lab))
        lab.kill_controller()
        until(lambda: leaders(lab) == ["second-brain"], "the second one takes over")
        assert fleet(lab)["epoch"] > before
        until(lambda: min(epochs(lab)) > before, "everybody is told under the new epoch")
        lab.cut("overlay", *PAIR)
        until_settled(lab, "backup", [PAIR])
        lab.urls["controller"] = first
        lab.start_controller()
        holds(lambda: leaders(lab) == ["second-brain"], 2.0, "the first one took the lead from a living leader")
    finally:
        lab.urls["controller"] = first
        second.kill()
    until(lambda: leaders(lab) == ["vps-brain"], "the first one takes over in its turn")
    until_settled(lab, "backup", [PAIR])


# --- the broker ----------------------------------------------------------------------------------------------------


def test_a_broker_that_lost_everything_is_told_again_and_nobody_is_declared_down(lab: Lab) -> None:
    lab.cut("overlay", *PAIR)
    until_settled(lab, "backup", [PAIR])
    since = Since(lab)
    desired = retained(lab, "desired")
    lab.kill_broker()
    for file in (lab["vps"].directory / "broker" / "data").iterdir():
        file.unlink()
    lab.start_broker()
    until(lambda: retained(lab, "presence").keys() == {"vps", "pi1", "pi2", "pi3"}, "all agents announce themselves")
    until(lambda: retained(lab, "desired") == desired, "the same desired is retained again")
    until(lambda: set(retained(lab, "observed")) == set(desired), "the agents' observed is retained again")
    until(lambda: all(one["liveness"]["state"] == "fresh" for one in fleet(lab)["nodes"]), "all are heard")
    assert settled(lab, "backup", PAIR)
    assert not since.events("liveness")
    assert not since.events("steering", subject=pair_name(*PAIR))
    assert not since.moves(PAIR)


def settled(lab: Lab, path: str, which: tuple[str, str]) -> bool:
    one = pair(lab, *which)
    return bool(one["observed"] == [path, path] and one["status"] == "settled")


# --- agents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_its_state", [True, False], ids=["state", "no-state"])
def test_an_agent_killed_while_failed_over_adopts_what_stands_in_the_kernel(lab: Lab, keeps_its_state: bool) -> None:
    lab.cut("overlay", *PAIR)
    until_settled(lab, "backup", [PAIR])
    since = Since(lab)
    before = table(lab, "pi1", "pi2")
    told = node(lab, "pi1")
    with UdpStream(lab, *PAIR) as there, UdpStream(lab, *PAIR[::-1], ipv6=True) as back:
        at = time.monotonic()
        lab.process("pi1", "agent").kill()
        assert table(lab, "pi1", "pi2") == before
        if not keeps_its_state:
            shutil.rmtree(lab["pi1"].directory / "agent-state")
        lab.start_agents("pi1")
        until(lambda: since.events("restart", subject="pi1"), "the restart is noticed")
        until_settled(lab, "backup", [PAIR])
        until(lambda: node(lab, "pi1")["epoch"] == told["epoch"], "the desired is accepted again")
        assert table(lab, "pi1", "pi2") == before
        assert there.gap(at).seconds < BLIP_S
        assert back.gap(at).seconds < BLIP_S
    assert not since.moves(PAIR)
    assert not since.events("steering", subject=pair_name(*PAIR))
    assert not since.events("drift", subject="pi1")


def test_on_stop_keep_leaves_the_override_and_says_so_and_clear_takes_it_away(lab: Lab) -> None:
    name = pair_name(*PAIR)
    body = {"pair": name, "path": "backup", "reason": "a test"}
    lab.api("/api/v1/switchover", method="POST", body=body)
    until_settled(lab, "backup", [PAIR])
    since = Since(lab)
    assert lab.process("pi1", "agent").stop() == 0
    assert kernel_goes(lab, "pi1", "pi2", "backup")
    assert "overrides stay" in lab["pi1"].processes["agent"].tail()
    until(lambda: node(lab, "pi1")["liveness"]["state"] == "offline", "its goodbye is heard")

    lab.start_agents("pi1", settings={"on_stop": "clear"})
    until_settled(lab, "backup", [PAIR])
    until(lambda: node(lab, "pi1")["liveness"]["state"] == "fresh", "it reports again")
    assert lab.process("pi1", "agent").stop() == 0
    assert kernel_goes(lab, "pi1", "pi2", "overlay")
    assert not [line for line in table(lab, "pi1") if "metric 10 " in f"{line} "]
    lab.start_agents("pi1")
    until_settled(lab, "backup", [PAIR])
    assert not since.moves(PAIR)


# --- hosts ---------------------------------------------------------------------------------------------------------


def test_a_frozen_host_is_down_after_its_silence_only_and_none_of_its_pairs_fails_over(lab: Lab) -> None:
    since = Since(lab)
    mine = [one for one in pairs(lab) if "pi3" in one]
    lab["pi3"].freeze()
    try:
        until(lambda: node(lab, "pi3")["liveness"]["state"] == "node down", lambda: f"it is down: {state(lab)}")
        assert "no peer reaches it" in node(lab, "pi3")["liveness"]["reason"]
        # Its peers missed it first, when it had been silent for less than what counts as silence.
        missed = since.events("link", "down:", f"{pair_name('pi1', 'pi3')}/overlay")[0]
        assert missed["id"] < since.events("liveness", "node down", "pi3")[0]["id"]
        holds(lambda: all(kernel_goes(lab, a, b, "overlay") for a, b in mine if a != "pi3"), 2.0, "a pair moved")
        assert not since.moves(*mine)
        assert fleet(lab)["observer"]["state"] == "connected"
    finally:
        lab["pi3"].thaw()
    until(lambda: node(lab, "pi3")["liveness"]["state"] == "fresh", "it is back")
    until_settled(lab, "overlay")


def test_a_host_that_lost_its_power_is_noticed_as_rebooted_and_takes_up_what_was_decided(lab: Lab) -> None:
    name = pair_name("pi1", "pi3")
    lab.api("/api/v1/switchover", method="POST", body={"pair": name, "path": "backup", "reason": "a test"})
    until_settled(lab, "backup", [("pi1", "pi3")])
    since = Since(lab)
    lab.kill_host("pi3")
    until(lambda: node(lab, "pi3")["liveness"]["state"] == "node down", lambda: f"it is down: {state(lab)}")
    assert not since.moves(("pi1", "pi3"))
    lab.boot_host("pi3")
    until(lambda: since.events("reboot", subject="pi3"), "the reboot is noticed")
    until_settled(lab, "backup", [("pi1", "pi3")])
    until(lambda: node(lab, "pi3")["liveness"]["state"] == "fresh", "it reports again")
    assert not since.moves(("pi1", "pi3"))


def test_a_tcp_connection_outlives_the_agents_of_both_its_ends(lab: Lab) -> None:
    with TcpStream(lab, *PAIR) as stream:
        lab.cut("overlay", *PAIR)
        until_settled(lab, "backup", [PAIR])
        for name in PAIR:
            lab.process(name, "agent").kill()
        lab.start_agents(*PAIR)
        until_settled(lab, "backup", [PAIR])
        moved = time.monotonic()
        until(lambda: stream.receipts()[-1].sent > moved, "the stream goes on")
        assert stream.connections() == 1
