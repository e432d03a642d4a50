"""The units on hosts that booted: all that agent and controller do works under them, and systemd does what they say."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import by_hand
from hosts import BootedHost, Hosts
from lab.harness.services import FLEET
from vagus_protocol import topics
from vagus_protocol.codec import decode
from vagus_protocol.messages import Report

PATIENCE_S = 90.0
KEY = secrets.token_bytes(32)
NAMES = ("vps", "tokyo")
# The peers' IPv6 addresses first, so that probes go by IPv6 and need sockets that are bound to an interface.
AGENT: dict[str, Any] = {
    "reflex": "always",
    "report": {"interval_s": 1.0, "processes": ["wireguard-go", "sshd"]},
    "steering": {"flush_conntrack": True},
    "tailscale": {"socket": "/run/tailscale/tailscaled.sock", "interval_s": 1.0},
}


def until(host: BootedHost, ready: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := ready()):
        assert time.monotonic() < deadline, f"not in {PATIENCE_S:.0f} s; {status(host)}\n{journal(host)}"
        time.sleep(0.2)
    return answer


def until_well(host: BootedHost) -> None:
    until(host, lambda: status(host).startswith("2 of 2 links up"))


@pytest.fixture(scope="module")
def fleet(booted: Callable[..., Hosts]) -> Hosts:
    """Two hosts with agents; the first has the broker and the controller, too."""
    hosts = booted(*NAMES)
    by_hand.network(hosts)
    by_hand.broker(hosts["vps"])
    by_hand.install(hosts["vps"], "agent", "controller")
    by_hand.install(hosts["tokyo"], "agent")
    by_hand.configure_controller(hosts["vps"], KEY, list(NAMES))
    for name, host in hosts.items():
        configure(hosts, name)
        host.ssh("systemctl enable -q --now vagus-agent")
    hosts["vps"].ssh("systemctl enable -q --now vagus-controller")
    for host in hosts.values():
        until_well(host)
    return hosts


def configure(hosts: Hosts, name: str, **over: Any) -> None:
    [other] = [host for host in hosts.values() if host.name != name]
    vias = {"backup": [other.backup, other.backup6]}
    peers = [{"name": other.name, "addresses": [other.service6, other.service], "via": vias}]
    by_hand.configure_agent(hosts, name, "vps", KEY, **{**AGENT, "peers": peers, **over})


def shown(host: BootedHost, key: str, unit: str = "vagus-agent") -> str:
    return host.ssh(f"systemctl show {unit} -P {key}").stdout.strip()


def status(host: BootedHost) -> str:
    return shown(host, "StatusText")


def journal(host: BootedHost, unit: str = "vagus-agent") -> str:
    return host.ssh(f"journalctl -u {unit} -o cat --no-pager").stdout


def report(hosts: Hosts, name: str) -> Report:
    """The next report of a node, as the broker has it."""
    topic = topics.node(FLEET, name, "report")
    told = hosts["vps"].ssh(f"mosquitto_sub -h 127.0.0.1 -t {topic} -C 1 -W 30").stdout
    found = decode(told.encode(), Report)
    assert isinstance(found, Report)
    return found


@contextmanager
def onlooker(host: BootedHost) -> Iterator[Callable[[], str]]:
    """What happens to routes and rules of the host's kernel meanwhile."""
    out = host.directory / "seen"
    touch = "ip route add 10.1.2.3/32 dev lo; ip route del 10.1.2.3/32 dev lo"
    with out.open("w") as file:
        child = host.popen(["ip", "monitor", "route", "rule"], stdout=file, stderr=subprocess.STDOUT)
        try:
            until(host, lambda: host.run(["sh", "-ec", touch]) and "10.1.2.3" in out.read_text())
            yield lambda: "\n".join(line for line in out.read_text().splitlines() if "10.1.2.3" not in line)
        finally:
            child.kill()
            child.wait(10)


