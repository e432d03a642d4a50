"""Routes and rules in the kernel: `Kernel` is the port, `Netlink` the real one.

pyroute2 is imported when `Netlink` opens, not before: it costs megabytes and a good part of a second.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, Protocol, cast

from vagus_agent.config import Steering as Settings
from vagus_agent.core.ladder import Kind, Route, Rule, Stray


class SteeringError(Exception):
    """The kernel refused, or cannot do, what steering asked of it: the sentence says what and why."""


# Words of `Kernel.events` that mean more than "look again": a route of ours may be in any table.
ROUTE_CHANGED: Final = "a route was changed"
EVENTS_LOST: Final = "events were lost"


@dataclass(frozen=True, slots=True)
class Interface:
    index: int
    up: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Our table: the routes of our protocol, and whatever else stands in it (never touched)."""

    ours: frozenset[Route]
    foreign: frozenset[Route]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the kernel's own route lookup answers. `error`: why there is no way, in words."""

    device: str | None = None
    gateway: str | None = None
    table: int = 0
    error: str = ""


class Kernel(Protocol):
    """All methods raise SteeringError. Only routes and rules of our protocol are ever written."""

    @property
    def families(self) -> tuple[int, ...]:
        """4, 6 or both, as this host has them; known after `open`."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def interface(self, name: str) -> Interface | None: ...

    async def routes(self) -> Table: ...

    async def strays(self) -> frozenset[Stray]:
        """Routes of our protocol in other tables than ours. It walks every table: not for every look."""

    async def rules(self) -> frozenset[Rule]:
        """Every rule of this host, also other people's."""

    async def replace(self, route: Route) -> None: ...

    async def remove(self, route: Route) -> None:
        """Removing what is already gone is no error."""

    async def remove_stray(self, stray: Stray) -> None:
        """Removing what is already gone is no error."""

    async def add_rule(self, rule: Rule) -> None:
        """Adding what already stands is no error."""

    async def remove_rule(self, rule: Rule) -> None:
        """Removing what is already gone is no error."""

    async def lookup(self, address: str, source: str = "") -> Lookup:
        """The way an unmarked packet from `source` (empty: the kernel's choice) to `address` takes now."""

    async def drops_from(self, peer: str, own: str, device: str) -> str:
        """Why the kernel would drop a packet from `peer` to `own` coming in on `device` (strict rp_filter), or ""."""

    def events(self) -> AsyncIterator[str]:
        """One word for every change, made by somebody else, that may concern us; coarse, and possibly spurious."""


# linux/rtnetlink.h, linux/fib_rules.h, linux/netlink.h
_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_DELADDR, _RTM_NEWROUTE, _RTM_DELROUTE = 16, 17, 20, 21, 24, 25
_RTM_NEWRULE, _RTM_DELRULE = 32, 33
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | (1 << 18)  # link, v4 address/route/rule, v6 the same
_NLM_F_REPLACE: Final = 0x100
# A lookup as (message, flags): pyroute2's own "get" asks for an acknowledgement too, and keeps every one of them.
_GET_ROUTE: Final = (26, 1)
_RTM_F_LOOKUP_TABLE: Final = 0x1000
_FIB_RULE_INVERT: Final = 2
_RT_SCOPE_LINK, _RT_SCOPE_NOWHERE = 253, 255
_RT_TABLE_COMPAT: Final = 252
_IFF_UP: Final = 1
_SIOCGIFNAME, _SIOCGIFFLAGS, _SIOCGIFINDEX = 0x8910, 0x8913, 0x8933
_KINDS: Final[dict[int, Kind]] = {1: "unicast", 7: "unreachable"}
_RULE_ACTIONS: Final = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
# A netlink request is answered within a millisecond; longer than this, something is badly wrong.
_TIMEOUT_S: Final = 5.0
_NO_WAY: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
# Rule conditions other than the mark, named as in `ip rule`.
_SELECTORS: Final = {
    "FRA_SRC": "from",
    "FRA_DST": "to",
    "FRA_IIFNAME": "iif",
    "FRA_OIFNAME": "oif",
    "FRA_UID_RANGE": "uidrange",
    "FRA_IP_PROTO": "ipproto",
    "FRA_SPORT_RANGE": "sport",
    "FRA_DPORT_RANGE": "dport",
    "FRA_TUN_ID": "tun_id",
    "FRA_L3MDEV": "l3mdev",
}


