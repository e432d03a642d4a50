"""The hosts themselves: what they are, and that nothing of them stays, however the run ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hosts import Hosts, cgroup_roots, inventory, sweep
from snapshot import differences


@pytest.fixture(scope="module")
def pair(booted: Callable[..., Hosts]) -> Hosts:
    return booted("tokyo", "austin")


def test_a_host_boots_and_answers_ssh(pair: Hosts) -> None:
    for name, host in pair.items():
        assert host.ssh("hostname; cat /proc/1/comm").stdout.split() == [name, "systemd"]
        assert host.ssh("systemctl --failed --plain --no-legend").stdout == ""
        assert host.ssh("systemctl is-system-running").stdout.strip() == "running"
    assert pair["tokyo"].ssh("exit 3", check=False).returncode == 3


def test_hosts_reach_each_other_by_internet_and_overlay_and_not_the_world(pair: Hosts) -> None:
    tokyo, austin = pair["tokyo"], pair["austin"]
    assert tokyo.ping(austin.underlay).answered == 3
    assert tokyo.ping(austin.overlay, timeout_s=6).answered == 3
    assert tokyo.ping("1.1.1.1", count=1, timeout_s=0.3).answered == 0
    assert tokyo.ssh("cat /run/tailscale/no-such", check=False).returncode == 1
    ask = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/tailscale/tailscaled.sock');"
    ask += "s.sendall(b'GET /localapi/v0/status HTTP/1.1\\r\\nHost: local-tailscaled.sock\\r\\n\\r\\n');"
    ask += "print(s.makefile().read())"
    assert '"BackendState": "Running"' in tokyo.ssh(["python3", "-c", ask]).stdout


def test_packages_can_be_installed_without_the_internet(pair: Hosts) -> None:
    pair["austin"].ssh("DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mosquitto")
    assert pair["austin"].ssh("systemctl is-active mosquitto").stdout.strip() == "active"


def test_a_reboot_keeps_the_disk_and_loses_the_kernel(pair: Hosts) -> None:
    host = pair["tokyo"]
    boot = host.ssh("cat /proc/sys/kernel/random/boot_id; ip addr add 10.118.0.1/32 dev lo; touch /root/kept").stdout
    host.reboot()
    now = host.ssh("cat /proc/sys/kernel/random/boot_id; ls /root; ip -o addr show dev lo").stdout
    assert boot.strip() not in now
    assert "kept" in now
    assert "10.118.0.1" not in now
    host.power_cut()
    host.boot()
    assert "kept" in host.ssh("ls /root").stdout
    assert host.ping(pair["austin"].overlay, timeout_s=10).answered == 3


# What is done, what undoes it, and in which sections of the snapshot it must show.
TRACES = (
    ("echo x > /opt/left; mkdir -p /opt/dir", "rm -r /opt/left /opt/dir", {"files"}),
    ("cp -p /etc/issue /root/i; echo x >> /etc/issue", "cp -p /root/i /etc/issue; rm /root/i", {"files"}),
    ("mv /etc/issue.net /opt", "mv /opt/issue.net /etc", {"files"}),
    ("useradd -r left", "userdel left", {"users", "groups", "files"}),
    ("ip rule add pref 5180 lookup 5180 proto 118", "ip rule del pref 5180", {"rules"}),
    ("ip -6 rule add pref 5180 lookup 5180", "ip -6 rule del pref 5180", {"rules"}),
    ("ip route add unreachable 10.9.9.9 table 5180", "ip route flush table 5180", {"routes"}),
    ("ip -6 route add unreachable fd99:9::9 table 5180", "ip -6 route flush table 5180", {"routes"}),
    ("ip addr add 10.118.0.77/32 dev lo", "ip addr del 10.118.0.77/32 dev lo", {"links", "routes"}),
    ("sysctl -qw net.ipv4.conf.all.rp_filter=1", "sysctl -qw net.ipv4.conf.all.rp_filter={rp}", {"kernel"}),
    ("nft add table inet left", "nft delete table inet left", {"kernel"}),
    ("mkdir /run/left", "rmdir /run/left", {"run"}),
    (
        "printf '[Service]\\nExecStart=sleep 100\\n' >/etc/systemd/system/left.service;"
        "systemctl daemon-reload; systemctl start left",
        "systemctl stop left; rm /etc/systemd/system/left.service; systemctl daemon-reload",
        {"units", "files"},
    ),
)


def test_a_snapshot_sees_what_is_left_and_nothing_else(pair: Hosts) -> None:
    host = pair["tokyo"]
    rp = host.ssh("sysctl -n net.ipv4.conf.all.rp_filter").stdout.strip()
    before = host.snapshot()
    assert differences(before, host.snapshot()) == []
    for do, undo, sections in TRACES:
        host.ssh(do)
        found = differences(before, host.snapshot())
        assert {line.partition(":")[0] for line in found} == sections, (do, found)
        host.ssh(undo.format(rp=rp))
        assert differences(before, host.snapshot()) == [], undo


def test_an_inventory_says_how_hosts_are_reached(pair: Hosts) -> None:
    path = inventory(pair, {"vagus_nodes": ["tokyo"]}, {"vagus_fleet": "x"}, {"tokyo": {"vagus_site": "y"}})
    written = json.loads(path.read_text())["all"]
    assert written["hosts"]["tokyo"]["ansible_host"] == pair["tokyo"].address
    assert written["hosts"]["tokyo"]["vagus_site"] == "y"
    assert (written["vars"], written["children"]) == (
        {"vagus_fleet": "x"},
        {"vagus_nodes": {"hosts": {"tokyo": {}}}},
    )


_VICTIM = """
import sys, time
sys.path[:0] = sys.argv[1:]
from hosts import booted
with booted("tokyo") as hosts:
    print(hosts.dir, hosts["tokyo"].pid, flush=True)
    time.sleep(120)
"""


def processes_below(directory: Path) -> list[str]:
    """Processes in cgroups of the run: PID 1 of a host and all that it started."""
    return [
        pid
        for root in cgroup_roots()
        for procs in (root / directory.name).glob("**/cgroup.procs")
        for pid in procs.read_text().split()
    ]


def gone(check: Callable[[], object], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_everything_is_gone_however_the_maker_dies(number: signal.Signals) -> None:
    mounts = Path("/proc/mounts").read_text()
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    argv = [sys.executable, "-c", _VICTIM, *paths]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as victim:
        assert victim.stdout is not None
        name, pid = victim.stdout.readline().split()
        directory = Path(name)
        assert processes_below(directory)
        assert directory.name not in sweep()
        victim.send_signal(number)
        victim.wait(60)
    assert gone(lambda: processes_below(directory))
    assert gone(lambda: os.path.exists(f"/proc/{pid}"))
    if number == signal.SIGKILL:
        sweep()
    assert gone(directory.exists)
    assert not [root for root in cgroup_roots() if (root / directory.name).exists()]
    assert Path("/proc/mounts").read_text() == mounts
