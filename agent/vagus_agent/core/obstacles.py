"""What on this node keeps a path from carrying a peer's traffic: from facts to words, each with its remedy.

Packets that come back prove a path; this says why they do not, or what they cannot tell (the address family that is
not probed, packets larger than a probe, an interface that may vanish). `vagus-agent doctor` and the reports of the
running agent both take their words from here. What could not be read is no fact, and gives no obstacle.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_network
from typing import Final

from vagus_agent.config import Address, Config, Network, Path, Peer
from vagus_agent.core import ladder
from vagus_agent.core.ladder import Rule
from vagus_agent.core.link import Link
from vagus_protocol.messages import LinkState

# Tailscale's ts-input chain drops this source on every interface but its own, replies included.
CGNAT: Final = IPv4Network("100.64.0.0/10")
# IPv6 takes no smaller one, and it is Tailscale's own: connections that began over the overlay count on it.
LEAST_MTU: Final = 1280
# Of a report's field (1024 characters), with room for the controller's words around it.
_MOST_TEXT: Final = 900


@dataclass(frozen=True, slots=True)
class Obstacle:
    subject: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Device:
    """A path's interface. `mtu`: None where it could not be read."""

    up: bool
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """What the kernel's own lookup answers for an address: by which of our paths, or why by none of ours."""

    path: str = ""
    device: str = ""
    table: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """A peer of a WireGuard interface. `endpoint`: its host, "" when it has none."""

    key: str
    endpoint: str = ""
    allowed: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A WireGuard interface; `mark` 0: its own packets are not marked."""

    mark: int
    peers: tuple[TunnelPeer, ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """This host at one moment; what is not in a mapping was not asked for or could not be read."""

    # own service address → the interfaces that have it
    places: Mapping[str, frozenset[str]] = field(default_factory=dict)
    # path → its interface, None while it is missing
    devices: Mapping[str, Device | None] = field(default_factory=dict)
    # a peer's service address or prefix → the way there now
    ways: Mapping[str, Way] = field(default_factory=dict)
    # a peer's service address → the paths by which a route of our table leads there
    rungs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    # family → other people's rules that are asked before ours
    shadowing: Mapping[int, tuple[Rule, ...]] = field(default_factory=dict)
    # (a peer's service address, interface) → why the kernel would drop what comes from there, "" when it would not
    drops: Mapping[tuple[str, str], str] = field(default_factory=dict)
    # interface → its WireGuard settings
    tunnels: Mapping[str, Tunnel] = field(default_factory=dict)
    # an endpoint of a tunnel → the interface by which its packets leave
    exits: Mapping[str, str] = field(default_factory=dict)
    # the firewall's rules that drop CGNAT somewhere; None: no tool could tell
    firewall: tuple[str, ...] | None = None


def of_link(config: Config, peer: Peer, path: Path, facts: Facts) -> list[Obstacle]:
    """What keeps `path` from carrying `peer`, the most likely first."""
    return [
        *interface(path, facts),
        *address(config, path, facts),
        *cgnat(peer, path, facts),
        *reverse_path(peer, path, facts),
        *allowed(config, peer, path, facts),
        *captured(config, path, facts, _tunnel_peers(peer, path, facts)),
        *small(config, path, facts),
        *shadowed(config, peer, facts, path),
        *unrouted(config, peer, path, facts),
    ]


def told(obstacles: Sequence[Obstacle]) -> str:
    """For the report: one text, "" for no obstacle."""
    text = ". Also: ".join(str(obstacle) for obstacle in obstacles)
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"


# --- one kind each -------------------------------------------------------------------------------------------------


def interface(path: Path, facts: Facts) -> Iterator[Obstacle]:
    if path.name not in facts.devices:
        return
    device = facts.devices[path.name]
    if device is None:
        yield Obstacle(f"path {path.name}", f"interface {path.interface} is missing", "start its tunnel")
    elif not device.up:
        remedy = f"ip link set {path.interface} up"
        yield Obstacle(f"path {path.name}", f"interface {path.interface} is down", remedy)


def misplaced(own: Address, devices: Iterable[str]) -> Obstacle | None:
    """A service address that is not on lo."""
    if "lo" in devices:
        return None
    remedy = f"ip addr add {own}/{own.max_prefixlen} dev lo (and in the network configuration, for the next boot)"
    names = ", ".join(sorted(devices))
    if names:
        return Obstacle("service address", f"{own} is on {names} only: its connections die with that interface", remedy)
    return Obstacle("service address", f"{own} is on no interface", remedy)


def address(config: Config, path: Path, facts: Facts) -> Iterator[Obstacle]:
    """Our own service address, where it is nowhere, or only on another path's interface, which goes when that dies."""
    others = {other.interface for other in config.paths if other.interface != path.interface}
    for own in config.addresses:
        devices = facts.places.get(str(own))
        if devices is not None and devices <= others:
            found = misplaced(own, devices)
            if found is not None:
                yield found


