"""Pictures of fleets for the page: a small one in a bad hour, a calm one, and large ones."""

from __future__ import annotations

import time
from itertools import combinations

from msgspec.structs import replace

from vagus_controller.views import (
    AgentView,
    CheckView,
    DrillPairView,
    DrillView,
    EventEntry,
    FleetView,
    LastDrill,
    LedgerEntry,
    LinkEnd,
    MemberView,
    NodeView,
    PairView,
    PathSetting,
    PathView,
    PauseView,
    PeerSetting,
    PlanView,
    QuorumView,
    Severity,
    StageView,
    Steering,
    StepView,
    VerdictView,
)
from vagus_protocol.messages import (
    Disk,
    DiskIo,
    Etcd,
    Link,
    LinkState,
    Pressure,
    Process,
    Relay,
    Report,
    Service,
    System,
    Tailscale,
    Throttling,
    Verification,
)

# The moment of the pictures, for display only.
AT = time.time()
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def verdict(
    kind: str, subject: str, state: str, severity: Severity, reason: str, *evidence: str, since_s: float = 86_400.0
) -> VerdictView:
    return VerdictView(
        kind=kind,
        subject=subject,
        state=state,
        severity=severity,
        reason=reason,
        evidence=evidence,
        since_s=since_s,
    )


def pi(load1: float, *, temperature_c: float = 52.4, psi: bool = True, memory_used: float = 0.41) -> System:
    """A Raspberry Pi 4 with 4 GiB."""
    total = 3_970_000_000
    return System(
        cores=4,
        load1=load1,
        load5=load1 * 0.8,
        load15=load1 * 0.7,
        uptime_s=1_033_200.0,
        psi_cpu=Pressure(some=min(1.0, load1 / 16)) if psi else None,
        psi_io=Pressure(some=min(1.0, load1 / 60), full=0.0) if psi else None,
        psi_memory=Pressure(some=0.0, full=0.0) if psi else None,
        memory_bytes=total,
        memory_available_bytes=int(total * (1 - memory_used)),
        disks=(Disk(mount="/", used=0.63, free_bytes=11_300_000_000), Disk(mount="/boot", used=0.12, free_bytes=10**8)),
        temperature_c=temperature_c,
        throttling=Throttling(),
        processes=(Process(name="tailscaled", count=1, cpu=0.11, rss_bytes=48_000_000),),
    )


def node(
    name: str,
    site: str,
    system: System | None,
    *,
    load: VerdictView | None = None,
    liveness: VerdictView | None = None,
    report_age_s: float | None = 0.8,
    tailscale: Tailscale | None = None,
    services: tuple[Service, ...] = (),
    drift: tuple[str, ...] = (),
    broker: str = "10.60.0.1:8883",
) -> NodeView:
    return NodeView(
        name=name,
        site=site,
        online=True,
        liveness=liveness or verdict("liveness", name, "fresh", Severity.OK, "reports arrive in time"),
        load=load or verdict("load", name, "calm", Severity.OK, "within its own baseline"),
        version="0.1.0",
        reflex="orphaned",
        addresses=("10.70.0.1", "fd70::1"),
        paths=("overlay", "backup"),
        report_age_s=report_age_s,
        broker=broker,
        reports_lost=0,
        epoch=3,
        generation=12,
        observed={},
        drift=drift,
        report=Report(
            v=1,
            node=name,
            session="s1",
            seq=4711,
            boot_id="b",
            interval_s=2.0,
            system=system,
            tailscale=tailscale or Tailscale(backend_state="Running"),
            services=services,
        )
        if report_age_s is not None
        else None,
    )


