"""An inventory → the fleet in it, or everything that is wrong with it, in the words of its variables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import combinations
from typing import Any, Final

from vagus_agent.config import Steering
from vagus_inventory import secrets, variables
from vagus_inventory.variables import Say, Variable
from vagus_protocol.topics import NAME_RULE, is_name

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

GROUPS: Final = {"vagus_brokers": "vagus_broker", "vagus_controllers": "vagus_controller", "vagus_nodes": "vagus_agent"}
_NAME: Final = f"{NAME_RULE}: it is part of MQTT topics and unit names"
# Users of the broker that are no node.
_RESERVED: Final = (secrets.CONTROLLER, secrets.HOME_ASSISTANT)
# Linux dev_valid_name().
_LONGEST_INTERFACE: Final = 15
_BATCH: Final = re.compile(r"[1-9][0-9]*|([1-9][0-9]?|100)%")


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the inventory with all its values. `roles`: those of vagus that it gets."""

    name: str
    roles: frozenset[str]
    values: Mapping[str, Any]

    def __getitem__(self, variable: str) -> Any:
        return self.values[f"vagus_{variable}"]


@dataclass(frozen=True, slots=True)
class Node:
    host: Host
    name: str
    addresses: tuple[Address, ...]
    prefixes: tuple[Network, ...]
    backup: tuple[Address, ...]
    overlay: tuple[Address, ...]

    @property
    def mark(self) -> int:
        """The mark by which the backup's own packets skip the agent's rule, and Tailscale's."""
        steering = self.host["agent_settings"].get("steering", {})
        return int(steering.get("mark", Steering().mark)) if isinstance(steering, Mapping) else Steering().mark


@dataclass(frozen=True, slots=True)
class Fleet:
    name: str
    hosts: Mapping[str, Host]
    nodes: tuple[Node, ...]
    controllers: Mapping[str, str] = field(default_factory=dict)
    """Host → the controller's name."""

    @property
    def brokers(self) -> list[Host]:
        return [host for host in self.hosts.values() if "vagus_broker" in host.roles]

    def node_on(self, host: str) -> Node | None:
        return next((node for node in self.nodes if node.host.name == host), None)


def read(
    groups: Mapping[str, Sequence[str]], given: Mapping[str, Mapping[str, Any]], known: Mapping[str, Variable]
) -> tuple[Fleet | None, list[str]]:
    """The fleet in `groups` (group → hosts) with the variables `given` (host → name → value), and all problems.

    There is a fleet only when each host's own values are sound; then it is judged as a whole.
    """
    problems: list[str] = []
    hosts: dict[str, Host] = {}
    sound = True
    for name in dict.fromkeys(host for group in GROUPS for host in groups.get(group, ())):
        roles = {role for group, role in GROUPS.items() if name in groups.get(group, ())} | {"vagus_common"}
        if "vagus_agent" in roles:
            roles.add("vagus_backup")
        values = variables.read(given[name], frozenset(roles), known, _saying(problems, name))
        if values is None:
            sound = False
        else:
            hosts[name] = Host(name, frozenset(roles), values)
    for group in GROUPS:
        if not groups.get(group):
            problems.append(f"inventory: the group {group} is empty: it needs at least one host")
            sound = False
    nodes = [_node(host, _saying(problems, host.name)) for host in hosts.values() if "vagus_agent" in host.roles]
    if not sound or any(node is None for node in nodes):
        return None, list(dict.fromkeys(problems))
    controllers = {
        host.name: host["controller_name"] or f"{host.name}-controller"
        for host in hosts.values()
        if "vagus_controller" in host.roles
    }
    first = next(iter(hosts.values()))
    fleet = Fleet(first["fleet"], hosts, tuple(node for node in nodes if node is not None), controllers)
    problems += judge(fleet)
    return fleet, list(dict.fromkeys(problems))


