"""Every MQTT payload, as a struct.

Conventions: durations are seconds (`_s`), sizes bytes, shares 0..1; absent is None, never 0. Only durations travel:
a node's wall clock is not trusted. Every payload carries `v`; unknown fields are ignored, so N and N-1 talk.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

VERSION = 1

# A name must be one MQTT topic level and a file or unit name on disk, and no part of it may look like the "--" between
# the names of a pair. `$` alone also matches before a final newline. Written so that matching is quick: a report has a
# dozen names.
NAME_PATTERN = r"^(?!.*--)[a-z0-9][a-z0-9._-]{0,62}(?<![._-])$(?!\n)"
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Text = Annotated[str, Meta(max_length=1024)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# Numbers are bounded so that whoever computes with a stranger's report can neither overflow nor meet an infinity.
Number = Annotated[float, Meta(ge=-1e12, le=1e12)]
Seconds = Annotated[float, Meta(ge=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True, gc=False):
    """A part of a payload. Not traced by the garbage collector: it has no cycles, and a controller keeps very many."""


class Payload(Message, frozen=True, kw_only=True):
    """A whole payload of one topic."""

    v: Literal[1]


# --- presence ------------------------------------------------------------------------------------------------------


class PathOffer(Message, frozen=True, kw_only=True):
    """A path that this node has, in the order of its rungs (the first is the default)."""

    name: Name
    metered: bool = False
    idle_interval_s: Seconds = 0.2


class PeerOffer(Message, frozen=True, kw_only=True):
    """A peer in this node's configuration: what the controller may assign, nothing else."""

    name: Name
    addresses: tuple[str, ...]
    paths: tuple[Name, ...]
    prefixes: tuple[str, ...] = ()


class Presence(Payload, frozen=True, kw_only=True):
    """Birth, clean goodbye, or the last will (`online=False, reason="connection lost"`)."""

    node: Name
    session: Text
    online: bool
    boot_id: Text = ""
    version: Text = ""
    site: Text = ""
    addresses: tuple[str, ...] = ()
    paths: tuple[PathOffer, ...] = ()
    peers: tuple[PeerOffer, ...] = ()
    reflex: Literal["orphaned", "always", "off"] = "orphaned"
    # Whether the controller may move this node's pairs by itself.
    automatic: bool = True
    etcd_member: bool = False
    reason: Text = ""
    # A hash of /etc/machine-id, which two machines share when one's disk was copied from the other's.
    machine: Text = ""


# --- report --------------------------------------------------------------------------------------------------------


class LinkState(StrEnum):
    UNKNOWN = "unknown"
    UP = "up"
    DEGRADED = "degraded"
    SUSPECT = "suspect"
    DOWN = "down"


class Relay(StrEnum):
    """How Tailscale carries a peer. `idle` says nothing about the path (see TRAPS: empty CurAddr = DERP or idle)."""

    DIRECT = "direct"
    PEER_RELAY = "peer-relay"
    DERP = "derp"
    IDLE = "idle"
    RIDING_BACKUP = "riding-backup"


class Link(Message, frozen=True, kw_only=True):
    """One peer over one path, as the sender sees it."""

    peer: Name
    path: Name
    state: LinkState
    since_s: Seconds = 0.0
    reason: Text = ""
    rtt_s: Seconds | None = None
    jitter_s: Seconds | None = None
    # Of idle probes; of a link that carries, since it came up: an outage that is over is not loss.
    loss_10s: Share | None = None
    loss_60s: Share | None = None
    # Age of the newest reply: the standby's proof.
    proven_s: Seconds | None = None
    # The peer's own view of this link, from its probes; None: never heard.
    peer_state: LinkState | None = None
    relay: Relay | None = None
    current: bool = False
    # What on this node keeps the path from carrying traffic, with the remedy; "" when nothing is known to.
    obstacle: Text = ""
    # Probes since the agent's start: sent to the peer, heard from it, and of these those that came after a later one.
    # Together both ends' tell which direction loses.
    sent: Count = 0
    heard: Count = 0
    reordered: Count = 0
    # For so long none of our packets as large as traffic's was answered, while small ones are; None: they are.
    large_lost_s: Seconds | None = None


class Pressure(Message, frozen=True, kw_only=True):
    """PSI averages over 10 s, shares 0..1. None where the kernel has PSI off (Raspberry Pi: `psi=1`)."""

    some: Share
    full: Share | None = None


class Disk(Message, frozen=True, kw_only=True):
    mount: Text
    used: Share
    free_bytes: Count


class DiskIo(Message, frozen=True, kw_only=True):
    device: Text
    busy: Share | None = None
    read_bps: Number = 0.0
    write_bps: Number = 0.0
    await_s: Seconds | None = None