def link(peer: str, path: str, rtt_s: float | None, *, state: LinkState = LinkState.UP, loss: float = 0.0) -> Link:
    down = state is LinkState.DOWN
    return Link(
        peer=peer,
        path=path,
        state=state,
        since_s=41.0 if down else 86_400.0,
        reason="6 probes in a row without an answer" if down else "",
        rtt_s=None if down else rtt_s,
        jitter_s=None if down or rtt_s is None else rtt_s * 0.06,
        loss_10s=1.0 if down else loss,
        loss_60s=0.68 if down else loss / 2,
        proven_s=41.0 if down else 0.2,
        peer_state=state,
        relay=(Relay.IDLE if down else Relay.DIRECT) if path == "overlay" else None,
    )


def path_view(
    a: str,
    b: str,
    path: str,
    rtt_s: float,
    *,
    state: LinkState = LinkState.UP,
    found: VerdictView | None = None,
    loss: float = 0.0,
    relay: Relay | None = None,
) -> PathView:
    ends = []
    for here, peer in ((a, b), (b, a)):
        seen = link(peer, path, rtt_s, state=state, loss=loss)
        if relay is not None:
            seen = Link(**{field: getattr(seen, field) for field in Link.__struct_fields__} | {"relay": relay})
        ends.append(LinkEnd(node=here, link=seen))
    down = state is LinkState.DOWN
    return PathView(
        path=path,
        verdict=found
        or verdict("link", f"{a}--{b}/{path}", "up", Severity.OK, "both ends get their answers in time and in order"),
        ends=(ends[0], ends[1]),
        proven=not down,
        unproven=f"no answer for 41 s at {a} and {b}" if down else "",
    )


def pair(a: str, b: str, overlay_s: float, backup_s: float) -> PairView:
    """A pair at home on the overlay, all well."""
    return PairView(
        name=f"{a}--{b}",
        nodes=(a, b),
        assigned="overlay",
        observed=("overlay", "overlay"),
        status="settled",
        origin="default",
        reason="the overlay is up from both ends",
        since_s=266_400.0,
        paths=(path_view(a, b, "overlay", overlay_s), path_view(a, b, "backup", backup_s)),
        drill=LastDrill(at=AT - 3 * 86_400, ok=True, words="backup: done at both ends", gap_s=0.04),
    )


def moved_pair(a: str, b: str, overlay_s: float, backup_s: float) -> PairView:
    """A pair whose overlay is dead and whose traffic is on the backup."""
    dead = verdict(
        "link",
        f"{a}--{b}/overlay",
        "down",
        Severity.CRITICAL,
        "no probe gets through in either direction",
        f"{a}: 6 probes in a row without an answer",
        f"{b}: 6 probes in a row without an answer",
        "Tailscale says online: it speaks of its control connection, not of this path",
        since_s=41.0,
    )
    return PairView(
        name=f"{a}--{b}",
        nodes=(a, b),
        assigned="backup",
        observed=("backup", "backup"),
        status="settled",
        origin="auto",
        reason="the overlay is down from both ends and the backup is proven; home after 60 s of proven overlay",
        since_s=40.6,
        paths=(
            path_view(a, b, "overlay", overlay_s, state=LinkState.DOWN, found=dead),
            path_view(a, b, "backup", backup_s),
        ),
    )


def relayed_pair(a: str, b: str) -> PairView:
    """A pair whose overlay goes by a relay, still carrying."""
    found = verdict(
        "link",
        f"{a}--{b}/overlay",
        "relayed",
        Severity.WARNING,
        "Tailscale carries this pair by a DERP relay, eight times slower than direct",
        since_s=720.0,
    )
    home = pair(a, b, 0.212, 0.031)
    relayed = path_view(a, b, "overlay", 0.212, found=found, loss=0.012, relay=Relay.DERP)
    fields = {field: getattr(home, field) for field in PairView.__struct_fields__}
    return PairView(
        **fields
        | {
            "status": "waiting",
            "since_s": 720.0,
            "reason": "wants the backup, for the overlay is relayed; site lisbon is paused by ines: router swap",
            "paths": (relayed, home.paths[1]),
        }
    )


