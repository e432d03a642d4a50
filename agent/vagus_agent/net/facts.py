"""Reads the facts that `core/obstacles.py` puts into words: interfaces, addresses, lookups, WireGuard, the firewall.

Nothing here writes. A tool, socket or file that is not there leaves its fact out. Other programs (wg, nft,
iptables-save) are run only where the kernel cannot be asked directly, a few times an hour, and never to act on.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from pathlib import Path as File
from typing import Final

import psutil

from vagus_agent import threads
from vagus_agent.config import Config, Network, Path, Peer
from vagus_agent.core import ladder, obstacles
from vagus_agent.core.obstacles import Device, Facts, Tunnel, TunnelPeer, Way
from vagus_agent.net.netlink import Kernel
from vagus_agent.net.steering import shadowing

_SIOCGIFMTU: Final = 0x8921
# Other programs and the tunnel's own socket answer at once or not at all.
_TIMEOUT_S: Final = 5.0

Ends = Sequence[tuple[Peer, Path]]


async def read(config: Config, kernel: Kernel, ends: Ends) -> Facts:
    """What bears on these links; the kernel must be open. Raises SteeringError."""
    peers = {peer.name: peer for peer, _ in ends}
    devices: dict[str, Device | None] = {}
    for path in config.paths:
        found = await kernel.interface(path.interface)
        devices[path.name] = None if found is None else Device(found.up, _mtu(path.interface))
    present = {path.interface for path in config.paths if devices[path.name] is not None}
    cgnat = obstacles.inside_cgnat(peers.values())
    where, tunnels, firewall = await threads.run("facts", partial(_beside, config, present, cgnat))
    return Facts(
        places=where,
        devices=devices,
        ways=await _ways(config, kernel, peers.values()) if config.steering.enabled else {},
        rungs=await _rungs(config, kernel, peers.values()) if config.steering.enabled else {},
        shadowing=await _shadowing(config, kernel) if config.steering.enabled else {},
        drops=await _drops(config, kernel, [(peer, path) for peer, path in ends if _up(devices[path.name])]),
        tunnels=tunnels,
        exits=await _exits(kernel, tunnels),
        firewall=firewall,
    )


def _up(device: Device | None) -> bool:
    return device is not None and device.up


async def _ways(config: Config, kernel: Kernel, peers: Iterable[Peer]) -> dict[str, Way]:
    ways = {}
    for peer in peers:
        for destination in ladder.destinations(peer):
            family = destination.version
            source = ladder.own_address(config, family)
            if source is None or family not in kernel.families:
                continue
            found = await kernel.lookup(str(ladder.address_in(destination)), str(source))
            path = ladder.path_of(config, peer, family, found.device, found.gateway)
            ways[ladder.shown(destination)] = Way(path, found.device or "", found.table, found.error)
    return ways


async def _rungs(config: Config, kernel: Kernel, peers: Iterable[Peer]) -> dict[str, frozenset[str]]:
    standing: dict[str, set[tuple[str | None, str | None]]] = {}
    for route in (await kernel.routes()).ours:
        standing.setdefault(route.destination, set()).add((route.device, route.gateway))
    return {
        str(address): frozenset(
            path.name
            for path in config.paths_to(peer)
            if (path.interface, ladder.gateway(peer, path, address.version))
            in standing.get(str(ip_network(address)), ())
        )
        for peer in peers
        for address in peer.addresses
        if address.version in kernel.families and ladder.own_address(config, address.version) is not None
    }


async def _shadowing(config: Config, kernel: Kernel) -> dict[int, tuple[ladder.Rule, ...]]:
    rules = await kernel.rules()
    return {family: tuple(shadowing(config, rules, family)) for family in kernel.families}


async def _drops(config: Config, kernel: Kernel, ends: Ends) -> dict[tuple[str, str], str]:
    own = ladder.own_address(config, 4)
    return {
        (str(address), path.interface): await kernel.drops_from(str(address), str(own), path.interface)
        for peer, path in ends
        for address in peer.addresses
        if own is not None and address.version == 4
    }


async def _exits(kernel: Kernel, tunnels: Mapping[str, Tunnel]) -> dict[str, str]:
    """Where a tunnel marks its packets, they pass our rules and Tailscale's: those endpoints are left out."""
    hosts = {peer.endpoint for tunnel in tunnels.values() if not tunnel.mark for peer in tunnel.peers if peer.endpoint}
    return {
        host: (await kernel.lookup(host)).device or ""
        for host in sorted(hosts)
        if ip_address(host).version in kernel.families
    }


# --- what blocks: in a thread --------------------------------------------------------------------------------------


def _beside(
    config: Config, interfaces: Iterable[str], cgnat: bool
) -> tuple[dict[str, frozenset[str]], dict[str, Tunnel], tuple[str, ...] | None]:
    """Where our addresses are, the WireGuard interfaces, and the firewall where it matters."""
    tunnels = {name: tunnel for name in interfaces if (tunnel := _tunnel(name)) is not None}
    return places(config), tunnels, _firewall() if cgnat else None


