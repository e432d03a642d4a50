"""Large probes beside small ones: a path that swallows large packets one way is found, and nothing else is harmed."""

from __future__ import annotations

from typing import Any

import pytest

from unit.test_link import KEY, Network, config
from vagus_agent.core.prober import Prober, Send
from vagus_protocol.messages import LinkState
from vagus_protocol.probe import MAX_PACKET, unpack


class Narrow(Network):
    """`hole`: (sender, path) whose packets above 500 bytes vanish; `wide`: the bytes of those that were sent."""

    def __init__(self, **fields: Any) -> None:
        self.hole: set[tuple[str, str]] = set()
        self.wide: list[int] = []
        self.moments: list[float] = []
        super().__init__(("a", "b"), **fields)
        for prober in self.probers.values():
            prober.wide_bytes = {"overlay": 1232, "backup": 1372}

    def transmit(self, sender: str, sends: list[Send]) -> None:
        if sends:
            self.moments.append(self.now)
        passing = []
        for send in sends:
            if len(send.data) > MAX_PACKET:
                self.wide.append(len(send.data))
                if (sender, send.path) in self.hole:
                    continue
            passing.append(send)
        super().transmit(sender, passing)

    def lost_s(self, node: str, path: str) -> float | None:
        return next(link for link in self.probers[node].links if link.path == path).large_lost_s(self.now)


def test_a_hole_is_found_at_the_end_whose_packets_vanish_and_leaves_with_it() -> None:
    net = Narrow()
    net.run(30.0)
    net.hole = {("a", "overlay")}
    net.run(25.0)
    lost_s = net.lost_s("a", "overlay")
    assert lost_s is not None
    assert lost_s > 3.0
    assert net.lost_s("b", "overlay") is None
    assert net.lost_s("a", "backup") is None
    assert all(link.state is LinkState.UP for prober in net.probers.values() for link in prober.links)
    assert all(link.loss(net.now, 60) == 0.0 for prober in net.probers.values() for link in prober.links)
    net.hole.clear()
    net.run(21.0)
    assert net.lost_s("a", "overlay") is None


def test_they_are_few_as_large_as_the_interface_takes_and_wake_nobody_up() -> None:
    net, plain = Narrow(), Network(("a", "b"))
    plain_moments: list[float] = []
    transmit = plain.transmit

    def count(sender: str, sends: list[Send]) -> None:
        if sends:
            plain_moments.append(plain.now)
        transmit(sender, sends)

    plain.transmit = count  # type: ignore[method-assign]
    net.run(60.0)
    plain.run(60.0)
    assert set(net.wide) == {1232, 1372}
    # Two nodes, two paths, one each ten seconds.
    assert 16 <= len(net.wide) <= 24
    # Each is answered by one more datagram; no moment of its own.
    assert len(net.moments) <= len(plain_moments) + len(net.wide)


def test_loss_of_all_sizes_is_no_hole() -> None:
    net = Narrow(seed=3)
    net.lost = lambda sender, to, path: net.random.random() < 0.1
    seen = []
    for _ in range(300):
        net.run(1.0)
        seen.append(net.lost_s("a", "overlay"))
    assert sum(each is not None for each in seen) == 0


def test_a_peer_that_does_not_answer_them_is_not_sent_any() -> None:
    net = Narrow()

    def old(sender: str, sends: list[Send]) -> None:
        """As an agent of before sends: without saying that it answers."""
        for send in sends:
            packet = unpack(send.data, KEY)
            assert not isinstance(packet, str)
        net.probers["a"]._peers["b"].answers_wide = False
        net.probers["b"]._peers["a"].answers_wide = False
        Network.transmit(net, sender, [send for send in sends if len(send.data) <= MAX_PACKET])
        net.wide += [len(send.data) for send in sends if len(send.data) > MAX_PACKET]

    net.transmit = old  # type: ignore[method-assign]
    net.run(1.0)
    net.wide.clear()
    net.run(60.0)
    assert net.wide == []


@pytest.mark.parametrize("end", ["a", "b"])
def test_both_ends_count_what_is_sent_and_heard(end: str) -> None:
    net = Network(("a", "b"))
    net.run(20.0)
    other = "b" if end == "a" else "a"
    sent = {link.path: link.sent for link in net.probers[end].links}
    heard = {link.path: link.heard for link in net.probers[other].links}
    assert sent.keys() == heard.keys()
    assert all(abs(sent[path] - heard[path]) <= 1 for path in sent)
    assert all(link.reordered == 0 for link in net.probers[end].links)


def test_a_peer_that_starts_anew_again_and_again_reorders_nothing() -> None:
    net = Network(("a", "b"))
    net.run(60.0)
    for life in range(2, 12):
        net.probers["b"] = Prober(config("b", ("a",)), KEY, 100 + life, net.now, 0.5)
        net.due["b"] = net.now
        # As soon as it sends; some lives end before it was answered.
        net.run(0.2 * life)
    net.run(5.0)
    for prober in net.probers.values():
        assert all(link.heard > 0 and link.reordered == 0 for link in prober.links)