def quorum(nodes: tuple[str, ...], *, leader: str) -> QuorumView:
    return QuorumView(
        verdict=verdict("quorum", "fleet", "healthy", Severity.OK, "every member answers a linearizable read"),
        leader=leader,
        term=7,
        voters=len(nodes),
        answering=len(nodes),
        margin=(len(nodes) - 1) // 2,
        members=tuple(
            MemberView(
                node=name,
                etcd=Etcd(
                    answering=True, version="3.4.23", term=7, db_bytes=21_300_000, read_s=0.004 + 0.009 * position
                ),
                age_s=0.6,
            )
            for position, name in enumerate(nodes)
        ),
        leader_changes_1h=0,
    )


def fleet_view(
    summary: str,
    severity: Severity,
    nodes: tuple[NodeView, ...],
    pairs: tuple[PairView, ...],
    *,
    quorum_view: QuorumView,
    pauses: tuple[PauseView, ...] = (),
) -> FleetView:
    return FleetView(
        fleet="harbour",
        controller="brain-1",
        version="0.1.0",
        epoch=3,
        mode="auto",
        summary=summary,
        severity=severity,
        observer=verdict(
            "controller",
            "brain-1",
            "connected",
            Severity.OK,
            f"{len(nodes)} of {len(nodes)} nodes report through the broker",
        ),
        broker="127.0.0.1:1883",
        uptime_s=266_500.0,
        at=AT,
        nodes=nodes,
        pairs=pairs,
        quorum=quorum_view,
        pauses=pauses,
    )


def aged(fleet: FleetView, by_s: float) -> FleetView:
    """The same, so much later: what a pair is, it is for longer."""
    return replace(fleet, pairs=tuple(replace(pair, since_s=pair.since_s + by_s) for pair in fleet.pairs))


BERLIN, LISBON, OSAKA, VPS = "pi-berlin", "pi-lisbon", "pi-osaka", "vps-fra"


def calm() -> FleetView:
    """Four nodes, six pairs, all well."""
    nodes = (
        node(BERLIN, "berlin", pi(0.9)),
        node(LISBON, "lisbon", pi(0.4, psi=False)),
        node(OSAKA, "osaka", pi(1.2, temperature_c=58.0)),
        node(VPS, "frankfurt", vps()),
    )
    pairs = (
        pair(BERLIN, LISBON, 0.046, 0.051),
        pair(BERLIN, OSAKA, 0.231, 0.244),
        pair(BERLIN, VPS, 0.0121, 0.0143),
        pair(LISBON, OSAKA, 0.268, 0.281),
        pair(LISBON, VPS, 0.034, 0.038),
        pair(OSAKA, VPS, 0.222, 0.235),
    )
    return fleet_view(
        "4 nodes answer, 6 pairs are on their overlay, etcd has its quorum.",
        Severity.OK,
        nodes,
        pairs,
        quorum_view=quorum((BERLIN, LISBON, OSAKA), leader=BERLIN),
    )


def vps() -> System:
    """A rented machine: no temperature, no firmware flags."""
    return System(
        cores=2,
        load1=0.11,
        load5=0.09,
        load15=0.05,
        uptime_s=7_776_000.0,
        psi_cpu=Pressure(some=0.004),
        psi_io=Pressure(some=0.001, full=0.0),
        psi_memory=Pressure(some=0.0, full=0.0),
        memory_bytes=2_060_000_000,
        memory_available_bytes=1_400_000_000,
        disks=(Disk(mount="/", used=0.31, free_bytes=26_000_000_000),),
    )


