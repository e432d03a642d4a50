"""Three paths, the last of them metered, and a site's LAN behind a node: what rides the ladder, and in which order.

pi1 ══ tailscale0, wg0, lte0 ══ pi2 ── lan0 ── a machine in 192.168.30.0/24 and fd30::/64
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from lab.fleet_helpers import (
    FAILBACK_HOLD_S,
    PATIENCE_S,
    REPORT_S,
    THREE,
    Since,
    Wire,
    agents,
    fleet,
    node,
    pair,
    pair_name,
    route,
    running,
    state,
    until,
)
from lab.harness import HostSpec, Lab, TcpStream, UdpStream, hosts
from lab.harness.hosts import INTERFACE, Host
from lab.harness.services import FLEET, merge
from vagus_agent.config import METERED_REPORT_FACTOR
from vagus_protocol import topics

PAIR = ("pi1", "pi2")
DEVICE = {**INTERFACE, "lte": "lte0"}
PORT = 51821
LAN, LAN6 = "192.168.30.0/24", "fd30::/64"
FLUSH = {"steering": {"flush_conntrack": True}}


def lte(host: Host) -> tuple[str, str]:
    """Its addresses in the third network."""
    return f"10.61.0.{host.number}", f"fd61::{host.number}"


def behind(host: Host) -> list[str]:
    return [LAN, LAN6] if host.name == "pi2" else []


def agent_settings(lab: Lab, name: str) -> dict[str, Any]:
    """The lab's, with the third path, and the LAN behind pi2."""
    base = lab.agent_settings(lab[name])
    paths = [*base["paths"], {"name": "lte", "interface": "lte0", "metered": True, "networks": ["10.61.0.0/16"]}]
    peers = [
        {**peer, "prefixes": behind(lab[peer["name"]]), "via": {**peer["via"], "lte": list(lte(lab[peer["name"]]))}}
        for peer in base["peers"]
    ]
    return {"paths": paths, "peers": peers}


def build_third_network(lab: Lab) -> None:
    keys = dict(zip(lab.hosts, hosts.tunnel_keys(len(lab.hosts)), strict=True))
    for host in lab.hosts.values():
        env = {"WG_PROCESS_FOREGROUND": "1", "GOMAXPROCS": "1", "LOG_LEVEL": "error"}
        host.spawn(["wireguard-go", "lte0"], name="wireguard-lte", env=env)
    for host in lab.hosts.values():
        conf = ["[Interface]", f"PrivateKey = {keys[host.name].private}", f"ListenPort = {PORT}", "FwMark = 0x80000"]
        for peer in lab.others(host):
            allowed = [*lte(peer), peer.service, peer.service6, *behind(peer)]
            conf += ["[Peer]", f"PublicKey = {keys[peer.name].public}", f"AllowedIPs = {', '.join(allowed)}"]
            conf += [f"Endpoint = {peer.underlay}:{PORT}"]
        four, six = lte(host)
        lines = [
            "n=0; until [ -S /run/wireguard/lte0.sock ]; do n=$((n+1)); [ $n -lt 500 ]; sleep 0.01; done",
            "wg setconf lte0 /dev/stdin <<'END'\n" + "\n".join(conf) + "\nEND",
            f"ip addr add {four}/16 dev lte0",
            f"ip addr add {six}/64 dev lte0 nodad",
            "ip link set lte0 mtu 1380 up",
        ]
        host.run(["sh", "-ec", "\n".join(lines)])


