"""The link state machine and the prober, in virtual time, over simulated paths."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vagus_agent.config import Config, Mqtt, Path, Peer, Probe
from vagus_agent.core.link import TRANSITIONS, Change
from vagus_agent.core.prober import Prober, Proof, Send, starved
from vagus_protocol.messages import LinkState, Pressure, System
from vagus_protocol.probe import MAX_PACKET, Kind, Packet, unpack

KEY = b"k" * 32
UP, DOWN, SUSPECT, DEGRADED, UNKNOWN = (
    LinkState.UP,
    LinkState.DOWN,
    LinkState.SUSPECT,
    LinkState.DEGRADED,
    LinkState.UNKNOWN,
)


def config(node: str, peers: tuple[str, ...], **probe: float) -> Config:
    return Config(
        fleet="test",
        node=node,
        addresses=(),
        paths=(Path(name="overlay", interface="o"), Path(name="backup", interface="b")),
        mqtt=Mqtt(brokers=()),
        keys_file="",
        peers=tuple(Peer(name=name, addresses=()) for name in peers),
        probe=msgspec.structs.replace(Probe(), **probe),
    )


@dataclass
class Network:
    """Nodes' probers over paths with delay and loss; time jumps from event to event."""

    nodes: tuple[str, ...]
    seed: int = 0
    delay: Callable[[str, str, str], float] = lambda sender, to, path: 0.001
    lost: Callable[[str, str, str], bool] = lambda sender, to, path: False
    stalled_until: dict[str, float] = field(default_factory=dict)
    now: float = 1000.0
    changes: list[tuple[str, Change]] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.probers = {
            node: Prober(
                config(node, tuple(n for n in self.nodes if n != node)), KEY, index + 1, self.now, self.random.random()
            )
            for index, node in enumerate(self.nodes)
        }
        self._queue: list[tuple[float, int, str, str, str, bytes]] = []
        self._count = 0
        self.waiting: dict[str, list[tuple[float, str, str, bytes]]] = {node: [] for node in self.nodes}
        self.due = dict.fromkeys(self.nodes, self.now)

    def transmit(self, sender: str, sends: list[Send]) -> None:
        for send in sends:
            self.sent += 1
            if self.lost(sender, send.peer, send.path):
                continue
            self._count += 1
            at = self.now + self.delay(sender, send.peer, send.path)
            heapq.heappush(self._queue, (at, self._count, send.peer, sender, send.path, send.data))

    def turn(self, node: str) -> None:
        prober = self.probers[node]
        for at, sender, path, data in self.waiting[node]:
            self.transmit(node, prober.received(data, sender, path, at, self.now, self.now - at))
        self.waiting[node].clear()
        # As net/udp.py: a datagram that moves nothing that is due is followed by no look at what is.
        if not prober.stale and self.now < self.due[node]:
            return
        self.transmit(node, prober.poll(self.now))
        self.due[node] = prober.deadline
        self.changes += [(node, change) for change in prober.changes]
        prober.changes.clear()

    def verify(self, node: str, peer: str, path: str) -> None:
        self.probers[node].verify(peer, path, self.now)
        self.due[node] = self.now

    def measure(self, node: str, peer: str, path: str) -> None:
        self.probers[node].measure(peer, path, self.now)
        self.due[node] = self.now

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            wake = {node: max(due, self.stalled_until.get(node, 0.0)) for node, due in self.due.items()}
            node = min(wake, key=wake.__getitem__)
            arrival = self._queue[0][0] if self._queue else float("inf")
            if min(arrival, wake[node]) > end:
                self.now = end
                return
            if arrival <= wake[node]:
                at, _, to, sender, path, data = heapq.heappop(self._queue)
                self.now = max(self.now, at)
                self.waiting[to].append((at, sender, path, data))
                if self.stalled_until.get(to, 0.0) <= self.now:
                    self.turn(to)
            else:
                self.now = max(self.now, wake[node])
                self.turn(node)

    def state(self, node: str, peer: str, path: str) -> LinkState:
        return next(link for link in self.probers[node].links if (link.peer, link.path) == (peer, path)).state

    def downs(self, path: str = "overlay") -> list[tuple[str, Change]]:
        return [(node, change) for node, change in self.changes if change.new is DOWN and change.link.path == path]


