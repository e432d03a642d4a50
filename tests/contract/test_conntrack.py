"""What a move leaves in the kernel's connection tracking, and that it is forgotten: real NAT, real packets.

client ── lan0 ROUTER overlay0 ══ far ══ backup0: the router translates the client's source, by a rule a path, to its
own address there. `far` has the peer's service address and prefix, and tells where packets come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network

import msgspec
import pytest

from contract.netns import Netns
from vagus_agent import doctor, threads
from vagus_agent.config import Config, Mqtt, Path, Peer
from vagus_agent.config import Steering as Settings
from vagus_agent.conntrack_flush import ConntrackFlush
from vagus_agent.net import conntrack
from vagus_agent.net.netlink import Netlink
from vagus_agent.net.steering import Steering

FAR = Peer(
    name="far",
    addresses=(ip_address("10.99.0.2"), ip_address("fd99::2")),
    prefixes=(ip_network("192.168.30.0/24"), ip_network("fd30::/64")),
    via={
        "overlay": (ip_address("10.7.0.2"), ip_address("fd07::2")),
        "backup": (ip_address("10.8.0.2"), ip_address("fd08::2")),
    },
)
CONFIG = Config(
    fleet="f",
    node="router",
    addresses=(ip_address("10.99.0.1"), ip_address("fd99::1")),
    paths=(Path(name="overlay", interface="overlay0"), Path(name="backup", interface="backup0")),
    mqtt=Mqtt(brokers=()),
    keys_file="/nowhere",
    peers=(FAR,),
    steering=Settings(flush_conntrack=True),
)
NAT = """
table inet t {
  chain post {
    type nat hook postrouting priority srcnat;
    ip saddr 192.168.1.0/24 oifname "overlay0" snat ip to 10.7.0.1
    ip saddr 192.168.1.0/24 oifname "backup0" snat ip to 10.8.0.1
    ip6 saddr fd01::/64 oifname "overlay0" snat ip6 to fd07::1
    ip6 saddr fd01::/64 oifname "backup0" snat ip6 to fd08::1
  }
  chain out {
    type filter hook output priority filter;
    ct state new udp sport 7777 counter
  }
}
"""
# (client's address, the router's on the overlay, on the backup, where the client sends to)
WAYS = [
    pytest.param("192.168.1.9", "10.7.0.1", "10.8.0.1", "10.99.0.2", id="service address"),
    pytest.param("192.168.1.9", "10.7.0.1", "10.8.0.1", "192.168.30.7", id="prefix"),
    pytest.param("fd01::9", "fd07::1", "fd08::1", "fd99::2", id="service address, IPv6"),
    pytest.param("fd01::9", "fd07::1", "fd08::1", "fd30::7", id="prefix, IPv6"),
]


@dataclass
class Net:
    client: Netns
    router: Netns
    far: Netns

    def new_flows(self) -> int:
        """How often conntrack took the router's own flow for a new one."""
        found = re.search(
            r"sport 7777 counter packets (\d+)", self.router.run("nft", "list", "chain", "inet", "t", "out")
        )
        assert found
        return int(found.group(1))