@contextlib.contextmanager
def machine_behind(lab: Lab, router: Host) -> Iterator[Host]:
    """In the router's LAN; whoever sends to the LAN over a tunnel may."""
    machine = Host(HostSpec("lan", agent=False), 99, lab.dir / "lan", None, hosts.tunnel_keys(2))
    machine.service, machine.service6 = "192.168.30.7", "fd30::7"
    machine.start()
    machine.ready()
    try:
        wire = f"link add lan0 type veth peer name lan0 netns {machine.pid}"
        subprocess.run(["nsenter", f"--net=/proc/{router.pid}/ns/net", "ip", *wire.split()], check=True, timeout=30)
        for host, number in ((machine, 7), (router, 1)):
            host.run(["sysctl", "-qw", "net.ipv6.conf.lan0.accept_dad=0"])
            for command in (
                f"addr add 192.168.30.{number}/24 dev lan0",
                f"addr add fd30::{number}/64 dev lan0 nodad",
                "link set lan0 up",
            ):
                host.run(["ip", *command.split()])
        machine.run(["ip", "route", "add", "default", "via", "192.168.30.1"])
        machine.run(["ip", "-6", "route", "add", "default", "via", "fd30::1"])
        router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        for host in lab.others(router):
            for path in INTERFACE:
                allowed = [*router.tunnel_addresses(path), router.service, router.service6, LAN, LAN6]
                peer = router.key[path].public
                host.run(["wg", "set", INTERFACE[path], "peer", peer, "allowed-ips", ",".join(allowed)])
        yield machine
    finally:
        machine.close()


class Fleet:
    """The lab, and the machine behind pi2: what `TcpStream` and `UdpStream` ask a lab for."""

    def __init__(self, lab: Lab, machine: Host) -> None:
        self.lab = lab
        self.machine = machine

    def __getitem__(self, name: str) -> Host:
        return self.machine if name == "lan" else self.lab[name]

    def tcp(self, a: str, b: str, *, ipv6: bool = False) -> TcpStream:
        return TcpStream(cast(Lab, self), a, b, ipv6=ipv6)

    def udp(self, a: str, b: str) -> UdpStream:
        return UdpStream(cast(Lab, self), a, b, interval_s=0.02)


@pytest.fixture(scope="module")
def whole() -> Iterator[Fleet]:
    with running(THREE) as lab, machine_behind(lab, lab["pi2"]) as machine:
        build_third_network(lab)
        restart(lab, *agents(lab))
        yield Fleet(lab, machine)


@pytest.fixture
def three(whole: Fleet) -> Iterator[Fleet]:
    """All well before a test and after it, and nothing has left a host in the clear."""
    until_well(whole.lab)
    leaks = whole.lab.leaks()
    yield whole
    whole.lab.mend("overlay")
    whole.lab.mend("backup")
    until_well(whole.lab)
    assert whole.lab.leaks() == leaks, "packets to service addresses left a host in the clear"


def restart(lab: Lab, *names: str, **settings: Any) -> None:
    for name in names:
        lab.process(name, "agent").stop()
        lab.start_agents(name, settings=merge(merge(agent_settings(lab, name), FLUSH), settings))


def until_well(lab: Lab) -> None:
    def well() -> bool:
        told = fleet(lab)
        proven = [path["proven"] for one in told["pairs"] for path in one["paths"]]
        return (
            told["observer"]["state"] == "connected"
            and all(one["liveness"]["state"] == "fresh" for one in told["nodes"])
            and len(proven) == 9
            and all(proven)
            and all(one["observed"] == ["overlay", "overlay"] for one in told["pairs"])
        )

    # A metered path that was down is up after five of its idle probes.
    until(well, lambda: state(lab), 2 * PATIENCE_S)


def goes_by(lab: Lab, path: str) -> bool:
    """The pair, and what is behind pi2, by the controller's word and the kernels'."""
    one = pair(lab, *PAIR)
    if one["observed"] != [path, path] or one["status"] not in ("settled", "held"):
        return False
    devices = {*route(lab, "pi1", "pi2"), *route(lab, "pi2", "pi1")}
    for address in ("192.168.30.7", "fd30::7"):
        found = json.loads(lab["pi1"].run(["ip", "-j", "route", "get", address]).stdout)
        devices.add(found[0].get("dev", ""))
    return devices == {DEVICE[path]}


