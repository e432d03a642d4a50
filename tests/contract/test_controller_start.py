"""What keeps the real controller from its work is told in words: in its log, and where somebody looks."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from contract.controller import TOKEN, Controller
from contract.mosquitto import Mosquitto

PATIENCE_S = 60.0


def events(controller: Controller) -> list[Any]:
    url = f"http://127.0.0.1:{controller.port}/api/v1/events"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return list(json.load(answer))
    except urllib.error.URLError:
        # It does not listen yet.
        assert controller.process.poll() is None, controller.log
        return []


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with Mosquitto() as broker:
        controller = Controller(broker, tmp_path)
        controller.write("")
        with socket.create_server(("127.0.0.1", controller.port)):
            controller.start()
            assert controller.process.wait(PATIENCE_S) == 1
        told = [line for line in controller.log.splitlines() if "cannot serve" in line]
        assert len(told) == 1
        assert f"127.0.0.1:{controller.port}: another program listens there; stop it, or set http.port" in told[0]
        assert "Errno" not in controller.log
        assert "Traceback" not in controller.log


def test_a_broker_that_refuses_the_password_is_an_event(tmp_path: Path) -> None:
    with Mosquitto(users={"brain": "right"}) as broker:
        controller = Controller(broker, tmp_path)
        (tmp_path / "password").write_text("wrong\n")
        controller.write(f'mqtt.username = "brain"\nmqtt.password_file = "{tmp_path}/password"\n')
        controller.start()
        try:
            end = time.monotonic() + PATIENCE_S
            while not (told := [each for each in events(controller) if "refuses user 'brain'" in each["text"]]):
                assert time.monotonic() < end, controller.log
                time.sleep(0.1)
            assert len(told) == 1
            assert (told[0]["subject"], told[0]["severity"]) == ("brain", "warning")
            assert f"{tmp_path}/password" in told[0]["text"]
            assert controller.process.poll() is None
        finally:
            controller.stop()