def has_ipv6() -> bool:
    """False when the kernel was built or booted without IPv6."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


class Netlink:
    """The kernel of the network namespace that `open` runs in. One request socket, one for events."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._requests: Any = None
        self._events: socket.socket | None = None
        self._port = 0
        self._control: socket.socket | None = None
        self.families: tuple[int, ...] = ()

    async def open(self) -> None:
        if self._requests is not None:
            return
        from pyroute2 import AsyncIPRoute

        logging.getLogger("pyroute2").setLevel(logging.WARNING)  # at debug, every message of every dump
        try:
            self.families = (4, 6) if has_ipv6() else (4,)
            # Strict: the kernel filters dumps by table, so a full BGP table next door costs nothing.
            self._requests = AsyncIPRoute(strict_check=True, ext_ack=True)
            await self._requests.bind(groups=0)  # its default: every event of the host, kept for ever
            self._port = self._requests.socket.getsockname()[0]
            if self._events is None:
                self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
                self._events.setblocking(False)
                self._events.bind((0, _GROUPS))
                self._control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        except (OSError, KeyError) as error:
            await self.close()
            raise SteeringError(f"cannot open a netlink socket: {error}") from error

    async def close(self) -> None:
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        for control in (self._events, self._control):
            if control is not None:
                control.close()
        self._events = self._control = None

    async def interface(self, name: str) -> Interface | None:
        """By ioctl: microseconds, where dumping the links of a host with many containers takes a Pi a tenth of one."""
        try:
            index = self._index(name)
            (flags,) = struct.unpack_from("H", self._ioctl(_SIOCGIFFLAGS, struct.pack("16s16x8x", name.encode())), 16)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ENXIO):
                return None
            raise SteeringError(f"cannot look at interface {name}: {error.strerror}") from error
        return Interface(index, bool(flags & _IFF_UP))

    def _ioctl(self, request: int, argument: bytes) -> bytes:
        if self._control is None:
            raise SteeringError("netlink is not open")
        return fcntl.ioctl(self._control, request, argument)

    def _index(self, name: str) -> int:
        """Raises OSError (ENODEV)."""
        found = self._ioctl(_SIOCGIFINDEX, struct.pack("16s16x8x", name.encode()))
        return cast("int", struct.unpack_from("i", found, 16)[0])

    def _name(self, index: int) -> str:
        try:
            found = self._ioctl(_SIOCGIFNAME, struct.pack("16xi12x8x", index))
        except OSError:
            return f"#{index}"
        return found[:16].partition(b"\0")[0].decode(errors="replace")

    async def routes(self) -> Table:
        ours: set[Route] = set()
        foreign: set[Route] = set()
        for family in self.families:
            start = partial(_dump_routes, family=_FAMILIES[family], table=self._settings.table)
            for message in await self._dump(f"read table {self._settings.table}", start):
                if message.get("table") == self._settings.table:
                    mine = message["proto"] == self._settings.protocol
                    (ours if mine else foreign).add(self._route(message, family))
        return Table(frozenset(ours), frozenset(foreign))

    async def strays(self) -> frozenset[Stray]:
        found: set[Stray] = set()
        for family in self.families:
            start = partial(_dump_protocol, family=_FAMILIES[family], protocol=self._settings.protocol)
            for message in await self._dump("look for routes of ours in other tables", start):
                table = message.get("table")
                # A kernel older than 4.20 does not filter.
                if table != self._settings.table and message["proto"] == self._settings.protocol:
                    found.add(Stray(table, self._route(message, family)))
        return frozenset(found)

    async def rules(self) -> frozenset[Rule]:
        found: set[Rule] = set()
        for family in self.families:
            messages = await self._dump("read the rules", partial(_dump_rules, family=_FAMILIES[family]))
            found.update(_rule(message, family) for message in messages)
        return frozenset(found)

    async def replace(self, route: Route) -> None:
        request = self._request(route)
        if route.kind == "unreachable":
            request["type"] = "unreachable"
        elif route.gateway is None:
            request["scope"] = _RT_SCOPE_LINK
        await self._ask(f"set route {route}", lambda ipr: ipr.route("replace", **request))

    async def remove(self, route: Route) -> None:
        await self.remove_stray(Stray(self._settings.table, route))

    async def remove_stray(self, stray: Stray) -> None:
        route = stray.route
        try:
            # Scope "nowhere" matches a route of any scope.
            request = {**self._request(route), "table": stray.table, "scope": _RT_SCOPE_NOWHERE}
            await self._ask(f"remove route {stray}", lambda ipr: ipr.route("del", **request), gone=(errno.ESRCH,))
        except _NoDevice:
            return  # a route cannot outlive its interface

    async def add_rule(self, rule: Rule) -> None:
        await self._ask(f"add {rule}", lambda ipr: ipr.rule("add", **_rule_request(rule)), gone=(errno.EEXIST,))

    async def remove_rule(self, rule: Rule) -> None:
        request = _rule_request(rule)
        await self._ask(f"remove {rule}", lambda ipr: ipr.rule("del", **request), gone=(errno.ENOENT,))

    async def lookup(self, address: str, source: str = "") -> Lookup:
        family = ip_address(address).version
        # Without the flag IPv4 always answers table main; IPv6 tells the truth and refuses the flag.
        details: dict[str, Any] = {"flags": _RTM_F_LOOKUP_TABLE} if family == 4 else {}
        if source:
            details["src"] = source
        what = f"look up the way to {address}{f' from {source}' if source else ''}"
        try:
            [message, *_] = await self._ask(
                what, lambda ipr: ipr.route(_GET_ROUTE, family=_FAMILIES[family], dst=address, **details)
            )
        except SteeringError as error:
            if getattr(error.__cause__, "code", None) in _NO_WAY:
                return Lookup(error=str(error))
            raise
        if message["type"] != 1:
            return Lookup(table=message.get("table"), error=f"cannot {what}: type {message['type']}")
        route = self._route(message, family)
        return Lookup(route.device, route.gateway, message.get("table"))

    async def drops_from(self, peer: str, own: str, device: str) -> str:
        if ip_address(own).version == 6:
            return ""
        interface = await self.interface(device)
        if interface is None:
            return f"interface {device} is missing"
        try:
            await self._ask(
                f"accept {peer} → {own} on {device}",
                lambda ipr: ipr.route(_GET_ROUTE, family=socket.AF_INET, dst=own, src=peer, iif=interface.index),
            )
        except SteeringError as error:
            code = getattr(error.__cause__, "code", None)
            if code in (errno.EINVAL, errno.EXDEV):
                return f"strict rp_filter drops {peer} → {own} when it comes in on {device}"
            if code in _NO_WAY:
                return str(error)
            raise
        return ""

    async def events(self) -> AsyncIterator[str]:
        """Reads headers only: no event of a busy host is worth parsing its attributes."""
        if self._events is None:
            raise SteeringError("netlink is not open")
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(self._events, 65536)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise SteeringError(f"cannot read netlink events: {error}") from error
                yield EVENTS_LOST
                continue
            for word in _words(data, self._settings, self._port):
                yield word

    def _route(self, message: Any, family: int) -> Route:
        kind = _KINDS.get(message["type"], "other")
        via, source, destination = message.get("gateway"), message.get("prefsrc"), message.get("dst")
        unspecified = "0.0.0.0" if family == 4 else "::"
        index = message.get("oif")
        return Route(
            family=family,
            destination=f"{ip_address(destination or unspecified)}/{message['dst_len']}",
            metric=message.get("priority") or 0,
            kind=kind,
            # IPv6 hangs reject routes on lo: that is no property of the route that we asked for.
            device=self._name(index) if kind == "unicast" and index else None,
            gateway=str(ip_address(via)) if via else None,
            source=str(ip_address(source)) if source else None,
        )

    def _request(self, route: Route) -> dict[str, Any]:
        request: dict[str, Any] = {
            "family": _FAMILIES[route.family],
            "dst": route.destination,
            "priority": route.metric,
            "table": self._settings.table,
            "proto": self._settings.protocol,
        }
        if route.device is not None:
            try:
                request["oif"] = self._index(route.device)
            except OSError as error:
                raise _NoDevice(f"cannot set route {route}: there is no interface {route.device}") from error
        if route.gateway is not None:
            request |= {"gateway": route.gateway, "flags": ["onlink"]}
        if route.source is not None:
            request["prefsrc"] = route.source
        return request

    async def _dump(self, what: str, start: Callable[[Any], Awaitable[Any]]) -> list[Any]:
        async def collect(ipr: Any) -> list[Any]:
            return [message async for message in await start(ipr)]

        return await self._ask(what, collect)

    async def _ask(
        self, what: str, send: Callable[[Any], Awaitable[list[Any]]], gone: tuple[int, ...] = ()
    ) -> list[Any]:
        """Errors in words; an error in `gone` means that there was nothing to do."""
        if self._requests is None:
            await self.open()
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await send(self._requests)
        except NetlinkError as error:
            if error.code in gone:
                return []
            raise SteeringError(f"cannot {what}: {_reason(error.code, str(error.args[-1]))}") from error
        except OSError as error:  # TimeoutError is one; the socket is not to be trusted any more
            self._requests.close()
            self._requests = None
            reason = f"no answer within {_TIMEOUT_S:.0f} s" if isinstance(error, TimeoutError) else str(error)
            raise SteeringError(f"cannot {what}: {reason}") from error


