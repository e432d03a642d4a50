"""A cluster that lives on its 100.x addresses: the service addresses are the overlay's own, with a copy on lo.

What stands in its way is named with the remedy, and what is in place is never failed over to; the remedies themselves
are tried: the one of each test is taken from the controller's own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from lab.fleet_helpers import (
    Since,
    holds,
    kernel_goes,
    pair,
    pair_name,
    restart_agents,
    running,
    until,
    until_settled,
    until_well,
    verdict,
)
from lab.harness import HostSpec, Lab, TcpStream, tailscale_rules
from lab.harness.services import command
from lab.harness.tailscale_rules import End

SPECS = [
    HostSpec("vps", roles={"broker", "controller"}),
    HostSpec("pi1"),
    HostSpec("pi2"),
]
PAIR = ("pi1", "pi2")
OF_PI1 = [("pi1", "pi2"), ("pi1", "vps")]
# A link that is down is examined every 30 s.
EXAMINED_S = 75.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """Hosts on 100.x addresses, the CGNAT drop lifted everywhere."""
    with running(SPECS, cgnat=True) as lab:
        yield lab


def unproven(lab: Lab, a: str, b: str) -> str:
    """Why the backup of the pair is not proven; "" when it is."""
    return str(next(one["unproven"] for one in pair(lab, a, b)["paths"] if one["path"] == "backup"))


def until_not_proven(lab: Lab, *words: str) -> str:
    until(lambda: all(word in unproven(lab, *PAIR) for word in words), lambda: unproven(lab, *PAIR), EXAMINED_S)
    return unproven(lab, *PAIR)


def test_with_the_drop_lifted_it_fails_over_and_back_under_live_tcp(lab: Lab) -> None:
    since = Since(lab)
    with TcpStream(lab, *PAIR) as four, TcpStream(lab, *PAIR, ipv6=True) as six:
        lab.cut("overlay")
        until_settled(lab, "backup")
        moved = max(one.receipts()[-1].sent for one in (four, six))
        until(lambda: all(one.receipts()[-1].sent > moved for one in (four, six)), "both streams go on over the backup")
        lab.mend("overlay")
        until_settled(lab, "overlay")
        home = max(one.receipts()[-1].sent for one in (four, six))
        until(lambda: all(one.receipts()[-1].sent > home for one in (four, six)), "both streams go on at home")
        for stream in (four, six):
            assert stream.alive, stream.ended()
            assert stream.connections() == 1
    assert ("failover", pair_name(*PAIR)) in since.moves(PAIR)
    assert ("failback", pair_name(*PAIR)) in since.moves(PAIR)


def test_with_the_drop_in_place_the_standby_is_not_proven_because_of_it_and_nothing_moves(lab: Lab) -> None:
    lab.cgnat_drop(True, "pi1")
    try:
        since = Since(lab)
        restart_agents(lab, *PAIR)
        words = until_not_proven(lab, "pi1: ", "Tailscale's firewall drops 100.64.")
        assert "disable-linux-cgnat-drop-rule" in words
        assert "pi2: Tailscale" not in words, "pi2 drops nothing"
        until(lambda: "because pi1: Tailscale's" in verdict(lab, *PAIR, "backup")["reason"], "the verdict says so too")
        assert verdict(lab, *PAIR, "backup")["severity"] in ("warning", "critical")
        assert since.events("link", "", f"{pair_name(*PAIR)}/backup"), "nobody was told before the day"

        lab.cut("overlay", *PAIR)

        def refused() -> bool:
            return any("Tailscale's firewall" in one["reason"] for one in since.ledger("hold", pair_name(*PAIR)))

        until(refused, lambda: str(since.ledger()))
        reason = next(one["reason"] for one in since.ledger("hold", pair_name(*PAIR)) if "firewall" in one["reason"])
        assert "backup is not proven, because pi1: " in reason
        assert "disable-linux-cgnat-drop-rule" in reason
        holds(lambda: kernel_goes(lab, *PAIR, "overlay"), 3.0, "it moved onto a path that carries nothing")
        assert not since.moves(PAIR)
    finally:
        lab.cgnat_drop(False, "pi1")
    until(lambda: not unproven(lab, *PAIR), lambda: unproven(lab, *PAIR), EXAMINED_S)
    until_settled(lab, "backup", [PAIR])


@pytest.mark.parametrize(
    ("how", "interface", "rules", "chain"),
    [("stopped", False, False, False), ("killed", False, True, True), ("logged out", True, True, False)],
)
def test_however_tailscale_ends_connections_live_on_over_the_backup_and_go_home(
    lab: Lab, how: End, interface: bool, rules: bool, chain: bool
) -> None:
    with TcpStream(lab, *PAIR) as four, TcpStream(lab, *PAIR, ipv6=True) as six:
        lab.tailscale_ends("pi1", how)
        try:
            assert tailscale_rules.what_stands(lab["pi1"]) == (interface, rules, chain)
            until_settled(lab, "backup", OF_PI1)
            moved = max(one.receipts()[-1].sent for one in (four, six))
            until(lambda: all(one.receipts()[-1].sent > moved for one in (four, six)), "both streams go on")
        finally:
            lab.overlay_back("pi1")
        assert tailscale_rules.what_stands(lab["pi1"]) == (True, True, True)
        until_settled(lab, "overlay", OF_PI1)
        home = max(one.receipts()[-1].sent for one in (four, six))
        until(lambda: all(one.receipts()[-1].sent > home for one in (four, six)), "both streams go on at home")
        for stream in (four, six):
            assert stream.alive, stream.ended()
            assert stream.connections() == 1


def test_a_killed_tailscaled_leaves_its_drop_behind_and_a_stopped_one_does_not(lab: Lab) -> None:
    """The drop at pi1 alone: killed, nothing passes pi1's backup; stopped cleanly, the drop is gone with it."""
    lab.cgnat_drop(True, "pi1")
    try:
        lab.tailscale_ends("pi1", "killed")
        words = until_not_proven(lab, "pi1: Tailscale's firewall drops")
        assert "disable-linux-cgnat-drop-rule" in words
        lab.tailscale_ends("pi1", "stopped")
        until(lambda: not unproven(lab, *PAIR), lambda: unproven(lab, *PAIR), EXAMINED_S)
        until_settled(lab, "backup", OF_PI1)
    finally:
        lab.cgnat_drop(False, "pi1")
        lab.overlay_back("pi1")
    until_settled(lab, "overlay", OF_PI1)


