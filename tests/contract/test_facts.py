"""The facts behind obstacles, read from a real kernel, firewall and interfaces in a network namespace of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from contract.netns import Netns
from vagus_agent.config import Config, Mqtt, Path, Peer
from vagus_agent.core import obstacles
from vagus_agent.core.obstacles import Device, Facts
from vagus_agent.net import facts
from vagus_agent.net.netlink import Netlink
from vagus_agent.net.steering import Steering

OVERLAY, BACKUP = Path(name="overlay", interface="overlay0"), Path(name="backup", interface="backup0")
FAR = "100.64.0.2"
PEER = Peer(name="tokyo", addresses=(ip_address(FAR),), via={"backup": (ip_address("10.8.0.2"),)})
CONFIG = Config(
    fleet="f",
    node="austin",
    addresses=(ip_address("100.64.0.1"),),
    paths=(OVERLAY, BACKUP),
    mqtt=Mqtt(brokers=()),
    keys_file="/nowhere",
    peers=(PEER,),
)


@pytest.fixture
def host() -> Iterator[Netns]:
    """Two interfaces, a service address in 100.64.0.0/10 on lo; nothing is in the way."""
    netns = Netns()
    try:
        netns.sysctl("net.ipv4.conf.all.rp_filter", 0)
        netns.ip("addr add 100.64.0.1/32 dev lo")
        for number, device in enumerate(("overlay0", "backup0"), 7):
            netns.ip(
                f"link add {device} type veth peer name {device}-far",
                f"link set {device}-far up",
                f"addr add 10.{number}.0.1/24 dev {device}",
                f"link set {device} up",
            )
            netns.sysctl(f"net.ipv4.conf.{device}.rp_filter", 0)
        yield netns
    finally:
        netns.close()


def read(host: Netns, *, steer: bool = True) -> Facts:
    """As the agent: steering has done its work, then the facts are read."""

    async def inside() -> Facts:
        if steer:
            steering = Steering(Netlink(CONFIG.steering), CONFIG, logging.getLogger("test"))
            await steering.open()
            try:
                await steering.reconcile({}, "start")
            finally:
                await steering.close()
        kernel = Netlink(CONFIG.steering)
        await kernel.open()
        try:
            return await facts.read(CONFIG, kernel, [(PEER, OVERLAY), (PEER, BACKUP)])
        finally:
            await kernel.close()

    with host.inside():
        return asyncio.run(asyncio.wait_for(inside(), 20))


def told(found: Facts, path: Path = BACKUP) -> str:
    return obstacles.told(obstacles.of_link(CONFIG, PEER, path, found))


def test_a_sound_host(host: Netns) -> None:
    found = read(host)
    assert (told(found, OVERLAY), told(found, BACKUP)) == ("", "")
    assert found.devices == {"overlay": Device(True, 1500), "backup": Device(True, 1500)}
    assert found.places == {"100.64.0.1": frozenset({"lo"})}
    assert found.ways[FAR].path == "overlay"
    assert found.rungs == {FAR: frozenset({"overlay", "backup"})}
    assert found.drops == {(FAR, "overlay0"): "", (FAR, "backup0"): ""}
    assert found.tunnels == {}
    assert found.firewall == ()


def test_strict_rp_filter_is_seen_where_the_way_back_is_another(host: Netns) -> None:
    host.sysctl("net.ipv4.conf.overlay0.rp_filter", 1)
    host.sysctl("net.ipv4.conf.backup0.rp_filter", 1)
    found = read(host)
    assert told(found, OVERLAY) == ""
    assert f"strict rp_filter drops {FAR} → 100.64.0.1 when it comes in on backup0" in told(found)
    host.sysctl("net.ipv4.conf.all.rp_filter", 2)
    assert told(read(host)) == "", "the larger of both counts, and 2 is loose"


def test_a_small_mtu_and_an_interface_that_is_down_or_missing(host: Netns) -> None:
    host.ip("link set backup0 mtu 1000")
    assert "the MTU of backup0 is 1000" in told(read(host))
    host.ip("link set backup0 down")
    assert "interface backup0 is down" in told(read(host))
    host.ip("link del backup0")
    found = read(host)
    assert "interface backup0 is missing" in told(found)
    assert told(found, OVERLAY) == ""


def test_somebodys_rule_before_ours(host: Netns) -> None:
    host.ip("route add 100.64.0.2/32 dev overlay0 table 77", "rule add pref 100 lookup 77")
    assert "IPv4 rule 100: from all lookup 77" in told(read(host))
    assert told(read(host), OVERLAY) == "", "it goes the same way"


def test_routes_that_do_not_stand(host: Netns) -> None:
    read(host)
    host.ip("route flush table 5180", "route add unreachable 100.64.0.2 table 5180 metric 9999 proto 118")
    assert "no route to 100.64.0.2 by backup0 stands in table 5180" in told(read(host, steer=False))


def test_an_address_that_is_nowhere_or_only_on_the_overlay(host: Netns) -> None:
    host.ip("addr add 100.64.0.1/32 dev overlay0", "addr del 100.64.0.1/32 dev lo")
    assert "100.64.0.1 is on overlay0 only" in told(read(host))
    host.ip("addr del 100.64.0.1/32 dev overlay0")
    assert "100.64.0.1 is on no interface; ip addr add 100.64.0.1/32 dev lo" in told(read(host))


def test_tailscales_drop(host: Netns) -> None:
    for command in (
        "nft add table ip filter",
        "nft add chain ip filter ts-input",
        "nft add rule ip filter ts-input ip saddr 100.64.0.0/10 iifname != overlay0 counter drop",
    ):
        host.run(*command.split())
    assert told(read(host)) == "", "nothing jumps to it"
    host.run("nft", "add", "chain", "ip", "filter", "INPUT")
    host.run("nft", "add", "rule", "ip", "filter", "INPUT", "jump", "ts-input")
    found = read(host)
    assert "Tailscale's firewall drops 100.64.0.2" in told(found)
    assert told(found, OVERLAY) == ""


def test_no_tool_is_no_knowledge_and_no_error(host: Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = read(host)
    assert found.firewall is None
    assert told(found) == ""
