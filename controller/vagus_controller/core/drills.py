"""Drills: the whole failover and failback of a pair, rehearsed under verification and taken back.

Model. A drill goes through its pairs one at a time: out (a trial of the standby, which both ends verify and then watch,
with the gap that traffic sees measured), and back (a trial of the first path, measured too). Nothing of it is ever
confirmed but the way back, so that a controller that dies in it leaves nothing behind: agents go back by themselves.
The first bad sign ends it, and the pair goes back at once; a first path that died meanwhile is not gone back to.

Who calls: `ask` a person, `tick` the clock, `watch` whenever something may have changed, `happened` the plans, for
everything that a drill's plan comes to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from vagus_controller.core.decision import Decision, Situation
from vagus_controller.core.failover import Failover, Pair
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.outbox import Outbox
from vagus_controller.core.pauses import Pauses
from vagus_controller.core.plans import UNDER_WAY, Plans
from vagus_controller.core.transaction import HOLD_S, Action, Confirm, Finished, Plan, Refuse, RollBack, SendBack
from vagus_controller.core.verdict import Verdict, some
from vagus_controller.views import DrillPairView, DrillView, LastDrill, LedgerEntry, Refused, Severity
from vagus_protocol.messages import DrillOrder, LinkState, Origin

_KEPT: Final = 20
_BAD: Final = (Severity.WARNING, Severity.CRITICAL)

PairState = Literal["waits", "out", "back", "ok", "aborted", "skipped", "not begun"]


@dataclass(slots=True)
class _Drilled:
    """What became of one pair. `origin`: who wanted it where it was."""

    path: str = ""
    home: str = ""
    origin: Origin = "default"
    state: PairState = "waits"
    reason: str = ""
    gap_s: float | None = None
    gap_back_s: float | None = None
    entry: LedgerEntry | None = None
    # the standby did not stand its trial
    unfit: bool = False
    # what is wrong with the first path, while it carries nothing of the pair
    doubt: str = ""


@dataclass(slots=True)
class _Drill:
    id: int
    who: str
    what: str
    reason: str
    automatic: bool
    began: float
    at: float
    pairs: dict[Pair, _Drilled] = field(default_factory=dict)
    entry: LedgerEntry | None = None
    outcome: str = ""
    over: bool = False

    @property
    def current(self) -> Pair | None:
        return next((pair for pair, each in self.pairs.items() if each.state in ("out", "back")), None)


class Drills:
    """`situation(now)`: what the detectors say; `alive`: the verdict on each node. `last`: of each pair, the newest
    that was begun."""

    def __init__(
        self,
        fleet: Fleet,
        failover: Failover,
        plans: Plans,
        pauses: Pauses,
        outbox: Outbox,
        situation: Callable[[float], Situation],
        alive: Mapping[str, Verdict],
    ) -> None:
        self.last: dict[Pair, LastDrill] = {}
        self._fleet = fleet
        self._failover = failover
        self._plans = plans
        self._pauses = pauses
        self._outbox = outbox
        self._situation = situation
        self._alive = alive
        self._drills: deque[_Drill] = deque(maxlen=_KEPT)
        self._next_id = 1
        plans.on_drill = self.happened

    # --- what begins one -----------------------------------------------------------------------------------------

    def ask(self, pairs: Sequence[Pair], what: str, now: float, *, who: str, reason: str, automatic: bool) -> DrillView:
        """Begin a drill of the pairs, in their order. Raises Refused when it must not begin, or none of them is fit."""
        refusal = self._refusal(now)
        if refusal:
            raise Refused(f"no drill now: {refusal}")
        unfit = {pair: why for pair in pairs if (why := self._unfit(pair, automatic, now))}
        if len(unfit) == len(pairs):
            whys = [f"{'--'.join(pair)}: {why}" for pair, why in unfit.items()]
            raise Refused(f"no drill now: {'; '.join(some(whys, 3)) or 'there is no pair'}")
        wall = self._situation(now).wall
        drill = _Drill(self._next_id, who, what, reason or "asked for", automatic, now, wall or 0.0)
        self._next_id += 1
        drill.pairs = {pair: _Drilled() for pair in pairs}
        self._drills.appendleft(drill)
        if len(pairs) > 1:
            words = f"{len(pairs)} pairs, one at a time: {drill.reason}"
            drill.entry = self._outbox.decision(who, "drill", what, words, outcome=UNDER_WAY)
        self._go_on(drill, now)
        return self._view(drill, now)

    def tick(self, now: float) -> None:
        drill = self._under_way
        if drill is not None and drill.current is None:
            self._go_on(drill, now)

    def scheduled(self, now: float) -> None:
        """One of the whole fleet is due."""
        try:
            self.ask(self._fleet.pairs(), "fleet", now, who="schedule", reason="it is due", automatic=True)
        except Refused as refused:
            self._outbox.decision(
                "schedule", "refuse", "fleet", f"the drill that is due is skipped: {refused}", outcome=""
            )

    @property
    def _under_way(self) -> _Drill | None:
        drill = self._drills[0] if self._drills else None
        return drill if drill is not None and not drill.over else None

    def _go_on(self, drill: _Drill, now: float) -> None:
        """Begin with the next pair that is fit, or finish."""
        for pair, each in drill.pairs.items():
            if each.state != "waits":
                continue
            refusal = self._refusal(now, drill)
            if refusal:
                self._finish(drill, f"stopped before {'--'.join(pair)}: {refusal}")
                return
            why = self._unfit(pair, drill.automatic, now)
            if not why:
                self._begin(drill, pair, each, now)
                return
            each.state, each.reason = "skipped", why
        self._finish(drill, "")

    def _begin(self, drill: _Drill, pair: Pair, each: _Drilled, now: float) -> None:
        intent = self._failover.intent(self._fleet, pair)
        each.home, each.path, each.origin = intent.path, self._standby(pair, now)[0], intent.origin
        each.state = "out"
        name = "--".join(pair)
        reason = f"to {each.path} for {HOLD_S:.0f} s, and back: {drill.reason}"
        each.entry = self._outbox.decision(drill.who, "drill", name, reason, outcome=UNDER_WAY)
        step = Decision(
            kind="drill", pair=pair, path=each.path, origin="auto", reason=f"a drill: {drill.reason}", was=each.home
        )
        executor = self._plans.executor
        plan = Plan(id=executor.new_id(), who=drill.who, reason=drill.reason, stages=((step,),), drill="out")
        self._plans.drill(plan, now)

    # --- what may begin ------------------------------------------------------------------------------------------

    def _refusal(self, now: float, drill: _Drill | None = None) -> str:
        """Why nothing is drilled now, and what to do; "" when it may be. `drill`: one that is under way itself."""
        under_way = self._under_way
        if under_way is not None and under_way is not drill:
            words = f"drill {under_way.id} is under way ({under_way.what})"
            return f"{words}: ask again when it is over, see `vagusctl drills`"
        running = self._plans.executor.running
        if running:
            return f"a plan is under way ({running[0].plan.words}): ask again when it has ended, see `vagusctl plans`"
        return self._incident(now)

    def _incident(self, now: float, drilled: Pair | None = None) -> str:
        """What is wrong in the fleet beside the pair that is drilled, and what to do; "" when nothing is."""
        situation = self._situation(now)
        controller, quorum = situation.controller, situation.quorum
        if controller.state != "connected":
            return f"the controller is in doubt about itself ({controller.reason}): wait until it is connected and sure"
        if quorum.state not in ("none", "healthy"):
            return f"etcd quorum is {quorum.state} ({quorum.reason}): mend that first, see `vagusctl why quorum`"
        if self._pauses.standing:
            pause = self._pauses.standing[0]
            words = f"{pause.covers} is paused by {pause.who} ({pause.reason or 'no reason given'})"
            return f"{words}: somebody may be at work there; end it with `vagusctl resume {pause.id}`, or wait"
        bad = {node: each for node, each in self._alive.items() if each.severity in _BAD}
        ailing = [f"{node}: {each.state} ({each.reason})" for node, each in bad.items()]
        if ailing:
            return f"{'; '.join(some(ailing, 3))}: an incident is no drill; mend that first, see `vagusctl incidents`"
        away = [pair for pair in self._away() if pair != drilled]
        if away:
            names = ", ".join(some(["--".join(pair) for pair in away], 3))
            return f"off the first path: {names}: an incident is no drill; bring them home first, see `vagusctl status`"
        return ""

    def _away(self) -> list[Pair]:
        """Pairs that are off their first path, or that an agent has moved, or that must move and cannot."""
        found = set(self._failover.stuck())
        for pair, intent in self._failover.intents.items():
            paths = self._fleet.paths_of(pair)
            if paths and intent.path != paths[0]:
                found.add(pair)
        for name, state in self._fleet.nodes.items():
            if state.observed is not None:
                found.update((min(name, peer), max(name, peer)) for peer in state.observed.reflex)
        return sorted(found)

    def _unfit(self, pair: Pair, automatic: bool, now: float) -> str:
        """Why the pair is not drilled now; "" when it may be."""
        paths = self._fleet.paths_of(pair)
        if len(paths) < 2:
            return "there is no second path that both ends name"
        if automatic:
            forbidden = self._failover.forbidden(self._fleet, self._situation(now), pair, now)
            if forbidden:
                return forbidden
        home = self._failover.limitation(self._fleet, pair, paths[0], now)
        if home:
            return f"{home}: mend that first, see `vagusctl why {'--'.join(pair)}`"
        standby, why = self._standby(pair, now)
        return why or self._trouble(pair, (paths[0], standby), now)

    def _standby(self, pair: Pair, now: float) -> tuple[str, str]:
        """The path to drill, or why there is none."""
        why_not = ""
        for path in self._fleet.paths_of(pair)[1:]:
            unfit = self._failover.limitation(self._fleet, pair, path, now)
            if not unfit:
                return path, ""
            why_not = why_not or unfit
        return "", f"{why_not}: only a proven standby is drilled, see `vagusctl why {'--'.join(pair)}`"

    def _trouble(self, pair: Pair, paths: Sequence[str], now: float) -> str:
        """Which end is silent, or calls one of the paths down. A suspicion is none yet: its end tells within a moment
        what comes of it, and on a busy machine most come to nothing."""
        for path in paths:
            for node, peer in (pair, pair[::-1]):
                seen = self._fleet.believed(node, peer, path, now)
                if seen is None:
                    return f"{node} is silent"
                if seen.link.state is LinkState.DOWN:
                    return f"{path} is down at {node} ({seen.link.reason or 'no reason given'})"
        return ""

    # --- what ends one early -------------------------------------------------------------------------------------

    def watch(self, now: float) -> None:
        """Look for a first bad sign."""
        drill = self._under_way
        pair = drill.current if drill is not None else None
        if drill is None or pair is None or self._plans.executor.on_trial(pair) is None:
            return
        each = drill.pairs[pair]
        at_home = self._trouble(pair, (each.home,), now)
        if each.state == "back":
            if at_home:
                self._plans.cancel(pair, at_home, now)
            return
        out_there = self._trouble(pair, (each.path,), now)
        if at_home and not out_there and not self._failover.down(self._fleet, pair, each.home, now):
            # It may be dying: nobody is sent there before that is known. The ends' own time bounds the wait.
            each.doubt = at_home
            return
        why = at_home or each.doubt or out_there or self._incident(now, pair)
        if why:
            self._plans.cancel(pair, why, now)

    def interrupt(self, why: str, now: float) -> None:
        """End the drill under way: somebody else decides now."""
        drill = self._under_way
        if drill is None:
            return
        pair = drill.current
        if pair is not None and self._plans.executor.on_trial(pair) is not None:
            self._plans.cancel(pair, why, now)
        if not drill.over:
            self._finish(drill, f"stopped: {why}")

    @property
    def order(self) -> DrillOrder | None:
        """The drill under way, as whoever leads next is told of it."""
        drill = self._under_way
        if drill is None:
            return None
        done = sum(each.state == "ok" for each in drill.pairs.values())
        pair = "--".join(drill.current or ())
        return DrillOrder(
            who=drill.who, what=drill.what, reason=drill.reason, pair=pair, count=len(drill.pairs), done=done
        )

    def revert_found(self, order: DrillOrder | None, now: float) -> None:
        """A new term begins: send back what we, in this life or an earlier one, or another controller drilled. `order`:
        the drill that was under way, as far as its controller told; it ends here, aborted."""
        self.interrupt("the controller's lead began anew", now)
        found = {
            pair
            for pair, intent in self._failover.intents.items()
            if intent.trial_from and intent.drill and self._plans.executor.on_trial(pair) is None
        }
        reason = "its controller ended in the middle of it: back to the first path"
        for pair in sorted(found):
            self._failover.rolled_back(pair, reason, now, failed=False)
        if order is not None and order.pair:
            a, _, b = order.pair.partition("--")
            found.add((a, b))
        for pair in sorted(found):
            self._remember(pair, ok=False, words=reason, gap_s=None, now=now)
            self._outbox.decision(
                order.who if order is not None else "vagus", "drill", "--".join(pair), reason, outcome="aborted"
            )
            self._outbox.event("controller", "drill", "--".join(pair), f"aborted: {reason}", Severity.WARNING)
        if order is None:
            return
        stopped = f"stopped: its controller ended; {order.done} of {order.count} pairs drilled"
        if order.count > 1:
            words = f"{order.count} pairs, one at a time: {order.reason}"
            self._outbox.decision(order.who, "drill", order.what, words, outcome=stopped)
        wall = self._situation(now).wall
        drill = _Drill(self._next_id, order.who, order.what, order.reason, False, now, wall or 0.0)
        self._next_id += 1
        drill.pairs = {pair: _Drilled(state="aborted", reason=reason) for pair in sorted(found)}
        drill.over, drill.outcome = True, stopped
        self._drills.appendleft(drill)

    # --- what becomes of it --------------------------------------------------------------------------------------

    def happened(self, action: Action, now: float) -> list[Action]:
        """What a drill's plan came to; what is to be done next, in the same breath."""
        drill = self._under_way
        pair = action.plan.steps[0].pair
        each = drill.pairs.get(pair) if drill is not None else None
        if drill is None or each is None or each.state not in ("out", "back"):
            return []
        if isinstance(action, SendBack):
            each.gap_s = action.gap_s
            each.reason = f"{each.path}: {action.outcome}, {_gap(action.gap_s)}"
            return self._go_back(drill, pair, each, now)
        if isinstance(action, Confirm) and action.plan.drill == "back":
            each.gap_back_s = action.gap_s
            each.reason += f"; back on {each.home}: {action.outcome}, {_gap(action.gap_s)}"
            self._end(drill, pair, each, "ok", now)
        elif isinstance(action, Confirm):
            each.reason = f"{action.outcome}: it stays on {each.path}"
            self._end(drill, pair, each, "aborted", now)
        elif isinstance(action, RollBack):
            which = f"{each.home} was not verified again: " if each.state == "back" else ""
            each.reason = f"{which}{action.reason}; it is on {each.home}"
            each.unfit = each.state == "out" and action.failed
            self._end(drill, pair, each, "aborted", now)
        elif isinstance(action, Refuse) or (isinstance(action, Finished) and action.stopped):
            each.reason = action.reason if isinstance(action, Refuse) else action.stopped
            self._end(drill, pair, each, "aborted", now)
        return []

    def _go_back(self, drill: _Drill, pair: Pair, each: _Drilled, now: float) -> list[Action]:
        each.state = "back"
        step = Decision(
            kind="drill", pair=pair, path=each.home, origin=each.origin, reason="back from a drill", was=each.home
        )
        executor = self._plans.executor
        # Urgent: it is where traffic goes now whatever a check says.
        plan = Plan(
            id=executor.new_id(), who=drill.who, reason=drill.reason, stages=((step,),), urgent=True, drill="back"
        )
        return executor.start(plan, now)

    def _end(self, drill: _Drill, pair: Pair, each: _Drilled, state: Literal["ok", "aborted"], now: float) -> None:
        each.state = state
        name, words = "--".join(pair), f"{state}: {each.reason}"
        gaps = [gap for gap in (each.gap_s, each.gap_back_s) if gap is not None]
        gap_s = max(gaps) if state == "ok" and gaps else None
        self._remember(pair, ok=state == "ok", words=each.reason, gap_s=gap_s, unfit=each.unfit, now=now)
        if each.entry is not None:
            self._outbox.outcome(each.entry, words)
        severity = Severity.INFO if state == "ok" else Severity.WARNING
        self._outbox.event("controller", "drill", name, words, severity)
        if state == "aborted" or len(drill.pairs) == 1:
            self._finish(drill, f"stopped with {name}: {each.reason}" if state == "aborted" else "")
        self._outbox.save()

    def _remember(
        self, pair: Pair, *, ok: bool, words: str, gap_s: float | None, now: float, unfit: bool = False
    ) -> None:
        known = set(self._fleet.pairs())
        self.last = {kept: last for kept, last in self.last.items() if kept in known}
        self.last[pair] = LastDrill(at=self._situation(now).wall or 0.0, ok=ok, words=words, gap_s=gap_s, unfit=unfit)

    def unfit(self) -> dict[Pair, str]:
        """The pairs whose standby did not stand its last drill, and why: they would fail to fail over."""
        return {pair: last.words for pair, last in self.last.items() if last.unfit and self._fleet.has(pair)}

    def _finish(self, drill: _Drill, stopped: str) -> None:
        drill.over, drill.outcome = True, stopped
        for each in drill.pairs.values():
            if each.state == "waits":
                each.state = "not begun"
        done = sum(each.state == "ok" for each in drill.pairs.values())
        words = f"{done} of {len(drill.pairs)} pairs drilled"
        if drill.entry is not None:
            self._outbox.outcome(drill.entry, f"{stopped}; {words}" if stopped else f"done: {words}")
        self._outbox.changed()

    # --- showing -------------------------------------------------------------------------------------------------

    def views(self, now: float) -> tuple[DrillView, ...]:
        """The one under way and the last ones, the newest first."""
        return tuple(self._view(drill, now) for drill in self._drills)

    def _view(self, drill: _Drill, now: float) -> DrillView:
        state: Literal["under way", "done", "stopped"] = "under way"
        if drill.over:
            state = "stopped" if drill.outcome else "done"
        return DrillView(
            id=drill.id,
            who=drill.who,
            what=drill.what,
            reason=drill.reason,
            state=state,
            outcome=drill.outcome,
            at=drill.at,
            age_s=now - drill.began,
            pairs=tuple(
                DrillPairView(
                    pair="--".join(pair),
                    path=each.path,
                    state=each.state,
                    reason=each.reason,
                    gap_s=each.gap_s,
                    gap_back_s=each.gap_back_s,
                )
                for pair, each in drill.pairs.items()
            ),
        )

    def saved(self) -> dict[str, LastDrill]:
        return {"--".join(pair): last for pair, last in self.last.items()}

    def restore(self, last: dict[Pair, LastDrill]) -> None:
        self.last = dict(last)


def _gap(seconds: float | None) -> str:
    if seconds is None:
        return "the gap was not measured"
    return f"a gap of {seconds * 1000:.0f} ms" if seconds else "no gap (below 20 ms)"
