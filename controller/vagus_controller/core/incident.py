"""One incident: its troubles, its timeline, and how it reads."""

from __future__ import annotations

import heapq
from typing import Final, Literal

import msgspec

from vagus_controller.core import chain
from vagus_controller.core.causes import SHARE, Cause, Key, Trouble, between, link_of, own_cause, some_of
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.verdict import RANK
from vagus_controller.views import IncidentBrief, IncidentStep, IncidentView, NoteView, Severity, TroubleView

# From bad to worse: what a title says of many.
_BADNESS: Final = (
    *("up", "unproven", "riding-backup", "relayed", "overloaded", "reordering", "slow", "degraded", "one-way-loss"),
    *("black-hole", "one-way", "direct-but-dead", "down"),
)
_LINK_WORDS: Final = {
    "down": "is dead",
    "one-way": "works one way only",
    "direct-but-dead": "is dead",
    "degraded": "is degraded",
    "relayed": "is relayed",
    "riding-backup": "rides the backup network",
    "overloaded": "is slow, since an end is overloaded",
    "reordering": "reorders packets",
    "slow": "is slower than usual",
    "one-way-loss": "loses packets one way",
    "black-hole": "swallows large packets",
    "unproven": "is not proven",
    "up": "is hindered",
}
_NODE_WORDS: Final = {
    "node down": "is down",
    "cut off": "is cut off from the controller",
    "unknown": "is silent",
    "offline": "is offline: its agent was stopped",
    "rebooted": "rebooted without a goodbye",
    "duplicate": "is two agents of one name",
    "cloned": "is a clone of another machine",
}
# A timeline keeps its beginning and its newest lines.
_MOST_STEPS: Final = 200
_FIRST_STEPS: Final = 20
_MOST_NOTES: Final = 100
_MOST_TROUBLES: Final = 50
_NAMED: Final = 3

StepKind = Literal["verdict", "action", "person", "incident"]
State = Literal["open", "over", "resolved", "merged"]


class Lasting(msgspec.Struct, kw_only=True):
    """What of an incident survives a restart; durations instead of moments. `id` 0: not news yet."""

    id: int = 0
    cause: Cause
    state: State = "open"
    at: float = 0.0
    ended_at: float | None = None
    worst: Severity = Severity.OK
    title: str = ""
    # how bad it was at its worst, its cause, and how much of it; and how it read then
    peak: tuple[int, int, int] = (0, 0, 0)
    peak_title: str = ""
    peak_why: str = ""
    peak_doubts: tuple[str, ...] = ()
    # what came of what, and what the evidence does not decide
    why: str = ""
    doubts: tuple[str, ...] = ()
    did: str = ""
    reopened: int = 0
    acknowledged_by: str = ""
    acknowledged_at: float | None = None
    resolved_by: str = ""
    resolution: str = ""
    # how bad it was when a person resolved it
    resolved_as: Severity = Severity.OK
    merged_into: int | None = None
    timeline: list[IncidentStep] = []
    notes: list[NoteView] = []


