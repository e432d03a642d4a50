"""SIGHUP to real agents: two in network namespaces of their own, with real routes and probes between them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.netns import Netns
from contract.systemd import Systemd

PATIENCE_S = 30.0
# Time enough for the links of a stopped session to be called down.
WATCH_S = 2.0
CONFIG = """
fleet = "f"
node = "{node}"
addresses = ["10.99.0.{number}"]
keys_file = "{directory}/keys.toml"
state_dir = "{directory}"
mqtt.brokers = [{{ host = "127.0.0.1", port = 9 }}]
paths = [{{ name = "overlay", interface = "overlay0" }}, {{ name = "backup", interface = "backup0" }}]
"""
PEER = '\n[[peers]]\nname = "{0}"\naddresses = ["10.99.0.{1}"]\nvia.backup = ["10.88.0.{1}"]\n'
BERLIN, AUSTIN, OSAKA = PEER.format("berlin", 2), PEER.format("austin", 1), PEER.format("osaka", 3)


class Node:
    """An agent on a host of its own, and what systemd and an onlooker see of it."""

    def __init__(self, name: str, number: int, directory: Path) -> None:
        self.host = Netns()
        directory.mkdir()
        self._base = CONFIG.format(node=name, number=number, directory=directory)
        self.file = directory / "agent.toml"
        keys = directory / "keys.toml"
        keys.write_text(f'node = "{str(number) * 64}"\nprobe = "{"9" * 64}"\n')
        keys.chmod(0o600)
        self.log_file = directory / "log"
        self.seen_file = directory / "seen"
        self._systemd = Systemd(directory, PATIENCE_S)
        self.hears, self.forget = self._systemd.hears, self._systemd.forget
        self._children: list[subprocess.Popen[bytes]] = []

    def write(self, *more: str) -> None:
        self.file.write_text(self._base + "".join(more))

    def start(self) -> None:
        agent = [str(Path(sys.executable).with_name("vagus-agent")), "run", "--config", str(self.file)]
        env = {**os.environ, **self._systemd.environ}
        with self.log_file.open("wb") as log:
            self.process = self._popen(agent, log, env)

    def look_on(self) -> None:
        """From now on every change of a route or rule is written down."""
        with self.seen_file.open("wb") as seen:
            self._popen(["ip", "monitor", "route", "rule"], seen, dict(os.environ))

        def looks() -> bool:
            self.host.ip("route add 10.1.2.3/32 dev lo", "route del 10.1.2.3/32 dev lo")
            return "10.1.2.3" in self.seen

        self.until(looks, "the onlooker looks on")

    def _popen(self, argv: list[str], out: object, env: dict[str, str]) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(["nsenter", f"--net={self.host.path}", *argv], stdout=out, stderr=out, env=env)  # type: ignore[call-overload]
        self._children.append(child)
        return child  # type: ignore[no-any-return]

    def close(self) -> None:
        for child in self._children:
            child.kill()
            child.wait(10)
        self._systemd.close()
        self.host.close()

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def seen(self) -> str:
        return self.seen_file.read_text()

    def reload(self) -> None:
        self._systemd.reload(self.process)
        assert self.process.poll() is None, self.log

    def routes_to(self, number: int) -> str:
        return self.host.ip(f"route show table 5180 to root 10.99.0.{number}")

    def until(self, done: Callable[[], object], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end, f"not: {what}\n{self.log}"
            time.sleep(0.02)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    austin, berlin = Node("austin", 1, tmp_path / "austin"), Node("berlin", 2, tmp_path / "berlin")
    try:
        for device in ("overlay0", "backup0"):
            austin.host.ip(f"link add {device} type veth peer name {device} netns {berlin.host.path}")
        for number, node in enumerate((austin, berlin), 1):
            node.host.ip(
                *(f"link set {device} up" for device in ("overlay0", "backup0")),
                f"addr add 10.88.0.{number}/24 dev backup0",
                f"addr add 100.64.0.{number}/24 dev overlay0",
                f"addr add 10.99.0.{number}/32 dev lo",
            )
            for device in ("all", "overlay0", "backup0"):
                node.host.sysctl(f"net.ipv4.conf.{device}.rp_filter", 0)
        austin.write(BERLIN)
        berlin.write(AUSTIN)
        for node in (austin, berlin):
            node.start()
        for node in (austin, berlin):
            node.hears("STATUS=2 of 2 links up")
        yield austin, berlin
    finally:
        austin.close()
        berlin.close()


def test_peers_and_thresholds_change_and_no_route_and_no_session_is_lost(nodes: tuple[Node, Node]) -> None:
    austin, _ = nodes
    austin.look_on()
    before = austin.routes_to(2)
    austin.write("probe.burst = 3\n", "orphaned_after_s = 7\n", BERLIN, OSAKA)
    austin.reload()
    assert "configuration read again; changed: peers, orphaned_after_s, probe.burst" in austin.log
    assert austin.routes_to(2) == before
    assert "dev backup0" in austin.routes_to(3)
    time.sleep(WATCH_S)
    austin.forget()
    austin.hears("STATUS=2 of 4 links up")
    austin.write("probe.burst = 3\n", "orphaned_after_s = 7\n", BERLIN)
    austin.reload()
    assert austin.routes_to(3) == ""
    austin.forget()
    austin.hears("STATUS=2 of 2 links up")
    time.sleep(WATCH_S)
    lost = [line for line in austin.seen.splitlines() if "10.99.0.2" in line or "rule" in line.lower()]
    assert lost == [], "of the peer that stayed, and of the rule, nothing was touched"
    for node in nodes:
        assert [line for line in node.log.splitlines() if "down" in line and "osaka" not in line] == [], node.log


def test_what_needs_a_restart_is_told_by_its_name_and_the_rest_counts(nodes: tuple[Node, Node]) -> None:
    austin, _ = nodes
    austin.write("probe.port = 5181\n", 'site = "Texas"\n', "steering.table = 5181\n", BERLIN)
    austin.reload()
    assert "changed, and needs a restart: probe.port, steering.table" in austin.log
    assert "configuration read again; changed: site" in austin.log
    assert "dev overlay0" in austin.routes_to(2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("burst = ", "not valid TOML"),
        ("probe.burst = 0\n", "probe.burst: must be between 2 and 100, not 0"),
        ("bursts = 3\n", "unknown key"),
        ('mqtt.ca_file = "/nowhere/ca.pem"\n', "/nowhere/ca.pem: does not exist"),
    ],
)
def test_a_broken_file_leaves_the_old_settings_and_says_what_is_wrong(
    nodes: tuple[Node, Node], text: str, words: str
) -> None:
    austin, _ = nodes
    austin.look_on()
    austin.write(text, OSAKA)
    austin.reload()
    assert "the configuration was not taken, and the old one stays" in austin.log
    assert words in austin.log
    assert "Traceback" not in austin.log
    assert "dev overlay0" in austin.routes_to(2)
    assert austin.routes_to(3) == ""
    austin.forget()
    austin.hears("STATUS=2 of 2 links up")
    assert "10.99.0" not in austin.seen
    # And once it is mended, it counts.
    austin.write(BERLIN, OSAKA)
    austin.reload()
    assert "dev backup0" in austin.routes_to(3)


def test_a_signal_while_it_waits_for_its_addresses_does_not_end_it(tmp_path: Path) -> None:
    node = Node("austin", 1, tmp_path / "austin")
    try:
        node.host.ip("link add overlay0 type veth peer name far0", "link set overlay0 up")
        node.write(BERLIN)
        node.start()
        node.hears("STATUS=waiting for service address")
        node.write(BERLIN, OSAKA)
        node.process.send_signal(signal.SIGHUP)
        node.host.ip("addr add 10.99.0.1/32 dev lo")
        node.hears("RELOADING=1")
        node.hears("READY=1")
        node.until(lambda: node.routes_to(3), "what was read while it waited counts")
    finally:
        node.close()
