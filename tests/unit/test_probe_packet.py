"""The probe packet: exact round trip, nothing forged is believed, and a reply never larger than its request."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vagus_protocol.codec import Rejected
from vagus_protocol.messages import LinkState
from vagus_protocol.probe import MAX_PACKET, MAX_VIEWS, MAX_WIDE, TAG, Kind, Packet, name_hash, pack, path_hash, unpack

KEY = bytes(32)


def unsigned(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


views = st.lists(st.tuples(unsigned(32), st.sampled_from(LinkState)), max_size=MAX_VIEWS).map(tuple)
packets = st.builds(
    Packet,
    kind=st.sampled_from(Kind),
    sender=unsigned(64),
    receiver=unsigned(64),
    boot=unsigned(64),
    seq=unsigned(32),
    sent_us=unsigned(64),
    hold_us=unsigned(32),
    lag_ms=unsigned(16),
    interval_ms=unsigned(16),
    views=views,
)
keys = st.binary(min_size=32, max_size=32)


@given(packets, keys)
def test_a_packet_survives_the_wire(packet: Packet, key: bytes) -> None:
    assert unpack(pack(packet, key), key) == packet


@given(packets, packets)
def test_with_as_many_views_an_echo_is_as_large_as_its_probe(probe: Packet, echo: Packet) -> None:
    echo = echo._replace(views=echo.views[: len(probe.views)])
    assert len(pack(echo, KEY)) <= len(pack(probe, KEY)) <= MAX_PACKET


@given(packets)
def test_views_beyond_the_limit_are_cut(packet: Packet) -> None:
    many = tuple((number, LinkState.UP) for number in range(MAX_VIEWS + 5))
    assert unpack(pack(packet._replace(views=many), KEY), KEY) == packet._replace(views=many[:MAX_VIEWS])


@given(packets, keys, keys)
def test_another_fleets_key_is_refused(packet: Packet, key: bytes, other: bytes) -> None:
    assume(key != other)
    assert isinstance(unpack(pack(packet, key), other), Rejected)


@given(packets, st.data())
def test_any_changed_byte_is_found(packet: Packet, data: st.DataObject) -> None:
    wire = bytearray(pack(packet, KEY))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    assert isinstance(unpack(bytes(wire), KEY), Rejected)


@given(packets, st.integers(0, 200))
def test_any_other_length_is_refused(packet: Packet, length: int) -> None:
    wire = pack(packet, KEY)
    assume(length != len(wire))
    assert isinstance(unpack(wire[:length].ljust(length, b"\0"), KEY), Rejected)


@given(st.binary(max_size=2 * MAX_PACKET))
def test_any_bytes_give_a_value(data: bytes) -> None:
    assert isinstance(unpack(data, KEY), Rejected)


@given(st.binary(max_size=MAX_PACKET - TAG - 4))
def test_any_body_with_a_right_tag_gives_a_value(body: bytes) -> None:
    body = b"vgs1" + body
    result = unpack(body + hashlib.blake2b(body, digest_size=TAG, key=KEY).digest(), KEY)
    assert isinstance(result, Packet | Rejected)


def signed(body: bytes) -> bytes:
    return body + hashlib.blake2b(body, digest_size=TAG, key=KEY).digest()


PLAIN = Packet(Kind.PROBE, 1, 2, 3, 4, 5, 6, 7, 8, ((9, LinkState.UP),))


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [(4, 4, "unknown kind 4"), (49, 2, "view count"), (54, 5, "unknown link state 5")],
)
def test_a_signed_packet_of_a_later_version_is_refused_with_what_is_strange(at: int, value: int, words: str) -> None:
    body = bytearray(pack(PLAIN, KEY)[:-TAG])
    body[at] = value
    result = unpack(signed(bytes(body)), KEY)
    assert isinstance(result, Rejected)
    assert words in result.reason


def test_the_layout_is_fixed() -> None:
    """Both ends of a fleet may run different releases: the bytes of a known packet never change."""
    assert pack(PLAIN, KEY)[:-TAG].hex() == (
        "76677331" "01" "0000000000000001" "0000000000000002" "0000000000000003" "00000004"
        "0000000000000005" "00000006" "0007" "0008" "01" "00000009" "01"
    )  # fmt: skip
    assert (name_hash("tokyo"), path_hash("overlay")) == (0x790ED17E0F662124, 0x99ACA924)


@given(packets, st.integers(MAX_PACKET + 1, MAX_WIDE))
def test_a_wide_probe_is_as_large_as_wanted_and_nothing_else_may_be(packet: Packet, size: int) -> None:
    wide = pack(packet._replace(kind=Kind.WIDE), KEY, size)
    assert len(wide) == size
    assert unpack(wide, KEY) == packet._replace(kind=Kind.WIDE)
    for kind in (Kind.PROBE, Kind.ECHO):
        assert isinstance(unpack(pack(packet._replace(kind=kind), KEY, size), KEY), Rejected)


def test_a_wide_probe_beyond_a_frame_is_refused() -> None:
    assert isinstance(unpack(pack(PLAIN._replace(kind=Kind.WIDE), KEY, MAX_WIDE + 1), KEY), Rejected)
