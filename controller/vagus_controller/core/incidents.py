"""Bad verdicts become incidents: one for each cause, with everything that comes of it inside.

A trouble (`causes.py`) is in exactly one incident while it lasts; `homes.py` says in which.

A cause is often known later than its consequences: a node is silent for 10 s before it is called down, and its links
are dead for 9 of them. So an incident is no news (has no id) before it has lasted `SETTLE_S`, and while a node that is
in it has not been heard since nor been judged. While the controller doubts itself nothing but that is an incident.

It is over when all of it has been for `HOLD_S`. The same cause again within `REOPEN_S` is the same incident, and is
then held for twice as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from vagus_controller.core.causes import Key, Trouble, judge, link_of
from vagus_controller.core.failover import Failover
from vagus_controller.core.fleet import Fleet, Pair
from vagus_controller.core.homes import Homes
from vagus_controller.core.incident import Incident, Lasting, State, count
from vagus_controller.core.verdict import RANK, Verdict, seconds
from vagus_controller.views import IncidentBrief, IncidentView, LedgerEntry, Refused, Severity

# Raising it finds more consequences before anybody is woken; lowering it tells sooner.
SETTLE_S: Final = 5.0
# Nobody waits for a word longer than this: a metered node may report every 5 minutes.
SETTLE_MOST_S: Final = 30.0
HOLD_S: Final = 30.0
HOLD_MOST_S: Final = 900.0
REOPEN_S: Final = 900.0
# Leader changes are counted over five minutes: that there were none is known no sooner after a restart.
_CHURN_S: Final = 300.0
# A trouble that was over for longer is another one when it begins again.
_SAME_S: Final = 30.0
# How long one that has ended can still be noted upon, and takes in what vagus does late (going home).
_KEPT_S: Final = 3600.0
_MOST_KEPT: Final = 200
_MOST_SHOWN: Final = 1000
_ACTION_WAITS_S: Final = 10.0
_MOST_ACTIONS: Final = 10_000
# Troubles that one tick looks at since they began, some 50 µs each: thousands begin at one moment when a network dies.
_MOST_NEW: Final = 500
_MOVES: Final = ("failover", "failback", "switchover", "adopt", "revert")
_ACTIONS: Final = (*_MOVES, "hold", "recommend", "refuse")
_LOUD: Final = (Severity.WARNING, Severity.CRITICAL)


class _SavedTrouble(msgspec.Struct, array_like=True):
    kind: str
    subject: str
    state: str
    severity: Severity
    age_s: float
    over_s: float | None


class _SavedIncident(msgspec.Struct):
    kept: Lasting
    age_s: float
    quiet_s: float | None
    ended_s: float | None
    troubles: list[_SavedTrouble]
    moved: list[Pair]


class Incidents:
    """`new_id`: for one that becomes news, greater than what it is given. `members`: the nodes whose etcd votes;
    `missing`: those of them that are no part of a quorum. `unfit`: the pairs whose standby did not stand its last
    drill, and why."""

    def __init__(
        self,
        fleet: Fleet,
        failover: Failover,
        members: Callable[[], frozenset[str]],
        new_id: Callable[[int], int],
        unfit: Callable[[], Mapping[Pair, str]],
        missing: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._fleet = fleet
        self._failover = failover
        self._members = members
        self._new_id = new_id
        self._newest = 0
        self._homes = Homes(fleet, failover, members, missing)
        # id → one that has ended, the oldest first
        self._ended: dict[int, Incident] = {}
        self._pending: dict[Key, Verdict] = {}
        # troubles of an earlier life that are not known to be over so soon, what was said of them, and since when
        self._churned: set[Key] = set()
        self._early: dict[Key, Verdict] = {}
        self._restored_at = -math.inf
        self._actions: list[tuple[float, LedgerEntry]] = []
        self._late: set[str] = set()
        self._unfit = unfit
        # pair's name → "stuck" or "unfit"
        self._stuck: dict[str, str] = {}
        self._in_doubt = True
        self._topology = 0
        self._changed: dict[int, Incident] = {}

    # --- what comes in -------------------------------------------------------------------------------------------

    def verdicts(self, news: Iterable[Verdict]) -> None:
        for verdict in news:
            self._pending[(verdict.kind, verdict.subject)] = verdict

    def acted(self, entry: LedgerEntry, now: float) -> None:
        """A line of the ledger that is new, or whose outcome is."""
        if entry.action in _ACTIONS and "--" in entry.subject and len(self._actions) < _MOST_ACTIONS:
            self._actions.append((now, entry))

    def tick(self, now: float, at: float) -> list[IncidentView]:
        """Those that are news, or that changed. `at`: wall-clock epoch seconds, only for display."""
        began: list[Trouble] = []
        if self._early and now - self._restored_at >= _CHURN_S:
            self._pending = self._early | self._pending
            self._early = {}
        observer = self._pending.pop(("controller", self._fleet.config.name), None)
        if observer is not None:
            self._in_doubt = observer.state != "connected"
            self._hear(observer, began, now, at)
        while self._pending and not self._in_doubt and len(began) < _MOST_NEW:
            self._hear(self._pending.pop(next(iter(self._pending))), began, now, at)
        if not self._in_doubt:
            self._homes.scopes.age(now)
            self._hear_stuck(began, now, at)
            if self._topology != self._fleet.topology:
                self._topology = self._fleet.topology
                self._forget_gone(now, at)
        # What was said of a link may be older than that it is configured no more.
        self._homes.place([trouble for trouble in began if not self._is_gone(trouble.key)], now, at)
        self._close_merged(now, at)
        self._take_actions(now, at)
        for incident in list(self._homes.live.values()):
            self._follow(incident, now, at)
        self._forget_old(now)
        changed, self._changed = self._changed, {}
        return [incident.view(now) for incident in changed.values()]

    def _hear(self, verdict: Verdict, began: list[Trouble], now: float, at: float) -> None:
        key, how = (verdict.kind, verdict.subject), judge(verdict)
        if verdict.kind == "liveness":
            if verdict.state == "late":
                self._late.add(verdict.subject)
            else:
                self._late.discard(verdict.subject)
        home = self._homes.of(key)
        trouble = home.troubles[key] if home is not None else None
        self._early.pop(key, None)
        if how == "unsure":
            return
        if how == "good" and key in self._churned and now - self._restored_at < _CHURN_S:
            self._early[key] = verdict
            return
        if how == "good":
            self._end(key, f"{verdict.state}: {verdict.reason}", now, at)
        elif home is None or trouble is None:
            began.append(Trouble(verdict, now))
        elif trouble.over is not None and now - trouble.over > _SAME_S:
            self._homes.leave(key)
            began.append(Trouble(verdict, now))
        else:
            if trouble.over is not None and verdict.kind == "controller":
                trouble.seen = now
            same = trouble.over is None and (trouble.state, trouble.severity) == (verdict.state, verdict.severity)
            trouble.verdict = verdict
            if not same:
                trouble.state, trouble.severity = verdict.state, verdict.severity
                home.told(trouble, at)
                self._homes.changed(trouble, now, at)

    def _end(self, key: Key, words: str, now: float, at: float) -> None:
        trouble, home = self._homes.lasting(key), self._homes.of(key)
        if trouble is not None and home is not None:
            trouble.over = now
            self._homes.scopes.remove(trouble)
            home.step("verdict", f"{key[0]} well again", key[1], words, Severity.OK, at)

    def _hear_stuck(self, began: list[Trouble], now: float, at: float) -> None:
        """A pair that must move and cannot, or could not in its last drill, is no verdict, and is treated as one."""
        stuck = {"--".join(pair): pair for pair in self._failover.stuck()}
        unfit = {"--".join(pair): why for pair, why in self._unfit().items()}
        for name in sorted(self._stuck.keys() - stuck.keys() - unfit.keys()):
            words = "it passed its drill" if self._stuck[name] == "unfit" else "it can move, or need not any more"
            self._end(("stuck", name), words, now, at)
            del self._stuck[name]
        for name in sorted(stuck.keys() | unfit.keys()):
            state = "stuck" if name in stuck else "unfit"
            if self._stuck.get(name) == state:
                continue
            self._stuck[name] = state
            severity, reason = Severity.WARNING, f"it failed its last drill: {unfit.get(name, '')}"
            evidence: tuple[str, ...] = ()
            if name in stuck:
                waiting = self._failover.waiting(stuck[name])
                if waiting is None:
                    continue
                severity, reason, evidence = Severity.CRITICAL, waiting.reason, waiting.evidence
            self._hear(Verdict("stuck", name, state, severity, reason, evidence, now), began, now, at)

    def _forget_gone(self, now: float, at: float) -> None:
        """Links that are not configured any more."""
        for key in self._homes.links():
            if self._is_gone(key):
                self._end(key, "not configured any more", now, at)

    def _is_gone(self, key: Key) -> bool:
        if key[0] not in ("link", "stuck"):
            return False
        pair, path = link_of(key[1])
        return not self._fleet.has(pair) or (path != "" and path not in self._fleet.paths_of(pair))

    # --- what becomes of them ------------------------------------------------------------------------------------

    def _follow(self, incident: Incident, now: float, at: float) -> None:
        if self._in_doubt and incident.cause.kind != "controller":
            return
        if incident.changed:
            incident.weigh(self._fleet)
            bad = bool(incident.bad())
            if bad:
                incident.quiet_since = None
            elif incident.quiet_since is None:
                incident.quiet_since = now
            if incident.kept.id:
                incident.kept.did = self._did(incident)
        kept = incident.kept
        quiet_s = None if incident.quiet_since is None else now - incident.quiet_since
        if kept.id == 0:
            if self._is_news(incident, now):
                self._announce(incident, now, at)
            elif quiet_s is not None and quiet_s >= HOLD_S:
                self._homes.drop(incident)
                return
        elif kept.state == "resolved" and incident.worse_than_resolved():
            incident.reopen()
            incident.step("incident", "again", kept.cause.subject, "there is more to it", incident.severity, at)
        if kept.id and quiet_s is not None and quiet_s >= min(HOLD_S * 2**kept.reopened, HOLD_MOST_S):
            self._homes.drop(incident)
            if kept.state == "open":
                text = f"over: all is as it should be for {seconds(quiet_s)}"
                incident.step("incident", "over", kept.cause.subject, text, Severity.OK, at)
                self._close(incident, "over", now - quiet_s, at - quiet_s)
            else:
                self._ended[kept.id] = incident
                incident.conclude()
        if incident.changed and kept.id:
            incident.tell()
            self._changed[kept.id] = incident
            incident.changed = False

    def _is_news(self, incident: Incident, now: float) -> bool:
        lasted = now - incident.opened
        if lasted < SETTLE_S:
            return False
        if incident.quiet_since is not None:
            # What vagus has done something about is told, however short it was.
            return incident.acted
        if incident.severity not in _LOUD:
            return incident.severity is Severity.UNKNOWN and lasted >= SETTLE_MOST_S
        if incident.cause.kind == "controller":
            # Of one that starts, or whose broker does, it is soon over; each time anew.
            return now - max(trouble.seen for trouble in incident.bad()) >= SETTLE_MOST_S
        return lasted >= SETTLE_MOST_S or not self._waits(incident)

    def _waits(self, incident: Incident) -> bool:
        """Whether a node in it has not been heard since it began, and is not judged yet."""
        nodes: set[str] = set()
        for kind, subject in incident.troubles:
            if kind in ("link", "stuck"):
                nodes.update(link_of(subject)[0])
            elif kind == "liveness":
                site = self._fleet.nodes[subject].site if subject in self._fleet.nodes else ""
                nodes.update(name for name in self._late if site and self._fleet.nodes[name].site == site)
            elif kind == "quorum":
                nodes.update(self._late & self._members())
        for node in nodes:
            if self._homes.lasting(("liveness", node)) is None and self._fleet.nodes.get(node) is not None:
                heard = self._fleet.nodes[node].report_at
                if node in self._late or heard is None or heard < incident.opened:
                    return True
        return False

    def _announce(self, incident: Incident, now: float, at: float) -> None:
        kept = incident.kept
        for past in reversed(self._ended.values()):
            since = now - (past.ended or now)
            if past.cause == incident.cause and past.kept.state in ("over", "resolved") and since <= REOPEN_S:
                del self._ended[past.kept.id]
                incident.become(past)
                incident.reopen()
                text = f"again, {seconds(since)} after it was over"
                incident.step("incident", "again", past.cause.subject, text, incident.severity, at)
                break
        else:
            kept.id = self._newest = self._new_id(self._newest)
        incident.changed = True
        incident.weigh(self._fleet)
        incident.kept.did = self._did(incident)

    def _close(self, incident: Incident, state: State, now: float, at: float) -> None:
        kept = incident.kept
        kept.state, kept.ended_at, incident.ended = state, at, now
        incident.conclude()
        incident.tell()
        incident.changed = False
        self._ended[incident.kept.id] = self._changed[incident.kept.id] = incident

    def _close_merged(self, now: float, at: float) -> None:
        merged, self._homes.merged = self._homes.merged, []
        for source, home in merged:
            if source.is_open:
                source.kept.merged_into = home.kept.id
                self._close(source, "merged", now, at)
            else:
                self._ended[source.kept.id] = source

    def _forget_old(self, now: float) -> None:
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if len(self._ended) <= _MOST_KEPT and now - (oldest.ended or now) <= _KEPT_S:
                return
            del self._ended[oldest.kept.id]

    # --- what vagus does -----------------------------------------------------------------------------------------

    def _take_actions(self, now: float, at: float) -> None:
        actions, self._actions = self._actions, []
        for heard, entry in actions:
            incident = self._concerned(entry.subject)
            if incident is None:
                if now - heard < _ACTION_WAITS_S:
                    self._actions.append((heard, entry))
                continue
            incident.acted = incident.acted or (entry.action in _MOVES and entry.who == "vagus")
            text = f"{entry.outcome or entry.reason}" if entry.outcome not in ("", "done") else entry.reason
            severity = Severity.WARNING if entry.action in ("hold", "refuse") else Severity.INFO
            incident.step("action", entry.action, entry.subject, f"{entry.action}: {text}", severity, at)
            if id(incident) not in self._homes.live:
                incident.kept.did = self._did(incident)
                incident.tell()
                incident.changed = False
                self._changed[incident.kept.id] = incident

    def _concerned(self, subject: str) -> Incident | None:
        pair, _ = link_of(subject)
        paths = self._fleet.paths_of(pair)
        keys: list[Key] = [("stuck", subject), *(("link", f"{subject}/{path}") for path in paths)]
        for key in (*keys, ("liveness", pair[0]), ("liveness", pair[1])):
            if self._homes.lasting(key) is not None:
                return self._homes.of(key)
        every = [*self._homes.live.values(), *reversed(self._ended.values())]
        return next((each for each in every if pair in each.moved), None)

    def _did(self, incident: Incident) -> str:
        """What vagus did about it, in words."""
        by: dict[str, int] = {}
        trial = home = stuck = asks = 0
        for pair in incident.pairs:
            paths, intent = self._fleet.paths_of(pair), self._failover.intents.get(pair)
            waiting = self._failover.waiting(pair)
            if waiting is not None:
                stuck += waiting.urgent and waiting.kind == "hold" and incident.cause.kind != "liveness"
                asks += waiting.kind == "recommend"
            if intent is not None and paths and intent.path != paths[0] and intent.origin != "operator":
                if intent.since >= incident.opened - SETTLE_S:
                    incident.moved.add(pair)
                    if intent.trial_from:
                        trial += 1
                    else:
                        by[intent.path] = by.get(intent.path, 0) + 1
            elif pair in incident.moved:
                home += 1
        parts = [f"moved {count(number, 'pair')} to {path}" for path, number in sorted(by.items())]
        parts += [f"{count(trial, 'pair')} on trial"] * bool(trial) + [f"{count(home, 'pair')} home again"] * bool(home)
        parts += [f"{count(stuck, 'pair')} cannot move"] * bool(stuck)
        parts += [f"{count(asks, 'move')} to be approved by a person"] * bool(asks)
        return "; ".join(parts)

    # --- what persons do -----------------------------------------------------------------------------------------

    def acknowledge(self, incident_id: int, who: str, now: float, at: float) -> IncidentView:
        incident = self._open_one(incident_id)
        incident.kept.acknowledged_by, incident.kept.acknowledged_at = who, at
        incident.step("person", "acknowledged", incident.cause.subject, f"acknowledged by {who}", Severity.INFO, at)
        return self._done(incident, now)

    def note(self, incident_id: int, text: str, who: str, now: float, at: float) -> IncidentView:
        incident = self._known(incident_id)
        incident.write(text, who, at)
        return self._done(incident, now)

    def resolve(self, incident_id: int, note: str, who: str, now: float, at: float) -> IncidentView:
        """It is no incident any more, though its verdicts may last; something new in it, or worse, reopens it."""
        incident = self._open_one(incident_id)
        incident.resolve(who, note, now, at)
        return self._done(incident, now)

    def remark(self, incident_id: int, text: str, at: float) -> None:
        """A line on its timeline, if it is known yet."""
        try:
            incident = self._known(incident_id)
        except KeyError:
            return
        incident.step("incident", text, incident.cause.subject, text, Severity.INFO, at)
        incident.tell()
        self._changed[incident_id] = incident

    def _done(self, incident: Incident, now: float) -> IncidentView:
        incident.tell()
        # The next tick gives it to whoever watches.
        self._changed[incident.kept.id] = incident
        return incident.view(now)

    def _open_one(self, incident_id: int) -> Incident:
        incident = self._known(incident_id)
        if not incident.is_open:
            kept = incident.kept
            into = f" into incident {kept.merged_into}" if kept.merged_into is not None else ""
            raise Refused(f"incident {incident_id} is {kept.state}{into}: nothing is left to do about it")
        return incident

    def _known(self, incident_id: int) -> Incident:
        found = self._ended.get(incident_id)
        if found is None:
            found = next((each for each in self._homes.live.values() if each.kept.id == incident_id), None)
        if found is None or not incident_id:
            raise KeyError(str(incident_id))
        return found

    # --- showing -------------------------------------------------------------------------------------------------

    def find(self, incident_id: int, now: float) -> IncidentView:
        """Raises KeyError for one that ended long ago, or never was."""
        return self._known(incident_id).view(now)

    def every(self, now: float) -> list[IncidentView]:
        """Those that are open, and those that have ended lately."""
        news = [incident for incident in self._homes.live.values() if incident.kept.id]
        return [incident.view(now) for incident in (*news, *self._ended.values())]

    def open(self, now: float) -> tuple[IncidentView, ...]:
        """The worst first, then the newest."""
        return tuple(incident.view(now) for incident in self._shown())

    def briefs(self, now: float) -> tuple[IncidentBrief, ...]:
        return tuple(incident.brief(now) for incident in self._shown()[:_MOST_SHOWN])

    def _shown(self) -> list[Incident]:
        shown = [incident for incident in self._homes.live.values() if incident.is_open]
        return sorted(shown, key=lambda each: (-RANK.index(each.severity), -each.kept.id))

    # --- what survives -------------------------------------------------------------------------------------------

    def saved(self, now: float) -> bytes:
        every = [*self._homes.live.values(), *self._ended.values()]
        return msgspec.json.encode([_save(incident, now) for incident in every])

    def restore(self, saved: bytes, now: float) -> str:
        """Take up what `saved` gave in an earlier life; "" or what is wrong with it, and then nothing is taken."""
        try:
            before = msgspec.json.decode(saved, type=list[_SavedIncident])
        except msgspec.MsgspecError as error:
            return str(error)
        self._restored_at = now
        # What we saved may be on disk, and what the store knows of it not yet.
        self._newest = max((each.kept.id for each in before), default=0)
        for each in before:
            incident = Incident(each.kept.cause, now - each.age_s, each.kept.at)
            incident.kept = each.kept
            incident.moved = set(each.moved)
            incident.quiet_since = None if each.quiet_s is None else now - each.quiet_s
            incident.ended = None if each.ended_s is None else now - each.ended_s
            for told in each.troubles:
                verdict = Verdict(told.kind, told.subject, told.state, told.severity, "", (), now - told.age_s)  # type: ignore[arg-type]
                trouble = Trouble(verdict, now - told.age_s)
                trouble.verdict = None
                trouble.over = None if told.over_s is None else now - told.over_s
                incident.take(trouble)
                if trouble.state == "churning" and trouble.over is None:
                    self._churned.add(trouble.key)
            incident.weigh(self._fleet)
            incident.changed = incident.joined = False
            if each.kept.id and incident.ended is not None and each.kept.state != "resolved":
                self._ended[each.kept.id] = incident
                continue
            self._homes.restore(incident, now)
        for key in self._homes.links():
            lasting = self._homes.lasting(key)
            if key[0] == "stuck" and lasting is not None:
                self._stuck[key[1]] = lasting.state
        return ""


def _save(incident: Incident, now: float) -> _SavedIncident:
    return _SavedIncident(
        kept=incident.kept,
        age_s=now - incident.opened,
        quiet_s=None if incident.quiet_since is None else now - incident.quiet_since,
        ended_s=None if incident.ended is None else now - incident.ended,
        troubles=[
            _SavedTrouble(
                kind=trouble.key[0],
                subject=trouble.key[1],
                state=trouble.state,
                severity=trouble.severity,
                age_s=now - trouble.began,
                over_s=None if trouble.over is None else now - trouble.over,
            )
            for trouble in incident.troubles.values()
        ],
        moved=sorted(incident.moved),
    )