class Throttling(Message, frozen=True, kw_only=True):
    """Raspberry Pi firmware flags (get_throttled): now, and since boot."""

    undervoltage: bool = False
    frequency_capped: bool = False
    throttled: bool = False
    soft_temp_limit: bool = False
    undervoltage_since_boot: bool = False
    throttled_since_boot: bool = False


class Process(Message, frozen=True, kw_only=True):
    """Share of one core and resident bytes of all processes of one name."""

    name: Text
    count: Count
    cpu: Annotated[float, Meta(ge=0, le=1e6)]
    rss_bytes: Count


class System(Message, frozen=True, kw_only=True):
    """The machine. CPU shares are of all cores together. `active_mean`: tasks that ran or were blocked, of the moments
    since the last report at which they were counted. `busiest`: who takes the CPU, of all processes, while it is at
    load."""

    cores: Annotated[int, Meta(ge=1, le=2**16)]
    load1: Seconds
    load5: Seconds
    load15: Seconds
    uptime_s: Seconds
    runnable: Count | None = None
    blocked: Count | None = None
    active_mean: Seconds | None = None
    cpu_user: Share | None = None
    cpu_system: Share | None = None
    cpu_iowait: Share | None = None
    cpu_steal: Share | None = None
    cpu_idle: Share | None = None
    psi_cpu: Pressure | None = None
    psi_io: Pressure | None = None
    psi_memory: Pressure | None = None
    memory_bytes: Count | None = None
    memory_available_bytes: Count | None = None
    swap_bytes: Count | None = None
    swap_used_bytes: Count | None = None
    disks: tuple[Disk, ...] = ()
    disk_io: tuple[DiskIo, ...] = ()
    net_errors: Count | None = None
    net_drops: Count | None = None
    # Since boot; `tcp_segments`: all that were sent.
    tcp_retransmits: Count | None = None
    tcp_segments: Count | None = None
    temperature_c: Number | None = None
    throttling: Throttling | None = None
    processes: tuple[Process, ...] = ()
    busiest: tuple[Process, ...] = ()


class EtcdMember(Message, frozen=True, kw_only=True):
    id: Text
    name: Text
    peer_urls: tuple[str, ...] = ()
    learner: bool = False


class Certificate(Message, frozen=True, kw_only=True):
    """What the member shows at `where` (host:port). `expires_s` by the node's own clock, below 0 when it is over; None:
    not known. `missing`: the service address that it should name and does not."""

    where: Text
    expires_s: Number | None = None
    missing: Text = ""


class Etcd(Message, frozen=True, kw_only=True):
    """The node's own member. `answering=False`: reason says why; the rest is absent."""

    answering: bool
    reason: Text = ""
    # Age of this observation: a frozen member's last answer gets old, it does not vanish.
    age_s: Seconds = 0.0
    # How old it may get while all is well: by how often the member is asked, and how long its answers are waited for.
    patience_s: Seconds = 8.0
    # What its data belong to: members of two clusters are no quorum, whatever their ids.
    cluster_id: Text = ""
    version: Text = ""
    member_id: Text = ""
    leader_id: Text = ""
    term: Count | None = None
    raft_index: Count | None = None
    applied_index: Count | None = None
    db_bytes: Count | None = None
    learner: bool = False
    alarms: tuple[Text, ...] = ()
    members: tuple[EtcdMember, ...] = ()
    # Latency of a linearizable read; None: it failed, `read_error` says how.
    read_s: Seconds | None = None
    read_error: Text = ""
    certificates: tuple[Certificate, ...] = ()


class Tailscale(Message, frozen=True, kw_only=True):
    backend_state: Text
    health: tuple[Text, ...] = ()
    key_expires_s: Number | None = None
    error: Text = ""


class Service(Message, frozen=True, kw_only=True):
    name: Text
    ok: bool
    peer: Text = ""
    latency_s: Seconds | None = None
    reason: Text = ""


class Report(Payload, frozen=True, kw_only=True):
    node: Name
    session: Text
    seq: Count
    boot_id: Text
    interval_s: Seconds
    # How late the agent's own event loop ran, worst of this interval.
    lag_s: Seconds = 0.0
    system: System | None = None
    links: tuple[Link, ...] = ()
    etcd: Etcd | None = None
    tailscale: Tailscale | None = None
    services: tuple[Service, ...] = ()
    epoch: Count = 0
    generation: Count = 0
    # `seq` of the newest event at that time: what comes with a lower one is older than this report.
    event_seq: Count = 0
    dropped_events: Count = 0
    broker: Text = ""


# --- event ---------------------------------------------------------------------------------------------------------


class EventKind(StrEnum):
    LINK = "link"
    STEERING = "steering"
    DRIFT = "drift"
    REFLEX = "reflex"
    REFUSED = "refused"
    TRIAL = "trial"
    ETCD = "etcd"
    SERVICE = "service"
    TAILSCALE = "tailscale"
    UPLINK = "uplink"
    AGENT = "agent"