class _NoDevice(SteeringError):
    pass


def _dump_routes(ipr: Any, family: int, table: int) -> Awaitable[Any]:
    return cast("Awaitable[Any]", ipr.route("dump", family=family, table=table))


def _dump_protocol(ipr: Any, family: int, protocol: int) -> Awaitable[Any]:
    return cast("Awaitable[Any]", ipr.route("dump", family=family, proto=protocol))


def _dump_rules(ipr: Any, family: int) -> Awaitable[Any]:
    return cast("Awaitable[Any]", ipr.rule("dump", family=family))


def _reason(code: int, text: str) -> str:
    """The kernel's own words, with the remedy where there is one."""
    remedies = {
        errno.EPERM: "not permitted: needs CAP_NET_ADMIN (run as root, or AmbientCapabilities=CAP_NET_ADMIN)",
        errno.EAFNOSUPPORT: "this host has no such address family",
        errno.EOPNOTSUPP: "this kernel does not support it",
    }
    if "prefsrc" in text or "source address" in text:
        return f"{text}: is the service address on lo? (ip addr add ADDRESS dev lo)"
    return remedies.get(code, text)


def _rule(message: Any, family: int) -> Rule:
    attributes = dict(message["attrs"])
    lengths = {"FRA_SRC": message["src_len"], "FRA_DST": message["dst_len"]}
    selector = [
        f"{word} {attributes[name]}{f'/{lengths[name]}' if name in lengths else ''}"
        for name, word in _SELECTORS.items()
        if name in attributes
    ]
    if message["tos"]:
        selector.append(f"tos {message['tos']}")
    if attributes.get("FRA_SUPPRESS_PREFIXLEN", 0xFFFFFFFF) != 0xFFFFFFFF:
        selector.append(f"suppress_prefixlength {attributes['FRA_SUPPRESS_PREFIXLEN']}")
    mark = attributes.get("FRA_FWMARK", 0)
    return Rule(
        family=family,
        priority=attributes.get("FRA_PRIORITY", 0),
        table=attributes.get("FRA_TABLE", message["table"]),
        mark=mark,
        mask=attributes.get("FRA_FWMASK", 0xFFFFFFFF if mark else 0),
        inverted=bool(message["flags"] & _FIB_RULE_INVERT),
        protocol=attributes.get("FRA_PROTOCOL", 0),
        selector=" ".join(selector),
        action=_RULE_ACTIONS.get(message["action"], f"action {message['action']}"),
    )


