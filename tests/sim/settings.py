"""The fleet that is simulated: its configurations, with waits short enough for a schedule of a minute."""

from __future__ import annotations

from functools import cache
from ipaddress import ip_address, ip_network

from vagus_agent import config as agent
from vagus_controller import config as controller
from vagus_protocol.signing import node_key

FLEET = "sim"
FLEET_KEY = b"f" * 32
PROBE_KEY = b"p" * 32
PATHS = ("overlay", "backup")
NODES = ("a", "b", "c")
CONTROLLERS = ("north", "south")

FAILBACK_HOLD_S = 4.0
PAUSE_S = 8.0


def key(node: str) -> bytes:
    return node_key(FLEET_KEY, node)


def address(node: str) -> str:
    return f"10.99.0.{NODES.index(node) + 1}"


def lan(node: str) -> str:
    return f"192.168.{NODES.index(node) + 1}.0/24"


@cache
def agent_config(node: str, nodes: tuple[str, ...], reflex: str = "orphaned") -> agent.Config:
    return agent.Config(
        fleet=FLEET,
        node=node,
        addresses=(ip_address(address(node)),),
        paths=(agent.Path(name="overlay", interface="tailscale0"), agent.Path(name="backup", interface="wg0")),
        mqtt=agent.Mqtt(brokers=(agent.Broker(host="broker"),)),
        keys_file="",
        peers=tuple(
            agent.Peer(
                name=peer,
                addresses=(ip_address(address(peer)),),
                prefixes=(ip_network(lan(peer)),),
                via={"backup": (ip_address(f"10.8.0.{NODES.index(peer) + 1}"),)},
            )
            for peer in nodes
            if peer != node
        ),
        reflex=reflex,  # type: ignore[arg-type]
        checks=tuple(
            agent.Check(name=f"{peer}-api", tcp=f"{address(peer)}:6443", peer=peer) for peer in nodes if peer != node
        ),
    )


@cache
def controller_config(name: str) -> controller.Config:
    return controller.Config(
        fleet=FLEET,
        name=name,
        mqtt=controller.Mqtt(brokers=(controller.Broker(host="broker"),)),
        fleet_key_file="",
        failover=controller.Failover(failback_hold_s=FAILBACK_HOLD_S),
    )