def inside_cgnat(peers: Iterable[Peer]) -> bool:
    """Whether a peer has a service address that Tailscale's firewall may drop."""
    return any(_cgnat_address(peer) is not None for peer in peers)


def _cgnat_address(peer: Peer) -> Address | None:
    return next((one for one in peer.addresses if one.version == 4 and one in CGNAT), None)


def cgnat(peer: Peer, path: Path, facts: Facts) -> Iterator[Obstacle]:
    theirs = _cgnat_address(peer)
    if theirs is not None and any(drops_on(line, path.interface) for line in facts.firewall or ()):
        yield Obstacle(
            "cgnat",
            f"Tailscale's firewall drops {theirs} (and all of {CGNAT}) on every interface but its own",
            "set node attribute disable-linux-cgnat-drop-rule (Tailscale 1.98), or --netfilter-mode=nodivert",
        )


# iptables: "! -i tailscale0", "-i eth0"; nft: iifname != "tailscale0", iifname "eth0"
_INCOMING: Final = re.compile(r'(?P<not>! )?-i (?P<legacy>\S+)|iifname (?P<unlike>!= )?"?(?P<name>[^\s"]+)"?')


_CHAIN: Final = "ts-input"


def bears_on_cgnat(line: str) -> bool:
    """Whether `standing_drops` needs to see this line of iptables-save or nft: a small part of a large firewall."""
    return str(CGNAT) in line or _CHAIN in line or line.lstrip().startswith("chain ")


def standing_drops(lines: Iterable[str]) -> tuple[str, ...]:
    """The rules that drop CGNAT, on whatever interface, of one tool's output. Tailscale's chain counts only while
    something jumps to it: with --netfilter-mode=nodivert it is there, and nothing does."""
    inside: list[str] = []
    others: list[str] = []
    diverted, chain = False, ""
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] in ("chain", "-A"):  # nft: a block a chain; iptables-save: in every line
            chain = words[1]
        if any(verb in words and _CHAIN in words[words.index(verb) :] for verb in ("-j", "-g", "jump", "goto")):
            diverted = True
        elif str(CGNAT) in line and "drop" in line.lower():
            (inside if chain == _CHAIN else others).append(line)
    return (*others, *(inside if diverted else ()))


def drops_on(line: str, device: str) -> bool:
    """Whether a rule that drops CGNAT does so on `device`."""
    found = _INCOMING.search(line)
    if found is None:
        return True
    name = found["legacy"] or found["name"]
    return (name != device) if found["not"] or found["unlike"] else (name == device)


def reverse_path(peer: Peer, path: Path, facts: Facts) -> Iterator[Obstacle]:
    """Strict rp_filter, where the way back to the peer is another one."""
    for each in peer.addresses:
        reason = facts.drops.get((str(each), path.interface))
        if reason:
            remedy = f"sysctl -w net.ipv4.conf.{path.interface}.rp_filter=2 (and in /etc/sysctl.d)"
            if "rp_filter" not in reason:
                remedy = f"is our service address on lo, and {path.interface} up?"
            yield Obstacle("rp_filter", reason, remedy)
            return


def allowed(config: Config, peer: Peer, path: Path, facts: Facts) -> Iterator[Obstacle]:
    """WireGuard sends to, and takes from, the one peer whose AllowedIPs have the address; from anybody else nothing.

    Of what we steer: a family that this node has no service address of needs none.
    """
    tunnel = facts.tunnels.get(path.interface)
    if tunnel is None:
        return
    theirs = _tunnel_peers(peer, path, facts)
    expected = theirs[0] if path.name in peer.via and len(theirs) == 1 else None
    nowhere, elsewhere = [], []
    for destination in ladder.destinations(peer):
        if ladder.own_address(config, destination.version) is None:
            continue
        holder = _holder(tunnel, destination)
        if holder is None:
            nowhere.append(str(destination))
        elif expected is not None and holder.key != expected.key:
            elsewhere.append((str(destination), holder.key))
    if not nowhere and not elsewhere:
        return
    words = [
        f"AllowedIPs on {path.interface} give {each} of {peer.name} to WireGuard peer {key}" for each, key in elsewhere
    ]
    if nowhere:
        verb = "is" if len(nowhere) == 1 else "are"
        words.append(
            f"{' and '.join(nowhere)} of {peer.name} {verb} in no WireGuard peer's AllowedIPs on {path.interface}"
        )
    remedy = f"add what is missing to the AllowedIPs of {peer.name} (wg set, and in its configuration file)"
    if expected is not None:
        wanted = [*(str(network) for network in expected.allowed), *nowhere, *(each for each, _ in elsewhere)]
        command = f"wg set {path.interface} peer {expected.key} allowed-ips {','.join(wanted)}"
        remedy = f"{command} (and in its configuration file)"
    yield Obstacle(f"path {path.name}", ", and ".join(words), remedy)


def _holder(tunnel: Tunnel, destination: Network) -> TunnelPeer | None:
    """The WireGuard peer whose longest prefix covers `destination`."""
    covering = [
        (network.prefixlen, peer)
        for peer in tunnel.peers
        for network in peer.allowed
        if network.version == destination.version and destination.subnet_of(network)  # type: ignore[arg-type]
    ]
    return max(covering, key=lambda found: found[0])[1] if covering else None