def bad_hour() -> FleetView:
    """The calm fleet with Osaka's overlay dead (its traffic moved), a relayed pair and a load spike."""
    still = calm()
    spike = verdict(
        "load",
        OSAKA,
        "spike",
        Severity.WARNING,
        "6.3 tasks per core for 38 s, and they wait for the disk: mmcblk0 is busy 97 %, tailscaled takes 4 %",
        since_s=38.0,
    )
    hot = pi(25.1, temperature_c=81.3, memory_used=0.78)
    fields = {field: getattr(hot, field) for field in System.__struct_fields__}
    slowed = System(**fields | {"throttling": Throttling(undervoltage=True, throttled=True)})
    nodes = (
        still.nodes[0],
        still.nodes[1],
        node(OSAKA, "osaka", slowed, load=spike, tailscale=Tailscale(backend_state="Running")),
        still.nodes[3],
    )
    pairs = (
        still.pairs[0],
        moved_pair(BERLIN, OSAKA, 0.231, 0.244),
        still.pairs[2],
        moved_pair(LISBON, OSAKA, 0.268, 0.281),
        relayed_pair(LISBON, VPS),
        moved_pair(OSAKA, VPS, 0.222, 0.235),
    )
    return fleet_view(
        "The overlay of pi-osaka is down; its 3 pairs moved to the backup 41 s ago, and etcd kept its leader.",
        Severity.WARNING,
        nodes,
        pairs,
        quorum_view=quorum((BERLIN, LISBON, OSAKA), leader=BERLIN),
        pauses=(PauseView(id=4, scope="site", target="lisbon", reason="router swap", who="ines", expires_s=2_520.0),),
    )


def blind() -> FleetView:
    """The calm fleet, as a controller that lost its broker 40 s ago remembers it."""
    seen = verdict(
        "controller", "brain-1", "blind", Severity.CRITICAL, "no broker session for 40 s: connection lost", since_s=40.0
    )
    summary = f"This controller is in doubt about itself: {seen.reason}"
    return replace(calm(), summary=summary, severity=Severity.CRITICAL, observer=seen, broker="")


def standby() -> FleetView:
    """The bad hour, as a controller sees it that stands by."""
    return replace(bad_hour(), controller="brain-2", epoch=0, leads=False, standing="brain-1 leads under epoch 3")


def empty() -> FleetView:
    """A controller that nobody has spoken to yet."""
    nothing = QuorumView(
        verdict=verdict("quorum", "fleet", "none", Severity.UNKNOWN, "no node runs etcd"),
        leader="",
        term=None,
        voters=0,
        answering=0,
        margin=None,
        members=(),
        leader_changes_1h=0,
    )
    return fleet_view("No node has reported yet", Severity.UNKNOWN, (), (), quorum_view=nothing)


def one_from_loss() -> FleetView:
    """The calm fleet with Osaka's member gone, and Lisbon's disk busy."""
    still = calm()
    members = tuple(
        replace(member, etcd=Etcd(answering=False, reason="connection refused")) if member.node == OSAKA else member
        for member in still.quorum.members
    )
    reason = "2 of 3 members read: one more failure loses quorum"
    quorum_view = replace(
        still.quorum,
        verdict=verdict("quorum", "fleet", "at-risk", Severity.WARNING, reason, f"{OSAKA}: connection refused"),
        answering=2,
        margin=0,
        members=members,
    )
    slow = replace(pi(0.4, psi=False), disk_io=(DiskIo(device="mmcblk0", busy=0.97),))
    lisbon = node(LISBON, "lisbon", slow)
    assert lisbon.report is not None
    lisbon = replace(lisbon, report=replace(lisbon.report, seq=lisbon.report.seq + 1))
    nodes = tuple(lisbon if each.name == LISBON else each for each in still.nodes)
    return replace(still, summary="etcd quorum is at risk", severity=Severity.WARNING, nodes=nodes, quorum=quorum_view)


def recommended() -> FleetView:
    """The calm fleet, with a move that waits for a person."""
    still = calm()
    asked = replace(
        relayed_pair(LISBON, VPS),
        status="recommended",
        reason="overlay is relayed; backup is proven and 7 times faster",
    )
    pairs = tuple(asked if each.name == asked.name else each for each in still.pairs)
    return replace(still, summary="One move is recommended", severity=Severity.WARNING, mode="recommend", pairs=pairs)


