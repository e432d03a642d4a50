"""Keys, and the signatures of `desired` and of a controller's standing orders.

One fleet key (32 bytes) is held by controllers only. Each agent gets its own node key and the probe key, both derived,
so that a stolen node cannot sign for another one; the key of the orders stays with the controllers. Derivation is
HMAC-SHA256(fleet key, label), a one-block HKDF-Expand (RFC 5869) over an already uniform key.

The signature covers the body's bytes as they were sent, never a re-encoding: no canonical form is needed.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Literal, TypeVar

import msgspec

from vagus_protocol.codec import MAX_ORDERS, MAX_PAYLOAD, Rejected, decode, encode
from vagus_protocol.messages import Desired, Orders, Payload

KEY_BYTES: Final = 32
# What a signature is for stands before what it signs.
_DESIRED: Final = b"vagus/1/desired\0"
_ORDERS: Final = b"vagus/1/orders\0"

P = TypeVar("P", bound=Payload)


class _Envelope(msgspec.Struct, frozen=True):
    v: Literal[1]
    sig: str
    body: msgspec.Raw


_envelope = msgspec.json.Decoder(_Envelope)


def node_key(fleet_key: bytes, node: str) -> bytes:
    return hmac.digest(fleet_key, b"vagus/1/node-key\0" + node.encode(), hashlib.sha256)


def probe_key(fleet_key: bytes) -> bytes:
    return hmac.digest(fleet_key, b"vagus/1/probe-key", hashlib.sha256)


def orders_key(fleet_key: bytes) -> bytes:
    return hmac.digest(fleet_key, b"vagus/1/orders-key", hashlib.sha256)


def parse_key(text: str) -> bytes | Rejected:
    """A key from its 64 hex digits."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        return Rejected("a key is 64 hex digits; this has other characters")
    if len(key) != KEY_BYTES:
        return Rejected(f"a key is 64 hex digits; this has {len(text.strip())}")
    return key


def seal(desired: Desired, key: bytes) -> bytes:
    """The signed payload of `desired`; `key` is the addressed node's key."""
    return _seal(desired, key, _DESIRED)


def open_sealed(payload: bytes, key: bytes, fleet: str, node: str) -> Desired | Rejected:
    """The desired in `payload` when it was signed for this node with `key`, else why not."""
    desired = _open(payload, Desired, key, _DESIRED, MAX_PAYLOAD, "this node's key")
    if isinstance(desired, Desired) and (desired.fleet, desired.node) != (fleet, node):
        return Rejected(f"Desired: signed for {desired.fleet}/{desired.node}, this is {fleet}/{node}")
    return desired


def seal_orders(orders: Orders, key: bytes) -> bytes:
    """The signed payload of `orders`; `key` is `orders_key`."""
    return _seal(orders, key, _ORDERS)


def open_orders(payload: bytes, key: bytes, fleet: str) -> Orders | Rejected:
    """The orders in `payload` when a controller of this fleet signed them, else why not."""
    orders = _open(payload, Orders, key, _ORDERS, MAX_ORDERS, "the fleet's key")
    if isinstance(orders, Orders) and orders.fleet != fleet:
        return Rejected(f"Orders: signed for {orders.fleet}, this is {fleet}")
    return orders


def _seal(message: Payload, key: bytes, purpose: bytes) -> bytes:
    body = encode(message)
    return msgspec.json.encode(_Envelope(1, _signature(key, purpose, body), msgspec.Raw(body)))


def _open(payload: bytes, kind: type[P], key: bytes, purpose: bytes, most: int, whose: str) -> P | Rejected:
    if len(payload) > most:
        return Rejected(f"{kind.__name__}: {len(payload)} bytes, more than the {most} allowed")
    try:
        envelope = _envelope.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Rejected(f"{kind.__name__}: {str(error)[:300]}")
    body = bytes(envelope.body)
    if not hmac.compare_digest(_signature(key, purpose, body).encode(), envelope.sig.encode()):
        return Rejected(f"{kind.__name__}: the signature does not match {whose}")
    return decode(body, kind, most)


def _signature(key: bytes, purpose: bytes, body: bytes) -> str:
    return hmac.digest(key, purpose + body, hashlib.sha256).hex()