def test_strict_rp_filter_at_the_receiver_is_named_and_its_remedy_mends_it(lab: Lab) -> None:
    before = {name: _sysctl(lab, name) for name in ("all", "wg0")}
    _sysctl(lab, "all", "0")
    _sysctl(lab, "wg0", "1")
    try:
        words = until_not_proven(lab, "pi1: strict rp_filter drops")
        assert f"{lab['pi2'].service} → {lab['pi1'].service} when it comes in on wg0" in words
        assert "pi2: strict" not in words
        _do_the_remedy(lab, r"sysctl -w net\.ipv4\.conf\.wg0\.rp_filter=2", words)
        until(lambda: not unproven(lab, *PAIR), lambda: unproven(lab, *PAIR))
    finally:
        for name, value in before.items():
            _sysctl(lab, name, value)


def test_a_missing_allowed_ip_is_named_and_its_remedy_mends_it(lab: Lab) -> None:
    key = lab["pi2"].key["backup"].public
    inner = f"{lab['pi2'].backup}/32,{lab['pi2'].backup6}/128"
    lab["pi1"].run(["wg", "set", "wg0", "peer", key, "allowed-ips", f"{inner},{lab['pi2'].service6}/128"])
    words = until_not_proven(lab, "pi1: ", "AllowedIPs on wg0")
    assert f"{lab['pi2'].service}/32 of pi2 is in no WireGuard peer's AllowedIPs" in words
    _do_the_remedy(lab, r"wg set wg0 peer \S+ allowed-ips [^ ]+", words)
    until(lambda: not unproven(lab, *PAIR), lambda: unproven(lab, *PAIR))


def test_what_the_probes_cannot_meet_is_a_warning_on_a_path_that_is_up(lab: Lab) -> None:
    """Probes go by IPv4; IPv6 would be lost on the day."""
    key = lab["pi2"].key["backup"].public
    inner = f"{lab['pi2'].backup}/32,{lab['pi2'].backup6}/128"
    lab["pi1"].run(["wg", "set", "wg0", "peer", key, "allowed-ips", f"{inner},{lab['pi2'].service}/32"])
    restart_agents(lab, "pi1")
    lacking = f"but pi1: {lab['pi2'].service6}/128 of pi2 is in no WireGuard peer's AllowedIPs"
    until(
        lambda: lacking in verdict(lab, *PAIR, "backup")["reason"],
        lambda: str(verdict(lab, *PAIR, "backup")),
        EXAMINED_S,
    )
    found = verdict(lab, *PAIR, "backup")
    assert found["severity"] == "warning"
    assert unproven(lab, *PAIR) == "", "packets decide"
    _do_the_remedy(lab, r"wg set wg0 peer \S+ allowed-ips [^ ]+", found["reason"])
    restart_agents(lab, "pi1")
    until_well(lab)
    until(lambda: "but pi1" not in verdict(lab, *PAIR, "backup")["reason"], "the warning ends")


def _sysctl(lab: Lab, interface: str, value: str = "") -> str:
    name = f"net.ipv4.conf.{interface}.rp_filter"
    return lab["pi1"].run(["sysctl", "-n", name] if not value else ["sysctl", "-w", f"{name}={value}"]).stdout.strip()


def _do_the_remedy(lab: Lab, pattern: str, words: str) -> None:
    """What the words tell an operator to type on pi1."""
    found = re.search(pattern, words)
    assert found, words
    lab["pi1"].run(found.group().split())


def test_the_doctor_says_the_same_words(lab: Lab) -> None:
    lab.cgnat_drop(True, "pi1")
    try:
        status, found = _doctor(lab)
        assert status == 1
        assert "Tailscale's firewall drops 100.64.0." in found
        assert "disable-linux-cgnat-drop-rule" in found
        assert "1 problem\n" in found
    finally:
        lab.cgnat_drop(False, "pi1")
    status, found = _doctor(lab)
    assert "no firewall rule drops 100.64.0.0/10 on other interfaces" in found
    assert "WireGuard's AllowedIPs have every peer's addresses" in found
    assert status == 0, found


def _doctor(lab: Lab) -> tuple[int, str]:
    config = str(lab["pi1"].directory / "agent.toml")
    done = lab["pi1"].run([*command("vagus-agent"), "doctor", "--config", config], check=False)
    return done.returncode, done.stdout
