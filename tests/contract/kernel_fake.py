"""A kernel of routes and rules in memory. It refuses what Linux refuses; what it does not model, it raises on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from vagus_agent.config import Steering
from vagus_agent.core.ladder import Route, Rule, Stray
from vagus_agent.net.netlink import Interface, Lookup, SteeringError, Table

_LOCAL, _MAIN = 255, 254


@dataclass(frozen=True)
class Entry:
    table: int
    protocol: int
    route: Route


class FakeKernel:
    """The port `Kernel`, and below it what a test does to the host."""

    def __init__(self, settings: Steering) -> None:
        self._settings = settings
        self.families: tuple[int, ...] = (4, 6)
        self._links: dict[str, Interface] = {"lo": Interface(1, True)}
        self._addresses: set[str] = set()
        self._entries: list[Entry] = []
        self._strict: set[str] = set()
        self._rules = {
            Rule(family, priority, table, protocol=2)
            for family in (4, 6)
            for priority, table in ((0, _LOCAL), (32766, _MAIN))
        }
        self._news: asyncio.Queue[str] = asyncio.Queue()

    # --- the port ---------------------------------------------------------------------------------------------------

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def interface(self, name: str) -> Interface | None:
        return self._links.get(name)

    async def routes(self) -> Table:
        ours: set[Route] = set()
        foreign: set[Route] = set()
        for entry in self._entries:
            if entry.table == self._settings.table:
                (ours if entry.protocol == self._settings.protocol else foreign).add(entry.route)
        return Table(frozenset(ours), frozenset(foreign))

    async def strays(self) -> frozenset[Stray]:
        return frozenset(
            Stray(entry.table, entry.route)
            for entry in self._entries
            if entry.protocol == self._settings.protocol and entry.table != self._settings.table
        )

    async def rules(self) -> frozenset[Rule]:
        return frozenset(self._rules)

    async def replace(self, route: Route) -> None:
        self._check(route)
        self._put(Entry(self._settings.table, self._settings.protocol, route))

    async def remove(self, route: Route) -> None:
        await self.remove_stray(Stray(self._settings.table, route))

    async def remove_stray(self, stray: Stray) -> None:
        entry = Entry(stray.table, self._settings.protocol, stray.route)
        if entry in self._entries:
            self._entries.remove(entry)

    async def add_rule(self, rule: Rule) -> None:
        self._rules.add(rule)

    async def remove_rule(self, rule: Rule) -> None:
        self._rules.discard(rule)

    async def lookup(self, address: str, source: str = "") -> Lookup:
        if source and source not in self._addresses:
            return Lookup(error=f"{source} is not an address of this host")
        family = ip_address(address).version
        for rule in sorted(self._rules, key=lambda rule: rule.priority):
            if rule.family != family or not self._matches(rule):
                continue
            if rule.table == _LOCAL and address in self._addresses:
                return Lookup("lo", None, _LOCAL)
            found = self._best(rule.table, address)
            if found is None:
                continue
            if found.kind == "unreachable":
                return Lookup(error=f"no route to {address}")
            return Lookup(found.device, found.gateway, rule.table)
        return Lookup(error=f"{address}: network is unreachable")

    async def drops_from(self, peer: str, own: str, device: str) -> str:
        if device not in self._links:
            return f"interface {device} is missing"
        if ip_address(own).version == 6 or device not in self._strict:
            return ""
        back = await self.lookup(peer)
        return "" if back.device == device else f"strict rp_filter drops {peer} → {own} when it comes in on {device}"

    async def events(self) -> AsyncIterator[str]:
        while True:
            yield await self._news.get()

    # --- the host ---------------------------------------------------------------------------------------------------

    def add_link(self, name: str, addresses: tuple[str, ...] = ()) -> None:
        self._links[name] = Interface(max(link.index for link in self._links.values()) + 1, True)
        self._addresses.update(addresses)
        self._news.put_nowait("an interface changed")

    def remove_link(self, name: str) -> None:
        del self._links[name]
        self._flush_device(name)

    def set_link(self, name: str, up: bool) -> None:
        self._links[name] = Interface(self._links[name].index, up)
        if not up:
            self._flush_device(name)
        self._news.put_nowait("an interface changed")

    def add_address(self, address: str) -> None:
        self._addresses.add(address)
        self._news.put_nowait("an address was added")

    def remove_address(self, address: str) -> None:
        """Routes with this source stay (Linux takes IPv4's of table main along, no others); IPv6's lose it."""
        self._addresses.remove(address)
        self._entries = [
            replace(entry, route=replace(entry.route, source=None))
            if entry.route.family == 6 and entry.route.source == address
            else entry
            for entry in self._entries
        ]
        self._news.put_nowait("an address was removed")

    def set_strict(self, device: str) -> None:
        self._strict.add(device)

    def put_route(self, route: Route, protocol: int, table: int = 5180) -> None:
        """Somebody else's `ip route replace`."""
        self._put(Entry(table, protocol, route))
        if protocol == self._settings.protocol or table == self._settings.table:
            self._news.put_nowait("a route was changed")

    def has_route(self, route: Route, table: int) -> bool:
        return any((entry.table, entry.route) == (table, route) for entry in self._entries)

    def flush_table(self) -> None:
        self._entries = [entry for entry in self._entries if entry.table != self._settings.table]
        self._news.put_nowait("a route was changed")

    def put_rule(self, rule: Rule) -> None:
        self._rules.add(rule)
        self._news.put_nowait("a rule was added")

    def delete_rules_at(self, priority: int) -> None:
        self._rules = {rule for rule in self._rules if rule.priority != priority}
        self._news.put_nowait("a rule was removed")

    # --- the model --------------------------------------------------------------------------------------------------

    def _check(self, route: Route) -> None:
        if route.family not in self.families:
            raise SteeringError(f"cannot set route {route}: this host has no such address family")
        if route.kind == "unreachable":
            return
        if route.kind != "unicast":
            raise NotImplementedError(route.kind)
        if route.device not in self._links:
            raise SteeringError(f"cannot set route {route}: there is no interface {route.device}")
        if not self._links[route.device].up:
            raise SteeringError(f"cannot set route {route}: Device for nexthop is not up")
        if route.source is not None and route.source not in self._addresses:
            raise SteeringError(f"cannot set route {route}: Invalid prefsrc address: is the service address on lo?")

    def _put(self, entry: Entry) -> None:
        """As Linux: table, destination and metric are the key, the protocol is not."""
        same = [e for e in self._entries if (e.table, e.route.key) == (entry.table, entry.route.key)]
        for old in same[:1]:
            self._entries.remove(old)
        self._entries.append(entry)

    def _flush_device(self, name: str) -> None:
        """No event for the routes: Linux sends none."""
        self._entries = [entry for entry in self._entries if entry.route.device != name]
        self._news.put_nowait("an interface changed")

    def _matches(self, rule: Rule) -> bool:
        """Whether an unmarked packet meets the rule."""
        if rule.selector or rule.action != "lookup":
            raise NotImplementedError(str(rule))
        return (rule.mask == 0 or rule.mark == 0) != rule.inverted

    def _best(self, table: int, address: str) -> Route | None:
        """Longest prefix, then lowest metric."""
        target = ip_address(address)
        candidates = [
            (-network.prefixlen, entry.route.metric, entry.route)
            for entry in self._entries
            if entry.table == table and (network := ip_network(entry.route.destination)).version == target.version
            if target in network
        ]
        return min(candidates, key=lambda candidate: candidate[:2])[2] if candidates else None