def _tunnel_peers(peer: Peer, path: Path, facts: Facts) -> list[TunnelPeer]:
    """Which WireGuard peers `peer` is on this path, by its own addresses there; all where the configuration does not
    name any."""
    tunnel = facts.tunnels.get(path.interface)
    if tunnel is None:
        return []
    inner = peer.via.get(path.name, ())
    found = [holder for via in inner if (holder := _holder(tunnel, ip_network(via))) is not None]
    return list({one.key: one for one in found}.values()) if inner else list(tunnel.peers)


def captured(config: Config, path: Path, facts: Facts, ends: Iterable[TunnelPeer] | None = None) -> Iterator[Obstacle]:
    """An exit node or accepted subnet that covers the backup's endpoint carries the backup inside the overlay."""
    first, tunnel = config.paths[0], facts.tunnels.get(path.interface)
    if tunnel is None or tunnel.mark or path.name == first.name:
        return
    for end in tunnel.peers if ends is None else ends:
        if facts.exits.get(end.endpoint) == first.interface:
            yield Obstacle(
                f"path {path.name}",
                f"the way to its endpoint {end.endpoint} leads into {first.interface}",
                f"wg set {path.interface} fwmark {config.steering.mark:#x}",
            )


def small(config: Config, path: Path, facts: Facts) -> Iterator[Obstacle]:
    device = facts.devices.get(path.name)
    if device is not None and device.mtu is not None and device.mtu < LEAST_MTU:
        lost = (
            "no IPv6 passes" if ladder.own_address(config, 6) is not None else "larger packets are fragmented or lost"
        )
        yield Obstacle(
            f"path {path.name}",
            f"the MTU of {path.interface} is {device.mtu}, below the {LEAST_MTU} that traffic needs: {lost}",
            f"ip link set {path.interface} mtu {LEAST_MTU} (and in its tunnel's configuration)",
        )


def shadowed(config: Config, peer: Peer, facts: Facts, path: Path | None = None) -> Iterator[Obstacle]:
    """Somebody's rule before ours takes the traffic elsewhere than by `path` (None: than by our table)."""
    for destination in ladder.destinations(peer):
        each = ladder.shown(destination)
        way = facts.ways.get(each)
        rules = facts.shadowing.get(destination.version)
        if way is None or way.table in (0, config.steering.table) or (path is not None and way.path == path.name):
            continue
        if not rules:
            continue  # our own rule is away: steering repairs it, and tells
        culprits = "; ".join(str(rule) for rule in rules)
        yield Obstacle(
            f"peer {peer.name}",
            f"{each} is caught before our rule and goes by dev {way.device}, table {way.table}",
            f"remove, or choose a lower priority than: {culprits}",
        )


def unrouted(config: Config, peer: Peer, path: Path, facts: Facts) -> Iterator[Obstacle]:
    """What steering could not set by this path now, an override could not set either."""
    device = facts.devices.get(path.name)
    for each in peer.addresses:
        rungs = facts.rungs.get(str(each))
        if device is not None and device.up and rungs is not None and path.name not in rungs:
            yield Obstacle(
                f"peer {peer.name}",
                f"no route to {each} by {path.interface} stands in table {config.steering.table}",
                "the log of vagus-agent says what the kernel refused",
            )


# --- when to look --------------------------------------------------------------------------------------------------


# A path that died is the failover's business first; then there is time to ask why.
UNPROVEN_FOR_S: Final = 3.0
AT_MOST_EVERY_S: Final = 30.0
AT_LEAST_EVERY_S: Final = 600.0
# In one go; each costs a few questions to the kernel.
MOST_AT_ONCE: Final = 50


class Rounds:
    """Which links to examine now: one that is not proven, was not when it was last examined, or has an obstacle, at
    most once in 30 s; any other every 10 min. Where very many are due, some of them wait for the next call."""

    def __init__(self) -> None:
        # (peer, path) → when it was examined, and whether it was proven then
        self._examined: dict[tuple[str, str], tuple[float, bool]] = {}

    def due(self, links: Iterable[Link], hindered: Container[tuple[str, str]], now: float) -> list[tuple[str, str]]:
        """(peer, path) of each; they count as examined. `hindered`: those that have an obstacle."""
        found = []
        for link in links:
            key = (link.peer, link.path)
            proven = link.state not in (LinkState.UNKNOWN, LinkState.DOWN)
            if not proven and now - link.since < UNPROVEN_FOR_S:
                continue
            before = self._examined.get(key)
            if before is not None:
                at, was_proven = before
                quiet = proven and was_proven and key not in hindered
                if now - at < (AT_LEAST_EVERY_S if quiet else AT_MOST_EVERY_S):
                    continue
            self._examined[key] = (now, proven)
            found.append(key)
            if len(found) == MOST_AT_ONCE:
                break
        return found
