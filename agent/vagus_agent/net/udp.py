"""The probe sockets: pinned to a path by interface index, answered out of the interface a probe came in on.

Only a verification's probes are not pinned: they go as traffic goes.

One socket an address family, bound to the node's own service address: probes meet the same addresses, routes,
filters and AllowedIPs as traffic. Kernel receive timestamps (SO_TIMESTAMPNS) keep a late event loop from looking like a
slow link; where the kernel gives none (under an emulator), probing goes on without.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from vagus_agent.config import Address, Config
from vagus_agent.core.link import Change
from vagus_agent.core.prober import Gap, Prober, Proof, Send
from vagus_agent.net.netlink import has_ipv6
from vagus_protocol.probe import MAX_WIDE

log = logging.getLogger("vagus")

# Linux values; Python's socket module lacks the first two.
_SO_TIMESTAMPNS: Final = 35
_IP_PKTINFO: Final = 8
_TIMESPEC: Final = struct.Struct("@qq")
_PKTINFO4: Final = struct.Struct("@i4s4s")
_PKTINFO6: Final = struct.Struct("@16sI")
_ANCILLARY: Final = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(max(_PKTINFO4.size, _PKTINFO6.size))
# Datagrams read in one go; the rest waits for the next turn of the loop.
_BATCH: Final = 256
_SIOCGIFMTU: Final = 0x8921
_IFREQ: Final = struct.Struct("@16si20x")
# Of IPv6 and UDP; IPv4 takes less.
_HEADERS: Final = 48
# A kernel timestamp further from now than this is a step of the wall clock, not a delay.
_CREDIBLE_HOLD_S: Final = 5.0
_REFUSALS: Final = {
    errno.ENODEV: "interface {interface} is gone",
    errno.ENXIO: "interface {interface} is gone",
    errno.ENETUNREACH: "no route to {peer} on {interface}",
    errno.EHOSTUNREACH: "no route to {peer} on {interface}",
    errno.ENETDOWN: "interface {interface} is down",
    errno.EPERM: "a local firewall rule refuses probes on {interface}",
    errno.EACCES: "no route to {peer} on {interface}",
    errno.EINVAL: "own service address is not local",
    errno.EADDRNOTAVAIL: "own service address is not local",
    errno.ENOKEY: "{interface} has no key or endpoint for {peer}",
    errno.EDESTADDRREQ: "{interface} has no endpoint for {peer}",
}


class ProbeSockets:
    """Drives a `Prober` with real datagrams and the loop's clock, of which `now` is a reading."""

    def __init__(
        self,
        config: Config,
        prober: Prober,
        on_changes: Callable[[Sequence[Change]], None],
        on_proof: Callable[[Proof], None],
        now: Callable[[], float],
        on_gap: Callable[[Gap], None] = lambda _: None,
        on_wake: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`on_wake`: called with the time whenever probes are due, before they go out."""
        self._config = config
        self._prober = prober
        self._on_changes = on_changes
        self._on_proof = on_proof
        self._on_gap = on_gap
        self._on_wake = on_wake
        self._now = now
        self._sockets: dict[int, socket.socket] = {}
        # path → an IPv6 socket that only sends, tied to the path's interface
        self._tied: dict[str, socket.socket] = {}
        self._targets: dict[str, tuple[socket.socket, tuple[str, int], bytes]] = {}
        # (peer, path) → socket, destination and what pins the path
        self._ways: dict[tuple[str, str], tuple[socket.socket, tuple[str, int], tuple[int, int, bytes]]] = {}
        self._peer_of: dict[str, str] = {}
        self._interface_of = {path.name: path.interface for path in config.paths}
        self._index_of: dict[str, int] = {}
        self._path_of: dict[int, str] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def open(self) -> None:
        """Bind and start probing. Raises OSError when a service address is not on this machine."""
        if not self._config.peers:
            return
        for address in self._config.addresses:
            if address.version not in self._sockets and (address.version == 4 or has_ipv6()):
                self._sockets[address.version] = _socket(address, self._config.probe.port)
        self._meet()
        self._loop = asyncio.get_running_loop()
        for version, sock in self._sockets.items():
            self._loop.add_reader(sock, self._readable, version, sock)
        self._poll()

    def reconfigure(self, config: Config) -> None:
        """Other peers from now on, once the prober has them. Raises OSError when they are the first, as `open`."""
        self._config = config
        if self._sockets:
            self._meet()
            self._poll()
        else:
            self.open()

    def _meet(self) -> None:
        """Where each peer is reached."""
        self._peer_of.clear()
        self._targets.clear()
        own = {address.version: address for address in reversed(self._config.addresses)}
        for peer in self._config.peers:
            for address in peer.addresses:
                self._peer_of[str(address)] = peer.name
            target = next((address for address in peer.addresses if address.version in self._sockets), None)
            if target is not None:
                source = own[target.version].packed
                where = (str(target), self._config.probe.port)
                self._targets[peer.name] = (self._sockets[target.version], where, source)
        self.interfaces_changed()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for sock in self._sockets.values():
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()
        self._untie()

    def _untie(self) -> None:
        for sock in self._tied.values():
            sock.close()
        self._tied.clear()

    def interfaces_changed(self, _: Mapping[str, int] | None = None) -> None:
        """Look up the interfaces' indexes again: a tunnel that was made anew has another one."""
        self._index_of.clear()
        self._ways.clear()
        self._untie()
        for path, interface in self._interface_of.items():
            try:
                self._index_of[path] = socket.if_nametoindex(interface)
            except OSError:
                continue
        self._path_of = {index: path for path, index in self._index_of.items()}
        self._prober.wide_bytes = {path: self._wide_bytes(self._interface_of[path]) for path in self._index_of}

    def _wide_bytes(self, interface: str) -> int:
        """What a packet that fills the interface's MTU carries; 0: not known."""
        try:
            asked = fcntl.ioctl(next(iter(self._sockets.values())), _SIOCGIFMTU, _IFREQ.pack(interface.encode(), 0))
        except (OSError, StopIteration):
            return 0
        mtu: int = _IFREQ.unpack(asked)[1]
        return max(0, min(mtu - _HEADERS, MAX_WIDE))

    def verify(self, peer: str, path: str) -> None:
        """As `Prober.verify`, at once; the result goes to `on_proof`."""
        self._prober.verify(peer, path, self._now())
        self._poll()

    def measure(self, peer: str, path: str) -> None:
        """As `Prober.measure`, at once; the result goes to `on_gap`."""
        self._prober.measure(peer, path, self._now())
        self._poll()

    def _readable(self, version: int, sock: socket.socket) -> None:
        if self._now() < self._due:
            self._drain(version, sock)
            if not self._prober.stale:
                # Most datagrams are the peers' own probes: answered, and nothing else is due for that.
                return
        else:
            self._drain_all()
        self._poll()

    def _fired(self) -> None:
        self._timer = None
        self._on_wake(self._now())
        if self._prober.awaits_echoes:
            self._drain_all()
        self._poll()

    def _drain_all(self) -> None:
        """Before time passes: late reading never counts as loss."""
        for version, sock in self._sockets.items():
            self._drain(version, sock)

    def _poll(self) -> None:
        prober = self._prober
        sends = prober.poll(self._now())
        if sends or prober.changes or prober.peer_changed or prober.proofs or prober.gaps:
            self._send(sends)
            self._tell()
            due = prober.deadline
        else:
            due = prober.due
        if self._timer is not None:
            if due == self._due:
                return
            self._timer.cancel()
        if self._sockets:
            self._due = due
            self._timer = self._loop.call_at(due, self._fired)

    def _tell(self) -> None:
        if self._prober.changes or self._prober.peer_changed:
            changes, self._prober.changes[:] = tuple(self._prober.changes), []
            self._prober.peer_changed = False
            self._on_changes(changes)
        proofs, self._prober.proofs[:] = tuple(self._prober.proofs), []
        for proof in proofs:
            self._on_proof(proof)
        gaps, self._prober.gaps[:] = tuple(self._prober.gaps), []
        for gap in gaps:
            self._on_gap(gap)

    def _drain(self, version: int, sock: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, ancillary, _flags, source = sock.recvmsg(MAX_WIDE + 1, _ANCILLARY)
            except BlockingIOError:
                return
            except OSError:
                # A pending error of an earlier send (an ICMP answer); the probe's own timeout tells the story.
                continue
            index, hold = _ancillary(version, ancillary)
            path = self._path_of.get(index)
            if path is None:
                self._prober.rejected += 1
                continue
            now = self._now()
            peer = self._peer_of.get(source[0])
            for reply in self._prober.received(data, peer, path, now - hold, now, hold):
                self._transmit(reply)

    def _send(self, sends: Sequence[Send]) -> None:
        for send in sends:
            if not send.pinned:
                self._transmit_unpinned(send)
            elif (refused := self._transmit(send)) is not None:
                now = self._now()
                for news in self._prober.refused(send.peer, send.path, refused, now):
                    self._transmit(news)

    def _transmit(self, send: Send) -> str | None:
        """Send one datagram pinned to its path; why the kernel would not, in words."""
        way = self._ways.get((send.peer, send.path)) or self._way(send.peer, send.path)
        if isinstance(way, str):
            return way
        sock, where, control = way
        try:
            sock.sendmsg((send.data,), (control,), 0, where)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.EMSGSIZE):
                # A full queue, an ICMP answer to an earlier probe, or a wide one too large for what the kernel knows of
                # the path: this one is lost, which its timeout will notice.
                return None
            self._index_of.pop(send.path, None)
            self._ways.clear()
            return _refusal(error, self._interface_of[send.path], send.peer)
        return None

    def _transmit_unpinned(self, send: Send) -> None:
        """Send one datagram as traffic goes: from our service address, by the kernel's own route."""
        target = self._targets.get(send.peer)
        if target is None:
            self._prober.unroutable(send.peer, f"{send.peer} has no service address in a family of ours")
            return
        sock, where, _source = target
        try:
            sock.sendto(send.data, where)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED):
                text = os.strerror(error.errno or 0)
                self._prober.unroutable(send.peer, f"the kernel sends nothing to {send.peer}: {text}")

    def _way(self, peer: str, path: str) -> tuple[socket.socket, tuple[str, int], tuple[int, int, bytes]] | str:
        """How to send to `peer` over `path`, or why that cannot be, in words."""
        target = self._targets.get(peer)
        if target is None:
            return f"{peer} has no service address in a family of ours"
        if path not in self._index_of:
            self.interfaces_changed()
        index = self._index_of.get(path)
        if index is None:
            return f"interface {self._interface_of[path]} is gone"
        sock, where, source = target
        if sock.family == socket.AF_INET:
            control = (socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO4.pack(index, source, b"\0\0\0\0"))
        else:
            try:
                sock = self._tied.get(path) or _tied(source, self._interface_of[path])
            except OSError as error:
                return _refusal(error, self._interface_of[path], peer)
            self._tied[path] = sock
            control = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(source, index))
        way = self._ways[peer, path] = sock, where, control
        return way