def _saying(problems: list[str], host: str) -> Say:
    return lambda variable, what: problems.append(f"{host}: {variable}: {what}")


def _node(host: Host, say: Say) -> Node | None:
    """A node with its addresses, or None when one cannot be read."""
    broken: list[str] = []

    def tell(variable: str, what: str) -> None:
        broken.append(variable)
        say(variable, what)

    node = Node(
        host=host,
        name=host["node_name"] or host.name,
        addresses=_addresses(host, "vagus_service_addresses", tell),
        prefixes=_networks(host, "vagus_prefixes", tell),
        backup=_addresses(host, "vagus_backup_addresses", tell),
        overlay=_addresses(host, "vagus_overlay_addresses", tell),
    )
    for variable in ("vagus_backup_networks", "vagus_overlay_networks"):
        _networks(host, variable, tell)
    return None if broken else node


def _addresses(host: Host, variable: str, say: Say) -> tuple[Address, ...]:
    found = []
    for text in host.values[variable]:
        try:
            found.append(ip_address(text))
        except ValueError:
            say(variable, f"{text!r} is no IP address; without a prefix length, such as 10.99.0.1 or fd99::1")
    return tuple(found)


def _networks(host: Host, variable: str, say: Say) -> tuple[Network, ...]:
    found = []
    for text in host.values[variable]:
        try:
            found.append(ip_network(text))
        except ValueError as error:
            say(variable, f"{text!r} is no network ({error}), such as 10.88.0.0/24 or fd88::/64")
    return tuple(found)


# --- the whole -----------------------------------------------------------------------------------------------------


def judge(fleet: Fleet) -> list[str]:
    """All that is wrong with a fleet whose every value is sound by itself."""
    problems: list[str] = []
    for host in fleet.hosts.values():
        problems += [f"{host.name}: {what}" for what in _of_host(host, fleet)]
    for node in fleet.nodes:
        problems += [f"{node.host.name}: {what}" for what in _of_node(node)]
    # Of all hosts when it comes by -e: told once.
    told: dict[str, str] = {}
    for host in fleet.hosts.values():
        for what in _of_rollout(host):
            told.setdefault(what, host.name)
    problems += [f"{name}: {what}" for what, name in told.items()]
    problems += _names(fleet)
    problems += _owners(fleet.nodes)
    problems += _tunnels(fleet.nodes)
    problems += _brokers(fleet)
    return problems


def _of_host(host: Host, fleet: Fleet) -> Iterator[str]:
    if not is_name(host["fleet"]):
        yield f"vagus_fleet: {host['fleet']!r} is not a name: {_NAME}"
    for variable in ("fleet", "secrets_file", "release_dir"):
        if host[variable] != next(iter(fleet.hosts.values()))[variable]:
            yield f"vagus_{variable}: differs from that of other hosts; put it into group_vars/all"
    if host["keep_releases"] < 2:
        yield "vagus_keep_releases: must be 2 at least: the active release, and the one to go back to"


def _of_rollout(host: Host) -> Iterator[str]:
    """What Ansible would take for "all hosts at once" (an empty list, 0), or stumble over halfway."""
    if not host["rollout_batches"]:
        yield "vagus_rollout_batches: is empty: all nodes would go at once, without a canary"
    for batch in host["rollout_batches"]:
        if not _BATCH.fullmatch(batch):
            yield f"vagus_rollout_batches: {batch!r} is neither a number of nodes, such as 3, nor a share, such as 50%"
    for variable in ("rollout_steady_s", "rollout_timeout_s"):
        if host[variable] < 0:
            yield f"vagus_{variable}: {host[variable]} is no time: seconds, 0 or more"


