"""Keys and the signature of `desired`.

One fleet key (32 bytes) is held by controllers only. Each agent gets its own node key and the probe key, both derived,
so that a stolen node cannot sign for another one. Derivation is HMAC-SHA256(fleet key, label), a one-block HKDF-Expand
(RFC 5869) over an already uniform key.

The signature covers the body's bytes as they were sent, never a re-encoding: no canonical form is needed.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Literal

import msgspec

from vagus_protocol.codec import MAX_PAYLOAD, Rejected, decode, encode
from vagus_protocol.messages import Desired

KEY_BYTES: Final = 32


class _Envelope(msgspec.Struct, frozen=True):
    v: Literal[1]
    sig: str
    body: msgspec.Raw


_envelope = msgspec.json.Decoder(_Envelope)


def node_key(fleet_key: bytes, node: str) -> bytes:
    return hmac.digest(fleet_key, b"vagus/1/node-key\0" + node.encode(), hashlib.sha256)


def probe_key(fleet_key: bytes) -> bytes:
    return hmac.digest(fleet_key, b"vagus/1/probe-key", hashlib.sha256)


def parse_key(text: str) -> bytes | Rejected:
    """A key from its 64 hex digits."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        return Rejected("a key is 64 hex digits; this has other characters")
    if len(key) != KEY_BYTES:
        return Rejected(f"a key is 64 hex digits; this has {len(text.strip())}")
    return key


def _signature(key: bytes, body: bytes) -> str:
    return hmac.digest(key, b"vagus/1/desired\0" + body, hashlib.sha256).hex()


def seal(desired: Desired, key: bytes) -> bytes:
    """The signed payload of `desired`; `key` is the addressed node's key."""
    body = encode(desired)
    return msgspec.json.encode(_Envelope(1, _signature(key, body), msgspec.Raw(body)))


def open_sealed(payload: bytes, key: bytes, fleet: str, node: str) -> Desired | Rejected:
    """The desired in `payload` when it was signed for this node with `key`, else why not."""
    if len(payload) > MAX_PAYLOAD:
        return Rejected(f"Desired: {len(payload)} bytes, more than the {MAX_PAYLOAD} allowed")
    try:
        envelope = _envelope.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Rejected(f"Desired: {str(error)[:300]}")
    body = bytes(envelope.body)
    if not hmac.compare_digest(_signature(key, body).encode(), envelope.sig.encode()):
        return Rejected("Desired: the signature does not match this node's key")
    desired = decode(body, Desired)
    if isinstance(desired, Desired) and (desired.fleet, desired.node) != (fleet, node):
        return Rejected(f"Desired: signed for {desired.fleet}/{desired.node}, this is {fleet}/{node}")
    return desired
