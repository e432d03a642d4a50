"""The codec: what goes in comes out; what is wrong comes back as one Rejected, whatever it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import as_json, json_values, messages, texts
from vagus_protocol.codec import MAX_PAYLOAD, Rejected, decode, encode
from vagus_protocol.messages import (
    ControllerPresence,
    Desired,
    Event,
    Link,
    LinkState,
    Observed,
    Orders,
    Payload,
    Presence,
    Report,
)

KINDS: list[type[Payload]] = [Presence, Report, Event, Desired, Observed, ControllerPresence, Orders]
REPORT: dict[str, Any] = {"v": 1, "node": "a", "session": "s", "seq": 1, "boot_id": "b", "interval_s": 2.0}


def rejected(payload: bytes, kind: type[Payload] = Report) -> str:
    result = decode(payload, kind)
    assert isinstance(result, Rejected)
    assert result.reason.startswith(kind.__name__)
    assert len(result.reason) < 400
    return result.reason


def report(**changes: Any) -> bytes:
    return msgspec.json.encode({**REPORT, **changes})


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_every_message_survives_the_round_trip(kind: type[Payload], data: st.DataObject) -> None:
    message = data.draw(messages(kind))
    assert decode(encode(message), kind) == message


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_unknown_fields_are_ignored(kind: type[Payload], data: st.DataObject) -> None:
    message = data.draw(messages(kind))
    strangers = data.draw(st.dictionaries(texts.map(lambda t: "new_" + t), json_values, max_size=3))
    assert decode(msgspec.json.encode({**as_json(message), **strangers}), kind) == message


@pytest.mark.parametrize("kind", KINDS)
@given(payload=st.binary(max_size=200))
def test_any_bytes_give_a_value(kind: type[Payload], payload: bytes) -> None:
    assert isinstance(decode(payload, kind), kind | Rejected)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_json_in_any_field_gives_a_value(kind: type[Payload], data: st.DataObject) -> None:
    body = as_json(data.draw(messages(kind)))
    body[data.draw(st.sampled_from(sorted(kind.__struct_fields__)))] = data.draw(json_values)
    assert isinstance(decode(msgspec.json.encode(body), kind), kind | Rejected)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_damaged_message_gives_a_value(kind: type[Payload], data: st.DataObject) -> None:
    payload = bytearray(encode(data.draw(messages(kind))))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(decode(bytes(payload[: data.draw(st.integers(0, len(payload)))]), kind), kind | Rejected)


def test_a_payload_above_the_limit_is_not_even_parsed() -> None:
    padding = MAX_PAYLOAD - len(report(extra=""))
    assert isinstance(decode(report(extra="x" * padding), Report), Report)
    assert "65537 bytes, more than the 65536 allowed" in rejected(report(extra="x" * (padding + 1)))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"v": 2}, "$.v"),
        ({"v": "1"}, "$.v"),
        ({"node": 7}, "$.node"),
        ({"node": "a\n"}, "$.node"),
        ({"node": "a/b"}, "$.node"),
        ({"node": "+"}, "$.node"),
        ({"node": ""}, "$.node"),
        ({"node": "a" * 64}, "$.node"),
        ({"session": "x" * 1025}, "$.session"),
        ({"seq": -1}, "$.seq"),
        ({"seq": 2**63}, "$.seq"),
        ({"seq": 1.5}, "$.seq"),
        ({"seq": True}, "$.seq"),
        ({"interval_s": -1}, "$.interval_s"),
        ({"interval_s": 1e13}, "$.interval_s"),
        ({"interval_s": None}, "$.interval_s"),
        ({"links": {}}, "$.links"),
        ({"links": [{"peer": "b", "path": "overlay", "state": "sideways"}]}, "$.links[0].state"),
        ({"links": [{"peer": "b", "path": "overlay", "state": "up", "loss_10s": 1.1}]}, "$.links[0].loss_10s"),
        ({"system": {"cores": 2**70, "load1": 0, "load5": 0, "load15": 0, "uptime_s": 0}}, "$.system.cores"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    assert field in rejected(report(**changes))


@pytest.mark.parametrize(
    "value",
    [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" + b"0" * 400, b"1" + b"0" * 5000, b"0x10", b"01", b"'2'"],
)
def test_what_is_no_finite_number_is_refused(value: bytes) -> None:
    rejected(report().replace(b"2.0", value))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"[" * 30_000, id="open"),
        pytest.param(b"[" * 30_000 + b"]" * 30_000, id="closed"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, id="objects"),
    ],
)
def test_deep_nesting_is_refused_also_in_a_field_nobody_reads(value: bytes) -> None:
    rejected(report()[:-1] + b',"new":' + value + b"}")


@pytest.mark.parametrize(
    "text", [rb'"\ud800"', rb'"\udc00\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\xaf"', b'"\x00"']
)
def test_text_that_is_no_unicode_is_refused(text: bytes) -> None:
    rejected(report()[:-1] + b',"broker":' + text + b"}")


@pytest.mark.parametrize(
    "payload", [b"", b"null", b"[]", b'"x"', b"1", b"{}", b'{"v":1}', b"\x00", b"{", b"\xef\xbb\xbf{}"]
)
def test_what_is_no_report_is_refused(payload: bytes) -> None:
    rejected(payload)


def test_the_last_will_is_small_and_says_who_and_why() -> None:
    will = Presence(v=1, node="tokyo", session="7f", online=False, reason="connection lost")
    assert encode(will) == b'{"v":1,"node":"tokyo","session":"7f","online":false,"reason":"connection lost"}'
    assert decode(encode(will), Presence) == will


def test_defaults_do_not_travel() -> None:
    assert encode(Link(peer="b", path="overlay", state=LinkState.UP)) == b'{"peer":"b","path":"overlay","state":"up"}'
