"""Steering between two real hosts: live TCP, vanishing interfaces, leaks, crashes; what doctor and `routes` say of it.

Two namespaces joined by two veth links, `overlay0` and `backup0`; each has a default route to an ISP that must see none
of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract.netns import Netns
from vagus_agent import config as settings
from vagus_agent import doctor, routes_command
from vagus_agent.config import Config, Mqtt, Peer
from vagus_agent.core.prober import Prober, Proof
from vagus_agent.net.netlink import Netlink
from vagus_agent.net.steering import Outcome, Steering
from vagus_agent.net.udp import ProbeSockets
from vagus_protocol.messages import LinkState

LOG = logging.getLogger("lab")
TIMEOUT_S = 10.0
_MANY = 20
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])


@dataclass
class Host:
    """One end. Its numbers: 1 and 2."""

    number: int
    netns: Netns
    config: Config

    @property
    def peer(self) -> str:
        return self.config.peers[0].name

    def service(self, family: int) -> str:
        return f"10.99.0.{self.number}" if family == 4 else f"fd99::{self.number}"

    def steering(self) -> Steering:
        return Steering(Netlink(self.config.steering), self.config, LOG)

    def sent(self, device: str) -> int:
        """Packets that left by `device`."""
        [link] = json.loads(self.netns.ip(f"-j -s link show dev {device}"))
        return int(link["stats64"]["tx"]["packets"])

    def socket(self, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        sock = self.netns.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
        sock.settimeout(TIMEOUT_S)
        sock.bind((self.service(family), 0))
        return sock


def make_config(number: int, keys: Path) -> Config:
    other = 3 - number
    return Config(
        fleet="f",
        node=f"n{number}",
        addresses=(ip_address(f"10.99.0.{number}"), ip_address(f"fd99::{number}")),
        paths=(
            settings.Path(name="overlay", interface="overlay0"),
            settings.Path(name="backup", interface="backup0"),
        ),
        mqtt=Mqtt(brokers=()),
        keys_file=str(keys),
        peers=(
            Peer(
                name=f"n{other}",
                addresses=(ip_address(f"10.99.0.{other}"), ip_address(f"fd99::{other}")),
                via={
                    # veth is no tunnel: IPv6 needs a neighbour that answers
                    "overlay": (ip_address(f"10.7.0.{other}"), ip_address(f"fd07::{other}")),
                    "backup": (ip_address(f"10.8.0.{other}"), ip_address(f"fd08::{other}")),
                },
            ),
        ),
    )


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'node = "{"1" * 64}"\nprobe = "{"2" * 64}"\n')
    keys.chmod(0o600)
    one, two = Netns(), Netns()
    hosts = (Host(1, one, make_config(1, keys)), Host(2, two, make_config(2, keys)))
    try:
        for end in (one, two):
            end.sysctl("net.ipv6.conf.default.accept_dad", 0)  # or IPv6 is not there for the first seconds
        for device in ("overlay0", "backup0"):
            one.ip(f"link add {device} type veth peer name {device} netns {two.path}")
        for host in hosts:
            n = host.number
            host.netns.sysctl("net.ipv4.conf.all.rp_filter", 0)
            host.netns.ip(
                f"addr add 10.99.0.{n}/32 dev lo",
                f"addr add fd99::{n}/128 dev lo nodad",
                f"addr add 10.7.0.{n}/24 dev overlay0",
                f"addr add fd07::{n}/64 dev overlay0 nodad",
                f"addr add 10.8.0.{n}/24 dev backup0",
                f"addr add fd08::{n}/64 dev backup0 nodad",
                "link add isp0 type veth peer name isp1",
                "link set isp1 up",
                "link set isp0 up addrgenmode none",
                "addr add 203.0.113.2/24 dev isp0",
                "addr add 2001:db8::2/64 dev isp0 nodad",
                "neigh add 203.0.113.1 dev isp0 lladdr 02:00:00:00:00:01",
                "neigh add 2001:db8::1 dev isp0 lladdr 02:00:00:00:00:01",
                "link set overlay0 up",
                "link set backup0 up",
                "route add default via 203.0.113.1",
                "-6 route add default via 2001:db8::1",
            )
        yield hosts
    finally:
        one.close()
        two.close()


def steer(hosts: tuple[Host, ...], work: Callable[..., Awaitable[None]]) -> None:
    """Run `work(steering of each host)` with each one's netlink in its own namespace."""

    async def inner() -> None:
        all_of_them = []
        try:
            for host in hosts:
                steering = host.steering()
                with host.netns.inside():
                    await steering.open()
                all_of_them.append(steering)
            async with asyncio.timeout(30):
                await work(*all_of_them)
        finally:
            for steering in all_of_them:
                await steering.close()

    asyncio.run(inner())


