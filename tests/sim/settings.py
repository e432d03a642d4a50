"""The fleet that is simulated: its configurations, with waits short enough for a schedule of a minute."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address, ip_network

from vagus_agent import config as agent
from vagus_agent.config import METERED_IDLE_INTERVAL_S
from vagus_controller import config as controller
from vagus_protocol.signing import node_key

FLEET = "sim"
FLEET_KEY = b"f" * 32
PROBE_KEY = b"p" * 32
PATHS = ("overlay", "backup")
# Metered, where there is a third one.
THIRD = "lte"
NODES = ("a", "b", "c", "d", "e")
CONTROLLERS = ("north", "south")

FAILBACK_HOLD_S = 4.0
PAUSE_S = 8.0

# Maintenance, and when drills are due: on Thursdays and, in the fleet's window, on Sundays. The wall clock jumps there.
WINDOWS = (
    controller.Window(at="sun 02:00-04:00", reason="the fleet's"),
    controller.Window(at="sat 02:00-04:00", reason="a's", scope="node", target="a"),
)
DRILLS = "0 3,5 * * 0,4"


def _wall(day: int, hour: int, minute: int = 0, second: int = 0) -> float:
    """Of the first week of 2026 that begins on a Monday, day 0."""
    return datetime(2026, 1, 5 + day, hour, minute, second, tzinfo=UTC).timestamp()


# Where a wall clock jumps to.
MOMENTS = {
    "right": _wall(2, 12),
    "in the fleet's window": _wall(6, 2, 30),
    "before a drill in the fleet's window": _wall(6, 2, 59, 58),
    "before the fleet's window": _wall(6, 1, 59, 57),
    "late in the fleet's window": _wall(6, 3, 59, 57),
    "in a's window": _wall(5, 3),
    "before a drill": _wall(3, 4, 59, 58),
    "never set": 100.0,
}


def window(node: str, wall: float) -> bool:
    """Whether maintenance covers the node by that wall clock."""
    moment = datetime.fromtimestamp(wall, UTC)
    days = (5, 6) if node == "a" else (6,)
    return moment.year > 2000 and moment.weekday() in days and 2 <= moment.hour < 4


def key(node: str) -> bytes:
    return node_key(FLEET_KEY, node)


def address(node: str) -> str:
    return f"10.99.0.{NODES.index(node) + 1}"


_INTERFACES = {"overlay": "tailscale0", "backup": "wg0", THIRD: "wwan0"}
_NETWORKS = {"backup": "10.8.0", THIRD: "10.9.0"}


def lan(node: str) -> str:
    return f"192.168.{NODES.index(node) + 1}.0/24"


@cache
def agent_config(
    node: str,
    nodes: tuple[str, ...],
    reflex: str = "orphaned",
    automatic: bool = True,
    etcd: bool = False,
    paths: tuple[str, ...] = PATHS,
    without: tuple[str, str] | None = None,
) -> agent.Config:
    """`without`: (peer, path): the path leads to every other peer, and not to this one."""
    return agent.Config(
        fleet=FLEET,
        node=node,
        addresses=(ip_address(address(node)),),
        paths=tuple(
            agent.Path(name=path, interface=_INTERFACES[path], metered=True, idle_interval_s=METERED_IDLE_INTERVAL_S)
            if path == THIRD
            else agent.Path(name=path, interface=_INTERFACES[path])
            for path in paths
        ),
        mqtt=agent.Mqtt(brokers=(agent.Broker(host="broker"),)),
        keys_file="",
        peers=tuple(
            agent.Peer(
                name=peer,
                addresses=(ip_address(address(peer)),),
                prefixes=(ip_network(lan(peer)),),
                via={path: (ip_address(f"{_NETWORKS[path]}.{NODES.index(peer) + 1}"),) for path in paths[1:]},
                paths=()
                if without is None or without[0] != peer
                else tuple(path for path in paths if path != without[1]),
            )
            for peer in nodes
            if peer != node
        ),
        reflex=reflex,  # type: ignore[arg-type]
        automatic=automatic,
        etcd=agent.Etcd() if etcd else None,
        checks=tuple(
            agent.Check(name=f"{peer}-api", tcp=f"{address(peer)}:6443", peer=peer) for peer in nodes if peer != node
        ),
    )


@cache
def controller_config(name: str, mode: str = "auto", adopts: bool = True) -> controller.Config:
    return controller.Config(
        fleet=FLEET,
        name=name,
        mqtt=controller.Mqtt(brokers=(controller.Broker(host="broker"),)),
        fleet_key_file="",
        failover=controller.Failover(
            mode=mode,  # type: ignore[arg-type]
            failback_hold_s=FAILBACK_HOLD_S,
            adopt_reflex=adopts,
            windows=WINDOWS,
        ),
        drill=controller.Drill(schedule=DRILLS),
        notify=controller.Notify(
            channel=(controller.Channel(name="people", severities=("unknown", "warning", "critical")),)
        ),
    )
