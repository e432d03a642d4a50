"""Signatures: only a controller's own words, for this node or fleet, unchanged, are taken."""

from __future__ import annotations

import hashlib
import hmac

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import json_values, messages, names
from vagus_protocol.codec import MAX_PAYLOAD, Rejected
from vagus_protocol.messages import Desired, Orders
from vagus_protocol.signing import (
    KEY_BYTES,
    node_key,
    open_orders,
    open_sealed,
    orders_key,
    parse_key,
    probe_key,
    seal,
    seal_orders,
)

FLEET_KEY = bytes(range(32))
KEY = node_key(FLEET_KEY, "tokyo")
DESIRED = Desired(v=1, fleet="home", node="tokyo", controller="brain", epoch=3, generation=7, assignments={})

keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)


def rejected(payload: bytes, fleet: str = "home", node: str = "tokyo") -> str:
    result = open_sealed(payload, KEY, fleet, node)
    assert isinstance(result, Rejected)
    assert KEY.hex() not in result.reason
    return result.reason


@given(messages(Desired), keys)
def test_what_is_sealed_opens(desired: Desired, key: bytes) -> None:
    assert open_sealed(seal(desired, key), key, desired.fleet, desired.node) == desired


@given(messages(Desired), keys, keys)
def test_another_key_opens_nothing(desired: Desired, key: bytes, other: bytes) -> None:
    assume(key != other)
    assert isinstance(open_sealed(seal(desired, key), other, desired.fleet, desired.node), Rejected)


@given(st.data())
def test_any_change_of_the_body_is_found(data: st.DataObject) -> None:
    payload = bytearray(seal(DESIRED, KEY))
    at = data.draw(st.integers(payload.index(b'"body":') + 7, len(payload) - 2))
    byte = data.draw(st.integers(0, 255))
    assume(byte != payload[at])
    # White space around the body is not the body; nothing else may open.
    assume(not (at in (payload.index(b'"body":') + 7, len(payload) - 2) and byte in b" \t\r\n"))
    payload[at] = byte
    assert isinstance(open_sealed(bytes(payload), KEY, "home", "tokyo"), Rejected)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_value(payload: bytes) -> None:
    rejected(payload)


@given(json_values, json_values, json_values)
def test_any_envelope_gives_a_value(v: object, sig: object, body: object) -> None:
    rejected(msgspec.json.encode({"v": v, "sig": sig, "body": body}))


@given(json_values)
def test_a_well_signed_body_that_is_no_desired_gives_a_value(body: object) -> None:
    raw = msgspec.json.encode(body)
    signature = hmac.digest(KEY, b"vagus/1/desired\0" + raw, hashlib.sha256).hex()
    rejected(b'{"v":1,"sig":"%s","body":%s}' % (signature.encode(), raw))


def test_the_desired_of_another_node_or_fleet_is_refused_even_when_its_key_leaked_here() -> None:
    sealed = seal(DESIRED, KEY)
    assert "signed for home/tokyo, this is home/austin" in rejected(sealed, node="austin")
    assert "signed for home/tokyo, this is work/tokyo" in rejected(sealed, fleet="work")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        msgspec.json.encode(DESIRED),
        b'{"v":1,"sig":"","body":{}}',
        rb'{"v":1,"sig":"\ud800","body":{}}',
        '{"v":1,"sig":"ä","body":{}}'.encode(),
        b'{"v":2,"sig":"","body":{}}',
        b'{"v":1,"sig":"","body":' + b"[" * 60_000,
        b'{"v":1,"sig":"","body":"' + b"x" * MAX_PAYLOAD + b'"}',
    ],
    ids=["empty", "unsigned", "empty-signature", "surrogate", "umlaut", "version", "deep", "large"],
)
def test_a_malformed_envelope_is_refused(payload: bytes) -> None:
    assert rejected(payload).startswith("Desired: ")


def test_derived_keys_are_those_of_the_published_rule() -> None:
    assert node_key(FLEET_KEY, "tokyo") == hmac.digest(FLEET_KEY, b"vagus/1/node-key\0tokyo", hashlib.sha256)
    assert probe_key(FLEET_KEY) == hmac.digest(FLEET_KEY, b"vagus/1/probe-key", hashlib.sha256)


@given(keys, names, names)
def test_no_two_nodes_share_a_key(fleet_key: bytes, a: str, b: str) -> None:
    assume(a != b)
    assert len({fleet_key, probe_key(fleet_key), node_key(fleet_key, a), node_key(fleet_key, b)}) == 4


@given(keys)
def test_a_key_parses_from_its_hex(key: bytes) -> None:
    assert parse_key(key.hex()) == key
    assert parse_key(f" {key.hex().upper()}\n") == key


@given(st.text(max_size=80))
def test_any_text_gives_a_key_or_a_reason_that_does_not_repeat_it(text: str) -> None:
    result = parse_key(text)
    if isinstance(result, Rejected):
        assert "64 hex digits" in result.reason
    else:
        assert len(result) == KEY_BYTES


@given(messages(Orders), keys)
def test_orders_that_are_sealed_open(orders: Orders, key: bytes) -> None:
    assert open_orders(seal_orders(orders, key), key, orders.fleet) == orders


@given(messages(Orders), keys, keys)
def test_orders_open_with_no_other_key_and_for_no_other_fleet(orders: Orders, key: bytes, other: bytes) -> None:
    assume(key != other)
    assert isinstance(open_orders(seal_orders(orders, key), other, orders.fleet), Rejected)
    assert isinstance(open_orders(seal_orders(orders, key), key, orders.fleet + "x"), Rejected)


def test_no_key_of_a_node_and_no_signature_of_a_desired_makes_orders() -> None:
    orders = Orders(v=1, fleet="home", controller="brain", epoch=3, generation=7)
    assert len({orders_key(FLEET_KEY), node_key(FLEET_KEY, "tokyo"), probe_key(FLEET_KEY)}) == 3
    key = orders_key(FLEET_KEY)
    assert isinstance(open_orders(seal_orders(orders, node_key(FLEET_KEY, "tokyo")), key, "home"), Rejected)
    # Even with one key for both: what was signed as the one is not the other.
    assert isinstance(open_orders(seal(DESIRED, key), key, "home"), Rejected)
    assert isinstance(open_sealed(seal_orders(orders, KEY), KEY, "home", "tokyo"), Rejected)
