"""The agent's configuration: its shape and every default. Loading and its error messages: `config_file.py`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

from msgspec import Struct

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the TOML file; unknown keys are errors."""


class Path(Section, frozen=True, kw_only=True):
    """A network between nodes. The order in the file is the order of the rungs: the first is the default."""

    name: str
    interface: str
    # Seconds between idle probes. Detection is bounded by one of these plus the burst; bytes per day grow with 1/it.
    idle_interval_s: float = 0.25
    # LTE and the like: slower idle probes (where idle_interval_s is left out) and rarer reports.
    metered: bool = False
    # The path's own networks: an overlay endpoint inside another path's networks means "riding the backup".
    networks: tuple[Network, ...] = ()


class Peer(Section, frozen=True, kw_only=True):
    name: str
    # The peer's service addresses (/32, /128).
    addresses: tuple[Address, ...]
    # Prefixes behind the peer (a site's LAN): they ride the same ladder.
    prefixes: tuple[Network, ...] = ()
    # path → the peer's own addresses in that network (at most one a family): `via … onlink`. A path without an entry
    # is routed by its interface alone.
    via: dict[str, tuple[Address, ...]] = {}
    # The paths to this peer; empty: all.
    paths: tuple[str, ...] = ()


class Broker(Section, frozen=True, kw_only=True):
    """Tried in order: backup first, then public, then overlay."""

    host: str
    port: int = 1883
    tls: bool = False
    # The peer that the broker lives on and the path that this address uses, when the prober can tell of its death.
    peer: str = ""
    path: str = ""


class Mqtt(Section, frozen=True, kw_only=True):
    brokers: tuple[Broker, ...]
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    protocol: Literal["5", "3.1.1"] = "5"
    # Events kept while no broker is reachable; the oldest are dropped and counted.
    backlog: int = 500


class Probe(Section, frozen=True, kw_only=True):
    port: int = 5180
    # RFC 6298: timeout = srtt + max(floor, 4 × rttvar), not above the cap. A first miss only starts the burst, so the
    # floor may be low.
    timeout_floor_s: float = 0.02
    timeout_cap_s: float = 1.0
    # The burst that confirms: all of `burst` probes lost → down. P(false down) ≈ loss ** burst, at each end.
    burst: int = 5
    burst_interval_s: float = 0.008
    # How long the last burst probe is waited for; raising it tolerates a larger RTT step, and delays detection by it.
    confirm_floor_s: float = 0.08
    # Successes in a row before a link that was down is up again.
    up_after: int = 5
    # Loss over 60 s at which an up link is degraded, and below which it is not any more.
    degraded_enter_loss: float = 0.04
    degraded_exit_loss: float = 0.015


class Steering(Section, frozen=True, kw_only=True):
    enabled: bool = True
    table: int = 5180
    priority: int = 5180
    protocol: int = 118
    # Packets with this mark skip our rule (Tailscale's own, and the backup's own when it carries it).
    mark: int = 0x80000
    mask: int = 0xFF0000
    recheck_s: float = 30.0
    # After a move, forget the connections whose source was translated to the address of the path that was left.
    flush_conntrack: bool = False


class Etcd(Section, frozen=True, kw_only=True):
    endpoint: str = "127.0.0.1:2379"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    username: str = ""
    password_file: str = ""
    interval_s: float = 2.0
    timeout_s: float = 2.0


class Tailscale(Section, frozen=True, kw_only=True):
    # The path whose peers Tailscale carries.
    path: str = "overlay"
    socket: str = "/var/run/tailscale/tailscaled.sock"
    interval_s: float = 5.0
    timeout_s: float = 2.0


class Check(Section, frozen=True, kw_only=True):
    """A service check from our service address: exactly one of tcp ("host:port") and http (a URL)."""

    name: str
    tcp: str = ""
    http: str = ""
    status: int = 200
    # For https: the authority that signed the service's certificate; empty: the system's.
    ca_file: str = ""
    # The peer whose service this is, when it is one's.
    peer: str = ""
    interval_s: float = 10.0
    timeout_s: float = 2.0


class Report(Section, frozen=True, kw_only=True):
    interval_s: float = 2.0
    processes: tuple[str, ...] = ("tailscaled", "etcd", "k3s")
    mounts: tuple[str, ...] = ("/",)


class Config(Section, frozen=True, kw_only=True):
    fleet: str
    node: str
    addresses: tuple[Address, ...]
    paths: tuple[Path, ...]
    mqtt: Mqtt
    # A TOML file, mode 0600, with `node` and `probe`: 64 hex digits each (vagus-controller node-keys prints it).
    keys_file: str
    site: str = ""
    peers: tuple[Peer, ...] = ()
    state_dir: str = "/var/lib/vagus-agent"
    # When the agent may override a peer by itself: no controller, at any time, never.
    reflex: Literal["orphaned", "always", "off"] = "orphaned"
    # Seconds without any broker or leading controller before the agent counts as orphaned.
    orphaned_after_s: float = 5.0
    # Whether the controller may move this node's pairs by itself. What a person asks for is done in any case, and what
    # an agent did alone is taken over and brought home.
    automatic: bool = True
    # What becomes of overrides on a clean stop.
    on_stop: Literal["keep", "clear"] = "keep"
    probe: Probe = Probe()
    steering: Steering = Steering()
    report: Report = Report()
    etcd: Etcd | None = None
    tailscale: Tailscale | None = None
    checks: tuple[Check, ...] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def paths_to(self, peer: Peer) -> tuple[Path, ...]:
        """The paths to `peer`, in rung order."""
        return tuple(path for path in self.paths if not peer.paths or path.name in peer.paths)


# Idle interval of a metered path whose configuration names none.
METERED_IDLE_INTERVAL_S = 5.0
# Reports are this many times rarer while the broker is reached by a metered path.
METERED_REPORT_FACTOR = 5
