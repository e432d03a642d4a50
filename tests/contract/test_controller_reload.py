"""SIGHUP to the real controller, with a real broker: thresholds and channels change, and nothing is interrupted."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.controller import TOKEN, Controller
from contract.mosquitto import Mosquitto, Watcher
from contract.systemd import Systemd
from vagus_protocol import topics

PATIENCE_S = 60.0


class Watched(Controller):
    """It runs, and says to systemd how it is."""

    def __init__(self, broker: Mosquitto, folder: Path) -> None:
        super().__init__(broker, folder)
        self._systemd = Systemd(folder, PATIENCE_S)
        self.write("")
        self.start(self._systemd.environ)
        self._systemd.hears("READY=1")

    def close(self) -> None:
        self.stop(crash=True)
        self._systemd.close()

    def reload(self) -> None:
        self._systemd.reload(self.process)
        assert self.process.poll() is None, self.log

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
def controller(broker: Mosquitto, tmp_path: Path) -> Iterator[Watched]:
    controller = Watched(broker, tmp_path)
    yield controller
    controller.close()


def test_thresholds_and_channels_change_while_it_leads(broker: Mosquitto, controller: Watched) -> None:
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
        assert controller.api("fleet")["mode"] == "recommend", controller.log
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
    controller: Watched, text: str, words: str
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
