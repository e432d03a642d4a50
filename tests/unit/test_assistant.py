"""What Home Assistant is told of a fleet."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from msgspec.structs import replace

from browser import samples
from vagus_controller.assistant import Assistant
from vagus_controller.config import HomeAssistant
from vagus_controller.core.assistant import MAX_PAIRS, _id, owns, retained

PREFIX = "homeassistant"
# What its documentation asks for, of the components that we use.
_ENTITY = {"unique_id", "state_topic", "name", "device", "origin", "value_template", "availability_topic"}
_OPTIONAL = {
    *("availability_template", "device_class", "options", "state_class", "suggested_display_precision"),
    *("json_attributes_topic", "json_attributes_template"),
}


def configs(messages: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    return {topic: json.loads(payload) for topic, payload in messages.items() if topic.endswith("/config")}


def test_every_entity_is_one_that_home_assistant_takes() -> None:
    view = samples.bad_hour()
    messages = retained(view, PREFIX)
    found = configs(messages)
    for topic, config in found.items():
        assert re.fullmatch(r"homeassistant/(sensor|binary_sensor)/[\w-]+/[\w-]+/config", topic, re.ASCII)
        assert set(config) >= _ENTITY
        assert set(config) <= _ENTITY | _OPTIONAL
        assert config["state_topic"] in messages, "every state has a value"
        assert config["availability_topic"] == f"vagus/1/{view.fleet}/controllers/{view.controller}"
        assert config["device"]["identifiers"]
    unique = [config["unique_id"] for config in found.values()]
    assert len(set(unique)) == len(unique) == 3 + 2 * len(view.nodes) + len(view.pairs)
    assert all(owns(view.fleet, PREFIX, topic) for topic in messages)


def test_states_are_those_of_the_fleet() -> None:
    view = samples.bad_hour()
    states = {topic: json.loads(payload) for topic, payload in retained(view, PREFIX).items()}
    root = f"vagus/1/{view.fleet}/assistant"
    assert states[f"{root}/fleet"]["severity"] == view.severity
    assert states[f"{root}/fleet"]["summary"] == view.summary
    assert states[f"{root}/fleet"]["quorum"] == view.quorum.verdict.state
    moved = next(pair for pair in view.pairs if pair.observed == ("backup", "backup"))
    assert states[f"{root}/pairs/{moved.name}"]["path"] == "backup"
    node = next(node for node in view.nodes if node.report and node.report.system)
    assert node.report
    assert node.report.system
    load = states[f"{root}/nodes/{node.name}"]["load"]
    assert load == round(node.report.system.load1 / node.report.system.cores, 1)
    away = replace(view, nodes=tuple(replace(each, online=False) for each in view.nodes))
    assert json.loads(retained(away, PREFIX)[f"{root}/nodes/{node.name}"]) == {"online": False, "load": None}


def test_nothing_hostile_gets_into_a_topic() -> None:
    for name, thing in (("a.b", "a_db"), ("a_b", "a__b"), ("a_.b", "a___db"), ("a._b", "a_d__b")):
        assert _id(name) == thing
    assert len({_id(name) for name in ("a.b", "a_b", "a_db", "a__b", "a-b", "a_.b", "a._b")}) == 7


def test_a_large_mesh_is_bounded() -> None:
    large = samples.large()
    assert len(large.pairs) > MAX_PAIRS
    assert not [topic for topic in retained(large, PREFIX) if "pair" in topic]


@pytest.mark.parametrize(
    ("topic", "ours"),
    [
        ("homeassistant/sensor/vagus_home/health/config", True),
        ("homeassistant/sensor/vagus_home2/health/config", False),
        ("homeassistant/sensor/vagus_home/health", False),
        ("homeassistant/status", False),
        ("zigbee/sensor/vagus_home/health/config", False),
        ("vagus/1/home/assistant/fleet", True),
        ("vagus/1/home/nodes/assistant/report", False),
    ],
)
def test_only_our_own_topics_are_ours(topic: str, ours: bool) -> None:
    assert owns("home", PREFIX, topic) is ours


class Broker:
    """What it retains; `closed`: it lets nothing through."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.published = 0
        self.closed = False
        self.assistant: Assistant | None = None

    def publish(self, topic: str, payload: bytes) -> bool:
        self.published += 1
        if not self.closed:
            self.retained[topic] = payload
            assert self.assistant
            assert self.assistant.take(topic, payload)
            if not payload:
                del self.retained[topic]
        return True

    def connect(self, assistant: Assistant) -> Assistant:
        self.assistant = assistant
        assistant.new_session()
        for topic, payload in self.retained.items():
            assistant.take(topic, payload)
        return assistant


def connected(broker: Broker, *, enabled: bool = True) -> Assistant:
    fleet = samples.bad_hour().fleet
    return broker.connect(Assistant(fleet, HomeAssistant(enabled=enabled), broker.publish))


def test_only_news_is_published_and_what_others_removed_comes_back() -> None:
    broker, view = Broker(), samples.bad_hour()
    assistant = connected(broker)
    assistant.keep(view)
    assert broker.retained == retained(view, PREFIX)
    before = broker.published
    assistant.keep(view)
    assert broker.published == before
    gone = next(iter(broker.retained))
    del broker.retained[gone]
    assistant.take(gone, b"")
    assistant.keep(replace(view, summary="Another sentence"))
    assert gone in broker.retained
    assert broker.published == before + 1 + (gone != f"vagus/1/{view.fleet}/assistant/fleet")


def test_a_node_that_went_while_no_controller_ran_is_removed() -> None:
    broker, view = Broker(), samples.bad_hour()
    connected(broker).keep(view)
    fewer = replace(view, nodes=view.nodes[1:], pairs=())
    connected(broker).keep(fewer)
    assert broker.retained == retained(fewer, PREFIX)


def test_switched_off_everything_goes_and_then_it_is_idle() -> None:
    broker, view = Broker(), samples.bad_hour()
    connected(broker).keep(view)
    off = connected(broker, enabled=False)
    assert not off.idle
    off.keep(view)
    assert broker.retained == {}
    assert off.idle


def test_a_large_fleet_is_told_in_rounds() -> None:
    broker, large = Broker(), samples.large()
    assistant = connected(broker)
    rounds = 0
    while broker.retained != retained(large, PREFIX):
        before = broker.published
        assistant.keep(large)
        assert broker.published - before <= 200
        rounds += 1
        assert rounds < 20
    assert rounds > 1


def test_a_broker_that_lets_nothing_through_is_told_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    broker, view = Broker(), samples.bad_hour()
    broker.closed = True
    assistant = connected(broker)
    with caplog.at_level(logging.WARNING, "vagus.assistant"):
        assistant.keep(view)
        assert not assistant.idle
        assistant.keep(view)
    assert "read and write homeassistant/# in its ACL" in caplog.text
    assert assistant.idle
    broker.closed = False
    broker.connect(assistant)
    assert not assistant.idle, "another session, another try"
