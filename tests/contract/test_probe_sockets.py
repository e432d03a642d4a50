"""Probe sockets on a kernel that lacks what they ask for, as under an emulator."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

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
