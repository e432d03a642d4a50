"""A node whose event loop is late every time it wakes up: it is slower to find a dead path, and it finds it."""

from __future__ import annotations

import pytest

from unit.test_link import DOWN, SUSPECT, Network


class Late(Network):
    """Each of `late` sleeps so long after every turn, whatever comes meanwhile, and reads it then."""

    late: tuple[str, ...] = ()
    seconds: float = 0.0

    def turn(self, node: str) -> None:
        super().turn(node)
        if node in self.late:
            self.stalled_until[node] = self.now + self.seconds

    def run(self, seconds: float) -> None:
        """In steps in which a node that woke up reads what had come."""
        end = self.now + seconds
        while self.now < end:
            super().run(min(0.001, end - self.now))
            for node in self.late:
                if self.waiting[node] and self.stalled_until.get(node, 0.0) <= self.now:
                    self.turn(node)


def late(seed: int, seconds: float, *nodes: str) -> Late:
    network = Late(("a", "b", "c"), seed)
    network.run(3)
    network.late, network.seconds = nodes, seconds
    network.run(3)
    return network


@pytest.mark.parametrize("nodes", ["a", "abc"])
@pytest.mark.parametrize("seconds", [0.012, 0.03, 0.1])
def test_a_living_path_is_not_called_dead(seconds: float, nodes: str) -> None:
    network = late(0, seconds, *nodes)
    network.run(30)
    assert network.downs() == network.downs("backup") == []


@pytest.mark.parametrize("nodes", ["a", "abc"])
@pytest.mark.parametrize("seconds", [0.012, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_a_dead_path_is_found(seed: int, seconds: float, nodes: str) -> None:
    network = late(seed, seconds, *nodes)
    network.lost = lambda sender, to, path: path == "overlay" and {sender, to} == {"a", "b"}
    # A whole turn more for each step: to meet the cut, to miss a probe twice, to send each of five, to be patient.
    network.run(0.295 + 10 * seconds + min(seconds, 0.5))
    assert network.state("a", "b", "overlay") is network.state("b", "a", "overlay") is DOWN


def test_a_verification_on_a_dead_path_has_an_end() -> None:
    network = late(0, 0.1, "a")
    network.lost = lambda sender, to, path: path == "overlay"
    network.verify("a", "b", "overlay")
    # A second, half of one for our own stalls, and a turn.
    network.run(1.7)
    [proof] = network.probers["a"].proofs
    assert not proof.ok
    assert network.state("a", "b", "overlay") is DOWN


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("node", ["a", "b"])
def test_patience_that_ends_in_the_middle_of_a_burst_is_no_lateness_of_ours(seed: int, node: str) -> None:
    """Of a starved machine, or of its peer: the end of the burst is in the past at once, and nobody was late for it."""
    network = late(seed, 0.03, "a")
    network.probers[node].starve(True)
    network.run(1)
    network.late = ()
    network.run(1)
    network.lost = lambda sender, to, path: path == "overlay"
    network.run(0.5)
    assert network.state("a", "b", "overlay") is SUSPECT, "its patience is over: no test"
    network.probers["a"].take_worst_lag()
    network.probers[node].starve(False)
    network.run(1)
    assert network.state("a", "b", "overlay") is DOWN
    assert network.probers["a"].take_worst_lag() < 0.01