def _of_node(node: Node) -> Iterator[str]:
    host = node.host
    if not node.addresses:
        yield "vagus_service_addresses: is empty; a node has at least one, such as 10.99.0.1"
    if not node.backup:
        yield (
            "vagus_backup_addresses: is empty: a node without an address in the backup network has nowhere to move its "
            "traffic to"
        )
    for variable, addresses in (("service", node.addresses), ("backup", node.backup)):
        for address in addresses:
            if address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local:
                yield f"vagus_{variable}_addresses: {address} is no address that another node can send to"
    for version in (4, 6):
        if len([address for address in node.backup if address.version == version]) > 1:
            yield f"vagus_backup_addresses: more than one IPv{version} address; at most one of each family"
    backup = [ip_network(text) for text in host["backup_networks"]]
    overlay = [ip_network(text) for text in host["overlay_networks"]]
    for address in node.backup:
        if not any(_inside(address, network) for network in backup):
            yield f"vagus_backup_addresses: {address} is in none of vagus_backup_networks ({_listed(backup)})"
        if address in node.addresses:
            yield f"vagus_backup_addresses: {address} is the service address itself; the backup needs one of its own"
    for a in backup:
        yield from (
            f"vagus_backup_networks: {a} overlaps {b} of vagus_overlay_networks" for b in overlay if _overlap(a, b)
        )
    for prefix in node.prefixes:
        if prefix.prefixlen == 0:
            yield f"vagus_prefixes: {prefix} is everything; a default route is not carried"
        for variable, networks in (("backup", backup), ("overlay", overlay)):
            for network in networks:
                if _overlap(prefix, network):
                    yield f"vagus_prefixes: {prefix} overlaps {network} of vagus_{variable}_networks itself"
    for variable in ("overlay_interface", "backup_interface"):
        name = host[variable]
        if not 1 <= len(name.encode()) <= _LONGEST_INTERFACE or any(c in "/:" or c.isspace() for c in name):
            yield f"vagus_{variable}: {name!r} cannot be an interface: 1 to 15 characters without blanks, / and :"
    if host["overlay_interface"] == host["backup_interface"]:
        yield f"vagus_backup_interface: {host['backup_interface']} is the overlay's too: it would be no backup"
    if not 1 <= host["backup_port"] <= 65535:
        yield f"vagus_backup_port: {host['backup_port']} is no port"
    if not 1280 <= host["backup_mtu"] <= 9000:
        yield f"vagus_backup_mtu: {host['backup_mtu']} is not between 1280, which IPv6 needs, and 9000"
    if not 0 <= host["backup_keepalive"] <= 65535:
        yield f"vagus_backup_keepalive: {host['backup_keepalive']} is not between 0 and 65535"
    if any(c in host["backup_endpoint"] for c in "/@[] ") or _with_port(host["backup_endpoint"]):
        yield f"vagus_backup_endpoint: {host['backup_endpoint']!r} must be an address or a name, without a port"
    for variable, networks in (("overlay", overlay), ("backup", backup)):
        for network in networks:
            if _lies_in(host["backup_endpoint"], network):
                yield (
                    f"vagus_backup_endpoint: {host['backup_endpoint']} is in {network} of vagus_{variable}_networks: "
                    "the backup would run inside what it stands in for; it needs an address that the internet knows"
                )


def _lies_in(endpoint: str, network: Network) -> bool:
    try:
        return _inside(ip_address(endpoint), network)
    except ValueError:
        return False  # a name


def _with_port(endpoint: str) -> bool:
    return endpoint.count(":") == 1


def _names(fleet: Fleet) -> Iterator[str]:
    taken: dict[str, str] = {}
    for node in fleet.nodes:
        where = f"{node.host.name}: {'vagus_node_name' if node.host['node_name'] else 'its name in the inventory'}"
        if not is_name(node.name):
            yield f"{where}: {node.name!r} cannot be a node's name: {_NAME}; vagus_node_name gives it another"
        elif node.name in _RESERVED:
            yield f"{where}: {node.name!r} is a user of the broker with other rights; set vagus_node_name"
        elif node.name in taken:
            yield f"{where}: {node.name!r} is the name of {taken[node.name]} too"
        taken.setdefault(node.name, node.host.name)
    for host, name in fleet.controllers.items():
        if not is_name(name):
            yield f"{host}: vagus_controller_name: {name!r} cannot be a controller's name: {_NAME}"
        elif name in taken:
            yield f"{host}: vagus_controller_name: {name!r} is the name of {taken[name]} too"
        taken.setdefault(name, f"the controller on {host}")


