"""SIGHUP to the real controller, with a real broker: thresholds and channels change, and nothing is interrupted."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.mosquitto import Mosquitto, Watcher, free_port
from vagus_protocol import topics

TOKEN = "a-token-of-some-length"
PATIENCE_S = 60.0


class Controller:
    """`vagus-controller run`, and what systemd hears of it."""

    def __init__(self, broker: Mosquitto, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self._base = (
            f'fleet = "lab"\nname = "brain"\nfleet_key_file = "{folder}/fleet.key"\n'
            f'http = {{ port = {self.port}, token_file = "{folder}/token" }}\n'
            f'store.url = "sqlite:///{folder}/vagus.db"\n'
            f'mqtt.brokers = [{{ host = "127.0.0.1", port = {broker.port} }}]\n'
        )
        for name, words in (("fleet.key", "ab" * 32), ("token", TOKEN)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(words + "\n")
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.bind(str(folder / "notify"))
        self.systemd.settimeout(PATIENCE_S)
        self.write("")
        argv = [sys.executable, "-m", "vagus_controller", "run", "--config", str(folder / "controller.toml")]
        with (folder / "log").open("wb") as log:
            env = {"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": str(folder / "notify")}
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=env)
        self.hears("READY=1")

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self.systemd.close()

    def write(self, more: str) -> None:
        (self._folder / "controller.toml").write_text(self._base + more)

    def forget(self) -> None:
        """What was said and not heard: the queue is short, and what does not fit is lost."""
        self.systemd.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self.systemd.recv(4096):
                pass
        self.systemd.settimeout(PATIENCE_S)

    def hears(self, words: str) -> None:
        while words not in self.systemd.recv(4096).decode():
            pass

    def reload(self) -> None:
        self.forget()
        self.process.send_signal(signal.SIGHUP)
        self.hears("RELOADING=1")
        self.hears("READY=1")
        assert self.process.poll() is None, self.log

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def api(self, path: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                raise AssertionError(f"{path}: {error}\n{self.log}") from None
            except urllib.error.URLError:
                # It was ready before its page was.
                assert time.monotonic() < end, self.log
                time.sleep(0.05)


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as broker:
        yield broker


@pytest.fixture
def controller(broker: Mosquitto, tmp_path: Path) -> Iterator[Controller]:
    controller = Controller(broker, tmp_path)
    yield controller
    controller.close()


def test_thresholds_and_channels_change_while_it_leads(broker: Mosquitto, controller: Controller) -> None:
    presence = topics.controller("lab", "brain")
    with Watcher(broker.port) as fleet:
        leads = fleet.wait_for(
            lambda seen: seen.topic == presence and bool(json.loads(seen.payload).get("leader")),
            "controller that leads",
            PATIENCE_S,
        )
        session = json.loads(leads.payload)["session"]
        assert (controller.api("fleet")["mode"], controller.api("notifications")) == ("auto", [])
        controller.write(
            'failover.mode = "recommend"\nfailover.max_moves = 3\n'
            'notify.channel = [{ name = "ops", url = "json://127.0.0.1:9/x" }]\n'
            'nodes = ["a"]\n'
        )
        controller.reload()
        assert controller.api("fleet")["mode"] == "recommend"
        assert [each["name"] for each in controller.api("notifications")] == ["ops"]
        assert "configuration read again; changed: failover.mode, failover.max_moves, notify.channel" in controller.log
        assert "changed, and needs a restart: nodes" in controller.log
        told = fleet.wait_for(
            lambda seen: seen.topic == presence and json.loads(seen.payload).get("mode") == "recommend",
            "word of its new mode",
            PATIENCE_S,
        )
        assert json.loads(told.payload)["session"] == session
        assert json.loads(told.payload)["leader"] is True
    assert "broker session lost" not in controller.log


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("failover = ", "not valid TOML"),
        ("failover.max_moves = -1\n", "failover.max_moves: must be between"),
        ('notify.channel = [{ name = "ops", url = "nosuch://x" }]\n', "is no service that Apprise knows"),
    ],
)
def test_a_broken_file_leaves_the_old_settings_and_says_what_is_wrong(
    controller: Controller, text: str, words: str
) -> None:
    controller.write('failover.mode = "recommend"\n' + text if "failover = " not in text else text)
    controller.reload()
    assert "the configuration was not taken, and the old one stays" in controller.log
    assert words in controller.log
    assert "Traceback" not in controller.log
    assert controller.api("fleet")["mode"] == "auto"
    controller.write('failover.mode = "recommend"\n')
    controller.reload()
    assert controller.api("fleet")["mode"] == "recommend"
