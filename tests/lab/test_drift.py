"""What others change in our table and rules is repaired where it is ours and told where it is not, in a live fleet."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.fleet_helpers import (
    Since,
    ends_go,
    kernel_goes,
    retained,
    table,
    until,
    until_settled,
    until_well,
)
from lab.harness import Lab
from lab.harness.hosts import INTERFACE

PAIR = ("pi1", "pi2")
BACKUP = INTERFACE["backup"]
# Anything that differs is found within this; most of it at once.
FOUND_S = 30.0


def ip(lab: Lab, name: str, *commands: str) -> None:
    lab[name].run(["sh", "-ec", "; ".join(f"ip {command}" for command in commands)])


def observed(lab: Lab, name: str) -> Any:
    return json.loads(retained(lab, "observed")[name])


@pytest.mark.parametrize(
    "damage",
    [
        ("route flush table 5180", "-6 route flush table 5180"),
        # As systemd-networkd does with rules that it did not write, whenever it is reloaded.
        ("rule del pref 5180", "-6 rule del pref 5180"),
        ("route add 10.99.99.99/32 dev lo table 5180 proto 118 metric 10",),
        ("-6 route add fd99::9999/128 dev lo table 5180 proto 118 metric 77",),
    ],
    ids=["table flushed", "rules deleted", "a route in our name", "a stale metric"],
)
def test_what_is_ours_is_repaired_and_told(lab: Lab, damage: tuple[str, ...]) -> None:
    before, since = table(lab, "pi1"), Since(lab)
    ip(lab, "pi1", *damage)
    until(lambda: since.events("drift", subject="pi1"), "it is told", FOUND_S)
    until(lambda: table(lab, "pi1") == before, "it is repaired", FOUND_S)
    assert not since.moves()


def test_a_route_in_our_name_in_another_table_is_removed_and_told(lab: Lab) -> None:
    since = Since(lab)
    ip(lab, "pi1", "route add 10.99.99.99/32 dev lo table 300 proto 118", "route add 10.99.99.98/32 dev lo table 300")
    try:
        words = "a route of ours that we did not set: 10.99.99.99/32 dev lo metric 0 table 300"
        until(lambda: since.events("drift", words, "pi1"), "it is told", FOUND_S)

        def left() -> str:
            return lab["pi1"].run(["ip", "route", "show", "table", "300"]).stdout

        until(lambda: "10.99.99.99" not in left(), "it is removed", FOUND_S)
        assert "10.99.99.98" in left(), "that is not ours to remove"
    finally:
        ip(lab, "pi1", "route flush table 300")
    assert not since.moves()


def test_a_rule_of_another_daemon_is_told_with_its_owner_and_left_alone(lab: Lab) -> None:
    since = Since(lab)
    address = lab["pi2"].service
    ip(lab, "pi1", f"route add {address} dev {BACKUP} table 77", "rule add pref 4000 lookup 77 protocol static")
    words = "perhaps because of IPv4 rule 4000: from all lookup 77 (protocol 4, static)"
    try:
        [event] = until(lambda: since.events("steering", words), "it is told", FOUND_S)
        assert event["severity"] == "warning"
        found = until(lambda: observed(lab, "pi1") if observed(lab, "pi1")["state"] == "failed" else None, "observed")
        assert words in found["reason"]
        assert any(line.startswith("4000:") for line in table(lab, "pi1")), "it is not ours to remove"
    finally:
        ip(lab, "pi1", "rule del pref 4000", "route flush table 77")
    until(lambda: since.events("steering", "as wanted again"), "its end is told", FOUND_S)
    until(lambda: observed(lab, "pi1")["state"] == "applied", "nothing is left of the report", FOUND_S)
    until_well(lab)
    assert not since.moves(PAIR)


def test_what_a_crashed_agent_of_another_configuration_left_is_swept_at_the_start_and_told(lab: Lab) -> None:
    lab.api("/api/v1/switchover", method="POST", body={"pair": "pi1--pi2", "path": "backup", "reason": "a test"})
    until_settled(lab, "backup", [PAIR])
    before = table(lab, "pi1")
    lab.process("pi1", "agent").stop()
    lab.start_agents("pi1", settings={"steering": {"table": 6000, "priority": 4900}})
    # It sweeps what the first one left, and takes over what was decided.
    until(lambda: not [line for line in table(lab, "pi1") if "5180" in line], "the old rules and table are gone")
    until_settled(lab, "backup", [PAIR])
    assert kernel_goes(lab, "pi1", "pi2", "backup")
    lab.process("pi1", "agent").kill()
    # A peer that was removed from the configuration, and an override by a path that nobody offers.
    ip(
        lab,
        "pi1",
        f"route add 10.99.99.99/32 dev {BACKUP} table 5180 proto 118 metric 100",
        f"route add {lab['vps'].service} dev lo table 5180 proto 118 metric 10",
    )
    since = Since(lab)
    lab.start_agents("pi1")
    until(lambda: table(lab, "pi1") == before, "the kernel is as before")
    until_settled(lab, "backup", [PAIR])
    for words in (f"10.99.99.99/32 dev {BACKUP} metric 100", "dev lo metric 10", "rule 4900", "table 6000"):

        def told(words: str = words) -> bool:
            return any("left by an earlier run" in one["text"] for one in since.events("drift", words, "pi1"))

        until(told, f"{words} is told")
    assert not lab["pi1"].run(["sh", "-c", "ip route show table 6000; ip -6 route show table 6000"], check=False).stdout
    assert ends_go(lab, "backup", [PAIR])
    assert not since.moves(PAIR)
