"""The controller's configuration: its shape and every default. Loading and its error messages: `config_file.py`."""

from __future__ import annotations

from pathlib import Path
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


class Oidc(Section, frozen=True, kw_only=True):
    """Signing in by an OpenID Connect provider."""

    issuer: str
    client_id: str
    # Mode 0600; empty: a public client.
    client_secret_file: str = ""
    # The provider's authority; empty: the system's own.
    ca_file: str = ""
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    # The claim, a text or a list, whose values say what somebody is; "email" counts when the provider verified it.
    claim: str = "email"
    operators: tuple[str, ...] = ()
    # "*": everybody whom the provider lets in.
    viewers: tuple[str, ...] = ()


class StatusGroup(Section, frozen=True, kw_only=True):
    """A line of the public status page."""

    # What readers see of it.
    name: str
    nodes: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()


class PublicStatus(Section, frozen=True, kw_only=True):
    """The page /status, for everybody and without signing in. Nothing but this is shown there."""

    title: str
    group: tuple[StatusGroup, ...] = ()
    # For what share of so many days each group's nodes reported; 0: not shown.
    uptime_days: Literal[0, 30, 90] = 0
    # Titles of open incidents: they name nodes, sites and paths.
    incidents: bool = False


class Http(Section, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: int = 8118
    # Under which people and links reach the page, such as "https://vagus.example.org".
    url: str = ""
    # Addresses of the reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
    proxies: tuple[str, ...] = ()
    # A file with the operator's bearer token; made with a random one (mode 0600) when it is missing.
    token_file: str = "/var/lib/vagus-controller/token"
    # Where users, API tokens and sessions are kept; empty: beside `token_file`.
    accounts_dir: str = ""
    # The password of the user `operator`, mode 0600; empty: a random one is told at the first start.
    password_file: str = ""
    # A session ends when it was not used for so long (an open page uses it), and in any case after `session_s`.
    session_idle_s: float = 86_400.0
    session_s: float = 604_800.0
    oidc: Oidc | None = None
    # None: there is no such page.
    public_status: PublicStatus | None = None

    @property
    def accounts(self) -> Path:
        return Path(self.accounts_dir or Path(self.token_file).parent)


class Store(Section, frozen=True, kw_only=True):
    # SQLite by file, or postgresql://user@host/name.
    url: str = "sqlite:////var/lib/vagus-controller/vagus.db"
    # Older rows go, and the oldest go first when the rows are more than this.
    keep_days: float = 90.0
    keep_rows: int = 500_000


class History(Section, frozen=True, kw_only=True):
    # Figures for charts, beside the store. How long they are kept as they came (one in ten seconds), as lowest, mean
    # and highest of a minute, and of an hour.
    raw_hours: float = 2.0
    minute_days: float = 7.0
    hour_days: float = 400.0
    # Of all of it, megabytes; beyond, the oldest goes sooner. A node with eight links takes 2 to 4.
    max_mb: float = 1000.0


class Liveness(Section, frozen=True, kw_only=True):
    # In report intervals of the node: later than this is late, silent.
    late_intervals: float = 2.5
    silent_intervals: float = 5.0
    # The share of nodes silent at once at which the observer doubts itself.
    blind_share: float = 0.6


class Load(Section, frozen=True, kw_only=True):
    # Tasks (runnable and blocked) per core, above the node's own baseline, that are no evidence yet; what is more is
    # summed up. A node with calm hours is held to 0.9 of it, one with bursts to 1.1 times as much, a noisy one to more.
    enter_per_core: float = 1.4
    exit_per_core: float = 0.8
    # A load of twice `enter_per_core` is a spike after so many seconds, a greater one sooner. Raising it, and the time
    # for the end, trades speed for silence.
    enter_for_s: float = 4.0
    exit_for_s: float = 20.0


class Damping(Section, frozen=True, kw_only=True):
    # A move of a pair costs a penalty of 1000, a death of its first path while it waits to go home 500; above
    # `suppress` it stays where it is (though never on a dead path) until the penalty is below `reuse`. These two are
    # what routers take (RFC 7196). The half-life is not their 15 minutes: what is damped here is two nodes,
    # not the Internet, and the doubled hold remembers longer. Raising it keeps a flapping pair away from home for
    # longer after the last flap.
    suppress: float = 2000.0
    reuse: float = 750.0
    half_life_s: float = 300.0
    # A pair is damped for this at most after its last flap.
    longest_s: float = 3600.0
    # The hold before failback doubles up to this, each time that a failback did not last as long as this.
    longest_hold_s: float = 3600.0


class Quality(Section, frozen=True, kw_only=True):
    # Leaving a path that carries traffic, but badly. A person decides by default: the figures are noisier than a dead
    # path is, the backup is often metered, and waiting costs some speed, not the connection. Between two etcd members
    # waiting costs the cluster's leader, and its timers say what is too much: there it is done.
    mode: Literal["off", "recommend", "auto"] = "recommend"
    members: Literal["off", "recommend", "auto"] = "auto"
    # Seconds of trouble, and of a better path, before it counts; between members ten election timeouts if that is less.
    for_s: float = 30.0
    # The share by which another path must be faster: the time within which 99 of 100 small messages are answered.
    margin: float = 0.3
    # Trouble is: loss over 60 s (between members half of it) …
    loss_enter: float = 0.05
    loss_exit: float = 0.02
    # … a round trip of so many times the path's usual one, and 30 ms above it …
    rtt_enter: float = 2.0
    rtt_exit: float = 1.5
    # … jitter …
    jitter_enter_s: float = 0.05
    jitter_exit_s: float = 0.03
    # … a relay in the way.
    relayed: bool = True
    # When more than this share of all pairs would move for it within the window of moves, none does.
    most_share: float = 0.25
    # As in etcd's --heartbeat-interval and --election-timeout: what the members' round trips must keep below.
    etcd_heartbeat_s: float = 0.1
    etcd_election_s: float = 1.0


class Window(Section, frozen=True, kw_only=True):
    # Nothing moves by itself at these times, UTC: "sun 02:00-04:00", "mon-fri 22:00-06:00", "* 03:00-03:30".
    at: str
    reason: str
    scope: Literal["fleet", "site", "node"] = "fleet"
    # The site's or node's name.
    target: str = ""


class Failover(Section, frozen=True, kw_only=True):
    mode: Literal["auto", "recommend"] = "auto"
    # Seconds of proven overlay before traffic goes home by itself; longer for one that did not last at home.
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
    damping: Damping = Damping()
    quality: Quality = Quality()
    # Maintenance.
    windows: tuple[Window, ...] = ()


class Drill(Section, frozen=True, kw_only=True):
    # Rehearse the failover and failback of every pair at these times: a cron expression in UTC, such as "0 4 * * 0".
    # Empty: only when a person asks for it.
    schedule: str = ""


class HomeAssistant(Section, frozen=True, kw_only=True):
    # Tell Home Assistant, by its MQTT discovery, of the fleet's health, quorum, nodes and pairs.
    enabled: bool = False
    # Its discovery prefix.
    prefix: str = "homeassistant"


class Channel(Section, frozen=True, kw_only=True):
    """Where people are told of incidents."""

    name: str
    # An Apprise URL, or a file with it, mode 0600: whoever knows it can write there.
    url: str = ""
    url_file: str = ""
    # What is told there: by severity, by the kind of the cause (empty: every), by site (empty: all; what is about the
    # whole fleet is told everywhere).
    severities: tuple[Literal["unknown", "warning", "critical"], ...] = ("warning", "critical")
    kinds: tuple[Literal["controller", "liveness", "link", "load", "quorum", "stuck"], ...] = ()
    sites: tuple[str, ...] = ()
    # At these times, UTC, as a window's `at`, only this is told; the rest is told afterwards, if it still lasts.
    quiet: tuple[str, ...] = ()
    quiet_severities: tuple[Literal["unknown", "warning", "critical"], ...] = ("critical",)
    # What lasts and nobody has acknowledged is told again each time that so much has passed; 0: never.
    repeat_s: float = 14_400.0
    # Whether it is told that an incident is over.
    recovery: bool = True


class Notify(Section, frozen=True, kw_only=True):
    channel: tuple[Channel, ...] = ()


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
    history: History = History()
    liveness: Liveness = Liveness()
    load: Load = Load()
    failover: Failover = Failover()
    drill: Drill = Drill()
    home_assistant: HomeAssistant = HomeAssistant()
    notify: Notify = Notify()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
