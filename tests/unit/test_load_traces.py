"""The generated loads are what they say, and the product's detector holds on them what its figures claim."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "bench"))

import detection
import load_traces
from load_traces import Spike


def test_the_same_seed_is_the_same_day_and_another_is_not() -> None:
    first, again, other = (load_traces.node(seed, 2, 0.3) for seed in (7, 7, 8))
    assert np.array_equal(first.running, again.running)
    assert np.array_equal(first.load1, again.load1)
    assert first.spikes == again.spikes
    assert not np.array_equal(first.running, other.running)


def test_a_quarter_of_the_nodes_is_busy() -> None:
    nodes = [load_traces.node(1, number, 0.1) for number in range(8)]
    assert [node.busy for node in nodes] == [False, False, False, True] * 2


def test_load1_is_the_kernels_of_the_same_tasks() -> None:
    """Where the count stays as it is for minutes, load1 comes to it; and it never leaps."""
    ones, _ = load_traces._averages(np.array([4] * 300 + [20] * 300), set())
    assert ones[299] == pytest.approx(4.0, abs=0.02)
    assert ones[311] == pytest.approx(20 - 16 * (1884 / 2048) ** 12, abs=0.05)
    assert ones[-1] == pytest.approx(20.0, abs=0.02)


@pytest.mark.parametrize("number", [0, 3])
def test_spikes_are_in_what_is_reported(number: int) -> None:
    node = load_traces.node(3, number, 0.6)
    assert node.spikes
    active = node.running + node.blocked
    for spike in node.spikes:
        within = (node.at > spike.at + spike.rise_s + 5) & (node.at < spike.at + spike.lasts_s - 5)
        assert active[within].mean() >= 0.85 * spike.tasks
        assert 8 <= spike.tasks <= 30


def test_the_detector_finds_each_and_says_what_it_is() -> None:
    """Nodes of seeds that the figures are not of; a few hours each, so that a test takes a second."""
    found = [detection.judge(node, detection.vagus(node, counts=True), 0.3) for node in _nodes(6)]
    figures = detection.summary(found)
    assert figures["spikes"] >= 4
    assert figures["recall"] == 1.0
    assert figures["right_kind"] >= 0.75
    assert figures["steps_median_s"] <= 6.0


def _nodes(count: int) -> list[load_traces.Node]:
    return [load_traces.node(9, number, 0.3) for number in range(count)]


def test_alerts_are_judged_by_when_they_were() -> None:
    spikes = [Spike(100.0, 90.0, 0.0, 10, "io", "etcd"), Spike(900.0, 90.0, 0.0, 20, "process", "etcd")]
    node = load_traces.node(1, 0, 0.01)._replace(spikes=spikes)
    alerts = [(50.0, "cpu: CPU"), (107.0, "io: I/O"), (903.0, "process: CPU, k3s takes 2.0 cores"), (905.0, "cpu: CPU")]
    found = detection.judge(node, alerts, 1.0)
    assert [delay for _, delay, _ in found.spikes] == [7.0, 3.0]
    assert found.false == [50.0]
    figures = detection.summary([found])
    assert (figures["recall"], figures["right_kind"], figures["false_per_node_day"]) == (1.0, 0.5, 1.0)