class Incident:
    """`opened`: monotonic, its first trouble; `moved`: pairs whose traffic was off its first path meanwhile."""

    def __init__(self, cause: Cause, now: float, at: float) -> None:
        self.kept = Lasting(cause=cause, at=at)
        self.opened = now
        self.ended: float | None = None
        self.troubles: dict[Key, Trouble] = {}
        self.pairs: set[tuple[str, str]] = set()
        self.moved: set[tuple[str, str]] = set()
        # since the last time that all of it was over, for how long that must be so
        self.quiet_since: float | None = None
        self.severity = Severity.OK
        # of what is bad, how much is the cause
        self.causes = 0
        # whether vagus moved something for it, and whether it is more than it was when a person resolved it
        self.acted = False
        self.joined = False
        self.changed = False
        # (kind, what) → the steps that are told as one
        self._steps: dict[tuple[StepKind, str], list[IncidentStep]] = {}

    @property
    def cause(self) -> Cause:
        return self.kept.cause

    @property
    def is_open(self) -> bool:
        return self.kept.state == "open" and self.kept.id != 0

    def bad(self) -> list[Trouble]:
        return [trouble for trouble in self.troubles.values() if trouble.over is None]

    def is_cause(self, trouble: Trouble) -> bool:
        if self.cause.scope == "apart":
            return self.cause.parts(trouble.key)
        return self.cause in trouble.scopes or own_cause(trouble.key) == self.cause

    def take(self, trouble: Trouble) -> None:
        self.joined = self.joined or trouble.key not in self.troubles
        self.troubles[trouble.key] = trouble
        if trouble.key[0] in ("link", "stuck"):
            self.pairs.add(link_of(trouble.key[1])[0])
        self.changed = True

    def _clock(self, moment: float) -> str:
        return chain.time_of_day(self.kept.at + moment - self.opened)

    def weigh(self, fleet: Fleet) -> None:
        """Bring severity, title and explanation up to date."""
        bad = self.bad()
        if not bad:
            if self.kept.id and not self.kept.title:
                every = list(self.troubles.values())
                self.kept.title = self._title(every)
                self.kept.why = chain.why(self.cause, every, self.is_cause, self._clock)
            return
        self.severity = max((trouble.severity for trouble in bad), key=RANK.index)
        self.causes = sum(map(self.is_cause, bad))
        self.kept.worst = max(self.kept.worst, self.severity, key=RANK.index)
        if self.kept.id:
            kept = self.kept
            kept.title = self._title(bad)
            if not kept.why or all(trouble.verdict is not None for trouble in bad):
                # Else it was told before a restart, and what was said then stands.
                kept.why = chain.why(self.cause, bad, self.is_cause, self._clock)
                kept.doubts = chain.doubts(fleet, self.cause, bad, self.is_cause)
            causes = [RANK.index(trouble.severity) for trouble in bad if self.is_cause(trouble)]
            height = (RANK.index(self.severity), max(causes, default=0), len(bad))
            # What is left when its cause is over may be worse, and is not what it is remembered by.
            if (bool(causes), *height) >= (kept.peak[1] > 0, *kept.peak):
                kept.peak, kept.peak_title = height, self._title(bad, whole=bool(causes))
                kept.peak_why, kept.peak_doubts = kept.why, kept.doubts

    def conclude(self) -> None:
        """It is over, and is called what it was."""
        kept = self.kept
        kept.title, kept.why = kept.peak_title or kept.title, kept.peak_why or kept.why
        kept.doubts = kept.peak_doubts
        self.changed = True

    def become(self, other: Incident) -> None:
        """Go on as the other one, which people know, with our own cause."""
        ours, self.kept = self.kept, msgspec.structs.replace(other.kept, cause=self.kept.cause)
        if ours.cause != other.cause:
            self.kept.peak = (0, 0, 0)
        self.kept.worst = max(ours.worst, self.kept.worst, key=RANK.index)
        other.kept = msgspec.structs.replace(other.kept, id=0)
        self.opened = min(self.opened, other.opened)
        self.moved |= other.moved
        self.changed = True

    def adopt_steps(self, other: Incident) -> None:
        """Take over what the other one, which nobody knows, had to tell."""
        for key, steps in other._steps.items():
            self._steps.setdefault(key, []).extend(steps)
        self.kept.at = min(self.kept.at, other.kept.at)

    # --- by a person ---------------------------------------------------------------------------------------------

    def resolve(self, who: str, note: str, now: float, at: float) -> None:
        kept = self.kept
        kept.state, kept.resolved_by, kept.resolution, kept.resolved_as = "resolved", who, note, self.severity
        kept.ended_at, self.ended, self.joined = at, now, False
        self.step("person", "resolved", self.cause.subject, f"resolved by {who}: {note}", Severity.INFO, at)

    def reopen(self) -> None:
        kept = self.kept
        kept.state, kept.reopened, kept.ended_at, self.ended = "open", kept.reopened + 1, None, None
        kept.acknowledged_by, kept.acknowledged_at, kept.resolved_by, kept.resolution = "", None, "", ""

    def worse_than_resolved(self) -> bool:
        return bool(self.bad()) and (self.joined or RANK.index(self.severity) > RANK.index(self.kept.resolved_as))

    # --- the timeline --------------------------------------------------------------------------------------------

    def step(self, kind: StepKind, what: str, subject: str, text: str, severity: Severity, at: float) -> None:
        """`what`: steps of one tick with the same are told as one."""
        step = IncidentStep(at=at, kind=kind, subject=subject, text=text, severity=severity)
        self._steps.setdefault((kind, what), []).append(step)
        self.changed = True

    def told(self, trouble: Trouble, at: float) -> None:
        """A trouble is new, or another than it was."""
        kind, subject = trouble.key
        reason = trouble.verdict.reason if trouble.verdict is not None else ""
        self.step("verdict", f"{kind} {trouble.state}", subject, f"{trouble.state}: {reason}", trouble.severity, at)

    def tell(self) -> None:
        """Put the steps since the last time onto the timeline."""
        for (_, what), steps in self._steps.items():
            first = steps[0]
            if len(steps) > _NAMED:
                subjects = list(dict.fromkeys(step.subject for step in steps))
                text = f"{what}: {some_of(subjects)}; the first: {first.text}"
                worst = max((step.severity for step in steps), key=RANK.index)
                steps = [msgspec.structs.replace(first, subject=self.cause.subject, text=text, severity=worst)]
            self.kept.timeline += steps
        self._steps.clear()
        if len(self.kept.timeline) > _MOST_STEPS:
            del self.kept.timeline[_FIRST_STEPS : _FIRST_STEPS + len(self.kept.timeline) - _MOST_STEPS]

    def write(self, text: str, who: str, at: float) -> None:
        self.kept.notes.append(NoteView(at=at, who=who, text=text))
        del self.kept.notes[:-_MOST_NOTES]
        self.changed = True

    # --- showing -------------------------------------------------------------------------------------------------

    def view(self, now: float) -> IncidentView:
        kept = self.kept
        shown = heapq.nsmallest(_MOST_TROUBLES, self.troubles.values(), key=self._order)
        return IncidentView(
            id=kept.id,
            at=kept.at,
            subject=kept.cause.subject,
            title=kept.title,
            severity=self.severity if kept.state == "open" else kept.worst,
            worst=kept.worst,
            state=kept.state,
            cause=kept.cause.view(),
            why=kept.why,
            doubts=kept.doubts,
            did=kept.did,
            duration_s=max((now if self.ended is None else self.ended) - self.opened, 0.0),
            ended_at=kept.ended_at,
            reopened=kept.reopened,
            acknowledged_by=kept.acknowledged_by,
            acknowledged_at=kept.acknowledged_at,
            resolved_by=kept.resolved_by,
            resolution=kept.resolution,
            merged_into=kept.merged_into,
            troubles=tuple(self._shown(trouble, now) for trouble in shown),
            troubles_total=len(self.troubles),
            causes_total=sum(map(self.is_cause, self.troubles.values())),
            timeline=tuple(kept.timeline),
            notes=tuple(kept.notes),
        )

    def brief(self, now: float) -> IncidentBrief:
        kept = self.kept
        return IncidentBrief(
            id=kept.id,
            title=kept.title,
            severity=self.severity,
            at=kept.at,
            age_s=max(now - self.opened, 0.0),
            cause=kept.cause.view(),
            did=kept.did,
            troubles=sum(trouble.over is None for trouble in self.troubles.values()),
            causes=self.causes,
            acknowledged_by=kept.acknowledged_by,
        )

    def _order(self, trouble: Trouble) -> tuple[bool, bool, int]:
        return (trouble.over is not None, not self.is_cause(trouble), -RANK.index(trouble.severity))

    def _shown(self, trouble: Trouble, now: float) -> TroubleView:
        return TroubleView(
            kind=trouble.key[0],
            subject=trouble.key[1],
            state=trouble.state,
            severity=trouble.severity,
            reason=trouble.verdict.reason if trouble.verdict is not None else "not told again since the restart",
            since_s=max(now - trouble.began, 0.0),
            over=trouble.over is not None,
            is_cause=self.is_cause(trouble),
        )

    def _title(self, bad: list[Trouble], *, whole: bool = False) -> str:
        """`whole`: as if nothing of its cause were over."""
        causes = [trouble for trouble in bad if self.is_cause(trouble)]
        of = sum(map(self.is_cause, self.troubles.values()))
        if whole or len(causes) > 1 or of == len(causes) > 0:
            title = words(self.cause, causes)
            if not whole and len(causes) < SHARE * of:
                title += f" ({len(causes)} of {of} are left)"
        else:
            worst = max(bad, key=lambda trouble: RANK.index(trouble.severity))
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            left = words(own_cause(worst.key), [worst])
            return f"{left}{more}, left over when this had ended: {words(self.cause, [])}"
        quorum = next((trouble for trouble in bad if trouble.key[0] == "quorum"), None)
        if quorum is not None and self.cause.kind != "quorum":
            title += f", and {words(own_cause(quorum.key), [quorum])}"
        stuck = sum(trouble.key[0] == "stuck" and trouble.state == "stuck" for trouble in bad)
        # Nothing can be moved to a node that is dead: that is no trouble of its own.
        if stuck and self.cause.kind not in ("stuck", "liveness"):
            title += f", and {count(stuck, 'pair')} cannot move"
        cut_off = [trouble.key[1] for trouble in bad if trouble.state == "cut off"]
        if cut_off and self.cause.kind != "liveness":
            title += f", and {some_of(cut_off)} {'is' if len(cut_off) == 1 else 'are'} cut off from the controller"
        return title