def healthy(seed: int = 0, nodes: tuple[str, ...] = ("a", "b")) -> Network:
    network = Network(nodes, seed)
    network.run(3)
    assert all(link.state is UP for prober in network.probers.values() for link in prober.links)
    network.changes.clear()
    return network


def exchange(network: Network) -> list[tuple[str, bytes]]:
    """(path, echo) of a's next probes, both of one moment, in the order of paths."""
    network.now = network.probers["a"].deadline
    sends = network.probers["a"].poll(network.now)
    assert [send.path for send in sends] == ["overlay", "backup"]
    answers = [
        network.probers["b"].received(send.data, "a", send.path, network.now, network.now, 0.0) for send in sends
    ]
    return [(echo.path, echo.data) for answer in answers for echo in answer]


def test_an_echo_asks_for_a_look_when_no_other_of_its_moment_is_waited_for() -> None:
    network = healthy()
    prober, stale = network.probers["a"], []
    for path, echo in exchange(network):
        prober.received(echo, "b", path, network.now, network.now, 0.0)
        stale.append(prober.stale)
    assert stale == [False, True]


def test_an_echo_over_a_link_that_is_not_up_asks_for_a_look_at_once() -> None:
    network = healthy()
    network.lost = lambda sender, to, path: path == "overlay"
    network.run(10)
    assert network.state("a", "b", "overlay") is DOWN
    (path, echo), _ = exchange(network)
    network.probers["a"].received(echo, "b", path, network.now, network.now, 0.0)
    assert network.probers["a"].stale


def test_every_link_comes_up_and_idles_at_its_interval() -> None:
    network = healthy()
    before = network.sent
    network.run(100)
    # 2 nodes × 2 links × 4 probes a second, each with its echo
    assert network.sent - before == pytest.approx(2 * 2 * 4 * 2 * 100, rel=0.02)
    assert network.changes == []


def metered(seed: int) -> Network:
    """Just started; the backup is a metered path."""
    network = Network(("a", "b"), seed)
    slow = Path(name="backup", interface="b", metered=True, idle_interval_s=5.0)
    for boot, (node, peer) in enumerate((("a", "b"), ("b", "a")), 7):
        known = config(node, (peer,))
        known = msgspec.structs.replace(known, paths=(known.paths[0], slow))
        network.probers[node] = Prober(known, KEY, boot, network.now, network.random.random())
    return network


@pytest.mark.parametrize("seed", range(10))
def test_a_metered_path_is_known_soon_after_a_start_and_idles_at_its_interval(seed: int) -> None:
    """Before anybody is told that it is not proven."""
    network = metered(seed)
    network.run(1.5)
    assert all(link.state is UP for prober in network.probers.values() for link in prober.links)
    network.changes.clear()
    before = network.sent
    network.run(100)
    # 2 nodes × (4 + 0.2 probes a second), each with its echo
    assert network.sent - before == pytest.approx(2 * 4.2 * 2 * 100, rel=0.02)
    assert network.changes == []


