"""What the API, the page and vagusctl show: read-only pictures of the fleet, built by the daemon from its state.

Times: `*_s` are ages or durations in seconds when the picture was taken; `at` is wall-clock epoch seconds, for display.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, Literal, NamedTuple, Protocol

from msgspec import Struct

from vagus_protocol.messages import Etcd, Link, Report, Verification

Pair = tuple[str, str]


class View(Struct, frozen=True, kw_only=True, gc=False):
    """A JSON object of the API. Not traced by the garbage collector: it has no cycles, and a picture has very many."""


class Severity(StrEnum):
    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


class VerdictView(View, frozen=True, kw_only=True):
    """A detector's finding. `kind`: liveness, controller, link, quorum, load. `subject`: node, pair/path or fleet."""

    kind: str
    subject: str
    state: str
    severity: Severity
    reason: str
    evidence: tuple[str, ...] = ()
    since_s: float


class NodeView(View, frozen=True, kw_only=True):
    """`drawn_s`: how long ago it was so, and its ages count from then; 0 but in the first picture of a stream."""

    name: str
    site: str
    online: bool
    liveness: VerdictView
    load: VerdictView
    version: str
    reflex: str
    addresses: tuple[str, ...]
    paths: tuple[str, ...]
    report_age_s: float | None
    broker: str
    reports_lost: int
    epoch: int
    generation: int
    # peer → path that the node's kernel uses now (observed)
    observed: dict[str, str]
    drift: tuple[str, ...]
    # the last report as it came, None before the first
    report: Report | None
    drawn_s: float = 0.0


class PathSetting(View, frozen=True, kw_only=True):
    """A path that a node offers. `idle_interval_s`: from one probe of an idle link to the next."""

    name: str
    metered: bool
    idle_interval_s: float


class PeerSetting(View, frozen=True, kw_only=True):
    name: str
    addresses: tuple[str, ...]
    # behind the peer, and moved with it
    prefixes: tuple[str, ...]
    paths: tuple[str, ...]


class Steering(View, frozen=True, kw_only=True):
    """What became of the assignments that a node was told: applied, refused or failed, and why. `reflex`: peer → the
    path that the agent put it on by itself; `trials`: peer → its last trial."""

    state: str
    reason: str
    reflex: dict[str, str]
    trials: dict[str, Verification]


class AgentView(View, frozen=True, kw_only=True):
    """What the agent of a node is set to do, as it was born with; `steering` None: it has not told yet.

    `automatic`: vagus may move its pairs by itself. `reflex`: when it moves them alone: orphaned, always, off."""

    node: str
    boot_id: str
    version: str
    reflex: str
    automatic: bool
    etcd_member: bool
    paths: tuple[PathSetting, ...]
    peers: tuple[PeerSetting, ...]
    steering: Steering | None


class LinkEnd(View, frozen=True, kw_only=True):
    """One end's view of one path of a pair; `link` None: this end has not told."""

    node: str
    link: Link | None


class PathView(View, frozen=True, kw_only=True):
    path: str
    verdict: VerdictView
    ends: tuple[LinkEnd, LinkEnd]
    # proven from both ends in the last seconds; `unproven` says why not, "" when it is
    proven: bool
    unproven: str
    # of the slower end: a cut is found as much later at most; None: neither has told
    idle_interval_s: float | None = None
    metered: bool = False


class LastDrill(View, frozen=True, kw_only=True):
    """A pair's last drill. `at`: wall-clock epoch seconds, 0: not known. `gap_s`: the longest gap that either end
    measured, out or back, 0: none that could be told; None: not measured, or not `ok`. `unfit`: it was not `ok` since
    the standby did not carry what it must; else something else ended it."""

    at: float
    ok: bool
    words: str
    gap_s: float | None
    unfit: bool = False


class PairView(View, frozen=True, kw_only=True):
    """`name` is "a--b", a < b. `assigned`: what the controller wants; `observed`: what a's and b's kernels do.
    `drawn_s`: as of a node."""

    name: str
    nodes: tuple[str, str]
    assigned: str
    observed: tuple[str, str]
    # settled, moving, waiting (wants to move, blocked by `reason`), recommended (a person must approve), held (by hand)
    status: str
    origin: Literal["default", "auto", "operator", "reflex"]
    reason: str
    since_s: float
    paths: tuple[PathView, ...]
    drill: LastDrill | None = None
    drawn_s: float = 0.0


class MemberView(View, frozen=True, kw_only=True):
    node: str
    etcd: Etcd | None
    age_s: float | None


class QuorumView(View, frozen=True, kw_only=True):
    verdict: VerdictView
    leader: str
    term: int | None
    voters: int
    answering: int
    # how many more members may fail before quorum is lost; None when unknown
    margin: int | None
    members: tuple[MemberView, ...]
    leader_changes_1h: int