def _refusal(error: OSError, interface: str, peer: str) -> str:
    words = _REFUSALS.get(error.errno or 0)
    return words.format(interface=interface, peer=peer) if words else f"{interface}: {os.strerror(error.errno or 0)}"


def _socket(address: Address, port: int) -> socket.socket:
    """A non-blocking socket on `address` that tells each datagram's interface and kernel time."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        _ask_for_times(sock)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.bind((str(address), port))
    except OSError as error:
        sock.close()
        remedy = {
            errno.EADDRNOTAVAIL: f"add it: ip addr add {address}/{address.max_prefixlen} dev lo",
            errno.EADDRINUSE: "another vagus-agent runs here, or another program holds the port: see ss -ulpn",
        }.get(error.errno or 0, os.strerror(error.errno or 0))
        raise OSError(error.errno, f"cannot probe from service address {address} port {port}: {remedy}") from None
    return sock


def _ask_for_times(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError as error:
        log.warning(
            "this kernel does not tell when a packet came (SO_TIMESTAMPNS: %s): probes work, but round trips include "
            "the agent's own lateness",
            error.strerror,
        )


def _tied(source: bytes, interface: str) -> socket.socket:
    """An IPv6 socket that sends by `interface` alone. Raises OSError.

    For IPv6 the interface in IPV6_PKTINFO is only a wish once the source is chosen: a route of lower metric by another
    interface wins (ip6_route_output). Only a socket that is bound to the interface is strict. Answers come to the probe
    port, so this one's own port does not matter.
    """
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.bind((socket.inet_ntop(socket.AF_INET6, source), 0))
    except OSError:
        sock.close()
        raise
    return sock


def _ancillary(version: int, ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[int, float]:
    """(interface index, seconds since the kernel received it) of a datagram; (0, 0.0) where the kernel did not say."""
    index, hold = 0, 0.0
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            age = time.clock_gettime(time.CLOCK_REALTIME) - seconds - nanoseconds / 1e9
            hold = age if 0 <= age <= _CREDIBLE_HOLD_S else 0.0
        elif version == 4 and level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            index = _PKTINFO4.unpack_from(data)[0]
        elif version == 6 and level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            index = _PKTINFO6.unpack_from(data)[1]
    return index, hold
