"""What the doctor finds of other people's and of forgotten routes and rules, on a real kernel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from contract.netns import Netns
from vagus_agent import doctor
from vagus_agent.config import Config, Mqtt, Path, Peer
from vagus_agent.net.netlink import Netlink
from vagus_agent.net.steering import Steering

CONFIG = Config(
    fleet="f",
    node="austin",
    addresses=(ip_address("10.99.0.1"),),
    paths=(Path(name="overlay", interface="overlay0"), Path(name="backup", interface="backup0")),
    mqtt=Mqtt(brokers=()),
    keys_file="/nowhere",
    peers=(
        Peer(
            name="tokyo",
            addresses=(ip_address("10.99.0.2"),),
            prefixes=(ip_network("192.168.30.0/24"),),
            via={"backup": (ip_address("10.8.0.2"),)},
        ),
    ),
)
Found = set[tuple[str, str, str]]


@pytest.fixture
def host() -> Iterator[Netns]:
    """The ladder stands, and no agent runs."""

    async def build() -> None:
        steering = Steering(Netlink(CONFIG.steering), CONFIG, logging.getLogger("test"))
        await steering.open()
        try:
            assert not (await steering.reconcile({}, "start")).failed
        finally:
            await steering.close()

    netns = Netns()
    try:
        netns.ip("addr add 10.99.0.1/32 dev lo")
        for number, device in enumerate(("overlay0", "backup0", "lan0"), 7):
            netns.ip(
                f"link add {device} type veth peer name {device}-far",
                f"link set {device}-far up",
                f"addr add 10.{number}.0.1/24 dev {device}",
                f"link set {device} up",
            )
        with netns.inside():
            asyncio.run(build())
        yield netns
    finally:
        netns.close()


def findings(host: Netns) -> Found:
    """Without those that every node has, well or not."""
    with host.inside():
        found = asyncio.run(doctor.examine(CONFIG))
    return {
        (one.state, one.subject, one.text)
        for one in found
        if one.state != "ok" and one.subject not in ("keys", "pressure", "path backup", "systemd-networkd", "rp_filter")
    }


def test_a_sound_node(host: Netns) -> None:
    assert findings(host) == set()


def test_what_another_configuration_left(host: Netns) -> None:
    host.ip(
        "rule add pref 4900 lookup 6000 protocol 118",
        "route add 10.99.0.9/32 dev backup0 metric 10 proto 118",
        "route add 10.99.0.9/32 dev backup0 metric 10 table 6000 proto 118",
    )
    assert findings(host) == {
        ("problem", "rule", "is left over: IPv4 rule 4900: from all lookup 6000"),
        ("problem", "ladder", "is left over: 10.99.0.9/32 dev backup0 metric 10 table 254"),
        ("problem", "ladder", "is left over: 10.99.0.9/32 dev backup0 metric 10 table 6000"),
    }


def test_a_rule_that_catches_a_prefix(host: Netns) -> None:
    host.ip("route add default dev lan0 table 77", "rule add pref 4000 to 192.168.30.0/25 lookup 77 protocol static")
    rule = "IPv4 rule 4000: from all to 192.168.30.0/25 lookup 77"
    assert findings(host) == {
        ("problem", "peer tokyo", "192.168.30.0/24 is caught before our rule and goes by dev lan0, table 77"),
        ("note", "rule", f"{rule} (protocol 4, static) is asked before ours: what meets its condition goes its way"),
    }


@pytest.mark.parametrize(
    ("condition", "shown"),
    [("ipproto tcp", " ipproto 6"), ("fwmark 0x100/0x3f00", " fwmark 0x100/0x3f00")],
    ids=["protocol", "mark"],
)
def test_a_rule_that_no_lookup_meets_is_named(host: Netns, condition: str, shown: str) -> None:
    host.ip("route add default dev lan0 table 77", f"rule add pref 4000 {condition} lookup 77 protocol static")
    text = f"IPv4 rule 4000: from all{shown} lookup 77 (protocol 4, static) is asked before ours: what meets its"
    assert findings(host) == {("note", "rule", f"{text} condition goes its way")}


def test_a_prefix_that_is_this_machines_own_network(host: Netns) -> None:
    host.ip("addr add 192.168.30.5/25 dev lan0")
    text = "its prefix 192.168.30.0/24 overlaps 192.168.30.0/25 on lan0: what is meant for that goes to it"
    assert findings(host) == {("problem", "peer tokyo", text)}