@pytest.fixture
def net() -> Iterator[Net]:
    with contextlib.ExitStack() as stack:
        client, router, far = hosts = [stack.enter_context(contextlib.closing(Netns())) for _ in range(3)]
        for host in hosts:
            host.sysctl("net.ipv6.conf.default.accept_dad", 0)
            host.sysctl("net.ipv4.conf.all.rp_filter", 0)
            host.sysctl("net.ipv4.conf.default.rp_filter", 0)
        router.sysctl("net.ipv4.ip_forward", 1)
        router.sysctl("net.ipv6.conf.all.forwarding", 1)
        router.ip(f"link add lan0 type veth peer name lan0 netns {client.path}")
        for device in ("overlay0", "backup0"):
            router.ip(f"link add {device} type veth peer name {device} netns {far.path}")
        client.ip(
            "addr add 192.168.1.9/24 dev lan0",
            "addr add fd01::9/64 dev lan0 nodad",
            "link set lan0 up",
            "route add default via 192.168.1.1",
            "-6 route add default via fd01::1",
        )
        router.ip("addr add 192.168.1.1/24 dev lan0", "addr add fd01::1/64 dev lan0 nodad", "link set lan0 up")
        for number, host in ((1, router), (2, far)):
            host.ip(f"addr add 10.99.0.{number}/32 dev lo", f"addr add fd99::{number}/128 dev lo nodad")
            for network, device in ((7, "overlay0"), (8, "backup0")):
                host.ip(
                    f"addr add 10.{network}.0.{number}/24 dev {device}",
                    f"addr add fd0{network}::{number}/64 dev {device} nodad",
                    f"link set {device} up",
                )
        far.ip(
            "addr add 192.168.30.7/32 dev lo",
            "addr add fd30::7/128 dev lo nodad",
            "route add 10.99.0.1 via 10.7.0.1",
            "-6 route add fd99::1 via fd07::1",
        )
        subprocess.run(["nsenter", f"--net={router.path}", "nft", "-f", "-"], input=NAT, text=True, check=True)
        yield Net(client, router, far)


class Flow:
    """One UDP flow: the same two ends, packet after packet."""

    def __init__(self, sender: Netns, source: tuple[str, int], receiver: Netns, target: str) -> None:
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        self._receiver = receiver.socket(family, socket.SOCK_DGRAM)
        self._receiver.bind((target, 0))
        self._receiver.settimeout(5)
        self._sender = sender.socket(family, socket.SOCK_DGRAM)
        self._sender.bind(source)
        self._sender.settimeout(5)
        self._target = self._receiver.getsockname()

    def __enter__(self) -> Flow:
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.close()
        self._receiver.close()

    def comes_from(self) -> str:
        """The source address of its next packet, as the receiver sees it."""
        self._sender.sendto(b"x", self._target)
        self._from = self._receiver.recvfrom(100)[1]
        return str(self._from[0])

    def is_answered(self) -> None:
        """From here on conntrack takes the flow for established."""
        self._receiver.sendto(b"y", self._from)
        assert self._sender.recv(100) == b"y"


def run(net: Net, work: Callable[[Steering], Awaitable[None]]) -> None:
    """Netlink, of steering and of conntrack, in the router."""

    async def inner() -> None:
        steering = Steering(Netlink(CONFIG.steering), CONFIG, logging.getLogger("test"))
        await steering.open()
        try:
            assert not (await steering.reconcile({}, "start")).failed
            async with asyncio.timeout(30):
                await work(steering)
        finally:
            await steering.close()

    with net.router.inside():
        asyncio.run(inner())


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 (the condition is anything)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("client", "overlay", "backup", "target"), WAYS)
def test_a_translated_flow_is_translated_anew_once_its_peer_has_moved(
    net: Net, client: str, overlay: str, backup: str, target: str
) -> None:
    own, peer = ("fd99::1", "fd99::2") if ":" in target else ("10.99.0.1", "10.99.0.2")

    async def work(steering: Steering) -> None:
        told: list[str] = []
        complaints: list[str] = []
        flush = ConntrackFlush(CONFIG, told.append, complaints.append)
        task = asyncio.create_task(flush.run())
        flush.on_paths((await steering.reconcile({}, "look")).paths, ())
        with (
            Flow(net.client, (client, 5555), net.far, target) as translated,
            Flow(net.router, (own, 7777), net.far, peer) as plain,
        ):
            assert (translated.comes_from(), plain.comes_from()) == (overlay, own)
            plain.is_answered()
            assert net.new_flows() == 1
            for path, before, after in (("backup", overlay, backup), ("overlay", backup, overlay)):
                outcome = await steering.override("far", path)
                assert translated.comes_from() == before, "the kernel lets go by itself: all this is needless"
                told.clear()
                flush.on_paths(outcome.paths, ())
                await until(lambda: told or complaints)
                assert told == [f"far goes by {path}: a translated connection was forgotten"]
                assert translated.comes_from() == after
                assert plain.comes_from() == own
            assert net.new_flows() == 1, "what nobody translates is left alone"
        assert complaints == []
        assert not task.done()
        task.cancel()

    run(net, work)