def stuck() -> FleetView:
    """The calm fleet with a pair whose paths are both dead."""
    still = calm()
    gone = moved_pair(BERLIN, OSAKA, 0.231, 0.244)
    backup = path_view(
        BERLIN,
        OSAKA,
        "backup",
        0.244,
        state=LinkState.DOWN,
        found=verdict("link", f"{BERLIN}--{OSAKA}/backup", "down", Severity.CRITICAL, "no answer", since_s=41.0),
    )
    lost = replace(
        gone,
        assigned="overlay",
        observed=("overlay", "overlay"),
        status="waiting",
        origin="default",
        reason="the overlay is down and the backup is not proven: no answer for 41 s",
        paths=(gone.paths[0], backup),
    )
    pairs = tuple(lost if each.name == lost.name else each for each in still.pairs)
    return replace(still, summary="pi-berlin–pi-osaka cannot move", severity=Severity.CRITICAL, pairs=pairs)


def wide(count: int = 1000, sites: int = 50) -> FleetView:
    """`count` nodes in `sites` sites, each linked to its two neighbours on either side."""
    names = [f"node-{number:04}" for number in range(count)]
    ends = sorted({(min(a, b), max(a, b)) for a in range(count) for b in ((a + 1) % count, (a + 2) % count)})
    return fleet_view(
        f"All is well: {count} nodes, {len(ends)} pairs",
        Severity.OK,
        tuple(node(name, f"site-{number % sites:02}", pi(0.5)) for number, name in enumerate(names)),
        tuple(pair(names[a], names[b], 0.031, 0.036) for a, b in ends),
        quorum_view=quorum(tuple(names[:5]), leader=names[0]),
    )


def one_site(count: int = 100) -> FleetView:
    """`count` nodes that name no site, every pair of them."""
    fleet = large(count, 1, dead=1)
    return replace(fleet, nodes=tuple(replace(node, site="") for node in fleet.nodes))


def as_many_sites(count: int = 100) -> FleetView:
    """`count` nodes, each at a site of its own."""
    fleet = large(count, 1, dead=1)
    return replace(fleet, nodes=tuple(replace(node, site=f"home of {node.name}") for node in fleet.nodes))


def large(count: int = 100, sites: int = 6, *, dead: int = 3) -> FleetView:
    """`count` nodes in `sites` sites, every pair of them, the overlay of the last `dead` nodes down."""
    cities = ("austin", "berlin", "lisbon", "osaka", "quito", "tallinn", "zagreb")[:sites]
    names = [f"{cities[number % sites]}-{number // sites:02}" for number in range(count)]
    lost = set(names[-dead:]) if dead else set()
    return fleet_view(
        f"The overlay of {dead} nodes is down; their pairs moved to the backup.",
        Severity.WARNING,
        tuple(node(name, name.partition("-")[0], pi(0.5)) for name in names),
        tuple((moved_pair if lost & {a, b} else pair)(a, b, 0.031, 0.036) for a, b in combinations(sorted(names), 2)),
        quorum_view=quorum(tuple(names[:5]), leader=names[0]),
    )


def backup_dead() -> FleetView:
    """The calm fleet with the backup of Osaka dead: its traffic is at home."""
    still = calm()

    def without(each: PairView) -> PairView:
        if OSAKA not in each.nodes:
            return each
        found = verdict("link", f"{each.name}/backup", "down", Severity.CRITICAL, "no answer", since_s=41.0)
        return replace(
            each, paths=(each.paths[0], path_view(*each.nodes, "backup", 0.2, state=LinkState.DOWN, found=found))
        )

    return replace(still, severity=Severity.WARNING, pairs=tuple(map(without, still.pairs)))


