"""Home Assistant's discovery: the real controller and mosquitto, seen by a client as Home Assistant is one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.controller import Controller
from contract.mosquitto import Mosquitto, Seen, Watcher
from unit.fleet_builders import presence
from vagus_protocol import topics
from vagus_protocol.codec import encode

PATIENCE_S = 60.0
PREFIX = "homeassistant"
PRESENCE = topics.controller("lab", "brain")


@pytest.fixture
def controller(broker: Mosquitto, tmp_path: Path) -> Iterator[Controller]:
    controller = Controller(broker, tmp_path)
    yield controller
    controller.stop(crash=True)


def start(controller: Controller, *nodes: str, enabled: bool = True) -> None:
    switched = f'home_assistant = {{ enabled = {str(enabled).lower()}, prefix = "{PREFIX}" }}\n'
    controller.write(f"nodes = {json.dumps(nodes)}\n{switched}")
    controller.start()


def kept(broker: Mosquitto) -> dict[str, bytes]:
    """What somebody who comes now would be told of ours."""
    with Watcher(broker.port) as late:
        return {
            seen.topic: seen.payload
            for seen in late.drain()
            if seen.retained and (seen.topic.startswith(PREFIX) or "/assistant/" in seen.topic)
        }


def until(broker: Mosquitto, *things: str) -> dict[str, bytes]:
    """What is retained, once its discovery is of exactly these."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = kept(broker)
        if {topic.split("/")[3] for topic in found if topic.startswith(PREFIX)} == set(things):
            return found
        assert time.monotonic() < deadline, sorted(found)


FLEET = ("health", "problem", "quorum")
A, B = ("node_a_online", "node_a_load"), ("node_b_online", "node_b_load")


def leads(seen: Seen) -> bool:
    return seen.topic == PRESENCE and bool(json.loads(seen.payload).get("leader"))


def test_discovery_comes_follows_and_goes(broker: Mosquitto, controller: Controller) -> None:
    with Watcher(broker.port) as fleet:
        for node, peer in (("a", "b"), ("b", "a")):
            fleet.publish(topics.node("lab", node, "presence"), encode(presence(node, peer)), retain=True)
        fleet.publish(f"{PREFIX}/sensor/other/temperature/config", b"{}", retain=True)
        fleet.publish(f"{PREFIX}/sensor/vagus_lab2/health/config", b"{}", retain=True)
        foreign = {f"{PREFIX}/sensor/other/temperature/config", f"{PREFIX}/sensor/vagus_lab2/health/config"}
        start(controller, "a", "b")
        fleet.wait_for(leads, "controller that leads", PATIENCE_S)
        found = until(broker, *FLEET, *A, *B, "pair_a--b", "temperature")
        config = json.loads(found[f"{PREFIX}/sensor/vagus_lab/pair_a--b/config"])
        assert json.loads(found[config["state_topic"]])["path"] == "overlay"
        assert config["availability_topic"] == PRESENCE
        # It dies: what it said is unavailable, by its last will.
        controller.stop(crash=True)
        will = fleet.wait_for(lambda seen: seen.topic == PRESENCE and b'"online":false' in seen.payload, "the will")
        assert not json.loads(will.payload).get("leader")
        # Meanwhile b is taken out of the fleet.
        fleet.publish(topics.node("lab", "b", "presence"), b"", retain=True)
        start(controller, "a")
        found = until(broker, *FLEET, *A, "temperature")
        assert not [topic for topic in found if topic.endswith(("/nodes/b", "/pairs/a--b"))]
        # Switched off, all of it goes, and what is not ours stays.
        controller.stop()
        start(controller, "a", enabled=False)
        deadline = time.monotonic() + PATIENCE_S
        while (found := kept(broker)).keys() != foreign:
            assert time.monotonic() < deadline, sorted(found)
