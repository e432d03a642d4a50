"""Which routes and rules this node wants, and how to get from what stands to what is wanted.

One table, one rule a family. Per peer and family, all with our protocol number and our own service address as source:

    metric 10          the override: the assigned path, only while it is not the peer's first path
    metric 100         the first path
    metric 500, 600 …  the second path, the third …: the kernel's own fallback when an interface vanishes
    metric 9999        unreachable: nothing leaks to the default route

A peer's prefixes ride the same ladder. Invariant of `diff`: nothing is removed before its replacement stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final, Literal

from vagus_agent.config import Address, Config, Network, Path, Peer, Steering

OVERRIDE_METRIC: Final = 10
FIRST_METRIC: Final = 100
FALLBACK_METRIC: Final = 500
FALLBACK_STEP: Final = 100
UNREACHABLE_METRIC: Final = 9999

Kind = Literal["unicast", "unreachable", "other"]

# linux/rtnetlink.h and iproute2's rt_protos: who writes routes and rules under these numbers.
_OWNERS: Final = {
    2: "kernel",
    3: "boot",
    4: "static",
    11: "zebra",
    12: "bird",
    16: "dhcp",
    18: "keepalived",
    42: "babel",
    84: "ovn",
    186: "bgp",
    188: "ospf",
}


@dataclass(frozen=True, slots=True)
class Route:
    """A route of our table. `destination` is a canonical prefix ("10.99.0.2/32"); `family` is 4 or 6."""

    family: int
    destination: str
    metric: int
    kind: Kind = "unicast"
    device: str | None = None
    gateway: str | None = None
    source: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What the kernel tells routes of one table apart by: a replace overwrites the route with the same key."""
        return self.destination, self.metric

    def __str__(self) -> str:
        how = f"unreachable {self.destination}" if self.kind == "unreachable" else self.destination
        via = f" via {self.gateway}" if self.gateway else ""
        device = f" dev {self.device}" if self.device else ""
        return f"{how}{via}{device} metric {self.metric}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing policy rule. `selector`: any condition besides the mark, in words; ours has none."""

    family: int
    priority: int
    table: int
    mark: int = 0
    mask: int = 0
    inverted: bool = False
    protocol: int = 0
    selector: str = ""
    action: str = "lookup"

    @property
    def owner(self) -> str:
        """Whose it is, by its protocol number: "protocol 4, static" is systemd-networkd's or a person's."""
        name = _OWNERS.get(self.protocol)
        return f"protocol {self.protocol}, {name}" if name else f"protocol {self.protocol}"

    def __str__(self) -> str:
        mark = f" fwmark {self.mark:#x}/{self.mask:#x}" if self.mask else ""
        selector = f" {self.selector}" if self.selector else ""
        target = f"lookup {self.table}" if self.action == "lookup" else self.action
        inverted = "not " if self.inverted else ""
        return f"IPv{self.family} rule {self.priority}: {inverted}from all{selector}{mark} {target}"


@dataclass(frozen=True, slots=True)
class Stray:
    """A route of our protocol outside our table: left there by an earlier configuration."""

    table: int
    route: Route

    def __str__(self) -> str:
        return f"{self.route} table {self.table}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`missing`: rungs that cannot stand now, each with its reason in words."""

    routes: frozenset[Route]
    missing: tuple[str, ...] = ()


def own_address(config: Config, family: int) -> Address | None:
    """This node's service address of `family`: the source of everything we steer."""
    return next((address for address in config.addresses if address.version == family), None)


def destinations(peer: Peer) -> tuple[Network, ...]:
    """The peer's service addresses and prefixes, as prefixes."""
    return tuple(ip_network(address) for address in peer.addresses) + peer.prefixes


def address_in(destination: Network) -> Address:
    """The address to ask the kernel about; of a prefix the second, as the first may be a broadcast address to it."""
    return destination[min(1, destination.num_addresses - 1)]