def test_a_lan_behind_a_node_rides_three_paths_in_order_and_home_under_live_tcp(three: Fleet) -> None:
    lab, since = three.lab, Since(three.lab)
    with (
        three.tcp("pi1", "lan") as inward,
        three.tcp("lan", "pi1") as outward,
        three.tcp("pi1", "lan", ipv6=True) as inward6,
        three.tcp("pi1", "pi2") as plain,
    ):
        streams = (inward, outward, inward6, plain)

        def until_on(path: str) -> None:
            until(lambda: goes_by(lab, path), lambda: f"on {path}: {state(lab)}")
            moved = time.monotonic()
            until(lambda: all(one.receipts()[-1].sent > moved for one in streams), f"every stream goes on by {path}")

        until_on("overlay")
        lab.cut("overlay", *PAIR)
        until_on("backup")
        lab.cut("backup", *PAIR)
        until_on("lte")
        lab.mend("backup", *PAIR)
        until_on("backup")  # though home is dead still
        lab.mend("overlay", *PAIR)
        until_on("overlay")
        for stream in streams:
            assert stream.alive, stream.ended()
            assert stream.connections() == 1
    moves = [entry for entry in since.ledger(subject=pair_name(*PAIR)) if entry["action"] in ("failover", "failback")]
    assert [entry["action"] for entry in moves] == ["failover", "failover", "failover", "failback"]
    back = moves[2]["reason"]
    assert "backup has been proven from both ends" in back
    assert back.endswith("and comes before lte")
    assert float(back.partition(" for ")[2].partition(" s")[0]) >= FAILBACK_HOLD_S


def test_a_metered_path_is_probed_seldom_and_says_so(three: Fleet) -> None:
    paths = {path["path"]: path for path in pair(three.lab, *PAIR)["paths"]}
    assert (paths["lte"]["metered"], paths["lte"]["idle_interval_s"]) == (True, 5.0)
    assert not paths["backup"]["metered"]


def test_reports_are_rarer_while_the_broker_is_reached_by_a_metered_path_and_nobody_calls_it_silent(
    three: Fleet,
) -> None:
    lab = three.lab
    broker = {"host": lte(lab["vps"])[0], "port": 1883, "peer": "vps", "path": "lte"}
    restart(lab, "pi1", mqtt={"brokers": [broker]})
    topic = topics.node(FLEET, "pi1", "report")
    try:
        until_well(lab)
        with Wire(lab, "controller", topic) as wire:
            until(lambda: len(wire.heard) >= 3, "three reports")
            intervals = [json.loads(one.payload)["interval_s"] for one in wire.heard]
            assert intervals == [REPORT_S * METERED_REPORT_FACTOR] * len(intervals)
            assert node(lab, "pi1")["liveness"]["state"] == "fresh"
    finally:
        restart(lab, "pi1")


def test_a_connection_that_pi2_translates_by_path_goes_on_from_the_new_address(three: Fleet) -> None:
    lab, pi2 = three.lab, three.lab["pi2"]
    rules = [f"oifname {DEVICE[path]} ip saddr {LAN} snat to {pi2.tunnel_addresses(path)[0]}" for path in INTERFACE]
    chain = "type nat hook postrouting priority srcnat;"
    nat = "\n".join(["table ip nat-by-path {", "chain post {", chain, *rules, "}", "}"])
    pi2.run(["nft", "-f", "-"], input=nat)
    try:
        since = Since(lab)
        with three.udp("lan", "pi1") as stream:
            for path, cut in (("backup", True), ("overlay", False)):
                (lab.cut if cut else lab.mend)("overlay", *PAIR)
                until(lambda path=path: goes_by(lab, path), lambda path=path: f"on {path}: {state(lab)}")
                told = f"pi1 goes by {path}: a translated connection was forgotten"
                until(lambda told=told: since.events("steering", told), told)
                moved = time.monotonic()
                until(lambda moved=moved: stream.arrivals()[-1].sent > moved, f"it goes on by {path}")
    finally:
        pi2.run(["nft", "delete", "table", "ip", "nat-by-path"])
