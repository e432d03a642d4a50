"""Bytes ↔ messages. Decoding never raises: what is wrong comes back as one `Rejected` value in words."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from vagus_protocol.messages import Payload

MAX_PAYLOAD: Final = 64 * 1024
# As many of them as a report has room for, with their names and figures.
MAX_LINKS: Final = 160
# Of a controller's orders, which may name every pair of a fleet.
MAX_ORDERS: Final = 1024 * 1024

P = TypeVar("P", bound=Payload)
_encoder = msgspec.json.Encoder()
_decoders: dict[type[Payload], msgspec.json.Decoder[Payload]] = {}


class Rejected(msgspec.Struct, frozen=True):
    """Why a payload was not taken, in words that name the field."""

    reason: str


def encode(message: msgspec.Struct) -> bytes:
    return _encoder.encode(message)


def decode(payload: bytes, kind: type[P], most: int = MAX_PAYLOAD) -> P | Rejected:
    """The message in `payload`, or why there is none: too large, not JSON, a wrong type, another version."""
    if len(payload) > most:
        return Rejected(f"{kind.__name__}: {len(payload)} bytes, more than the {most} allowed")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(payload)  # type: ignore[return-value]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Rejected(f"{kind.__name__}: {str(error)[:300]}")