def test_the_agent_has_one_capability_and_no_way_to_more(fleet: Hosts) -> None:
    pid = shown(fleet["tokyo"], "MainPID")
    text = fleet["tokyo"].ssh(f"cat /proc/{pid}/status").stdout
    found = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    for each in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found[each], 16) == 1 << 12, each
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert found["Uid"].split()[0] != "0"
    pid = shown(fleet["vps"], "MainPID", "vagus-controller")
    text = fleet["vps"].ssh(f"cat /proc/{pid}/status").stdout
    found = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert {int(found[each], 16) for each in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fleet["tokyo"].ssh("stat -c '%U %a' /var/lib/vagus-agent").stdout.strip() == "vagus-agent 700"


def test_the_agent_sees_the_machine_and_its_networks(fleet: Hosts) -> None:
    def whole() -> Report | None:
        # Rates come with the second look, Tailscale with its own interval.
        found = report(fleet, "tokyo")
        assert found.system is not None
        told = {each.name for each in found.system.processes}
        return found if told >= {"wireguard-go", "sshd"} and found.tailscale is not None else None

    found = until(fleet["tokyo"], whole)
    system = found.system
    for key in ("cores", "load1", "uptime_s", "memory_bytes", "memory_available_bytes", "cpu_idle", "tcp_retransmits"):
        assert getattr(system, key) is not None, key
    has_pressure = fleet["tokyo"].ssh("cat /proc/pressure/cpu", check=False).returncode == 0
    assert (system.psi_cpu is not None) == has_pressure
    assert system.disks[0].mount == "/"
    assert (found.tailscale.backend_state, found.tailscale.error) == ("Running", "")
    assert {link.path: link.state for link in found.links} == {"overlay": "up", "backup": "up"}


def test_a_dead_path_is_left_and_translated_connections_can_be_forgotten(fleet: Hosts) -> None:
    tokyo, vps = fleet["tokyo"], fleet["vps"]
    fleet.cut("overlay", "tokyo", "vps")
    try:
        ways = f"ip route get {vps.service}; ip -6 route get {vps.service6}"
        until(tokyo, lambda: tokyo.run(["sh", "-c", ways]).stdout.count("dev wg0 ") == 2)
    finally:
        fleet.mend()
    for host in fleet.values():
        until_well(host)
    assert "cannot be forgotten" not in journal(tokyo)
    assert "not permitted" not in journal(tokyo)


def test_reload_takes_a_good_file_and_refuses_a_broken_one(fleet: Hosts) -> None:
    tokyo = fleet["tokyo"]
    pid = shown(tokyo, "MainPID")
    with onlooker(tokyo) as seen:
        configure(fleet, "tokyo", site="Shibuya")
        tokyo.ssh("systemctl reload vagus-agent")
        until(tokyo, lambda: "configuration read again; changed: site" in journal(tokyo))
        configure(fleet, "tokyo", nonsense=1)
        assert tokyo.ssh("systemctl reload vagus-agent", check=False).returncode != 0
        assert "nonsense: unknown key" in journal(tokyo)
        configure(fleet, "tokyo")
        tokyo.ssh("systemctl reload vagus-agent")
        until(tokyo, lambda: journal(tokyo).count("configuration read again; changed: site") == 2)
        assert seen() == ""
    assert shown(tokyo, "ActiveState") == "active"
    assert shown(tokyo, "MainPID") == pid
    assert status(tokyo).startswith("2 of 2 links up")


ASK_CONTROLLER = """
import urllib.request
token = open("/var/lib/vagus-controller/token").read().strip()
url = "http://127.0.0.1:8118/api/v1/fleet"
request = urllib.request.Request(url, headers={"Authorization": "Bearer " + token})
print(urllib.request.urlopen(request, timeout=10).read().decode())
"""


def test_the_controller_works_and_reloads(fleet: Hosts) -> None:
    vps = fleet["vps"]

    def view() -> dict[str, Any]:
        return dict(json.loads(vps.ssh(["python3", "-I", "-c", ASK_CONTROLLER]).stdout))

    assert {node["name"] for node in view()["nodes"]} == set(NAMES)
    pid = shown(vps, "MainPID", "vagus-controller")
    for mode in ("recommend", "auto"):
        by_hand.configure_controller(vps, KEY, list(NAMES), failover={"mode": mode})
        vps.ssh("systemctl reload vagus-controller")
        until(vps, lambda mode=mode: view()["mode"] == mode)
    by_hand.configure_controller(vps, KEY, list(NAMES), failover={"mode": "perhaps"})
    assert vps.ssh("systemctl reload vagus-controller", check=False).returncode != 0
    assert 'failover.mode: must be one of "auto", "recommend"' in journal(vps, "vagus-controller")
    by_hand.configure_controller(vps, KEY, list(NAMES))
    assert shown(vps, "MainPID", "vagus-controller") == pid
    assert shown(vps, "ActiveState", "vagus-controller") == "active"


def test_a_frozen_agent_is_started_again_and_adopts_its_routes_without_a_gap(fleet: Hosts) -> None:
    tokyo, vps = fleet["tokyo"], fleet["vps"]
    dropin = "/etc/systemd/system/vagus-agent.service.d/patience.conf"
    tokyo.write(dropin, "[Service]\nWatchdogSec=3s\n")
    tokyo.ssh("systemctl daemon-reload && systemctl restart vagus-agent")
    until_well(tokyo)
    fleet.cut("overlay", "tokyo", "vps")
    try:
        # There is something to adopt: the peer goes by the backup.
        until(tokyo, lambda: "on another path: vps" in status(tokyo))
        until(vps, lambda: "on another path: tokyo" in status(vps))
        before, routes = shown(tokyo, "MainPID"), tokyo.run(["ip", "route", "show", "table", "5180"]).stdout
        assert "metric 10 " in routes
        restarts = int(shown(tokyo, "NRestarts"))
        with onlooker(tokyo) as seen:
            tokyo.ssh("systemctl kill --kill-whom=main -s STOP vagus-agent")
            pings = tokyo.ping(vps.service, count=400, interval_s=0.05, timeout_s=3.0, source=tokyo.service)
            until(
                tokyo,
                lambda: shown(tokyo, "MainPID") not in (before, "0") and status(tokyo).startswith("1 of 2 links up"),
            )
            assert seen() == "", "it found all as it wants it"
        assert pings.answered == 400, pings.errors
        assert int(shown(tokyo, "NRestarts")) == restarts + 1
        assert "Watchdog timeout" in tokyo.ssh("journalctl -u vagus-agent --no-pager").stdout
        # Where it hung is in the journal.
        assert "Fatal Python error: Aborted" in journal(tokyo)
        assert tokyo.run(["ip", "route", "show", "table", "5180"]).stdout == routes
        assert "on another path: vps" in status(tokyo)
    finally:
        fleet.mend()
        tokyo.ssh(f"rm {dropin} && systemctl daemon-reload && systemctl restart vagus-agent")
    for host in fleet.values():
        until_well(host)


def test_a_crash_is_mended_and_a_wrong_configuration_is_not_tried_again(fleet: Hosts) -> None:
    tokyo = fleet["tokyo"]
    before = shown(tokyo, "MainPID")
    tokyo.ssh("systemctl kill --kill-whom=main -s SEGV vagus-agent")
    until(tokyo, lambda: shown(tokyo, "MainPID") not in (before, "0") and shown(tokyo, "ActiveState") == "active")
    configure(fleet, "tokyo", nonsense=1)
    tokyo.ssh("systemctl restart vagus-agent", check=False)
    until(tokyo, lambda: shown(tokyo, "ActiveState") == "failed")
    assert shown(tokyo, "ExecMainStatus") == "2"
    assert "Traceback" not in journal(tokyo)
    configure(fleet, "tokyo")
    tokyo.ssh("systemctl restart vagus-agent")
    until_well(tokyo)


def test_after_a_reboot_it_is_there_by_itself(fleet: Hosts) -> None:
    tokyo = fleet["tokyo"]
    tokyo.reboot()
    until_well(tokyo)
    assert "dev tailscale0" in tokyo.run(["ip", "route", "get", fleet["vps"].service]).stdout