def words(cause: Cause, troubles: list[Trouble]) -> str:
    """The cause in a few words; `troubles`: those of it that last, none when it is over."""
    state = troubles[0].state if troubles else ""
    if cause.kind == "link":
        found = max((trouble.state for trouble in troubles), key=_badness, default="")
        how = _LINK_WORDS.get(found, "was in trouble")
        path = cause.path or "every path"
        if cause.scope == "pair":
            return f"{path} between {' and '.join(cause.target.split('--'))} {how}"
        if cause.scope == "fleet":
            return f"{path} {how} everywhere"
        if cause.scope in ("sites", "apart"):
            return f"{path} {between(cause)} {how}"
        return f"{path} of {'site ' if cause.scope == 'site' else ''}{cause.target} {how}"
    if cause.kind == "liveness":
        if cause.scope == "node":
            return f"{cause.target} {_NODE_WORDS.get(state, 'away')}"
        nodes = sum(trouble.key[0] == "liveness" for trouble in troubles)
        return f"site {cause.target} is down" + (f": {count(nodes, 'node')}" if nodes else "")
    if cause.kind == "load":
        if cause.scope == "node":
            return f"load spike on {cause.target}"
        where = f"at site {cause.target}" if cause.scope == "site" else "all over the fleet"
        return f"load spikes {where}" + (f", on {count(len(troubles), 'node')}" if troubles else "")
    if cause.kind == "stuck" and state == "unfit":
        return f"the standby of {' and '.join(cause.target.split('--'))} failed its drill"
    if cause.kind == "stuck":
        return f"traffic between {' and '.join(cause.target.split('--'))} cannot move"
    if cause.kind == "controller":
        return "the controller is blind"
    if state == "healthy":
        reason = troubles[0].verdict.reason if troubles[0].verdict is not None else ""
        # What is wrong comes after how it stands.
        what = reason.partition("; ")[2].partition("; ")[0].partition(" (")[0]
        return f"etcd needs attention: {what}" if what else "etcd needs attention"
    return f"etcd quorum is {state.replace('-', ' ')}" if state else "etcd quorum in trouble"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _badness(state: str) -> int:
    return _BADNESS.index(state) if state in _BADNESS else -1
