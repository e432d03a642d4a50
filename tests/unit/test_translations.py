"""Which tracked connections a move leaves behind, and when a peer has moved."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from vagus_agent.core.translations import Moved, Standing, Translation, whose

# From overlay (100.64.0.1, fd7a::1) to backup (10.88.0.1, fd88::1); the node's LAN is 192.168.1.0/24.
KEPT = frozenset(map(ip_address, ("127.0.0.1", "10.99.0.1", "fd99::1", "192.168.1.5", "10.88.0.1", "fd88::1")))
MOVED = (
    Moved("austin", (ip_network("10.99.0.2/32"), ip_network("fd99::2/128")), KEPT),
    Moved("berlin", (ip_network("10.99.0.3/32"), ip_network("192.168.30.0/24"), ip_network("fd30::/48")), KEPT),
)


@pytest.mark.parametrize(
    ("source", "translated", "target", "expected"),
    [
        ("192.168.1.9", "100.64.0.1", "10.99.0.2", "austin"),
        ("192.168.1.9", "100.64.0.1", "192.168.30.7", "berlin"),
        ("fd01::9", "fd7a::1", "fd99::2", "austin"),
        ("fd01::9", "fd7a::1", "fd30::7", "berlin"),
        # an address that went with its interface
        ("192.168.1.9", "100.64.0.99", "10.99.0.3", "berlin"),
        # nobody moved
        ("192.168.1.9", "100.64.0.1", "10.99.0.4", ""),
        ("192.168.1.9", "203.0.113.7", "1.1.1.1", ""),
        # only its port was changed
        ("100.64.0.1", "100.64.0.1", "10.99.0.2", ""),
        # holds on any path: our service address, or the LAN's
        ("192.168.1.9", "10.99.0.1", "10.99.0.2", ""),
        ("192.168.1.9", "192.168.1.5", "192.168.30.7", ""),
        # began on the new path already
        ("192.168.1.9", "10.88.0.1", "10.99.0.2", ""),
        # from the peer into our LAN: where it goes has not moved
        ("10.99.0.2", "192.168.1.5", "192.168.1.9", ""),
    ],
)
def test_only_a_source_of_another_path_is_left_behind(source: str, translated: str, target: str, expected: str) -> None:
    connection = Translation(ip_address(source), ip_address(translated), ip_address(target))
    assert whose(connection, MOVED) == expected


def test_a_peer_has_moved_once_it_stands_on_another_path() -> None:
    standing = Standing()
    here = {"austin": "overlay", "berlin": "overlay"}
    assert standing.moved(here, ()) == {}, "the start moves nothing"
    assert standing.moved(here, ()) == {}
    assert standing.moved({**here, "austin": "backup"}, ()) == {"austin": "backup"}
    assert standing.moved({**here, "austin": "backup"}, ()) == {}, "each move once"
    assert standing.moved(here, ()) == {"austin": "overlay"}


def test_a_trial_counts_when_it_is_over_and_only_if_it_stays() -> None:
    standing = Standing()
    standing.moved({"austin": "overlay"}, ())
    assert standing.moved({"austin": "backup"}, {"austin"}) == {}
    assert standing.moved({"austin": "overlay"}, ()) == {}, "rolled back: nothing has moved"
    assert standing.moved({"austin": "backup"}, {"austin"}) == {}
    assert standing.moved({"austin": "backup"}, ()) == {"austin": "backup"}


def test_a_way_that_is_none_for_a_while_is_no_move() -> None:
    standing = Standing()
    standing.moved({"austin": "overlay"}, ())
    assert standing.moved({"austin": ""}, ()) == {}
    assert standing.moved({"austin": "overlay"}, ()) == {}
    assert standing.moved({"austin": ""}, ()) == {}
    assert standing.moved({"austin": "backup"}, ()) == {"austin": "backup"}