class Event(Payload, frozen=True, kw_only=True):
    node: Name
    session: Text
    seq: Count
    kind: EventKind
    text: Text
    # Somebody should look.
    warning: bool = False
    age_s: Seconds = 0.0
    peer: Text = ""
    path: Text = ""
    # For kind=link: every link to that peer at this moment, so that one event is enough to decide on.
    links: tuple[Link, ...] = ()


# --- desired and observed ------------------------------------------------------------------------------------------


Origin = Literal["default", "auto", "operator", "reflex"]


class Assignment(Message, frozen=True, kw_only=True):
    """The path to a peer. `trial`: apply and verify it, and go back to the last confirmed path unless the same path
    comes without `trial` within the desired's `confirm_within_s`. `drill`: a trial that is a rehearsal; the agent
    measures the gap that traffic sees. `origin`: who wanted it, for a controller that takes over."""

    path: Name
    reason: Text = ""
    origin: Origin = "default"
    trial: bool = False
    drill: bool = False


class Desired(Payload, frozen=True, kw_only=True):
    """The body that is signed. `assignments`: peer → path; a peer that is not named takes its first path. `session`:
    the controller's, of this life. `orders`: the generation of its standing orders then, so that whoever takes over
    knows older ones."""

    fleet: Name
    node: Name
    controller: Name
    session: Text = ""
    epoch: Count
    generation: Count
    assignments: dict[Name, Assignment]
    orders: Count = 0
    confirm_within_s: Seconds = 10.0


class ObservedState(StrEnum):
    APPLIED = "applied"
    REFUSED = "refused"
    FAILED = "failed"


class Verification(Message, frozen=True, kw_only=True):
    """What became of a trial of (epoch, generation): packets over the kernel's own route came back on `path`.

    `reverted`: it was not confirmed in time, and the last confirmed path carries the peer again. `failed_checks`: the
    service checks with this peer that fail over the new path, and did not before. `gap_s`: of a drill, the longest that
    a packet by the kernel's own route, sent again every 20 ms, waited for its answer beyond the usual round trip; 0:
    less than these 20 ms; None: not known (yet).
    """

    path: Name
    epoch: Count
    generation: Count
    state: Literal["pending", "verified", "failed", "reverted"]
    reason: Text = ""
    failed_checks: tuple[Text, ...] = ()
    gap_s: Seconds | None = None


class Observed(Payload, frozen=True, kw_only=True):
    """What the kernel does now, and the last (epoch, generation) that was accepted."""

    node: Name
    session: Text
    epoch: Count
    generation: Count
    state: ObservedState
    # peer → path that the kernel's own route lookup answers with, or "" when it answers with none of ours
    paths: dict[Name, str] = {}
    # peer → the path that the agent put it on by itself
    reflex: dict[Name, str] = {}
    # peer → its last trial, until another decision replaces it
    verifications: dict[Name, Verification] = {}
    reason: Text = ""
    drift: tuple[Text, ...] = ()
    # the (epoch, generation) that was refused, when state is "refused"
    refused_epoch: Count = 0
    refused_generation: Count = 0


class ControllerPresence(Payload, frozen=True, kw_only=True):
    controller: Name
    session: Text
    online: bool
    leader: bool = False
    epoch: Count = 0
    version: Text = ""
    mode: Text = ""


# --- standing orders -----------------------------------------------------------------------------------------------


class PauseOrder(Message, frozen=True, kw_only=True):
    """`left_s`: how long it still lasted when this was said."""

    id: Count
    scope: Literal["fleet", "site", "node"]
    left_s: Seconds
    target: Text = ""
    reason: Text = ""
    who: Text = ""


class StepOrder(Struct, frozen=True, array_like=True, gc=False):
    """A pair and the path that it shall take; an array, since there may be thousands."""

    a: Name
    b: Name
    path: Name
    origin: Origin


class PlanOrder(Message, frozen=True, kw_only=True):
    """A plan of many pairs that is under way. `steps`: the pairs that are not known to have arrived, on trial or not;
    `done` of `count` have. `what` in words. No steps: there were too many to be told."""

    who: Text
    what: Text
    reason: Text = ""
    automatic: bool = False
    force: bool = False
    count: Count
    done: Count = 0
    steps: tuple[StepOrder, ...] = ()


class DrillOrder(Message, frozen=True, kw_only=True):
    """A drill that is under way. `pair`: the one that is drilled, "" between two."""

    who: Text
    what: Text
    reason: Text = ""
    pair: Text = ""
    count: Count
    done: Count = 0


class Orders(Payload, frozen=True, kw_only=True):
    """What stands for the whole fleet, for a controller that takes over; signed, and retained by the one that leads.
    Ordered by (epoch, generation), with generations of its own."""

    fleet: Name
    controller: Name
    session: Text = ""
    epoch: Count
    generation: Count
    pauses: tuple[PauseOrder, ...] = ()
    plan: PlanOrder | None = None
    drill: DrillOrder | None = None