class PauseView(View, frozen=True, kw_only=True):
    id: int
    scope: Literal["fleet", "site", "node"]
    target: str
    reason: str
    who: str
    expires_s: float


class StepView(View, frozen=True, kw_only=True):
    """One pair of a plan. `state`: waits, on trial, confirmed, rolled back, refused, not begun, taken out (it was moved
    otherwise); `reason` says more."""

    pair: str
    was: str
    path: str
    state: str
    reason: str


class StageView(View, frozen=True, kw_only=True):
    """Pairs that go on trial together; the next stage begins when all of them are confirmed."""

    steps: tuple[StepView, ...]


class PlanView(View, frozen=True, kw_only=True):
    """A plan of moves. `id` 0: nothing but a rehearsal. `what` in words; `outcome`: why it stopped, "" when it did not.

    `checks`: what must hold, and how it is now; `stops`: what would end it early; `skipped`: pairs that were asked for
    and have nothing to do, with the reason.
    """

    id: int
    who: str
    what: str
    reason: str
    state: Literal["dry run", "under way", "done", "stopped"]
    outcome: str = ""
    urgent: bool = False
    stages: tuple[StageView, ...]
    checks: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    age_s: float = 0.0


class PlanAsk(Struct, frozen=True, kw_only=True):
    """Pairs to move to `path`; "": each to its first path. Either `pairs` by name, or all pairs with an end in the
    `scope`: the fleet, or the site or node that `target` names. `force`: also where the path is not proven; needs a
    reason. `dry_run`: only say what would be done."""

    path: str = ""
    pairs: tuple[str, ...] = ()
    scope: Literal["", "fleet", "site", "node"] = ""
    target: str = ""
    reason: str = ""
    force: bool = False
    dry_run: bool = False


class DrillAsk(Struct, frozen=True, kw_only=True):
    """The pair "a--b" that `target` names, all pairs with an end at the site that it names, or the whole fleet."""

    scope: Literal["pair", "site", "fleet"]
    target: str = ""
    reason: str = ""


class DrillPairView(View, frozen=True, kw_only=True):
    """One pair of a drill. `state`: waits, out (by `path`), back (on trial by its first path), ok, aborted, skipped,
    not begun. Gaps in seconds, on the way out and back; 0: none that could be told; None: not measured."""

    pair: str
    path: str
    state: str
    reason: str
    gap_s: float | None
    gap_back_s: float | None


class DrillView(View, frozen=True, kw_only=True):
    """A drill; `outcome`: why it stopped, "" when it did not. `what`: the pair, a site, or the fleet."""

    id: int
    who: str
    what: str
    reason: str
    state: Literal["under way", "done", "stopped"]
    outcome: str
    at: float
    age_s: float
    pairs: tuple[DrillPairView, ...]


class CauseView(View, frozen=True, kw_only=True):
    """What an incident comes of. `kind`: controller, liveness, link, load, quorum, stuck (a pair that must move and
    cannot, or could not in its last drill). `scope` and `target`: a pair, a node, a site by name, or the fleet, whose
    target is ""; "sites": two sites, "x--y", and what lies between them; "apart": groups of nodes, "a--b,c", that do
    not reach one another. `path`: of a link, and "" there is every path."""

    kind: Literal["controller", "liveness", "link", "load", "quorum", "stuck"]
    scope: Literal["pair", "node", "site", "fleet", "sites", "apart"]
    target: str
    path: str


class TroubleView(View, frozen=True, kw_only=True):
    """A bad verdict in an incident: `is_cause`, or a consequence of the cause. `over`: not bad any more."""

    kind: str
    subject: str
    state: str
    severity: Severity
    reason: str
    since_s: float
    over: bool
    is_cause: bool


class IncidentStep(View, frozen=True, kw_only=True):
    """A line of an incident's timeline: a verdict that changed, what vagus did or decided not to do, what a person did,
    or what became of the incident itself. `at`: wall-clock epoch seconds."""

    at: float
    kind: Literal["verdict", "action", "person", "incident"]
    subject: str
    text: str
    severity: Severity


class NoteView(View, frozen=True, kw_only=True):
    at: float
    who: str
    text: str


class IncidentBrief(View, frozen=True, kw_only=True):
    """An open incident in short. `did`: what vagus did about it, in words; "" for nothing. `troubles`: how many of its
    verdicts are bad now, and `causes`: how many of these are its cause; the others are consequences."""

    id: int
    title: str
    severity: Severity
    at: float
    age_s: float
    cause: CauseView
    did: str
    troubles: int
    causes: int = 1
    acknowledged_by: str