def silent_node() -> FleetView:
    """The calm fleet with the rented machine gone from all of its peers."""
    still = calm()
    gone = verdict("liveness", VPS, "node down", Severity.CRITICAL, "silent, and no peer reaches it on any path")
    nodes = tuple(replace(each, liveness=gone) if each.name == VPS else each for each in still.nodes)

    def cut(each: PairView) -> PairView:
        if VPS not in each.nodes:
            return each
        found = verdict("link", each.name, "down", Severity.CRITICAL, "no answer", since_s=41.0)
        paths = [path_view(*each.nodes, name, 0.2, state=LinkState.DOWN, found=found) for name in ("overlay", "backup")]
        return replace(each, paths=tuple(paths))

    return replace(still, severity=Severity.CRITICAL, nodes=nodes, pairs=tuple(map(cut, still.pairs)))


def degraded() -> FleetView:
    """The calm fleet with an overlay that loses packets, and still carries."""
    still = calm()
    found = verdict("link", "x", "degraded", Severity.WARNING, "loses 12 % of packets towards pi-lisbon", since_s=41.0)
    ill = path_view(BERLIN, LISBON, "overlay", 0.046, found=found, loss=0.12)
    pairs = tuple(
        replace(each, paths=(ill, each.paths[1])) if each.nodes == (BERLIN, LISBON) else each for each in still.pairs
    )
    return replace(still, severity=Severity.WARNING, pairs=pairs)


def hostile() -> FleetView:
    """Names and reasons that would be markup, if anyone let them."""
    a, b = HOSTILE, "constructor"
    bad = verdict("link", HOSTILE, "constructor", Severity.WARNING, HOSTILE, HOSTILE)
    base = pair(a, b, 0.01, 0.02)
    fields = {field: getattr(base, field) for field in PairView.__struct_fields__}
    odd = PairView(
        **fields
        | {
            "reason": HOSTILE,
            "status": "toString",
            "paths": (path_view(a, b, "overlay", 0.01, found=bad), base.paths[1]),
        }
    )
    return fleet_view(
        HOSTILE,
        Severity.WARNING,
        (
            node(HOSTILE, HOSTILE, None, load=verdict("load", HOSTILE, HOSTILE, Severity.WARNING, HOSTILE)),
            node(b, HOSTILE, None, report_age_s=None, drift=(HOSTILE,)),
        ),
        (odd,),
        quorum_view=quorum((HOSTILE,), leader=HOSTILE),
        pauses=(PauseView(id=1, scope="node", target=HOSTILE, reason=HOSTILE, who=HOSTILE, expires_s=60.0),),
    )


def event(
    number: int, subject: str, text: str, severity: Severity, *, source: str = "", kind: str = "link"
) -> EventEntry:
    return EventEntry(
        id=number,
        at=AT - 100.0 + number,
        source=source or "brain-1",
        kind=kind,
        subject=subject,
        text=text,
        severity=severity,
    )


def events() -> list[EventEntry]:
    """Newest first."""
    return [
        event(9, OSAKA, "load spike: 6.3 tasks per core, and they wait for the disk", Severity.WARNING, kind="load"),
        event(8, f"{OSAKA}--{VPS}", "traffic is on the backup at both ends, 0.31 s after the cut", Severity.INFO),
        event(7, f"{LISBON}--{OSAKA}", "traffic is on the backup at both ends, 0.34 s after the cut", Severity.INFO),
        event(6, f"{BERLIN}--{OSAKA}", "traffic is on the backup at both ends, 0.29 s after the cut", Severity.INFO),
        event(5, f"{LISBON}--{OSAKA}/overlay", "down: no probe gets through in either direction", Severity.CRITICAL),
        event(
            4, OSAKA, "overlay to pi-berlin is suspect, then down after a burst of 5", Severity.WARNING, source=OSAKA
        ),
        event(3, f"{LISBON}--{VPS}/overlay", "relayed: Tailscale goes by a DERP relay", Severity.WARNING),
        event(2, LISBON, "agent started, version 0.1.0", Severity.OK, source=LISBON, kind="agent"),
        event(1, "fleet", "etcd has its quorum: pi-berlin leads in term 7", Severity.OK, kind="quorum"),
    ]


