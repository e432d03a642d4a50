"""The UDP probe and its echo between agents: fixed layout, big-endian, tagged by keyed BLAKE2b.

    magic 4 | kind 1 | sender 8 | receiver 8 | boot 8 | seq 4 | sent_us 8 | hold_us 4 | lag_ms 2 | interval_ms 2
    | n 1 | n × (path 4, state 1) | tag 16

`sender`, `receiver` and `path` are hashes of names (`name_hash`), so the layout is fixed and a packet for another node
is dropped. `views` is what the sender now thinks of its links to the receiver, over all paths: the end that sees a
failure first tells the other over a path that lives. An echo repeats the probe's seq and sent_us; `hold_us` is how long
the responder kept it, which the prober subtracts, so a busy responder does not look like a slow path. Probe and echo
have the same shape and views are cut to the probe's, so a reply is never larger than the request.

A wide probe is one that is padded before its tag, and answered by an ordinary echo: whether packets as large as
traffic's pass, one way. Who answers them says so by `ANSWERS_WIDE` in its own probes' `hold_us`.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from vagus_protocol.codec import Rejected
from vagus_protocol.messages import LinkState

MAGIC: Final = b"vgs1"
TAG: Final = 16
MAX_VIEWS: Final = 8
_HEAD: Final = struct.Struct("!4sBQQQIQIHHB")
_VIEW: Final = struct.Struct("!IB")
MAX_PACKET: Final = _HEAD.size + MAX_VIEWS * _VIEW.size + TAG
# What fits into an Ethernet frame.
MAX_WIDE: Final = 1472
ANSWERS_WIDE: Final = 1
_STATES: Final = (LinkState.UNKNOWN, LinkState.UP, LinkState.DEGRADED, LinkState.SUSPECT, LinkState.DOWN)
_CODES: Final = {state: code for code, state in enumerate(_STATES)}


class Kind(IntEnum):
    PROBE = 1
    ECHO = 2
    WIDE = 3


# By number: calling the enum costs as much as the rest of the header.
_KINDS: Final = {1: Kind.PROBE, 2: Kind.ECHO, 3: Kind.WIDE}


# Path by its hash, and the state of the link over it.
Views = tuple[tuple[int, LinkState], ...]


class Packet(NamedTuple):
    kind: Kind
    sender: int
    receiver: int
    boot: int
    seq: int
    sent_us: int
    hold_us: int
    lag_ms: int
    interval_ms: int
    views: Views


def name_hash(name: str) -> int:
    """64-bit hash of a node's name (or boot id) as it stands in packets."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def path_hash(name: str) -> int:
    """32-bit hash of a path's name as it stands in packets."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest())


def pack(packet: Packet, key: bytes, size: int = 0) -> bytes:
    """The packet on the wire. Fields must fit their width; durations are clamped by the caller. `size`: what a wide one
    is padded to, at most MAX_WIDE."""
    count, views = _pack_views(packet[-1])
    body = _HEAD.pack(MAGIC, *packet[:-1], count) + views
    if size:
        body = body.ljust(size - TAG, b"\0")
    return body + _tag(body, key)


def unpack(data: bytes, key: bytes) -> Packet | Rejected:
    """The packet in `data`, or why it is none. The tag is checked before anything else is believed."""
    if len(data) < _HEAD.size + TAG or data[:4] != MAGIC:
        return Rejected("not a vagus probe")
    wide = data[4] == 3
    if len(data) > (MAX_WIDE if wide else MAX_PACKET):
        return Rejected("not a vagus probe")
    body = data[:-TAG]
    if not hmac.compare_digest(_tag(body, key), data[-TAG:]):
        return Rejected("probe with a wrong tag: another fleet's key, or forged")
    _, kind, sender, receiver, boot, seq, sent_us, hold_us, lag_ms, interval_ms, count = _HEAD.unpack_from(body)
    end = _HEAD.size + count * _VIEW.size
    if len(body) != end and not (wide and len(body) > end):
        return Rejected("probe whose length does not match its view count")
    if kind not in _KINDS:
        return Rejected(f"probe of unknown kind {kind}")
    views = _unpack_views(body[_HEAD.size : end])
    if isinstance(views, Rejected):
        return views
    return Packet(_KINDS[kind], sender, receiver, boot, seq, sent_us, hold_us, lag_ms, interval_ms, views)


# A node packs and unpacks the same few keys and views, some hundred times a second: remembered, as many as it may have.


@lru_cache(maxsize=4)
def _keyed(key: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=TAG, key=key)


def _tag(body: bytes, key: bytes) -> bytes:
    digest = _keyed(key).copy()
    digest.update(body)
    return digest.digest()


@lru_cache(maxsize=256)
def _pack_views(views: Views) -> tuple[int, bytes]:
    """How many are sent, and their bytes."""
    views = views[:MAX_VIEWS]
    return len(views), b"".join(_VIEW.pack(path, _CODES[state]) for path, state in views)


@lru_cache(maxsize=256)
def _unpack_views(data: bytes) -> Views | Rejected:
    views = []
    for path, code in _VIEW.iter_unpack(data):
        if code >= len(_STATES):
            return Rejected(f"probe with unknown link state {code}")
        views.append((path, _STATES[code]))
    return tuple(views)
