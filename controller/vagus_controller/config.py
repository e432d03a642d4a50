"""The controller's configuration: its shape and every default. Loading and its error messages: `config_file.py`."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the TOML file; unknown keys are errors."""


class Broker(Section, frozen=True, kw_only=True):
    host: str
    port: int = 1883
    tls: bool = False


class Mqtt(Section, frozen=True, kw_only=True):
    brokers: tuple[Broker, ...]
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    protocol: Literal["5", "3.1.1"] = "5"


class Http(Section, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: int = 8118
    # A file with the operator's bearer token; made with a random one (mode 0600) when it is missing.
    token_file: str = "/var/lib/vagus-controller/token"


class Store(Section, frozen=True, kw_only=True):
    # SQLAlchemy URL; PostgreSQL works too.
    url: str = "sqlite:////var/lib/vagus-controller/vagus.db"
    # Older rows go, and the oldest go first when the rows are more than this.
    keep_days: float = 90.0
    keep_rows: int = 500_000


class Liveness(Section, frozen=True, kw_only=True):
    # In report intervals of the node: later than this is late, silent.
    late_intervals: float = 2.5
    silent_intervals: float = 5.0
    # The share of nodes silent at once at which the observer doubts itself.
    blind_share: float = 0.6


class Load(Section, frozen=True, kw_only=True):
    # Tasks (runnable and blocked) per core, above the node's own baseline, that count as pressure; and the floor.
    enter_per_core: float = 1.5
    exit_per_core: float = 0.8
    # Seconds of evidence: raising them trades speed for silence.
    enter_for_s: float = 4.0
    exit_for_s: float = 20.0


class Failover(Section, frozen=True, kw_only=True):
    mode: Literal["auto", "recommend"] = "auto"
    # Seconds of proven overlay before traffic goes home by itself.
    failback_hold_s: float = 60.0
    # A standby is proven when its newest reply at both ends is younger.
    proven_within_s: float = 5.0
    # How long one end's "down" waits for the other end's word.
    confirm_within_s: float = 1.0
    # Automatic moves in the window, over the whole fleet, before a person must look.
    max_moves: int = 200
    moves_window_s: float = 600.0
    # Seconds quorum must be lost before impaired overlay links between members are moved.
    quorum_lost_for_s: float = 3.0
    # Overrides that agents made alone: taken over, or sent home when their reason is gone.
    adopt_reflex: bool = True


class Config(Section, frozen=True, kw_only=True):
    fleet: str
    name: str
    mqtt: Mqtt
    # 64 hex digits, mode 0600; `vagus-controller new-key FILE` makes one.
    fleet_key_file: str
    # Nodes that should be there; a report from another one is refused. Empty: every node that the broker lets in.
    nodes: tuple[str, ...] = ()
    http: Http = Http()
    store: Store = Store()
    liveness: Liveness = Liveness()
    load: Load = Load()
    failover: Failover = Failover()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
