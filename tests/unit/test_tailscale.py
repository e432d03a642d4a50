"""Tailscale's status in our words: what each combination of fields means, and that nothing malformed gets through."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vagus_agent.probes.tailscale import SESSION_S, interpret
from vagus_protocol.codec import decode, encode
from vagus_protocol.messages import Relay, Report, Tailscale

WALL = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp()
PEERS = {"pi-2": (ip_address("10.118.0.2"), ip_address("fd00:118::2"))}
BACKUP = (ip_network("10.9.0.0/24"), ip_network("fd00:9::/64"))
JUST_NOW = "2026-11-21T11:59:30.123456789Z"


def peer(**changes: Any) -> dict[str, Any]:
    """A peer as tailscaled shows it: idle, with its home DERP filled as always."""
    return {
        "ID": "n1",
        "HostName": "pi-2",
        "TailscaleIPs": ["100.64.0.2", "fd7a:115c:a1e0::2"],
        "AllowedIPs": ["100.64.0.2/32", "fd7a:115c:a1e0::2/128", "10.118.0.2/32"],
        "PrimaryRoutes": ["10.118.0.2/32"],
        "CurAddr": "",
        "Relay": "fra",
        "PeerRelay": "",
        "RxBytes": 10,
        "LastHandshake": "0001-01-01T00:00:00Z",
        "Online": True,
        "Active": False,
        **changes,
    }


def status(*peers: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps(
        {
            "Version": "1.98.1",
            "BackendState": "Running",
            "Health": None,
            "TailscaleIPs": ["100.64.0.1"],
            "Self": {"ID": "n0", "HostName": "pi-1"},
            "Peer": {f"nodekey:{index}": one for index, one in enumerate(peers)},
            **changes,
        }
    ).encode()


def relay(*peers: dict[str, Any], **changes: Any) -> Relay | None:
    return interpret(status(*peers, **changes), PEERS, BACKUP, WALL)[1].get("pi-2")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Relay.IDLE),
        ({"CurAddr": "198.51.100.7:41641", "Active": True}, Relay.DIRECT),
        ({"CurAddr": "[2001:db8::7]:41641", "Active": True}, Relay.DIRECT),
        ({"CurAddr": "10.9.0.2:41641"}, Relay.RIDING_BACKUP),
        ({"CurAddr": "[fd00:9::2]:41641"}, Relay.RIDING_BACKUP),
        ({"CurAddr": "not an endpoint"}, Relay.DIRECT),
        ({"PeerRelay": "198.51.100.9:7777:vni:5", "Active": True}, Relay.PEER_RELAY),
        ({"CurAddr": "198.51.100.7:41641", "PeerRelay": "198.51.100.9:7777:vni:5"}, Relay.DIRECT),
        ({"Active": True, "LastHandshake": JUST_NOW}, Relay.DERP),
        ({"Active": False, "LastHandshake": JUST_NOW}, Relay.IDLE),
        ({"Active": True}, Relay.IDLE),
        ({"Active": True, "LastHandshake": "2026-11-21T11:50:00Z"}, Relay.IDLE),
        ({"Active": True, "LastHandshake": "yesterday"}, Relay.IDLE),
    ],
)
def test_how_a_peer_is_carried(fields: dict[str, Any], expected: Relay) -> None:
    assert relay(peer(**fields)) is expected


def test_a_session_ends_with_wireguards_own_limit() -> None:
    answer = status(peer(Active=True, LastHandshake="2026-11-21T12:00:00Z"))
    assert interpret(answer, PEERS, (), WALL + SESSION_S - 1)[1] == {"pi-2": Relay.DERP}
    assert interpret(answer, PEERS, (), WALL + SESSION_S + 1)[1] == {"pi-2": Relay.IDLE}


DIRECT = {"CurAddr": "198.51.100.7:41641"}


@pytest.mark.parametrize(
    "routes",
    [
        {"AllowedIPs": ["10.118.0.2/32"], "PrimaryRoutes": None},
        {"AllowedIPs": None, "PrimaryRoutes": ["10.118.0.0/30"]},
        {"AllowedIPs": None, "PrimaryRoutes": None, "TailscaleIPs": ["10.118.0.2"]},
        {"AllowedIPs": ["rubbish", "10.118.0.0/999", "10.118.0.2/32"]},
    ],
)
def test_a_peer_is_found_by_its_service_address(routes: dict[str, Any]) -> None:
    other = peer(AllowedIPs=["10.118.0.0/16", "0.0.0.0/0", "::/0"], PrimaryRoutes=None)
    assert relay(other, peer(**routes, **DIRECT)) is Relay.DIRECT


def test_a_peer_is_found_by_its_second_address() -> None:
    assert relay(peer(AllowedIPs=["fd00:118::2/128"], PrimaryRoutes=None, **DIRECT)) is Relay.DIRECT
    assert relay(peer(AllowedIPs=["fd00:118::/32"], PrimaryRoutes=None, **DIRECT)) is Relay.DIRECT
    assert relay(peer(AllowedIPs=["100.64.0.2/32"], PrimaryRoutes=None, **DIRECT)) is None


def test_an_exit_node_does_not_stand_for_every_address() -> None:
    assert relay(peer(AllowedIPs=["100.64.0.9/32", "0.0.0.0/0", "::/0"], PrimaryRoutes=["0.0.0.0/0"], **DIRECT)) is None


def test_a_backend_that_does_not_run_carries_nobody() -> None:
    told, relays = interpret(
        status(peer(**DIRECT), BackendState="NeedsLogin", Health=["You are logged out."]), PEERS, BACKUP, WALL
    )
    assert told == Tailscale(backend_state="NeedsLogin", health=("You are logged out.",))
    assert relays == {}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"KeyExpiry": "2026-11-22T12:00:00Z"}, 86400.0),
        ({"KeyExpiry": "2026-11-21T12:00:00+01:00"}, -3600.0),
        ({"KeyExpiry": None}, None),
        ({}, None),
        (None, None),
        ({"KeyExpiry": "soon"}, None),
    ],
)
def test_key_expiry_is_a_duration(own: dict[str, Any] | None, expected: float | None) -> None:
    assert interpret(status(Self=own), PEERS, BACKUP, WALL)[0].key_expires_s == expected


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"", "not understood"),
        (b"[]", "object"),
        (b"{}", "BackendState"),
        (b'{"BackendState": 7}', "BackendState"),
        (b'{"BackendState": "Running", "Peer": []}', "Peer"),
        (b"[" * 100_000, "not understood"),
        (b'"\xff\xfe"', "not understood"),
    ],
)
def test_a_malformed_answer_is_an_error_in_words(answer: bytes, word: str) -> None:
    told, relays = interpret(answer, PEERS, BACKUP, WALL)
    assert told.backend_state == ""
    assert word in told.error
    assert relays == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(JUST_NOW),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(sorted(peer())).flatmap(lambda name: st.fixed_dictionaries({name: JSON}))
TEXTS = st.text(max_size=2000)
ANSWERS = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.builds(lambda fields: status(peer(**fields)), FIELDS)
    | st.builds(lambda name, value: status(peer(), **{name: value}), st.sampled_from(["Self", "Peer", "Health"]), JSON)
    | st.builds(
        lambda text, routes: status(
            peer(AllowedIPs=routes, CurAddr=text, LastHandshake=text), BackendState="Running", Health=[text] * 50
        ),
        TEXTS,
        st.lists(TEXTS, max_size=3),
    )
    | st.builds(lambda when: status(Self={"KeyExpiry": when.isoformat() + "Z"}), st.datetimes())
)


@given(answer=ANSWERS)
def test_no_answer_raises_and_every_result_fits_a_report(answer: bytes) -> None:
    told, relays = interpret(answer, PEERS, BACKUP, WALL)
    assert relays.keys() <= PEERS.keys()
    report = Report(v=1, node="pi-1", session="s", seq=1, boot_id="b", interval_s=2.0, tailscale=told)
    assert decode(encode(report), Report) == report