@pytest.mark.parametrize("seed", range(10))
def test_a_metered_path_is_up_soon_after_its_first_reply(seed: int) -> None:
    network = metered(seed)
    network.run(10)
    network.lost = lambda sender, to, path: path == "backup"
    network.run(20)
    assert network.state("a", "b", "backup") is network.state("b", "a", "backup") is DOWN
    network.changes.clear()
    network.lost = lambda sender, to, path: False
    healed = network.now
    network.run(30)
    ups = [change.at - healed for _, change in network.changes if change.new is UP]
    assert len(ups) == 2
    # an idle interval, and five replies
    assert max(ups) <= 5.0 + 5 * 0.26


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), moment=st.floats(0, 0.2))
def test_silent_cut_is_found_by_both_ends_within_the_stated_bound(seed: int, moment: float) -> None:
    network = healthy(seed)
    network.run(moment)
    cut = network.now
    network.lost = lambda sender, to, path: path == "overlay"
    network.run(1)
    found = {node: change.at - cut for node, change in network.downs()}
    assert set(found) == {"a", "b"}
    # 0.65 × idle + timeout + 4 × burst interval + confirm wait, on a way of 2 ms
    assert max(found.values()) <= 0.1625 + 0.022 + 0.048 + 0.08 + 1e-6
    assert abs(found["a"] - found["b"]) < 0.02
    assert network.state("a", "b", "backup") is UP


def test_the_other_path_is_proven_while_the_first_is_silent() -> None:
    network = healthy()
    network.lost = lambda sender, to, path: path == "overlay"
    network.run(1)
    for node, change in network.downs():
        backup = next(link for link in network.probers[node].links if link.path == "backup")
        assert backup.last_reply is not None
        assert change.link.last_reply is not None
        assert backup.last_reply > change.link.last_reply
        assert change.link.peer_state is DOWN


def test_a_link_comes_back_only_after_a_run_of_replies() -> None:
    network = healthy()
    network.lost = lambda sender, to, path: path == "overlay"
    network.run(2)
    network.changes.clear()
    network.lost = lambda sender, to, path: False
    healed = network.now
    network.run(5)
    ups = [change.at - healed for _, change in network.changes if change.new is UP]
    assert len(ups) == 2
    assert all(0.75 <= up <= 1.3 for up in ups)


def test_random_loss_is_not_down() -> None:
    """Half an hour of 5 % loss each way on both paths: the two ends never call a link down together."""
    network = healthy()
    network.lost = lambda sender, to, path: network.random.random() < 0.05
    network.run(1800)
    downs = sorted((change.at, change.link.path, node) for node, change in network.downs() + network.downs("backup"))
    pairs = itertools.pairwise(downs)
    together = [1 for (t, path, n), (t2, path2, n2) in pairs if path == path2 and n != n2 and t2 - t < 1]
    assert together == []
    assert network.state("a", "b", "overlay") in (DEGRADED, SUSPECT)


def test_degraded_is_left_after_the_loss_is_gone() -> None:
    network = healthy()
    network.lost = lambda sender, to, path: path == "overlay" and network.random.random() < 0.06
    network.run(120)
    assert network.state("a", "b", "overlay") in (DEGRADED, SUSPECT)
    network.lost = lambda sender, to, path: False
    network.run(70)
    assert network.state("a", "b", "overlay") is UP


def test_a_degraded_link_keeps_its_reason_through_a_suspicion() -> None:
    network = healthy()
    network.lost = lambda sender, to, path: path == "overlay" and network.random.random() < 0.06
    network.run(120)
    entries = [change for _, change in network.changes if change.new is DEGRADED]
    assert [change for change in entries if change.old is SUSPECT], "no suspicion came to nothing: no test"
    assert all("probes lost" in change.reason for change in entries)


def test_one_slow_event_loop_declares_nobody_down() -> None:
    network = healthy()
    for _ in range(20):
        network.stalled_until["a"] = network.now + 0.4
        network.run(2)
    assert [change for node, change in network.downs() if node == "a"] == []


def stalled_tunnel(network: Network, seconds: float) -> None:
    """What b sends or gets over the overlay lies still for so long."""
    until = network.now + seconds
    network.delay = lambda sender, to, path: max(until - network.now, 0.001) if path == "overlay" else 0.001
    network.run(seconds + 2)


def test_a_starved_machines_tunnel_has_time_to_wake_up() -> None:
    network = healthy()
    network.probers["b"].starve(True)
    network.run(1)
    for _ in range(20):
        stalled_tunnel(network, 0.45)
    assert network.downs() == []
    network.probers["b"].starve(False)
    network.run(1)
    stalled_tunnel(network, 0.45)
    assert {node for node, _ in network.downs()} == {"a", "b"}