def build(hosts: tuple[Host, ...]) -> None:
    """The ladder stands on every host, and no agent runs."""

    async def work(*steerings: Steering) -> None:
        for steering in steerings:
            assert not (await steering.reconcile({}, "start")).failed

    steer(hosts, work)


class Conversation:
    """A TCP connection from one service address to the other."""

    def __init__(self, client: Host, server: Host, family: int) -> None:
        with server.socket(family) as listener:
            listener.listen()
            self._near = client.socket(family)
            self._near.connect((server.service(family), listener.getsockname()[1]))
            self._far, _ = listener.accept()
            self._far.settimeout(TIMEOUT_S)
        self.names = self._near.getsockname()[:2], self._far.getpeername()[:2]
        self._count = 0

    def goes_on(self, rounds: int = 20) -> None:
        for _ in range(rounds):
            self._count += 1
            word = self._count.to_bytes(4, "big")
            self._near.sendall(word)
            assert self._far.recv(4, socket.MSG_WAITALL) == word
            self._far.sendall(word)
            assert self._near.recv(4, socket.MSG_WAITALL) == word
        assert (self._near.getsockname()[:2], self._far.getpeername()[:2]) == self.names

    def close(self) -> None:
        self._near.close()
        self._far.close()


def goes_by(host: Host, device: str, conversation: Conversation) -> None:
    before = host.sent(device)
    conversation.goes_on(20)
    assert host.sent(device) >= before + 20, f"not by {device}"


@FAMILIES
def test_an_override_at_both_ends_moves_a_live_connection_and_keeps_its_source(
    hosts: tuple[Host, Host], family: int
) -> None:
    one, two = hosts

    async def work(first: Steering, second: Steering) -> None:
        await first.reconcile({}, "start")
        await second.reconcile({}, "start")
        conversation = Conversation(one, two, family)
        try:
            for path in ("overlay", "backup", "overlay", "backup"):
                started = time.perf_counter()
                outcomes = [await first.override("n2", path), await second.override("n1", path)]
                print(f"both ends to {path}: {(time.perf_counter() - started) * 1e3:.1f} ms")
                assert [outcome.paths for outcome in outcomes] == [{"n2": path}, {"n1": path}]
                assert not any(outcome.failed for outcome in outcomes)
                for host in hosts:
                    goes_by(host, f"{path}0", conversation)
        finally:
            conversation.close()

    steer(hosts, work)


@FAMILIES
def test_when_the_overlay_interface_vanishes_the_kernel_falls_back_with_no_agent(
    hosts: tuple[Host, Host], family: int
) -> None:
    one, two = hosts
    build(hosts)
    conversation = Conversation(one, two, family)
    try:
        goes_by(one, "overlay0", conversation)
        one.netns.ip("link del overlay0")  # a veth takes its other end along
        goes_by(one, "backup0", conversation)
        goes_by(two, "backup0", conversation)
    finally:
        conversation.close()


@FAMILIES
def test_with_every_path_gone_nothing_leaks_to_the_default_route(hosts: tuple[Host, Host], family: int) -> None:
    one, two = hosts
    destination = (two.service(family), 9)
    with one.socket(family, socket.SOCK_DGRAM) as sock:
        before = one.sent("isp0")
        sock.sendto(b"leak", destination)
        assert one.sent("isp0") > before, "without the ladder it leaks: else this test proves nothing"
        build((one,))
        one.netns.ip("link del overlay0", "link del backup0")
        before = one.sent("isp0")
        for _ in range(_MANY):
            with pytest.raises(OSError, match=r"No route to host|unreachable"):
                sock.sendto(b"leak", destination)
        assert one.sent("isp0") < before + _MANY, "the kernel's own word to its neighbours may be among them"