def test_translations_that_hold_on_every_path_stay(net: Net) -> None:
    """To our service address, or in the direction from the peer into our LAN: a new one would break the connection."""
    net.router.run(
        "nft", "insert", "rule", "inet", "t", "post", "udp", "sport", "5555", "snat", "ip", "to", "10.99.0.1"
    )
    net.router.run("nft", "add", "rule", "inet", "t", "post", "oifname", "lan0", "snat", "ip", "to", "192.168.1.1")
    net.far.ip("route add 192.168.1.9/32 via 10.7.0.1 src 10.99.0.2")

    async def work(steering: Steering) -> None:
        with (
            Flow(net.client, ("192.168.1.9", 5555), net.far, "10.99.0.2") as outward,
            Flow(net.far, ("10.99.0.2", 6666), net.client, "192.168.1.9") as inward,
        ):
            assert outward.comes_from() == "10.99.0.1"
            assert inward.comes_from() == "192.168.1.1"
            entries = tracked(net)
            assert len(entries) == 2
            outcome = await steering.override("far", "backup")
            flush = ConntrackFlush(CONFIG, print, print)
            assert await threads.run("conntrack", partial(flush._forget, outcome.paths)) == {}
            assert tracked(net) == entries

    run(net, work)


def tracked(net: Net) -> set[tuple[str, ...]]:
    """(source, translated, target) of what has a translated source; nothing of it is forgotten."""
    found: set[tuple[str, ...]] = set()

    def note(connection: conntrack.Translation) -> str:
        found.add(tuple(map(str, connection)))
        return ""

    with net.router.inside():
        thread = threading.Thread(target=conntrack.forget, args=(note,))
        thread.start()
        thread.join(10)
    return found


def test_the_doctor_says_whether_it_can_be_done_here(net: Net) -> None:
    def findings(config: Config) -> list[tuple[str, str]]:
        with net.router.inside():
            found = asyncio.run(doctor.examine(config))
        return [(one.state, one.text) for one in found if one.subject == "conntrack"]

    assert findings(CONFIG) == [("ok", "translated connections can be forgotten after a move")]
    assert findings(msgspec.structs.replace(CONFIG, steering=Settings())) == [], "nobody asked for it"


_UNPRIVILEGED = """
import asyncio, pickle, sys
from vagus_agent import doctor
from vagus_agent.conntrack_flush import ConntrackFlush

config = pickle.loads(bytes.fromhex(sys.argv[1]))
print(doctor._conntrack())

async def main():
    said = asyncio.Event()
    def say(text):
        print(text)
        said.set()
    flush = ConntrackFlush(config, say, say)
    task = asyncio.create_task(flush.run())
    for path in ("overlay", "backup"):
        flush.on_paths({"far": path}, ())
    await said.wait()
    print("still runs" if not task.done() else "ended")

asyncio.run(main())
"""


def test_where_it_cannot_be_done_that_is_a_complaint_and_nothing_else(net: Net) -> None:
    drop = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    done = net.router.run(*drop, sys.executable, "-c", _UNPRIVILEGED, pickle.dumps(CONFIG).hex())
    why = "not permitted: needs CAP_NET_ADMIN"
    assert f"flush_conntrack is on, but translated connections cannot be forgotten here: {why}" in done
    assert f"connections that a move left behind cannot be forgotten: {why}\nstill runs\n" in done


def test_a_kernel_without_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's kernel has it: its refusal is played."""
    real = socket.socket

    def without(family: int = -1, kind: int = -1, proto: int = -1, *rest: object) -> socket.socket:
        if (family, proto) == (socket.AF_NETLINK, 12):
            raise OSError(93, "Protocol not supported")
        return real(family, kind, proto, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", without)
    with pytest.raises(conntrack.ConntrackError, match="this kernel has no nf_conntrack_netlink"):
        conntrack.check()