@pytest.mark.parametrize("seed", range(10))
def test_a_starved_machine_finds_a_cut_later_and_still_finds_it(seed: int) -> None:
    network = healthy(seed)
    network.probers["b"].starve(True)
    network.run(1)
    cut = network.now
    network.lost = lambda sender, to, path: path == "overlay"
    network.run(2)
    downs = network.downs()
    assert {node for node, _ in downs} == {"a", "b"}
    assert max(change.at for _, change in downs) - cut <= 0.295 + 0.4 + 1e-6
    reasons = {node: change.reason for node, change in downs}
    assert reasons["b"].endswith(", waited 400 ms longer since this node was late")
    assert reasons["a"].endswith(", waited 400 ms longer since the peer was late")


def test_a_link_that_never_answered_has_time_for_a_second_handshake_and_claims_no_patience() -> None:
    """Both ends of a tunnel begin a handshake at once, neither succeeds, and both try again after 5.33 s."""
    network = Network(("a", "b"))
    begun = network.now
    network.lost = lambda sender, to, path: path == "overlay" and network.now < begun + 5.4
    network.probers["a"].starve(True)
    network.run(8)
    assert {change.new for _, change in network.changes} == {UP}
    dead = Network(("a", "b"))
    dead.lost = lambda sender, to, path: path == "overlay"
    dead.probers["a"].starve(True)
    dead.run(8)
    assert {change.reason for _, change in dead.downs()} == {"5 of 5 burst probes lost"}


@pytest.mark.parametrize(
    ("psi", "runnable", "expected"),
    [
        (0.95, 1, True),
        (0.35, 25, True),
        (0.1, 25, False),
        (0.5, 8, False),
        (None, 24, True),
        (None, 23, False),
        (None, None, False),
    ],
)
def test_starved_by_pressure_or_by_the_run_queue(psi: float | None, runnable: int | None, expected: bool) -> None:
    pressure = None if psi is None else Pressure(some=psi)
    system = System(cores=4, load1=25.0, load5=9.0, load15=4.0, uptime_s=1.0, psi_cpu=pressure, runnable=runnable)
    assert starved(system) is expected


def test_a_stalled_peer_is_silent_on_every_path_so_neither_is_proof_against_the_other() -> None:
    network = healthy()
    network.stalled_until["b"] = network.now + 3
    network.run(2)
    assert network.state("a", "b", "overlay") is DOWN
    assert network.state("a", "b", "backup") is DOWN


def test_a_longer_way_is_not_a_dead_one() -> None:
    """38 ms direct becomes 120 ms by a relay: no end calls it down."""
    network = Network(("a", "b"), delay=lambda sender, to, path: 0.019)
    network.run(10)
    network.delay = lambda sender, to, path: 0.06
    network.changes.clear()
    network.run(30)
    assert network.downs() == []
    assert network.state("a", "b", "overlay") is UP


def test_a_one_way_cut_is_down_at_both_ends() -> None:
    network = healthy()
    network.lost = lambda sender, to, path: path == "overlay" and sender == "a"
    network.run(2)
    assert {node for node, _ in network.downs()} == {"a", "b"}


def test_a_path_that_the_kernel_refuses_is_down_at_once_and_the_peer_is_told() -> None:
    network = healthy()
    prober = network.probers["a"]
    sends = prober.refused("b", "overlay", "interface o is gone", network.now)
    assert network.state("a", "b", "overlay") is DOWN
    assert [(send.peer, send.path) for send in sends] == [("b", "backup")]
    assert prober.changes[-1].reason == "interface o is gone"