def covers(route: Route, destination: Network) -> bool:
    """Whether packets to (some of) the destination may take the route."""
    network = ip_network(route.destination)
    return network.version == destination.version and network.overlaps(destination)


def shown(destination: Network) -> str:
    """As people write it: a service address without its length."""
    return str(destination.network_address if destination.num_addresses == 1 else destination)


def gateway(peer: Peer, path: Path, family: int) -> str | None:
    """The peer's own address in the network of `path`, when the configuration names one of `family`."""
    return next((str(address) for address in peer.via.get(path.name, ()) if address.version == family), None)


def path_of(config: Config, peer: Peer, family: int, device: str | None, via: str | None) -> str:
    """The path to `peer` that goes out of `device` by `via`; "" when none of ours does."""
    for path in config.paths_to(peer):
        if path.interface == device and gateway(peer, path, family) == via:
            return path.name
    return ""


def wanted(config: Config, interfaces: Mapping[str, int | None], overrides: Mapping[str, str]) -> Wanted:
    """The routes of every peer. `interfaces`: path → interface index, None while it is missing or down.

    `overrides`: peer → path. A peer that is not named, or is assigned its first path, has no override.
    """
    routes: set[Route] = set()
    missing: list[str] = []
    names = {peer.name for peer in config.peers}
    missing += [f"{name} is not a peer of this node" for name in overrides if name not in names]
    for peer in config.peers:
        paths = config.paths_to(peer)
        assigned = overrides.get(peer.name)
        if assigned is not None and assigned not in {path.name for path in paths}:
            missing.append(f"there is no path {assigned} to {peer.name} in the configuration")
            assigned = None
        rungs = [
            (FIRST_METRIC if place == 0 else FALLBACK_METRIC + (place - 1) * FALLBACK_STEP, path)
            for place, path in enumerate(paths)
        ]
        rungs += [(OVERRIDE_METRIC, path) for place, path in enumerate(paths) if path.name == assigned and place > 0]
        for metric, path in rungs:
            if interfaces.get(path.name) is None:
                rung = "override" if metric == OVERRIDE_METRIC else "rung"
                missing.append(f"no {rung} {path.name} to {peer.name}: interface {path.interface} is missing or down")
        for destination in destinations(peer):
            source = own_address(config, destination.version)
            if source is None:
                missing.append(f"{destination} of {peer.name} is not steered: this node has no such service address")
                continue
            for metric, path in rungs:
                if interfaces.get(path.name) is not None:
                    routes.add(
                        Route(
                            family=destination.version,
                            destination=str(destination),
                            metric=metric,
                            device=path.interface,
                            gateway=gateway(peer, path, destination.version),
                            source=str(source),
                        )
                    )
            routes.add(Route(destination.version, str(destination), UNREACHABLE_METRIC, "unreachable"))
    return Wanted(frozenset(routes), tuple(missing))


def wanted_rules(config: Config, families: Iterable[int]) -> frozenset[Rule]:
    """One rule for each family that the kernel and this node's service addresses have."""
    return frozenset(our_rule(config.steering, family) for family in families if own_address(config, family))


def our_rule(steering: Steering, family: int) -> Rule:
    return Rule(
        family=family,
        priority=steering.priority,
        table=steering.table,
        mark=steering.mark,
        mask=steering.mask,
        inverted=True,
        protocol=steering.protocol,
    )


def diff(wanted: Iterable[Route], actual: Iterable[Route]) -> tuple[list[Route], list[Route]]:
    """(add, remove): first every `add` in order, each a replace of its key; then every `remove` in order.

    `actual` holds only our own routes. Adds go up the metrics, so that a way through stands before `unreachable`;
    removes go down them, so that traffic moves once, from the last removed to what is wanted.
    """
    goal, standing = frozenset(wanted), frozenset(actual)
    add = sorted(goal - standing, key=lambda route: (route.metric, route.destination))
    replaced = {route.key for route in add}
    gone = [route for route in standing - goal if route.key not in replaced]
    return add, sorted(gone, key=lambda route: (-route.metric, route.destination))