def test_a_watching_agent_repairs_a_flush_and_a_deleted_rule_under_a_live_connection(hosts: tuple[Host, Host]) -> None:
    one, two = hosts

    async def work(first: Steering, second: Steering) -> None:
        told: list[Outcome] = []
        await first.reconcile({"n2": "backup"}, "start")
        await second.reconcile({"n1": "backup"}, "start")
        watch = asyncio.create_task(first.watch(told.append))
        try:
            for damage in (
                "route flush table 5180",
                "-6 route flush table 5180",
                "rule del pref 5180",
                "-6 rule del pref 5180",
            ):
                await asyncio.sleep(0.2)
                told.clear()
                started = time.perf_counter()
                one.netns.ip(damage)
                while not told:
                    await asyncio.sleep(0.005)
                    assert time.perf_counter() - started < 5, f"not repaired: {damage}"
                print(f"{damage}: repaired in {(time.perf_counter() - started) * 1e3:.0f} ms")
                assert told[0].drift
                assert not told[0].failed
                assert told[0].paths == {"n2": "backup"}
                conversation = Conversation(one, two, 4)
                goes_by(one, "backup0", conversation)
                conversation.close()
        finally:
            watch.cancel()

    steer(hosts, work)


def test_other_protocols_routes_and_rules_are_never_touched(hosts: tuple[Host, Host]) -> None:
    one, _ = hosts
    one.netns.ip(
        "route add 10.99.0.0/24 dev backup0 table 5180 proto bgp metric 20",
        "route add 10.99.0.2/32 dev backup0 table 5180 proto static metric 20",
        "route add 10.99.0.0/24 dev backup0 proto bgp",
        "-6 route add fd99::/64 dev backup0 table 5180 proto static metric 20",
        "rule add pref 5270 lookup 52",
    )
    ours = ("proto 118", "5180:")

    def theirs() -> list[str]:
        commands = ("route show table all", "-6 route show table all", "rule show", "-6 rule show")
        lines = [line for command in commands for line in one.netns.ip(command).splitlines()]
        return [" ".join(line.split()) for line in lines if not any(mark in line for mark in ours)]

    before = theirs()

    async def work(first: Steering) -> None:
        for path in ("overlay", "backup", "overlay"):
            await first.reconcile({"n2": path}, "move")
            assert theirs() == before
        await first.clear(overrides_only=False)

    steer((one,), work)
    assert theirs() == before
    assert "118" not in one.netns.ip("route show table all")


_AGENT = """
import asyncio, logging, pickle, sys
from vagus_agent.net.netlink import Netlink
from vagus_agent.net.steering import Steering

async def main():
    config = pickle.loads(bytes.fromhex(sys.argv[1]))
    steering = Steering(Netlink(config.steering), config, logging.getLogger())
    await steering.open()
    await steering.reconcile({"n2": "backup"}, "start")
    print("ready", flush=True)
    await steering.watch(lambda outcome: None)

asyncio.run(main())
"""


