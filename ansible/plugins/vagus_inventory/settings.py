"""What each host gets: agent.toml and controller.toml, judged by agent and controller themselves; the tunnel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import tomli_w

import vagus_agent.config_file
import vagus_controller.config_file
from vagus_inventory import secrets
from vagus_inventory.fleet import Address, Fleet, Host, Node
from vagus_inventory.variables import plain
from vagus_runtime.settings import ConfigError

ETC: Final = "/etc/vagus"
OVERLAY: Final = "overlay"
BACKUP: Final = "backup"


def agent(fleet: Fleet, node: Node) -> dict[str, Any]:
    """agent.toml of `node`, as tables."""
    host = node.host
    settings: dict[str, Any] = {
        "fleet": fleet.name,
        "node": node.name,
        "site": host["site"],
        "addresses": _texts(node.addresses),
        "keys_file": f"{ETC}/agent/keys.toml",
        "paths": [
            {"name": OVERLAY, "interface": host["overlay_interface"], "networks": host["overlay_networks"]},
            {"name": BACKUP, "interface": host["backup_interface"], "networks": host["backup_networks"]},
        ],
        "peers": [_peer(node, peer) for peer in fleet.nodes if peer is not node],
        "mqtt": {
            "username": node.name,
            "password_file": f"{ETC}/agent/mqtt-password",
            "ca_file": f"{ETC}/ca.pem",
            "brokers": list(_brokers(fleet, host, agent=True)),
        },
    }
    if host["tailscale"]:
        settings["tailscale"] = {"path": OVERLAY}
    return merged(settings, host["agent_settings"])


def controller(fleet: Fleet, host: Host) -> dict[str, Any]:
    """controller.toml of `host`, as tables."""
    settings = {
        "fleet": fleet.name,
        "name": fleet.controllers[host.name],
        "fleet_key_file": f"{ETC}/controller/fleet.key",
        "nodes": [node.name for node in fleet.nodes],
        "mqtt": {
            "username": secrets.CONTROLLER,
            "password_file": f"{ETC}/controller/mqtt-password",
            "ca_file": f"{ETC}/ca.pem",
            "brokers": list(_brokers(fleet, host, agent=False)),
        },
        "http": {"password_file": f"{ETC}/controller/operator-password"},
    }
    return merged(settings, host["controller_settings"])


def _peer(node: Node, peer: Node) -> dict[str, Any]:
    families = {address.version for address in (*peer.addresses, *peer.prefixes)}
    table: dict[str, Any] = {"name": peer.name, "addresses": _texts(peer.addresses)}
    own = {address.version for address in node.addresses}
    if prefixes := [str(prefix) for prefix in peer.prefixes if prefix.version in own]:
        table["prefixes"] = prefixes
    table["via"] = {BACKUP: [str(address) for address in peer.backup if address.version in families]}
    return table


def _brokers(fleet: Fleet, host: Host, *, agent: bool) -> Iterator[dict[str, Any]]:
    """The broker as `host` reaches it, in the order to try: itself, or over the backup, public, over the overlay."""
    for broker in fleet.brokers:
        base = {"port": broker["broker_port"], "tls": True}
        if broker is host:
            yield {"host": "127.0.0.1", **base}
            continue
        there, here = fleet.node_on(broker.name), fleet.node_on(host.name)
        by: Mapping[str, str] = {}
        if there is not None and here is not None:
            for address in there.backup:
                by = {"peer": there.name, "path": BACKUP} if agent else {}
                yield {"host": str(address), **base, **by}
        for address in broker["broker_addresses"]:
            yield {"host": address, **base}
        if there is not None and here is not None:
            for address in there.overlay:
                by = {"peer": there.name, "path": OVERLAY} if agent else {}
                yield {"host": str(address), **base, **by}


def sought_brokers(fleet: Fleet) -> set[str]:
    """Where agents and controllers look for the broker."""
    told = [agent(fleet, node) for node in fleet.nodes]
    told += [controller(fleet, fleet.hosts[name]) for name in fleet.controllers]
    return {broker["host"] for settings in told for broker in settings["mqtt"]["brokers"]}


def broker_hosts(fleet: Fleet, host: Host) -> list[str] | None:
    """What the broker's certificate must be for; None: the certificate is given."""
    if host["broker_certificate_file"]:
        return None
    node = fleet.node_on(host.name)
    own = _texts((*node.backup, *node.overlay, *node.addresses)) if node is not None else []
    return ["127.0.0.1", "::1", "localhost", *host["broker_addresses"], *own]


def tunnel(fleet: Fleet, node: Node, kept: Mapping[str, Any]) -> dict[str, Any]:
    """The backup's interface on `node`, and its peers."""
    peers = []
    for peer in fleet.nodes:
        if peer is node:
            continue
        allowed = [*peer.backup, *peer.addresses]
        endpoint = peer.host["backup_endpoint"]
        peers.append(
            {
                "name": peer.name,
                "public_key": secrets.public_key(kept["wireguard"][peer.name]),
                "allowed": [f"{a}/{a.max_prefixlen}" for a in allowed] + [str(prefix) for prefix in peer.prefixes],
                "endpoint": f"{f'[{endpoint}]' if ':' in endpoint else endpoint}:{peer.host['backup_port']}"
                if endpoint
                else "",
            }
        )
    lengths = {address: _length(address, node) for address in node.backup}
    return {
        "private_key": kept["wireguard"][node.name],
        "addresses": [f"{address}/{length}" for address, length in lengths.items()],
        "mark": f"{node.mark:#x}",
        "peers": peers,
    }


def _length(address: Address, node: Node) -> int:
    networks = [ip_network(text) for text in node.host["backup_networks"]]
    return next(n.prefixlen for n in networks if n.version == address.version and address in n)


def users(fleet: Fleet) -> list[str]:
    """Who may speak to the broker."""
    guests = [secrets.HOME_ASSISTANT] if any(host["broker_home_assistant"] for host in fleet.brokers) else []
    return [secrets.CONTROLLER, *(node.name for node in fleet.nodes), *guests]


def mistakes(fleet: Fleet) -> list[str]:
    """What agent and controller would say of their settings, each with host and key; once what several hosts share."""
    found: dict[str, str] = {}
    with TemporaryDirectory(prefix="vagus-") as directory:
        for host in fleet.hosts.values():
            node = fleet.node_on(host.name)
            if node is not None:
                judged = _judged(agent(fleet, node), "agent", vagus_agent.config_file.load, directory)
                found |= {mistake: found.get(mistake, host.name) for mistake in judged}
            if host.name in fleet.controllers:
                judged = _judged(controller(fleet, host), "controller", vagus_controller.config_file.load, directory)
                found |= {mistake: found.get(mistake, host.name) for mistake in judged}
    return [f"{host}: {mistake}" for mistake, host in found.items()]


def _judged(settings: Mapping[str, Any], name: str, load: Callable[[Path], object], directory: str) -> Sequence[str]:
    file = Path(directory, f"{name}.toml")
    try:
        file.write_text(toml(settings))
        load(file)
    except TypeError:
        return [f"vagus_{name}_settings: holds a value that no setting has, such as null"]
    except ConfigError as error:
        return [mistake.replace(f"{directory}/", "") for mistake in error.mistakes]
    return []


def toml(settings: Mapping[str, Any]) -> str:
    return tomli_w.dumps(plain(settings))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` on top: tables are merged, everything else is replaced."""
    both = dict(base)
    for key, value in over.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both


def _texts(addresses: Iterable[Address]) -> list[str]:
    return [str(address) for address in addresses]