def places(config: Config) -> dict[str, frozenset[str]]:
    """Own service address → the interfaces that have it."""
    found: dict[str, set[str]] = {str(own): set() for own in config.addresses}
    for device, addresses in psutil.net_if_addrs().items():
        for address in addresses:
            plain = address.address.partition("%")[0]
            if plain in found:
                found[plain].add(device)
    return {address: frozenset(devices) for address, devices in found.items()}


def interfaces(without: Container[str]) -> list[tuple[str, IPv4Interface | IPv6Interface]]:
    """(device, address with its network) of this machine, except those of the devices `without`."""
    found = []
    for device, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6) and device not in without:
                length = int(ip_address(one.netmask)).bit_count() if one.netmask else ""
                found.append((device, ip_interface(f"{one.address.partition('%')[0]}/{length}".rstrip("/"))))
    return found


def _mtu(interface: str) -> int | None:
    request = struct.pack("16s16x8x", interface.encode())
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            answer = fcntl.ioctl(control, _SIOCGIFMTU, request)
    except OSError:
        return None
    return int(struct.unpack_from("i", answer, 16)[0])


def _tunnel(interface: str) -> Tunnel | None:
    """None: not WireGuard, not ours to ask, or in words that we do not know."""
    try:
        lines = _uapi(interface)
        if lines is not None:
            return parse_uapi(lines)
        if "DEVTYPE=wireguard" not in _text(File("/sys/class/net") / interface / "uevent"):
            return None
        dump = _lines("wg", "show", interface, "dump")
        return None if dump is None else parse_dump(dump)
    except ValueError:
        return None


def _uapi(interface: str) -> list[str] | None:
    """wireguard-go's own answer; kernel WireGuard has no such socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(_TIMEOUT_S)
            control.connect(f"/run/wireguard/{interface}.sock")
            control.sendall(b"get=1\n\n")
            lines: list[str] = []
            with control.makefile(errors="replace") as answer:
                for line in answer:
                    if line.startswith("errno="):
                        return lines if line.strip() == "errno=0" else None
                    lines.append(line)
    except OSError:
        return None
    return None


def parse_uapi(lines: Iterable[str]) -> Tunnel:
    """`key=value` lines; keys are hex there, base64 wherever people see them."""
    import base64

    mark, key, endpoint = 0, "", ""
    peers: list[TunnelPeer] = []
    networks: list[Network] = []
    for line in (*lines, "public_key="):
        name, _, value = line.strip().partition("=")
        if name == "fwmark":
            mark = int(value)
        elif name == "public_key":
            if key:
                peers.append(TunnelPeer(key, endpoint, tuple(networks)))
            key, endpoint, networks = base64.b64encode(bytes.fromhex(value)).decode(), "", []
        elif name == "endpoint":
            endpoint = _host(value)
        elif name == "allowed_ip":
            networks.append(ip_network(value, strict=False))
    return Tunnel(mark, tuple(peers))


def parse_dump(lines: Sequence[str]) -> Tunnel:
    """`wg show IF dump`: the interface (…, fwmark), then a line a peer (key, psk, endpoint, allowed, …); tabs."""
    mark = lines[0].split("\t")[-1].strip() if lines else "off"
    peers = []
    for line in lines[1:]:
        key, _, endpoint, allowed, *_ = line.split("\t")
        networks = () if allowed == "(none)" else tuple(ip_network(one, strict=False) for one in allowed.split(","))
        peers.append(TunnelPeer(key, "" if endpoint == "(none)" else _host(endpoint), networks))
    return Tunnel(0 if mark == "off" else int(mark, 0), tuple(peers))


def _host(endpoint: str) -> str:
    """The address of "1.2.3.4:5" or "[fe80::1%eth0]:5"."""
    return endpoint.rpartition(":")[0].strip("[]").partition("%")[0]


def _firewall() -> tuple[str, ...] | None:
    """The rules that drop CGNAT, in whichever framework; None where no tool could tell."""
    commands = (("iptables-save", "-t", "filter"), ("nft", "-st", "list", "ruleset"))
    found = [lines for command in commands if (lines := _lines(*command, keep=obstacles.bears_on_cgnat)) is not None]
    return tuple(line for lines in found for line in obstacles.standing_drops(lines)) if found else None


def _lines(*command: str, keep: Callable[[str], bool] = bool) -> list[str] | None:
    """The lines to `keep` of a program's output; None when it is not there, fails, or is not done in time. Line by
    line: a k3s node's rules are megabytes."""
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
        ) as child:
            timer = threading.Timer(_TIMEOUT_S, child.kill)
            timer.start()
            try:
                assert child.stdout is not None
                lines = [line.rstrip("\n") for line in child.stdout if keep(line)]
                child.wait()
            finally:
                timer.cancel()
    except OSError:
        return None
    return lines if child.returncode == 0 else None


def _text(file: File) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
