"""Topics: built and parsed as one another's inverse; nothing that is not ours is taken for ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import names
from vagus_protocol import topics
from vagus_protocol.topics import ControllerTopic, NodeTopic, OrdersTopic


@given(names, names, st.sampled_from(topics.NODE_LEAVES))
def test_a_node_topic_parses_to_its_parts(fleet: str, node: str, leaf: topics.NodeLeaf) -> None:
    assert topics.parse(topics.node(fleet, node, leaf)) == NodeTopic(fleet, node, leaf)


@given(names, names)
def test_a_controller_topic_parses_to_its_parts(fleet: str, name: str) -> None:
    assert topics.parse(topics.controller(fleet, name)) == ControllerTopic(fleet, name)


@given(names, names)
def test_an_orders_topic_parses_to_its_parts(fleet: str, name: str) -> None:
    assert topics.parse(topics.orders(fleet, name)) == OrdersTopic(fleet, name)


@given(
    st.lists(
        st.sampled_from(["vagus", "1", "nodes", "controllers", "report", "orders", "a", "A", "+", "#", "", "a\n"]),
        max_size=8,
    )
)
def test_what_parses_is_what_was_built(parts: list[str]) -> None:
    topic = "/".join(parts)
    match topics.parse(topic):
        case NodeTopic(fleet, node, leaf):
            assert topic == topics.node(fleet, node, leaf)
        case ControllerTopic(fleet, name):
            assert topic == topics.controller(fleet, name)
        case OrdersTopic(fleet, name):
            assert topic == topics.orders(fleet, name)
        case None:
            pass


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "vagus/1/home/nodes/tokyo",
        "vagus/1/home/nodes/tokyo/report/x",
        "vagus/1/home/nodes/tokyo/secret",
        "vagus/1/home/nodes/+/report",
        "vagus/1/home/nodes/tokyo\n/report",
        "vagus/2/home/nodes/tokyo/report",
        "/vagus/1/home/nodes/tokyo/report",
        "vagus/1//nodes/tokyo/report",
        "vagus/1/home/controllers/brain/x",
        "vagus/1/home/controllers/brain/orders/x",
        "vagus/1/home/nodes/tokyo/orders",
    ],
)
def test_a_strange_topic_is_none_of_ours(topic: str) -> None:
    assert topics.parse(topic) is None


@pytest.mark.parametrize("name", ["a", "pi-4", "a.b_c-d", "0", "a" * 63])
def test_names(name: str) -> None:
    assert topics.is_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a--b", "A", "ä", "a b", "a/b", "+", "#", "a\n", "a" * 64, "٣"])
def test_what_is_no_name(name: str) -> None:
    assert not topics.is_name(name)


def test_a_controller_hears_every_leaf_of_every_node_and_reports_at_most_once() -> None:
    subscriptions = dict(topics.controller_subscriptions("home"))
    assert set(subscriptions) == {
        *(f"vagus/1/home/nodes/+/{leaf}" for leaf in topics.NODE_LEAVES),
        "vagus/1/home/controllers/+",
        "vagus/1/home/controllers/+/orders",
    }
    assert [name for name, qos in subscriptions.items() if qos == 0] == ["vagus/1/home/nodes/+/report"]


def test_an_agent_hears_only_its_own_desired_and_the_controllers() -> None:
    assert topics.agent_subscriptions("home", "tokyo") == (
        ("vagus/1/home/nodes/tokyo/desired", 1),
        ("vagus/1/home/controllers/+", 1),
    )