def _rule_request(rule: Rule) -> dict[str, Any]:
    request: dict[str, Any] = {
        "family": _FAMILIES[rule.family],
        "priority": rule.priority,
        "table": rule.table,
        "protocol": rule.protocol,
    }
    if rule.mask:
        request |= {"fwmark": rule.mark, "fwmask": rule.mask}
    if rule.inverted:
        request["flags"] = _FIB_RULE_INVERT
    return request


def _words(data: bytes, settings: Settings, own_port: int) -> list[str]:
    """One word for each notification in `data` that may concern us. `own_port`: our own requests are no news."""
    words = []
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, _, port = struct.unpack_from("=IHHII", data, offset)
        if length < 16:
            break
        if port != own_port or kind in (_RTM_NEWLINK, _RTM_DELLINK):
            if kind in (_RTM_NEWLINK, _RTM_DELLINK):
                words.append("an interface changed")
            elif kind == _RTM_DELADDR:
                words.append("an address was removed")
            elif kind == _RTM_NEWADDR:
                # struct ifaddrmsg: family, prefix length. A whole prefix is no service address of the usual kind, and
                # routers announce theirs every few seconds.
                if offset + 18 <= len(data) and data[offset + 17] in (32, 128):
                    words.append("an address was added")
            elif kind == _RTM_DELRULE:
                words.append("a rule was removed")
            elif kind == _RTM_NEWRULE:
                words.append("a rule was added")
            elif kind in (_RTM_NEWROUTE, _RTM_DELROUTE) and offset + 28 <= len(data):
                # struct rtmsg: family, lengths, tos, then table and protocol; tables above 255 show as "compat".
                table, protocol = data[offset + 20], data[offset + 21]
                in_our_table = table == (settings.table if settings.table < 256 else _RT_TABLE_COMPAT)
                ours = protocol == settings.protocol
                if ours or (in_our_table and kind == _RTM_NEWROUTE and flags & _NLM_F_REPLACE):
                    words.append(ROUTE_CHANGED)
        offset += (length + 3) & ~3
    return words