def _owners(nodes: Iterable[Node]) -> Iterator[str]:
    """Service addresses and prefixes belong to one node each; addresses in the backup too."""
    owned: list[tuple[Network, Node, str]] = []
    for node in nodes:
        owned += [(ip_network(address), node, "vagus_service_addresses") for address in node.addresses]
        owned += [(prefix, node, "vagus_prefixes") for prefix in node.prefixes]
    # Networks are nested or disjoint: sorted, those around the current one are a stack.
    around: list[tuple[Network, Node, str]] = []
    for network, node, variable in sorted(
        owned, key=lambda o: (o[0].version, int(o[0].network_address), o[0].prefixlen)
    ):
        while around and not _overlap(around[-1][0], network):
            around.pop()
        for other, owner, theirs in around:
            if owner is not node:
                what = "is" if other == network else f"overlaps {other}, which is"
                yield f"{node.host.name}: {variable}: {network} {what} in {theirs} of {owner.host.name} too"
            elif other == network:
                yield f"{node.host.name}: {variable}: {network} is named twice"
        around.append((network, node, variable))
    taken: dict[Address, Node] = {}
    for node in nodes:
        for address in node.backup:
            if address in taken:
                yield f"{node.host.name}: vagus_backup_addresses: {address} is that of {taken[address].host.name} too"
            taken.setdefault(address, node)


def _tunnels(nodes: Sequence[Node]) -> Iterator[str]:
    managed = [node for node in nodes if node.host["backup_manage"]]
    hidden = [node for node in managed if not node.host["backup_endpoint"]]
    for a, b in combinations(hidden, 2):
        yield (
            f"{a.host.name}, {b.host.name}: vagus_backup_endpoint: neither has one, so neither can begin their tunnel: "
            "one of two needs an address at which the other reaches it"
        )
    for node in managed:
        if len(managed) < len(nodes):
            other = next(node for node in nodes if not node.host["backup_manage"])
            yield (f"{node.host.name}: vagus_backup_manage: is true, and false on {other.host.name}: be it all or none")
            return


def _brokers(fleet: Fleet) -> Iterator[str]:
    brokers = fleet.brokers
    if len(brokers) > 1:
        names = ", ".join(host.name for host in brokers)
        yield f"inventory: the group vagus_brokers has {names}: these would be separate brokers; one is wanted"
    for host in brokers:
        node = fleet.node_on(host.name)
        if not host["broker_addresses"] and node is None:
            yield f"{host.name}: vagus_broker_addresses: is empty, and the host is no node: nobody could reach it"
        for address in host["broker_addresses"]:
            if not address or any(c in "/@" or c.isspace() for c in address):
                yield f"{host.name}: vagus_broker_addresses: {address!r} must be an address or a name, without port"
        if not 1 <= host["broker_port"] <= 65535:
            yield f"{host.name}: vagus_broker_port: {host['broker_port']} is no port"
        given = [name for name in ("certificate", "key", "ca") if host[f"broker_{name}_file"]]
        if given and len(given) < 3:
            missing = [f"vagus_broker_{name}_file" for name in ("certificate", "key", "ca") if name not in given]
            yield f"{host.name}: {', '.join(missing)}: missing; certificate, key and ca go together"


def _inside(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def _overlap(a: Network, b: Network) -> bool:
    return a.version == b.version and a.overlaps(b)


def _listed(networks: Iterable[Network]) -> str:
    return ", ".join(map(str, networks)) or "none"
