"""Probe sockets on a kernel that lacks what they ask for, as under an emulator."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from vagus_agent.config import Config, Mqtt, Path, Peer
from vagus_agent.core.prober import Prober
from vagus_agent.net import udp


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_without_receive_times_it_says_so_and_probes(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # An option that no kernel has.
    monkeypatch.setattr(udp, "_SO_TIMESTAMPNS", 9999)
    own = ip_address(address)
    with udp._socket(own, 0) as sock:
        assert "does not tell when a packet came" in caplog.text
        with socket.socket(sock.family, socket.SOCK_DGRAM) as other:
            other.sendto(b"probe", sock.getsockname()[:2])
        sock.setblocking(True)
        sock.settimeout(5)
        data, ancillary, _, _ = sock.recvmsg(100, udp._ANCILLARY)
    assert data == b"probe"
    assert udp._ancillary(own.version, ancillary) == (socket.if_nametoindex("lo"), 0.0)


def test_with_them_a_datagram_says_how_long_it_waited() -> None:
    with udp._socket(ip_address("127.0.0.1"), 0) as sock:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(b"probe", sock.getsockname())
        sock.setblocking(True)
        sock.settimeout(5)
        _, ancillary, _, _ = sock.recvmsg(100, udp._ANCILLARY)
    index, hold = udp._ancillary(4, ancillary)
    assert index == socket.if_nametoindex("lo")
    assert 0 < hold < 5


def test_whoever_wants_to_know_of_a_wake_up_is_told_before_its_probes_go() -> None:
    config = Config(
        fleet="f",
        node="a",
        addresses=(ip_address("127.0.0.1"),),
        paths=(Path(name="overlay", interface="lo"),),
        peers=(Peer(name="b", addresses=(ip_address("127.0.0.2"),)),),
        mqtt=Mqtt(brokers=()),
        keys_file="/k",
    )
    prober = Prober(config, b"k" * 32, 1, 0.0, 0.0)
    told: list[tuple[float, int]] = []
    sockets = udp.ProbeSockets(
        config,
        prober,
        on_changes=lambda _: None,
        on_proof=lambda _: None,
        now=lambda: 5.0,
        on_wake=lambda now: told.append((now, prober.links[0].sent)),
    )
    sockets._fired()
    assert told == [(5.0, 0)]
    assert prober.links[0].sent > 0