def test_a_killed_agent_leaves_its_routes_and_the_next_one_adopts_them(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    build((two,))
    command = ["nsenter", f"--net={one.netns.path}", sys.executable, "-c", _AGENT, pickle.dumps(one.config).hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as agent:
        try:
            assert agent.stdout is not None
            assert agent.stdout.readline() == b"ready\n"
            conversation = Conversation(one, two, 4)
            goes_by(one, "backup0", conversation)
        finally:
            os.kill(agent.pid, signal.SIGKILL)
    goes_by(one, "backup0", conversation)

    async def work(first: Steering) -> None:
        outcome = await first.reconcile({"n2": "backup"}, "next life")
        assert outcome == Outcome(False, {"n2": "backup"})
        goes_by(one, "backup0", conversation)

    steer((one,), work)
    conversation.close()


# --- verification: packets that go as traffic goes --------------------------------------------------------------------


class Prover:
    """The agent's probes of one host, over real sockets."""

    def __init__(self, host: Host, boot: int) -> None:
        now = time.monotonic()
        self._host = host
        self._proofs: asyncio.Queue[Proof] = asyncio.Queue()
        self.prober = Prober(host.config, b"k" * 32, boot, now, 0.0)
        self._sockets = ProbeSockets(host.config, self.prober, lambda _: None, self._proofs.put_nowait, time.monotonic)

    def open(self) -> None:
        with self._host.netns.inside():
            self._sockets.open()

    def close(self) -> None:
        self._sockets.close()

    async def verify(self, path: str) -> Proof:
        self._sockets.verify(self._host.peer, path)
        async with asyncio.timeout(TIMEOUT_S):
            return await self._proofs.get()

    async def up(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not all(link.state is LinkState.UP for link in self.prober.links):
            await asyncio.sleep(0.02)
            assert time.monotonic() < deadline, [(link.path, link.reason) for link in self.prober.links]


@FAMILIES
def test_a_path_is_proven_only_by_packets_that_the_kernel_itself_sends_there(
    hosts: tuple[Host, Host], family: int
) -> None:
    for host in hosts:
        addresses = tuple(ip_address(Host(number, host.netns, host.config).service(family)) for number in (1, 2))
        mine, other = addresses if host.number == 1 else addresses[::-1]
        peer = msgspec.structs.replace(host.config.peers[0], addresses=(other,))
        host.config = msgspec.structs.replace(host.config, addresses=(mine,), peers=(peer,))

    async def work(first: Steering, second: Steering) -> None:
        await first.reconcile({}, "start")
        await second.reconcile({}, "start")
        provers = [Prover(host, host.number) for host in hosts]
        one, two = provers
        try:
            for prover in provers:
                prover.open()
            for prover in provers:
                await prover.up()
            assert (await one.verify("overlay")).ok
            # Both paths are proven by pinned probes; traffic goes by one of them.
            elsewhere = await one.verify("backup")
            assert not elsewhere.ok
            assert elsewhere.reason == "packets by the kernel's own route went by overlay, not by backup"
            await first.override("n2", "backup")
            proof = await one.verify("backup")
            assert proof.ok, "our own end has moved: this is what it proves"
            assert not (await two.verify("backup")).ok, "the other end has not"
            await second.override("n1", "backup")
            assert (await two.verify("backup")).ok
            hosts[0].netns.ip(f"{'-6 ' if family == 6 else ''}route add blackhole {other_end(family)} table 1")
            hosts[0].netns.ip(f"{'-6 ' if family == 6 else ''}rule add pref 1 lookup 1")
            lost = await one.verify("backup")
            assert not lost.ok
            assert "the kernel sends nothing to n2" in lost.reason
            assert all(link.state is LinkState.UP for link in one.prober.links), "that is not the links' doing"
        finally:
            for prover in provers:
                prover.close()

    def other_end(family: int) -> str:
        return hosts[1].service(family)

    steer(hosts, work)


# --- the commands ----------------------------------------------------------------------------------------------------


def in_host(host: Host, command: Callable[..., int], *arguments: Any) -> int:
    with host.netns.inside():
        return command(host.config, *arguments)


def test_routes_show_and_clear_need_no_daemon(hosts: tuple[Host, Host], capsys: pytest.CaptureFixture[str]) -> None:
    one, _ = hosts
    build((one,))

    async def override(first: Steering) -> None:
        await first.reconcile({"n2": "backup"}, "move")

    steer((one,), override)
    one.netns.ip("route del 10.99.0.2/32 table 5180 metric 100")
    one.netns.ip("-6 rule del pref 5180")
    assert in_host(one, routes_command.show) == 0
    shown = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert shown >= {
        "IPv6 rule 5180: not from all fwmark 0x80000/0xff0000 lookup 5180 MISSING",
        "PEER DESTINATION PATH VIA METRIC NOTE",
        "n2 10.99.0.2/32 backup 10.8.0.2 dev backup0 10 override, in use",
        "n2 10.99.0.2/32 overlay 10.7.0.2 dev overlay0 100 MISSING",
        "n2 fd99::2/128 - unreachable 9999",
    }

    assert in_host(one, routes_command.clear, True) == 0
    assert "removed 10.99.0.2/32 via 10.8.0.2 dev backup0 metric 10" in capsys.readouterr().out
    assert in_host(one, routes_command.clear, False) == 0
    assert "removed IPv4 rule 5180" in capsys.readouterr().out
    assert in_host(one, routes_command.clear, False) == 0
    assert capsys.readouterr().out == "nothing to remove: no rule or route of ours stands\n"


def problems(host: Host) -> dict[str, tuple[str, str]]:
    """subject → (text, remedy) of each problem that the doctor finds."""
    with host.netns.inside():
        findings = asyncio.run(doctor.examine(host.config))
    for finding in findings:
        print(finding.state, finding.subject, finding.text, finding.remedy, sep=" | ")
    return {finding.subject: (finding.text, finding.remedy) for finding in findings if finding.state == "problem"}


def test_the_doctor_finds_a_sound_node_sound(hosts: tuple[Host, Host], capsys: pytest.CaptureFixture[str]) -> None:
    one, _ = hosts
    build((one,))
    assert problems(one) == {}
    capsys.readouterr()
    assert in_host(one, doctor.run) == 0
    assert capsys.readouterr().out.endswith("fit to fail over\n")


def test_the_doctor_names_each_sickness_and_its_remedy(
    hosts: tuple[Host, Host], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, _ = hosts
    found = problems(one)
    assert set(found) == {"rule", "ladder"}
    assert "systemctl start vagus-agent" in found["rule"][1]
    assert in_host(one, doctor.run) == 1

    build((one,))
    one.netns.sysctl("net.ipv4.conf.backup0.rp_filter", 1)
    assert problems(one) == {
        "rp_filter": (
            "strict rp_filter drops 10.99.0.2 → 10.99.0.1 when it comes in on backup0",
            "sysctl -w net.ipv4.conf.backup0.rp_filter=2 (and in /etc/sysctl.d)",
        )
    }
    one.netns.sysctl("net.ipv4.conf.backup0.rp_filter", 2)

    one.netns.ip("rule add pref 100 lookup main")
    assert "table 254" in problems(one)["peer n2"][0]
    assert "IPv4 rule 100: from all lookup 254" in problems(one)["peer n2"][1]
    one.netns.ip("rule del pref 100")

    one.netns.ip("addr del 10.99.0.1/32 dev lo")
    found = problems(one)
    assert found["service address"][0] == "10.99.0.1 is on no interface: an agent that starts waits for it"
    assert "ip addr add 10.99.0.1/32 dev lo" in found["service address"][1]
    one.netns.ip("addr add 10.99.0.1/32 dev lo")

    Path(one.config.keys_file).chmod(0o644)
    assert "0644" in problems(one)["keys"][0]
    Path(one.config.keys_file).chmod(0o600)

    one.netns.ip("link set overlay0 down")
    assert problems(one)["path overlay"] == ("interface overlay0 is down", "ip link set overlay0 up")


def test_the_doctor_finds_tailscales_cgnat_drop_when_service_addresses_are_inside(hosts: tuple[Host, Host]) -> None:
    one, _ = hosts
    one.netns.ip("addr add 100.64.0.1/32 dev lo")
    peer = msgspec.structs.replace(one.config.peers[0], addresses=(ip_address("100.64.0.2"),), via={})
    config = msgspec.structs.replace(one.config, addresses=(ip_address("100.64.0.1"),), peers=(peer,))
    one = replace(one, config=config)
    build((one,))
    assert problems(one) == {}
    for command in (
        "add table ip filter",
        "add chain ip filter ts-input",
        "add rule ip filter ts-input ip saddr 100.64.0.0/10 iifname != tailscale0 counter drop",
        "add chain ip filter INPUT",
        "add rule ip filter INPUT jump ts-input",
    ):
        one.netns.run("nft", *command.split())
    assert "disable-linux-cgnat-drop-rule" in problems(one)["cgnat"][1]