def test_forged_replayed_and_foreign_packets_change_nothing() -> None:
    network = healthy()
    prober = network.probers["a"]
    before = [(link.state, link.rtt, link.peer_state) for link in prober.links]
    genuine = network.probers["b"].poll(network.now + 1)[0]
    forged = genuine.data[:-1] + bytes([genuine.data[-1] ^ 1])
    for data, source in ((forged, "b"), (genuine.data, None), (genuine.data, "c"), (b"", "b"), (b"x" * 2000, "b")):
        assert prober.received(data, source, "overlay", network.now, network.now, 0.0) == []
    assert prober.rejected == 5
    first = prober.received(genuine.data, "b", genuine.path, network.now, network.now, 0.0)
    assert len(first) == 1
    again = prober.received(genuine.data, "b", genuine.path, network.now, network.now, 0.0)
    assert len(again) == 1  # an echo costs nothing and tells nothing new
    assert [(link.state, link.rtt, link.peer_state) for link in prober.links] == before


@given(st.binary(max_size=MAX_PACKET * 2))
def test_no_datagram_raises(data: bytes) -> None:
    prober = Prober(config("a", ("b",)), KEY, 1, 0.0, 0.0)
    assert prober.received(data, "b", "overlay", 0.0, 0.0, 0.0) == []


def test_an_echo_is_never_larger_than_its_probe() -> None:
    network = healthy()
    for probe in network.probers["a"].poll(network.now + 1):
        (echo,) = network.probers["b"].received(probe.data, "a", probe.path, network.now, network.now, 0.0)
        assert len(echo.data) <= len(probe.data)
        packet = unpack(echo.data, KEY)
        assert packet.kind is Kind.ECHO  # type: ignore[union-attr]


def test_the_table_leads_out_of_every_state() -> None:
    for state in LinkState:
        assert any(old is state for old, _ in TRANSITIONS)
        assert state is UNKNOWN or state in TRANSITIONS.values()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.tuples(st.floats(0.01, 3), st.floats(0, 1), st.booleans()), max_size=8))
def test_after_any_trouble_a_healed_network_is_up_again(seed: int, troubles: list[tuple[float, float, bool]]) -> None:
    network = healthy(seed)
    for seconds, loss, both in troubles:
        network.lost = lambda sender, to, path, loss=loss, both=both: (  # type: ignore[misc]
            (both or path == "overlay") and network.random.random() < loss
        )
        network.run(seconds)
    network.lost = lambda sender, to, path: False
    network.run(75)
    assert all(link.state is UP for prober in network.probers.values() for link in prober.links)


def test_an_outage_that_is_over_is_not_loss() -> None:
    network = healthy()
    network.run(120)
    network.lost = lambda sender, to, path: path == "overlay"
    network.run(15)
    overlay = next(link for link in network.probers["a"].links if link.path == "overlay")
    assert (overlay.loss(network.now, 10) or 0.0) > 0.9, "while it lasts it is"
    network.lost = lambda sender, to, path: False
    network.changes.clear()
    network.run(5)
    assert overlay.state is UP
    assert (overlay.loss(network.now, 10), overlay.loss(network.now, 60)) == (0.0, 0.0)
    network.run(115)
    assert [change.new for _, change in network.changes if change.link.path == "overlay"] == [UP, UP]


# --- verification: packets that go by the kernel's own route --------------------------------------------------------


def verifying(
    network: Network, route: str, seconds: float = 5.0, lost: Callable[[str], bool] = lambda path: False
) -> tuple[list[Proof], int]:
    """What "a" finds out of "b" over the backup, and how many unpinned packets it took; `route`: where its kernel sends
    what is not pinned."""
    prober = network.probers["a"]
    unpinned = 0

    def transmit(sender: str, sends: list[Send]) -> None:
        nonlocal unpinned
        for send in sends:
            if not send.pinned:
                unpinned += 1
                if lost(route):
                    continue
                send = msgspec.structs.replace(send, path=route)
            Network.transmit(network, sender, [send])

    network.transmit = transmit  # type: ignore[method-assign]
    network.verify("a", "b", "backup")
    network.run(seconds)
    return prober.proofs, unpinned


