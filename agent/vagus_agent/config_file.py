"""The agent's TOML file → `Config`, and its keys file → `Keys`; every mistake in words.

What one table can tell by itself is checked for every table that could be read; what only the whole can tell (names
that must match, addresses that must not overlap) once all tables could be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path as File
from typing import Any, NamedTuple

import msgspec

from vagus_agent.config import (
    METERED_IDLE_INTERVAL_S,
    Address,
    Broker,
    Check,
    Config,
    Etcd,
    Mqtt,
    Network,
    Path,
    Peer,
    Probe,
    Report,
    Steering,
    Tailscale,
)
from vagus_protocol.codec import MAX_LINKS, Rejected
from vagus_protocol.probe import MAX_VIEWS, name_hash, path_hash
from vagus_protocol.signing import parse_key
from vagus_runtime import checks, settings
from vagus_runtime.checks import check_host_port, check_name
from vagus_runtime.settings import ConfigError, Mistakes, Say, element, show, within

__all__ = ["ConfigError", "Keys", "load", "load_keys"]


# The kernel's own tables (rtnetlink(7): unspec, default, main, local), and Tailscale's.
_TAKEN_TABLES = {0: "unspecified", 52: "Tailscale's", 253: "default", 254: "main", 255: "local"}
# Tailscale keeps its rules here and puts them back when any rule of the range is deleted.
_TAILSCALE_PRIORITIES = range(5200, 5300)
# /etc/iproute2/rt_protos and the kernel's RTPROT_*: kernel, boot, static, and the routing daemons.
_TAKEN_PROTOCOLS = frozenset({*range(5), *range(8, 19), 42, 84, 99, *range(186, 199)})


class Keys(NamedTuple):
    """This node's keys, 32 bytes each: of its `desired`, and of the fleet's probes."""

    node: bytes
    probe: bytes

    def __repr__(self) -> str:
        return "Keys(…)"


def load(path: File, *, files: bool = False) -> Config:
    """The configuration in `path`; with `files`, the files that it names are opened too. Raises ConfigError."""
    raw = settings.read_toml(path)
    _fill_metered(raw)
    mistakes = Mistakes(path)
    config = settings.build(Config, raw, mistakes, _CHECKS)
    if config is not None:
        say = mistakes.within("")
        _check_names(config, say)
        _check_paths(config, say)
        _check_addresses(config, say)
        for index, peer in enumerate(config.peers):
            _check_peer_in(config, peer, mistakes.within(element("peers", index, peer.name)))
        _check_references(config, mistakes)
        if files:
            _check_files(config, mistakes)
    mistakes.raise_if_any()
    assert config is not None
    return config


def load_keys(config: Config) -> Keys:
    """The keys in `config.keys_file`. Raises ConfigError; its text never shows a key."""
    file = File(config.keys_file)
    settings.read_secret(file)
    raw = settings.read_toml(file)
    mistakes = Mistakes(file)
    table = settings.build(_KeysTable, raw, mistakes, {})
    keys: dict[str, bytes] = {}
    for name, text in () if table is None else (("node", table.node), ("probe", table.probe)):
        key = parse_key(text)
        if isinstance(key, Rejected):
            mistakes.add(name, key.reason)
        else:
            keys[name] = key
    if len(keys) == 2 and keys["node"] == keys["probe"]:
        mistakes.add("probe", "is the same key as node; `vagus-controller node-keys NODE` prints both")
    mistakes.raise_if_any()
    return Keys(**keys)


class _KeysTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    node: str
    probe: str


def _fill_metered(raw: dict[str, Any]) -> None:
    """A metered path that names no idle interval gets the slow one."""
    paths = raw.get("paths")
    for path in paths if isinstance(paths, list) else ():
        if isinstance(path, dict) and path.get("metered") is True:
            path.setdefault("idle_interval_s", METERED_IDLE_INTERVAL_S)


# --- one table by itself -------------------------------------------------------------------------------------------


def _check_config(config: Config, say: Say) -> None:
    check_name(config.fleet, "fleet", say)
    check_name(config.node, "node", say)
    if len(config.site) > 64 or not config.site.isprintable():
        say("site", "must be at most 64 printable characters")
    for key in ("keys_file", "state_dir"):
        if not getattr(config, key):
            say(key, "must not be empty")
        checks.check_absolute(getattr(config, key), key, say)
    if not config.addresses:
        say("addresses", "must hold at least one service address of this node")
    if not config.paths:
        say("paths", "must hold at least one table [[paths]]")
    within({"orphaned_after_s": (1, 3600)})(config, say)


def _check_path(path: Path, say: Say) -> None:
    check_name(path.name, "name", say)
    if not _is_interface(path.interface):
        say("interface", f"{show(path.interface)} cannot be an interface: 1 to 15 characters without blanks, / and :")
    elif path.interface == "lo":
        say("interface", "lo leads to no peer: the network's own interface is wanted, such as tailscale0 or wg0")
    # Faster than 20 a second buys nothing, as the burst confirms anyway; the packet's interval field ends at 65 s.
    within({"idle_interval_s": (0.05, 60)})(path, say)


def _is_interface(name: str) -> bool:
    """Linux dev_valid_name(): 1 to 15 bytes, no blank, no slash, no colon."""
    return 1 <= len(name.encode()) <= 15 and name.isprintable() and not any(c in "/:" or c.isspace() for c in name)


def _check_peer(peer: Peer, say: Say) -> None:
    check_name(peer.name, "name", say)
    if not peer.addresses:
        say("addresses", "must hold at least one service address of this peer")
    for index, prefix in enumerate(peer.prefixes):
        key = element("prefixes", index)
        if prefix.prefixlen == 0:
            say(key, f"{prefix} is everything: a default route is not this ladder's to carry")
        elif prefix.is_loopback or prefix.is_multicast or prefix.is_link_local:
            say(key, f"{prefix} is loopback, multicast or link-local: no route can carry it to a peer")
    for path, vias in peer.via.items():
        for version, count in Counter(via.version for via in vias).items():
            if count > 1:
                say(f"via.{path}", f"has {count} IPv{version} addresses; at most one a family is allowed")
        for via in vias:
            _check_unicast(via, f"via.{path}", say)
            if via in peer.addresses:
                say(f"via.{path}", f"{via} is the service address itself; the peer's own address in {path} is wanted")
    for path in checks.twice(peer.paths):
        say("paths", f"names {show(path)} twice")


def _check_unicast(address: Address, key: str, say: Say) -> None:
    kinds = {
        "the unspecified address": address.is_unspecified,
        "a loopback address": address.is_loopback,
        "a multicast address": address.is_multicast,
        "a link-local address": address.is_link_local and not key.startswith("via"),
        "a reserved address": address.version == 4 and address.is_reserved,
        "an IPv4 address in IPv6 spelling": address.version == 6 and address.ipv4_mapped is not None,
        "an address with an interface (%)": address.version == 6 and address.scope_id is not None,
    }
    for kind, is_it in kinds.items():
        if is_it:
            say(key, f"{address} is {kind}; a unicast address is wanted")
            return


def _check_broker(broker: Broker, say: Say) -> None:
    checks.check_broker(broker, say)
    if bool(broker.peer) != bool(broker.path):
        say(
            "peer" if broker.path else "path", "peer and path go together: which peer the broker is on, over which path"
        )


def _check_mqtt(mqtt: Mqtt, say: Say) -> None:
    checks.check_mqtt(mqtt, say)
    within({"backlog": (1, 100_000)})(mqtt, say)


def _check_probe(probe: Probe, say: Say) -> None:
    within(
        {
            "port": checks.PORT,
            "timeout_floor_s": (0.001, 10),
            "timeout_cap_s": (0.01, 60),
            "burst": (2, 100),
            "burst_interval_s": (0.001, 1),
            "confirm_floor_s": (0.005, 10),
            "up_after": (1, 1000),
            "degraded_enter_loss": (0, 1),
            "degraded_exit_loss": (0, 1),
        }
    )(probe, say)
    for floor in ("timeout_floor_s", "confirm_floor_s"):
        if getattr(probe, floor) > probe.timeout_cap_s:
            say(floor, f"must not be above timeout_cap_s, {probe.timeout_cap_s:g}")
    if probe.degraded_exit_loss >= probe.degraded_enter_loss:
        say("degraded_exit_loss", f"must be below degraded_enter_loss, {probe.degraded_enter_loss:g}, or links flap")


def _check_steering(steering: Steering, say: Say) -> None:
    within({"table": (1, 2**32 - 1), "priority": (1, 32765), "protocol": (1, 255)})(steering, say)
    within({"mark": (0, 2**32 - 1), "mask": (0, 2**32 - 1), "recheck_s": (1, 3600)})(steering, say)
    if steering.table in _TAKEN_TABLES:
        say("table", f"{steering.table} is the table {_TAKEN_TABLES[steering.table]}: choose one that nobody uses")
    if steering.priority in _TAILSCALE_PRIORITIES:
        say("priority", "must not be in 5200-5299: Tailscale keeps its rules there and puts them back at each change")
    if steering.protocol in _TAKEN_PROTOCOLS:
        say("protocol", f"{steering.protocol} belongs to the kernel or a routing daemon; 118 is free")
    if steering.mark & ~steering.mask:
        say("mark", f"{steering.mark:#x} has bits outside mask {steering.mask:#x}: no packet would match")
    if steering.mark == 0:
        say("mark", "must not be 0: every unmarked packet would skip the rule")
    if steering.flush_conntrack and not steering.enabled:
        say("flush_conntrack", "follows the agent's own moves: it needs enabled = true")


def _check_etcd(etcd: Etcd, say: Say) -> None:
    check_host_port(etcd.endpoint, "endpoint", say)
    checks.check_certificate_pair(etcd.cert_file, etcd.key_file, say)
    if bool(etcd.username) != bool(etcd.password_file):
        say("password_file" if etcd.username else "username", "is missing: username and password_file go together")
    for key in ("ca_file", "cert_file", "key_file", "password_file"):
        checks.check_absolute(getattr(etcd, key), key, say)
    within({"interval_s": (0.5, 300), "timeout_s": (0.1, 60)})(etcd, say)


def _check_tailscale(tailscale: Tailscale, say: Say) -> None:
    if not tailscale.socket:
        say("socket", "must not be empty")
    checks.check_absolute(tailscale.socket, "socket", say)
    within({"interval_s": (0.5, 300), "timeout_s": (0.1, 60)})(tailscale, say)


def _check_check(check: Check, say: Say) -> None:
    check_name(check.name, "name", say)
    if bool(check.tcp) == bool(check.http):
        say("", 'needs exactly one of tcp = "host:port" and http = "http://…"')
    if check.tcp:
        check_host_port(check.tcp, "tcp", say)
    if check.http and not _is_url(check.http):
        say("http", f'{show(check.http)} must be a URL such as "http://10.77.0.2:8080/healthz", without user or blanks')
    checks.check_absolute(check.ca_file, "ca_file", say)
    if check.ca_file and not check.http.startswith("https:"):
        say("ca_file", "is for https only")
    within({"status": (100, 599), "interval_s": (0.5, 3600), "timeout_s": (0.1, 60)})(check, say)
    if check.timeout_s > check.interval_s:
        say("timeout_s", f"must not be above interval_s, {check.interval_s:g}")


def _is_url(text: str) -> bool:
    from urllib.parse import urlsplit

    try:
        url = urlsplit(text)
        sound = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and "@" not in url.netloc
    except ValueError:  # a port that is no number, a broken [IPv6]
        return False
    # As it is sent: what else there is must be written by %.
    return sound and text.isascii() and text.isprintable() and " " not in text


def _check_report(report: Report, say: Say) -> None:
    within({"interval_s": (0.5, 3600)})(report, say)
    for index, mount in enumerate(report.mounts):
        checks.check_absolute(mount or "?", element("mounts", index), say)
    if len(report.processes) > 32:
        say("processes", f"has {len(report.processes)} names; at most 32")
    for index, name in enumerate(report.processes):
        if not name or "/" in name:
            say(element("processes", index), f"{show(name)} must be a process name, such as etcd, without its path")


_CHECKS: dict[type, settings.Check] = {
    Config: _check_config,
    Path: _check_path,
    Peer: _check_peer,
    Broker: _check_broker,
    Mqtt: _check_mqtt,
    Probe: _check_probe,
    Steering: _check_steering,
    Etcd: _check_etcd,
    Tailscale: _check_tailscale,
    Check: _check_check,
    Report: _check_report,
}


# --- the whole -----------------------------------------------------------------------------------------------------


def _check_names(config: Config, say: Say) -> None:
    for key, names in {
        "paths": [path.name for path in config.paths],
        "peers": [peer.name for peer in config.peers],
        "checks": [check.name for check in config.checks],
    }.items():
        for name in checks.twice(names):
            say(key, f"{show(name)} is named twice")
    if config.node in {peer.name for peer in config.peers}:
        say("peers", f"{show(config.node)} is this node itself")
    nodes = {config.node, *(peer.name for peer in config.peers)}
    for first, second in combinations(sorted(nodes), 2) if len({*map(name_hash, nodes)}) < len(nodes) else ():
        if name_hash(first) == name_hash(second):
            say("peers", f"{first} and {second} have the same hash in probes: rename one of them")


def _check_paths(config: Config, say: Say) -> None:
    if len(config.paths) > MAX_VIEWS:
        say("paths", f"has {len(config.paths)}; a probe has room for {MAX_VIEWS}")
    links = sum(len(config.paths_to(peer)) for peer in config.peers)
    if links > MAX_LINKS:
        say("peers", f"are {links} links over all paths; a report has room for {MAX_LINKS}: name fewer peers or paths")
    for interface in checks.twice(path.interface for path in config.paths):
        say("paths", f"interface {interface} serves two paths: cutting one would cut the other")
    for first, second in combinations(config.paths, 2):
        if first.name != second.name and path_hash(first.name) == path_hash(second.name):
            say("paths", f"{first.name} and {second.name} have the same hash in probes: rename one of them")
        for a in first.networks:
            for b in second.networks:
                if a.version == b.version and a.overlaps(b):
                    say("paths", f"network {a} of {first.name} overlaps {b} of {second.name}")


class _Owned(NamedTuple):
    """A service address or a prefix: whose, and where in the file."""

    network: Network
    owner: str
    key: str
    is_prefix: bool


def _owned(config: Config) -> Iterator[_Owned]:
    from ipaddress import ip_network

    for index, address in enumerate(config.addresses):
        yield _Owned(ip_network(address), config.node, element("addresses", index), False)
    for position, peer in enumerate(config.peers):
        key = element("peers", position, peer.name)
        for index, address in enumerate(peer.addresses):
            yield _Owned(ip_network(address), peer.name, f"{key}.{element('addresses', index)}", False)
        for index, prefix in enumerate(peer.prefixes):
            yield _Owned(prefix, peer.name, f"{key}.{element('prefixes', index)}", True)


def _check_addresses(config: Config, say: Say) -> None:
    tunnels = [(path.name, network) for path in config.paths for network in path.networks]
    # Networks are nested or disjoint: sorted, those that contain the current one are a stack.
    around: list[_Owned] = []
    for owned in sorted(
        _owned(config), key=lambda o: (o.network.version, o.network.network_address, o.network.prefixlen)
    ):
        network = owned.network
        if owned.is_prefix:
            for path, tunnel in tunnels:
                if tunnel.version == network.version and tunnel.overlaps(network):
                    say(owned.key, f"{network} overlaps {tunnel}, the network of path {path} itself")
        else:
            _check_unicast(network.network_address, owned.key, say)
        while around and not (around[-1].network.version == network.version and around[-1].network.overlaps(network)):
            around.pop()
        for other in around:
            if other.owner != owned.owner:
                say(
                    owned.key,
                    f"{network} overlaps {other.network} of {other.owner}: traffic would reach the wrong node",
                )
            elif other.network == network or owned.is_prefix:
                # Not so a service address inside its own node's prefix: a Pi in the LAN that it serves.
                say(owned.key, f"{network} overlaps {other.network} of the same node: name it once")
        around.append(owned)


def _check_peer_in(config: Config, peer: Peer, say: Say) -> None:
    paths = {path.name: path for path in config.paths}
    for name in peer.paths:
        if name not in paths:
            say("paths", _unknown("path", name, paths))
    own = {address.version for address in config.addresses}
    families = {address.version for address in peer.addresses}
    if not own & families:
        say("addresses", f"has no address of this node's family ({', '.join(f'IPv{v}' for v in sorted(own))})")
    for index, prefix in enumerate(peer.prefixes):
        if prefix.version not in own:
            say(
                element("prefixes", index),
                f"{prefix}: this node has no IPv{prefix.version} service address to send from",
            )
    carried = families | {prefix.version for prefix in peer.prefixes}
    for name, vias in peer.via.items():
        key = f"via.{name}"
        if name not in paths:
            say(key, _unknown("path", name, paths))
            continue
        if peer.paths and name not in peer.paths:
            say(key, f"{name} is not among this peer's paths ({', '.join(peer.paths)})")
        for via in vias:
            if via.version not in carried:
                say(key, f"{via} is of a family in which this peer has neither address nor prefix")
            networks = [network for network in paths[name].networks if network.version == via.version]
            if networks and not any(via in network for network in networks):
                say(key, f"{via} is outside the networks of {name} ({', '.join(map(str, networks))})")


def _check_references(config: Config, mistakes: Mistakes) -> None:
    peers = {peer.name: peer for peer in config.peers}
    paths = {path.name: path for path in config.paths}
    for index, broker in enumerate(config.mqtt.brokers):
        say = mistakes.within(element("mqtt.brokers", index))
        if broker.peer and broker.peer not in peers:
            say("peer", _unknown("peer", broker.peer, peers))
        if broker.path and broker.path not in paths:
            say("path", _unknown("path", broker.path, paths))
        elif broker.peer in peers and broker.path not in {path.name for path in config.paths_to(peers[broker.peer])}:
            say("path", f"{broker.path} does not lead to {broker.peer}")
    for index, check in enumerate(config.checks):
        if check.peer and check.peer not in peers:
            mistakes.add(f"{element('checks', index, check.name)}.peer", _unknown("peer", check.peer, peers))
    if config.tailscale is not None:
        if config.tailscale.path not in paths:
            mistakes.add("tailscale.path", _unknown("path", config.tailscale.path, paths))
        if config.steering.priority >= _TAILSCALE_PRIORITIES.stop:
            mistakes.add("steering.priority", "must be below 5200: Tailscale's rules would come first and win")


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    return f"there is no {what} {show(name)}; configured: {', '.join(known) or 'none'}"


def _check_files(config: Config, mistakes: Mistakes) -> None:
    tables: list[tuple[str, Mqtt | Etcd]] = [("mqtt", config.mqtt)]
    if config.etcd is not None:
        tables.append(("etcd", config.etcd))
    for name, table in tables:
        for key in checks.MQTT_FILES:
            checks.check_readable(getattr(table, key), key, mistakes.within(name))
    for index, check in enumerate(config.checks):
        checks.check_readable(check.ca_file, "ca_file", mistakes.within(element("checks", index, check.name)))
    checks.check_readable(config.keys_file, "keys_file", mistakes.within(""))