class IncidentView(View, frozen=True, kw_only=True):
    """Verdicts that share a cause. `at`: when it opened. `subject`: what it is about, as verdicts name it.

    `state`: open; over (by itself: all its verdicts are); resolved (by a person, with the reason in `resolution`);
    merged (it was part of the incident `merged_into`). `why`: what came of what, as a chain in words, cause first;
    `doubts`: what the evidence does not decide, and what would. `severity`: the worst of what is bad now, and of one
    that is not open the worst that it was, as `worst` is for all. `troubles`: cause first, the worst first, at most 50
    of `troubles_total`, of which `causes_total` are the cause (None: an older controller wrote it). `reopened`: how
    often it came back.
    """

    id: int
    at: float
    subject: str
    title: str
    severity: Severity
    worst: Severity
    state: Literal["open", "over", "resolved", "merged"]
    cause: CauseView
    why: str = ""
    doubts: tuple[str, ...] = ()
    did: str
    duration_s: float
    ended_at: float | None = None
    reopened: int = 0
    acknowledged_by: str = ""
    acknowledged_at: float | None = None
    resolved_by: str = ""
    resolution: str = ""
    merged_into: int | None = None
    troubles: tuple[TroubleView, ...] = ()
    troubles_total: int = 0
    causes_total: int | None = None
    timeline: tuple[IncidentStep, ...] = ()
    notes: tuple[NoteView, ...] = ()


class ChannelView(View, frozen=True, kw_only=True):
    """Where people are told of incidents; never its URL. `service`: Apprise's name of what it is; `state`: idle until
    something was sent; `failure`: why the last attempt failed; `waiting`: notices that are not sent yet; `dropped`:
    those that were too many; `quiet`: the quiet hours that it is in, in words, or ""."""

    name: str
    service: str
    severities: tuple[str, ...]
    kinds: tuple[str, ...]
    sites: tuple[str, ...]
    repeat_s: float
    quiet: str
    state: Literal["idle", "works", "fails"]
    waiting: int
    sent: int
    failed: int
    dropped: int
    last_sent_at: float | None
    last_failed_at: float | None
    failure: str


class NotificationTest(View, frozen=True, kw_only=True):
    """Whether a test notice was taken; `detail` says what the service said, or how long it was waited for."""

    channel: str
    delivered: bool
    detail: str


class FleetView(View, frozen=True, kw_only=True):
    """The whole picture, one object: GET /api/v1/fleet and the first SSE message (there a node's report is without its
    links, which are in `pairs`, and nodes and pairs are as they were told last, `drawn_s` ago)."""

    fleet: str
    controller: str
    version: str
    epoch: int
    mode: Literal["auto", "recommend"]
    # one sentence that says how the fleet is
    summary: str
    severity: Severity
    # the controller's own view of itself: its broker session and whether it is blind
    observer: VerdictView
    broker: str
    uptime_s: float
    at: float
    nodes: tuple[NodeView, ...]
    pairs: tuple[PairView, ...]
    quorum: QuorumView
    pauses: tuple[PauseView, ...]
    # those that are open, the worst first, at most 1000
    incidents: tuple[IncidentBrief, ...] = ()
    # whether this controller decides, and why it does or does not: of several one leads, the others stand by
    leads: bool = True
    standing: str = ""


class FleetChange(View, frozen=True, kw_only=True):
    """What is another since the picture that was sent before. `head`: a FleetView without nodes and pairs; `nodes` and
    `pairs`: those that changed, or came; `gone_nodes` and `gone_pairs`: names of those that are not there any more."""

    head: FleetView
    nodes: tuple[NodeView, ...] = ()
    pairs: tuple[PairView, ...] = ()
    gone_nodes: tuple[str, ...] = ()
    gone_pairs: tuple[str, ...] = ()


class Canvas(Protocol):
    """The fleet at one moment, drawn in parts. Names and pairs are sorted."""

    @property
    def head(self) -> FleetView:
        """Without nodes and pairs."""

    @property
    def names(self) -> Sequence[str]: ...
    @property
    def pairs(self) -> Sequence[Pair]: ...
    def node(self, name: str) -> NodeView: ...
    def pair(self, pair: Pair) -> PairView: ...
    def stirred(self, since: int) -> tuple[Iterable[str], Iterable[Pair], int]:
        """Nodes and pairs that may have changed in kind since an earlier call gave that number, and the next number."""


class EventEntry(View, frozen=True, kw_only=True):
    """A line of history: an agent's event or a change of verdict."""

    id: int
    at: float
    source: str
    kind: str
    subject: str
    text: str
    severity: Severity


