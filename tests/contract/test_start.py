"""An agent that comes before its addresses, as at boot: the real process in a network namespace of its own."""

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
CONFIG = """
fleet = "f"
node = "austin"
addresses = ["10.99.0.1", "fd99::1"]
keys_file = "{directory}/keys.toml"
state_dir = "{directory}"
mqtt.brokers = [{{ host = "127.0.0.1", port = 9 }}]
paths = [{{ name = "overlay", interface = "overlay0" }}]
peers = [{{ name = "berlin", addresses = ["10.99.0.2", "fd99::2"] }}]
"""


# The agent on a kernel that was booted with ipv6.disable=1, as far as a process can see that.
WITHOUT_IPV6 = """
import errno, socket, sys

class Socket(socket.socket):
    def __init__(self, family=-1, *rest, **more):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        super().__init__(family, *rest, **more)

socket.socket = Socket
from vagus_agent.__main__ import main
sys.exit(main())
"""


class Waiting:
    """The agent, and what systemd would hear of it."""

    def __init__(self, host: Netns, directory: Path, *program: str) -> None:
        self._host = host
        (directory / "agent.toml").write_text(CONFIG.format(directory=directory))
        keys = directory / "keys.toml"
        keys.write_text(f'node = "{"1" * 64}"\nprobe = "{"2" * 64}"\n')
        keys.chmod(0o600)
        self._log = directory / "log"
        self._systemd = Systemd(directory, PATIENCE_S)
        self.hears = self._systemd.hears
        program = program or (str(Path(sys.executable).with_name("vagus-agent")),)
        agent = [*program, "run", "--config", str(directory / "agent.toml")]
        watchdog = {**self._systemd.environ, "WATCHDOG_USEC": "200000"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net={host.path}", *agent], env={**os.environ, **watchdog}, stderr=log
            )

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._systemd.close()

    def logs(self, words: str) -> None:
        self.until(lambda: words in self._log.read_text(), words)

    def steers(self) -> bool:
        """Whether it has begun its work."""
        return "5180" in self._host.ip("rule show")

    def until(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert self.process.poll() is None, f"it ended:\n{self._log.read_text()}"
            assert time.monotonic() < end, f"not: {what}\n{self._log.read_text()}"
            time.sleep(0.02)


@pytest.fixture
def host() -> Iterator[Netns]:
    host = Netns()
    host.ip("link add overlay0 type veth peer name far0", "link set far0 up", "link set overlay0 up")
    yield host
    host.close()


@pytest.fixture
def agent(host: Netns, tmp_path: Path) -> Iterator[Waiting]:
    agent = Waiting(host, tmp_path)
    yield agent
    agent.close()


def test_it_waits_for_its_addresses_and_begins_as_soon_as_they_are_there(host: Netns, agent: Waiting) -> None:
    agent.hears("STATUS=waiting for service address 10.99.0.1 and fd99::1, which this machine does not have yet")
    agent.hears("READY=1")
    for _ in range(3):
        agent.hears("WATCHDOG=1")
    agent.logs("by hand: ip addr add 10.99.0.1/32 dev lo; ip addr add fd99::1/128 dev lo")
    assert not agent.steers()
    host.ip("addr add 10.99.0.1/32 dev lo")
    agent.hears("STATUS=waiting for service address fd99::1, which")
    assert not agent.steers()
    host.ip("addr add fd99::1/128 dev lo nodad")
    agent.hears("STATUS=0 of 1 links up")
    assert agent.steers()
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(PATIENCE_S) == 0


def test_an_address_on_any_interface_will_do(host: Netns, agent: Waiting) -> None:
    """In a prefix, too, and after duplicate address detection."""
    agent.hears("STATUS=waiting")
    host.ip("addr add 10.99.0.1/24 dev overlay0", "addr add fd99::1/64 dev overlay0")
    agent.hears("STATUS=0 of 1 links up")


def test_it_can_be_stopped_while_it_waits(agent: Waiting) -> None:
    agent.hears("STATUS=waiting")
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(PATIENCE_S) == 0
    assert not agent.steers()


def test_a_host_without_ipv6_waits_for_no_ipv6_address_and_works_by_ipv4(host: Netns, tmp_path: Path) -> None:
    host.ip("addr add 10.99.0.1/32 dev lo")
    agent = Waiting(host, tmp_path, sys.executable, "-c", WITHOUT_IPV6)
    try:
        agent.hears("STATUS=0 of 1 links up")
        agent.logs("this host has no IPv6: steering IPv4 only")
        assert agent.steers()
    finally:
        agent.close()
