"""What Tailscale says of itself and of our peers, by its LocalAPI: HTTP on a unix socket.

These are hints (TRAPS 5-8): `Online` is the control connection, and an empty `CurAddr` means relayed *or idle*. Whether
packets pass, the link probes tell.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Final

import msgspec
from msgspec import Struct

from vagus_agent import config
from vagus_agent.config import Address, Network
from vagus_agent.probes import http
from vagus_protocol.messages import Relay, Tailscale

# A tailnet of thousands of nodes answers with some MB.
MAX_ANSWER: Final = 8 << 20
# WireGuard drops a session 180 s after its handshake (Reject-After-Time): with an older one nothing passes.
SESSION_S: Final = 180.0
_MAX_HEALTH: Final = 16
_TEXT: Final = 1024


class _Peer(Struct, rename="pascal"):
    """PeerStatus of Tailscale's ipn/ipnstate, as far as we read it. Go writes an empty list as null."""

    tailscale_ips: list[str] | None = msgspec.field(name="TailscaleIPs", default=None)
    allowed_ips: list[str] | None = msgspec.field(name="AllowedIPs", default=None)
    primary_routes: list[str] | None = None
    cur_addr: str = ""
    peer_relay: str = ""
    last_handshake: str = ""
    active: bool = False
    key_expiry: str | None = None


class _Status(Struct, rename="pascal"):
    backend_state: str
    health: list[str] | None = None
    self: _Peer | None = None
    peer: dict[str, _Peer] | None = None


_decoder = msgspec.json.Decoder(_Status)


class TailscaleProbe:
    """`other_networks`: path → its networks, of every path but Tailscale's own."""

    def __init__(self, tailscale: config.Tailscale, other_networks: Mapping[str, Sequence[Network]]) -> None:
        self._config = tailscale
        self._other_networks = [network for networks in other_networks.values() for network in networks]

    async def read(self, peers: Mapping[str, Sequence[Address]]) -> tuple[Tailscale, dict[str, Relay]]:
        """The backend, and how it carries each of `peers` (name → service addresses) that it knows.

        Never raises: `error` says what is wrong, and then there is nothing else.
        """
        path = self._config.socket
        try:
            async with asyncio.timeout(self._config.timeout_s):
                answer = await self._status(path)
        except TimeoutError:
            return _failed(f"{path}: tailscaled did not answer in {self._config.timeout_s:g} s")
        except (FileNotFoundError, ConnectionRefusedError):
            return _failed(f"{path}: nobody listens there: does tailscaled run?")
        except OSError as error:
            return _failed(f"{path}: {error.strerror or error}")
        except http.HttpError as error:
            return _failed(f"{path} {error}")
        return interpret(answer, peers, self._other_networks, time.time())

    async def _status(self, path: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        with http.dropped_after(writer):
            status, headers = await http.get(reader, writer, "local-tailscaled.sock", "/localapi/v0/status")
            if status != 200:
                raise http.HttpError(f"answered {status}, expected 200")
            return await http.body(reader, headers, MAX_ANSWER)


def interpret(
    status_json: bytes, peers: Mapping[str, Sequence[Address]], other_networks: Sequence[Network], wall: float
) -> tuple[Tailscale, dict[str, Relay]]:
    """Tailscale's status in our words, and how it carries each of `peers` that it knows.

    `wall` (seconds since 1970) is of the clock that tailscaled on this node uses too: it makes its dates durations.
    A malformed answer gives `error`, never an exception.
    """
    try:
        status = _decoder.decode(status_json)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _failed(f"tailscaled's status is not understood: {error}")
    expiry = _seconds(status.self.key_expiry or "") if status.self is not None else None
    told = Tailscale(
        backend_state=status.backend_state[:_TEXT],
        health=tuple(text[:_TEXT] for text in (status.health or [])[:_MAX_HEALTH]),
        key_expires_s=expiry - wall if expiry is not None else None,
    )
    relays: dict[str, Relay] = {}
    # A backend that does not run still lists peers, with what they were.
    if status.backend_state == "Running" and status.peer:
        routes = _Routes(status.peer.values())
        for name, addresses in peers.items():
            carrier = next((peer for address in addresses if (peer := routes.to(address)) is not None), None)
            if carrier is not None:
                relays[name] = _relay(carrier, other_networks, wall)
    return told, relays


def _failed(error: str) -> tuple[Tailscale, dict[str, Relay]]:
    return Tailscale(backend_state="", error=error[:_TEXT]), {}


def _relay(peer: _Peer, other_networks: Sequence[Network], wall: float) -> Relay:
    if peer.cur_addr:
        endpoint = _address(peer.cur_addr)
        if endpoint is not None and any(endpoint in network for network in other_networks):
            return Relay.RIDING_BACKUP
        return Relay.DIRECT
    if peer.peer_relay:
        return Relay.PEER_RELAY
    # `Active` is only that we send; a live session shows that the peer answered.
    handshake = _seconds(peer.last_handshake)
    answered = handshake is not None and wall - handshake < SESSION_S
    return Relay.DERP if peer.active and answered else Relay.IDLE


class _Routes:
    """Which Tailscale peer an address goes to. Host routes are found as text: parsing thousands takes too long."""

    def __init__(self, peers: Iterable[_Peer]) -> None:
        self._hosts: dict[str, _Peer] = {}
        self._networks: list[tuple[Network, _Peer]] = []
        for peer in peers:
            for text in (*(peer.primary_routes or ()), *(peer.allowed_ips or ()), *(peer.tailscale_ips or ())):
                address, _, length = text.partition("/")
                if length in ("", "128" if ":" in text else "32"):
                    self._hosts.setdefault(address, peer)
                elif length != "0":
                    # A /0 is an exit node's, and no claim to an address.
                    with suppress(ValueError):
                        self._networks.append((ip_network(text, strict=False), peer))
        self._networks.sort(key=lambda route: -route[0].prefixlen)

    def to(self, address: Address) -> _Peer | None:
        host = self._hosts.get(str(address))
        return host or next((peer for network, peer in self._networks if address in network), None)


def _address(endpoint: str) -> Address | None:
    """The address of "192.0.2.1:41641" or "[2001:db8::1]:41641"."""
    try:
        return ip_address(endpoint.rpartition(":")[0].strip("[]"))
    except ValueError:
        return None


def _seconds(date: str) -> float | None:
    """Seconds since 1970 of an RFC 3339 date; None when it is none, or Go's zero time."""
    try:
        when = datetime.fromisoformat(date)
    except ValueError:
        return None
    return when.timestamp() if when.tzinfo is not None and when.year > 1 else None