def entry(number: int, action: str, subject: str, reason: str, outcome: str, *, who: str = "brain-1") -> LedgerEntry:
    return LedgerEntry(
        id=number,
        at=AT - 100.0 + number,
        who=who,
        action=action,
        subject=subject,
        reason=reason,
        evidence=("both ends: 6 probes in a row without an answer", "backup: newest answer 0.2 s old at both ends"),
        outcome=outcome,
    )


def checks(pair: str) -> tuple[CheckView, ...]:
    """What the failover policy looks at for a pair on its backup."""
    return (
        CheckView(what="assigned", result="info", text=f"backup (auto, for 40 s): {pair} lost its overlay"),
        CheckView(what="overlay proven", result="block", text="a sees overlay down"),
        CheckView(what="backup proven", result="pass", text="from both ends"),
    )


def plan(path: str, canary: str, other: str) -> PlanView:
    """Two pairs in two stages, the first of them on trial."""
    steps = [StepView(pair=canary, was="overlay", path=path, state="on trial", reason="")]
    rest = [StepView(pair=other, was="overlay", path=path, state="waits", reason="")]
    return PlanView(
        id=7,
        who="ines@desk",
        what=f"switchover of 2 pairs to {path}",
        reason="a new router",
        state="under way",
        stages=(StageView(steps=tuple(steps)), StageView(steps=tuple(rest))),
        checks=("the new path is proven from both ends: 2 of 2 pairs",),
        stops=("a trial that an end does not verify",),
        skipped=("a third pair is assigned to it already",),
        age_s=2.0,
    )


def drill(name: str) -> DrillView:
    """Of one pair, done."""
    done = DrillPairView(
        pair=name, path="backup", state="ok", reason="backup: done at both ends", gap_s=0.04, gap_back_s=0.0
    )
    return DrillView(
        id=3,
        who="ines@desk",
        what=name,
        reason="before the holidays",
        state="done",
        outcome="",
        at=AT - 86_400,
        age_s=86_400.0,
        pairs=(done,),
    )


def ledger() -> list[LedgerEntry]:
    """Newest first."""
    down = "the overlay is down from both ends and the backup is proven"
    return [
        entry(6, "failover", f"{OSAKA}--{VPS}", down, "both ends applied generation 12"),
        entry(5, "failover", f"{LISBON}--{OSAKA}", down, "both ends applied generation 12"),
        entry(4, "failover", f"{BERLIN}--{OSAKA}", down, "both ends applied generation 12"),
        entry(3, "hold", f"{LISBON}--{VPS}", "relayed, but it still answers in time", "not moved"),
        entry(2, "pause", "site lisbon", "router swap", "until 42 min from now", who="ines"),
    ]


def agent(fleet: FleetView, name: str) -> AgentView:
    """What the agent of one of the fleet's nodes is set to do. Raises KeyError."""
    node = {each.name: each for each in fleet.nodes}[name]
    peers = sorted(peer for pair in fleet.pairs if name in pair.nodes for peer in pair.nodes if peer != name)
    return AgentView(
        node=name,
        boot_id="3f1c9a52-7a7e-4c0e-9d53-1f8e1c2d7b60",
        version=node.version,
        reflex=node.reflex,
        automatic=True,
        etcd_member=any(member.node == name for member in fleet.quorum.members),
        paths=(
            PathSetting(name="overlay", metered=False, idle_interval_s=0.25),
            PathSetting(name="backup", metered=name == LISBON, idle_interval_s=2.0 if name == LISBON else 0.25),
        ),
        peers=tuple(
            PeerSetting(
                name=peer,
                addresses=(f"10.70.0.{number}", f"fd70::{number}"),
                prefixes=("192.168.40.0/24",) if peer == OSAKA else (),
                paths=("overlay", "backup"),
            )
            for number, peer in enumerate(peers, start=2)
        ),
        steering=Steering(
            state="applied",
            reason="",
            reflex={},
            trials={
                peer: Verification(path="backup", epoch=3, generation=12, state="verified")
                for peer in peers
                if name == OSAKA
            },
        ),
    )