# Actions of the ledger that say nothing about the fleet: who came and went, and what became of users and tokens.
ABOUT_PERSONS: Final = ("sign-in", "sign-out", "accounts")


class LedgerEntry(View, frozen=True, kw_only=True):
    """A decision, also one not to act. `action`: failover, failback, switchover, adopt, revert, hold, recommend, plan,
    drill, pause, resume, refuse, acknowledge, note, resolve, test; or one of `ABOUT_PERSONS`."""

    id: int
    at: float
    who: str
    action: str
    subject: str
    reason: str
    evidence: tuple[str, ...]
    outcome: str


class CheckView(View, frozen=True, kw_only=True):
    """One thing that the failover policy looks at; `info` neither passes nor blocks."""

    what: str
    result: Literal["pass", "block", "info"]
    text: str


class WhyView(View, frozen=True, kw_only=True):
    """Everything that explains a subject: what is found now, what was decided, what happened. Newest first.

    `checks`: of a pair, what the failover policy looks at for it now, in its order. `incidents`: the open ones that it
    is part of.
    """

    subject: str
    verdicts: tuple[VerdictView, ...]
    pairs: tuple[PairView, ...]
    checks: tuple[CheckView, ...] = ()
    incidents: tuple[IncidentView, ...] = ()
    ledger: list[LedgerEntry]
    events: list[EventEntry]


def concerns(subject: str, wanted: str) -> bool:
    """Whether a row about `subject` answers a question about `wanted`: with a node its pairs, with a pair its paths."""
    pair = subject.partition("/")[0]
    return wanted in (subject, pair) or pair.startswith(f"{wanted}--") or pair.endswith(f"--{wanted}")


class Refused(Exception):
    """An operator's request that is not done: says why and what to do instead."""


class Operator(Protocol):
    """What the API may ask of the daemon; all of it runs in the daemon's event loop and returns at once.

    Commands raise `Refused`; unknown names raise `KeyError(name)`.
    """

    def fleet(self) -> FleetView: ...
    def canvas(self) -> Canvas: ...
    def agent(self, node: str) -> AgentView: ...
    def explain(self, pair: str) -> tuple[CheckView, ...]: ...
    def switchover(self, pair: str, path: str, *, who: str, reason: str, force: bool = False) -> LedgerEntry: ...
    def failback(self, pair: str, *, who: str, reason: str) -> LedgerEntry: ...
    def approve(self, pair: str, *, who: str, reason: str) -> LedgerEntry: ...
    def plan(self, ask: PlanAsk, *, who: str) -> PlanView: ...
    def plans(self) -> tuple[PlanView, ...]: ...
    def drill(self, ask: DrillAsk, *, who: str) -> DrillView: ...
    def drills(self) -> tuple[DrillView, ...]: ...
    def pause(self, scope: str, target: str, *, who: str, reason: str, for_s: float) -> PauseView: ...
    def resume(self, pause_id: int, *, who: str) -> None: ...
    def incidents(self) -> tuple[IncidentView, ...]: ...
    def incident(self, incident_id: int) -> IncidentView: ...
    def acknowledge(self, incident_id: int, *, who: str) -> IncidentView: ...
    def note(self, incident_id: int, text: str, *, who: str) -> IncidentView: ...
    def resolve(self, incident_id: int, note: str, *, who: str) -> IncidentView: ...
    def channels(self) -> tuple[ChannelView, ...]: ...
    async def test_channel(self, name: str, *, who: str) -> NotificationTest: ...


class Wanted(NamedTuple):
    """Which entries of history, newest first: at most `limit`, with ids below `before`, about `subject` (see
    `concerns`), not before `since` and before `until`, in epoch seconds."""

    limit: int
    before: int | None = None
    subject: str | None = None
    since: float | None = None
    until: float | None = None

    def takes(self, entry: EventEntry | LedgerEntry | IncidentView) -> bool:
        """Whether it is one of them, as far as it can tell without the others."""
        return (
            (self.before is None or entry.id < self.before)
            and (self.subject is None or concerns(entry.subject, self.subject))
            and (self.since is None or entry.at >= self.since)
            and (self.until is None or entry.at < self.until)
        )


class History(Protocol):
    """What the API reads from the store, newest first."""

    def events(self, wanted: Wanted) -> list[EventEntry]: ...
    def ledger(self, wanted: Wanted) -> list[LedgerEntry]: ...
    def incidents(self, wanted: Wanted) -> list[IncidentView]: ...
    def incident(self, incident_id: int) -> IncidentView | None: ...


class Change(Struct, frozen=True):
    """A line of history for the SSE stream: `topic` is event, ledger or incident; `data` the matching view."""

    id: int
    topic: Literal["event", "ledger", "incident"]
    data: EventEntry | LedgerEntry | IncidentView