def test_one_packet_that_comes_back_on_the_path_proves_it() -> None:
    network = healthy()
    [proof], packets = verifying(network, "backup", 0.1)
    assert (proof.peer, proof.path, proof.ok) == ("b", "backup", True)
    assert "by the kernel's own route came back on backup in 2.0 ms" in proof.reason
    assert packets == 1


def test_a_path_that_the_kernel_does_not_use_is_not_proven_however_well_it_is() -> None:
    network = healthy()
    [proof], packets = verifying(network, "overlay", 1.01)
    assert not proof.ok
    assert proof.reason == "packets by the kernel's own route went by overlay, not by backup"
    assert packets == 5


@pytest.mark.parametrize("missing", [1, 4])
def test_it_takes_loss(missing: int) -> None:
    network = healthy()
    gone = iter([True] * missing)
    [proof], packets = verifying(network, "backup", lost=lambda _: next(gone, False))
    assert proof.ok
    assert packets == missing + 1


def test_none_that_comes_back_in_time_says_what_was_missed() -> None:
    network = healthy()
    [proof], packets = verifying(network, "backup", lost=lambda _: True)
    assert not proof.ok
    assert proof.reason == "none of 5 packets by the kernel's own route came back on backup"
    assert packets == 5


def test_what_the_kernel_refuses_is_the_reason() -> None:
    network = healthy()
    prober = network.probers["a"]

    def refuse(route: str) -> bool:
        prober.unroutable("b", f"no route to b by {route}")
        return True

    [proof], _ = verifying(network, "backup", lost=refuse)
    assert (proof.ok, proof.reason) == (False, "no route to b by backup")


def test_a_long_path_has_three_times_its_timeout() -> None:
    network = Network(("a", "b"), delay=lambda sender, to, path: 0.45)
    network.run(30)
    prober = network.probers["a"]
    backup = next(link for link in prober.links if link.path == "backup")
    started = network.now
    assert 3 * backup.timeout > 2
    network.delay = lambda sender, to, path: 0.95
    proofs, _ = verifying(network, "backup", 2.0)
    assert [proof.ok for proof in proofs] == [True]
    assert network.now - started < 2.1


def test_a_new_verification_takes_the_place_of_the_former() -> None:
    network = healthy()
    network.verify("a", "b", "overlay")
    proofs, _ = verifying(network, "backup")
    assert [(proof.path, proof.ok) for proof in proofs] == [("backup", True)]


@pytest.mark.parametrize("comes_back", [True, False])
def test_it_counts_neither_for_loss_nor_for_the_state_of_the_link(comes_back: bool) -> None:
    network = healthy()
    for _ in range(20):
        verifying(network, "backup", 2.0, lost=lambda _: not comes_back)
    for prober in network.probers.values():
        for link in prober.links:
            assert (link.state, link.loss(network.now, 60)) == (UP, 0.0)
    assert network.changes == []


def test_it_does_not_revive_a_dead_link() -> None:
    """Five replies in a row would: but only packets that were pinned to it speak for it."""
    network = healthy()
    network.lost = lambda sender, to, path: path == "backup"
    network.run(2)
    network.changes.clear()
    prober = network.probers["a"]
    seqs: set[int] = set()

    def transmit(sender: str, sends: list[Send]) -> None:
        """Over the dead path pass only the verification's packets and their echoes."""
        for send in sends:
            packet = unpack(send.data, KEY)
            assert isinstance(packet, Packet)
            if not send.pinned:
                seqs.add(packet.seq)
            passes = not send.pinned or (sender == "b" and packet.kind is Kind.ECHO and packet.seq in seqs)
            network.lost = lambda sender, to, path: path == "backup" and not passes  # noqa: B023
            Network.transmit(network, sender, [send])

    network.transmit = transmit  # type: ignore[method-assign]
    for _ in range(10):
        network.verify("a", "b", "backup")
        network.run(1.5)
    assert [proof.ok for proof in prober.proofs] == [True] * 10
    assert network.state("a", "b", "backup") is DOWN
