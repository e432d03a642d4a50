"""Topics: `vagus/1/<fleet>/nodes/<node>/<leaf>`, `vagus/1/<fleet>/controllers/<id>` and that with `/orders`. Built and
parsed only here. `vagus/1/<fleet>/assistant/…` is for Home Assistant, and only written."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from vagus_protocol.messages import NAME_PATTERN

ROOT = "vagus/1"
NodeLeaf = Literal["presence", "report", "event", "desired", "observed"]
NODE_LEAVES: tuple[NodeLeaf, ...] = ("presence", "report", "event", "desired", "observed")
_NAME = re.compile(NAME_PATTERN)
NAME_RULE = "1 to 63 of a-z 0-9 . _ -, beginning and ending with a letter or digit, and no -- in it"


class NodeTopic(NamedTuple):
    fleet: str
    node: str
    leaf: NodeLeaf


class ControllerTopic(NamedTuple):
    fleet: str
    controller: str


class OrdersTopic(NamedTuple):
    fleet: str
    controller: str


def is_name(text: str) -> bool:
    """Whether `text` can name a node, fleet, path or controller: one MQTT level, one file name."""
    return _NAME.fullmatch(text) is not None


def node(fleet: str, name: str, leaf: NodeLeaf) -> str:
    return f"{ROOT}/{fleet}/nodes/{name}/{leaf}"


def controller(fleet: str, name: str) -> str:
    return f"{ROOT}/{fleet}/controllers/{name}"


def orders(fleet: str, controller: str) -> str:
    return f"{ROOT}/{fleet}/controllers/{controller}/orders"


def assistant(fleet: str, what: str) -> str:
    return f"{ROOT}/{fleet}/assistant/{what}"


def controller_subscriptions(fleet: str) -> tuple[tuple[str, int], ...]:
    """What a controller subscribes to: (filter, QoS)."""
    qos = {"report": 0}
    nodes = tuple((f"{ROOT}/{fleet}/nodes/+/{leaf}", qos.get(leaf, 1)) for leaf in NODE_LEAVES)
    return (*nodes, (f"{ROOT}/{fleet}/controllers/+", 1), (f"{ROOT}/{fleet}/controllers/+/orders", 1))


def agent_subscriptions(fleet: str, name: str) -> tuple[tuple[str, int], ...]:
    """What an agent subscribes to: its own desired, and which controllers there are."""
    return ((node(fleet, name, "desired"), 1), (f"{ROOT}/{fleet}/controllers/+", 1))


@lru_cache(maxsize=32768)
def parse(topic: str) -> NodeTopic | ControllerTopic | OrdersTopic | None:
    """The parts of a topic, or None when it is none of ours."""
    parts = topic.split("/")
    if len(parts) < 5 or parts[0] != "vagus" or parts[1] != "1" or not (is_name(parts[2]) and is_name(parts[4])):
        return None
    if parts[3] == "nodes" and len(parts) == 6:
        for leaf in NODE_LEAVES:
            if leaf == parts[5]:
                return NodeTopic(parts[2], parts[4], leaf)
    if parts[3] == "controllers" and len(parts) == 5:
        return ControllerTopic(parts[2], parts[4])
    if parts[3] == "controllers" and parts[5:] == ["orders"]:
        return OrdersTopic(parts[2], parts[4])
    return None
