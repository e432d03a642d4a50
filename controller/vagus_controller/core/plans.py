"""Carries plans out: what the executor wants done becomes intents, desireds, and lines of the ledger.

Order of every step: intents first, then the standing orders when a plan of many pairs goes on or ends, then the
desireds of all nodes that are touched, one each; only then what is written down. A trial and a roll-back are published
in the same call as what caused them. A confirmation is not urgent: agents wait for it for seconds, and there may be
thousands at once; `flush` publishes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final, Literal

from vagus_controller.core.assignments import Term
from vagus_controller.core.failover import Decision, Failover, Pair
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.outbox import Outbox
from vagus_controller.core.remainder import Remainder, order_of
from vagus_controller.core.transaction import (
    Action,
    Checks,
    Confirm,
    Executor,
    Finished,
    Plan,
    Refuse,
    RollBack,
    Run,
    SendBack,
    Try,
)
from vagus_controller.core.trials import retry_s
from vagus_controller.core.verdict import some
from vagus_controller.views import LedgerEntry, PlanView, Severity, StageView, StepView
from vagus_protocol.messages import Observed, PlanOrder

_ON_TRIAL: Final = "on trial at both ends"
UNDER_WAY: Final = "under way"
# Outcomes in the ledger of what is not over.
OPEN: Final = (_ON_TRIAL, UNDER_WAY)
_NOT_OURS_KEPT: Final = 10


class Plans:
    """`tell`: publish a node's desired by the intents, unless it has been told the same; its (epoch, generation), None
    when it cannot be told. `announce(now)`: publish the standing orders, unless they have been."""

    def __init__(
        self,
        failover: Failover,
        checks: Checks,
        tell: Callable[[str], Term | None],
        announce: Callable[[float], None],
        outbox: Outbox,
    ) -> None:
        self.executor = Executor(checks)
        self._checks = checks
        self._failover = failover
        self._tell = tell
        self._announce = announce
        self._outbox = outbox
        # told of what a drill comes to, which has lines of its own; what it wants done next
        self.on_drill: Callable[[Action, float], list[Action]] = lambda _action, _now: []
        # pair on trial → its line in the ledger
        self._entries: dict[Pair, LedgerEntry] = {}
        # plan of several steps by a person → its line
        self._plan_entries: dict[int, LedgerEntry] = {}
        # pairs whose ends have not been told yet that their trial is confirmed
        self._untold: set[Pair] = set()
        # automatic plans stopped in a row, until when none begins, and why
        self._stopped = 0
        self._cool_until = 0.0
        self._cool_since = ""
        # plans of another life that nothing was done for here
        self._not_ours: deque[PlanView] = deque(maxlen=_NOT_OURS_KEPT)

    def busy(self, now: float) -> str:
        """Why no other plan that is not urgent begins by itself now, in words; "" when it may."""
        if self.executor.busy or now >= self._cool_until:
            return self.executor.busy
        return f"the last was stopped {self._cool_since}; the next begins in {self._cool_until - now:.0f} s"

    def moving(self, pair: Pair) -> bool:
        """Whether a trial of the pair is not over, or an end has yet to be told that it is."""
        return self.executor.on_trial(pair) is not None or pair in self._untold

    # --- what begins ---------------------------------------------------------------------------------------------

    def decided(self, decisions: list[Decision], now: float) -> None:
        """Carry out what the failover policy decided: each urgent move at once and alone, the others canary first."""
        moves = [decision for decision in decisions if decision.moves]
        plans = [self._plan(((move,),), urgent=True) for move in moves if move.urgent]
        calm = tuple(move for move in moves if not move.urgent)
        if calm:
            plans.append(self._plan(in_stages(calm)))
        if plans:
            self._start(plans, now)
        for decision in decisions:
            if not decision.moves:
                self._write(decision, "vagus", outcome="")

    def ask(self, plan: Plan, now: float) -> LedgerEntry | None:
        """Carry out what a person wants; the plan's line in the ledger, or that of its only step."""
        if len(plan.steps) > 1:
            entry = self._outbox.decision(
                plan.who, "plan", scope_of(plan), f"{plan.words}: {plan.reason}", outcome=UNDER_WAY
            )
            self._plan_entries[plan.id] = entry
            self._start([plan], now)
            return entry
        self._start([plan], now)
        return self._entries.get(plan.steps[0].pair)

    def drill(self, plan: Plan, now: float) -> None:
        self._start([plan], now)

    def cancel(self, pair: Pair, reason: str, now: float) -> None:
        """End the trial of a pair, and its plan."""
        self._carry_out(self.executor.cancel(pair, reason, now), now)

    def watch(self, fleet: Fleet, pairs: Iterable[Pair], now: float) -> None:
        """Take back what tries a path that its ends have come to call dead, while the one that it left lives."""
        for pair in pairs:
            plan = self.executor.on_trial(pair)
            if plan is None or plan.drill or plan.force:
                continue
            step = next(step for step in plan.steps if step.pair == pair)
            why = self._failover.down(fleet, pair, step.path, now)
            if why and step.was != step.path and not self._checks.dead(plan, step, now):
                self._carry_out(self.executor.lost(pair, f"{step.path} {why[0]}", now), now)

    def resume(self, trials: Iterable[Decision], now: float) -> None:
        """What was on trial under an earlier epoch goes on, each pair by itself."""
        plans = [self._plan(((trial,),), urgent=True, resumed=True) for trial in trials]
        if plans:
            self._start(plans, now)

    def halt(self, covers: Callable[[Pair], bool], reason: str, now: float) -> None:
        """Let no further stage begin of a plan with one of these pairs to move."""
        self._carry_out(self.executor.halt(covers, reason, now), now)

    @property
    def order(self) -> PlanOrder | None:
        """The plan of many pairs under way, as whoever leads next is told of it."""
        run = self.executor.many
        return order_of(run) if run is not None else None

    def take_up(self, order: PlanOrder, rest: Remainder, paused: str, now: float) -> None:
        """Go on with a plan that another life began. `paused`: the pause that covers a pair that waits."""
        stages = tuple(stage for stage in (rest.begun, rest.waiting) if stage)
        if stages == (rest.waiting,) and not rest.moved:
            stages = in_stages(rest.waiting)
        moved = f"{rest.moved} of {order.count} pairs moved before"
        left_out = f"; left out: {'; '.join(some(list(rest.gone), 3))}" if rest.gone else ""
        if not stages:
            if rest.gone:
                self.give_up(order, f"nothing is left to do{left_out}", rest.moved)
            else:
                self._tell_of(order, f"done: {rest.moved} of {order.count} pairs moved", "done")
            return
        plan = Plan(
            id=self.executor.new_id(),
            who=order.who,
            reason=f"{order.reason} (goes on after its controller ended; {moved}{left_out})",
            stages=stages,
            force=order.force,
            resumed=True,
            before=rest.moved,
        )
        self._plan_entries[plan.id] = self._outbox.decision(
            plan.who, "plan", scope_of(plan), f"{plan.words}: {plan.reason}", outcome=UNDER_WAY
        )
        self._start([plan], now)
        if paused:
            waiting = {step.pair for step in rest.waiting}
            self.halt(waiting.__contains__, f"{paused}: ask for the rest again when that is over", now)

    def give_up(self, order: PlanOrder, why: str, moved: int) -> None:
        """Tell of a plan that another life began, and that does not go on."""
        self._tell_of(
            order, f"stopped, since its controller ended: {why}; {moved} of {order.count} pairs moved", "stopped"
        )

    def _tell_of(self, order: PlanOrder, words: str, state: Literal["done", "stopped"]) -> None:
        self._outbox.decision(order.who, "plan", "fleet", f"{order.what}: {order.reason}", outcome=words)
        severity = Severity.WARNING if state == "stopped" else Severity.INFO
        self._outbox.event("controller", "failover", "fleet", f"{order.what}: {words}", severity)
        self._not_ours.appendleft(
            PlanView(
                id=self.executor.new_id(),
                who=order.who,
                what=order.what,
                reason=order.reason,
                state=state,
                outcome=words if state == "stopped" else "",
                stages=(),
            )
        )

    def abandon(self, reason: str, now: float) -> None:
        """Nothing is brought to its end here any more."""
        for entry in self._entries.values():
            self._outbox.outcome(entry, f"left on trial to whoever leads next: {reason}")
        self._entries.clear()
        self._untold.clear()
        self._carry_out(self.executor.abandon(f"since {reason}: whoever leads next goes on with it"), now)

    def _plan(self, stages: tuple[tuple[Decision, ...], ...], *, urgent: bool = False, resumed: bool = False) -> Plan:
        reason = stages[0][0].reason
        return Plan(
            id=self.executor.new_id(), who="vagus", reason=reason, stages=stages, urgent=urgent, resumed=resumed
        )

    def _start(self, plans: list[Plan], now: float) -> None:
        leaves = [step.pair for plan in plans for step in plan.steps if step.pair in self._untold]
        for node in sorted({node for pair in leaves for node in pair}):
            # Else it would not know where to go back to.
            self._tell(node)
        self._carry_out([action for plan in plans for action in self.executor.start(plan, now)], now)

    # --- what comes in -------------------------------------------------------------------------------------------

    def observed(self, observed: Observed, now: float) -> None:
        self._carry_out(self.executor.observed(observed, now), now)

    def tick(self, now: float) -> None:
        self._carry_out(self.executor.tick(now), now)
        self.flush()

    def flush(self) -> None:
        """Tell the ends of confirmed trials."""
        if not self._untold:
            return
        for node in sorted({node for pair in self._untold for node in pair}):
            self._tell(node)
        self._untold.clear()
        self._outbox.save()
        self._outbox.changed()

    # --- what is done --------------------------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action], now: float) -> None:
        if not actions:
            return
        for action in [action for action in actions if action.plan.drill]:
            actions = [*actions, *self.on_drill(action, now)]
        touched: set[str] = set()
        for action in actions:
            if isinstance(action, Try):
                for step in action.steps:
                    if not self._failover.trying(step.pair, step.path):
                        self._failover.record(step, now)
                    touched.update(step.pair)
            elif isinstance(action, Confirm):
                self._failover.confirmed(action.step.pair, now)
                self._untold.add(action.step.pair)
            elif isinstance(action, RollBack):
                self._failover.rolled_back(action.step.pair, action.reason, now, failed=action.failed)
                touched.update(action.step.pair)
            elif isinstance(action, SendBack):
                self._failover.rolled_back(action.step.pair, "it was a drill", now, failed=False)
                touched.update(action.step.pair)
        if not all(action.plan.urgent for action in actions):
            self._announce(now)
        terms = {node: self._tell(node) for node in sorted(touched)}
        self._untold = {pair for pair in self._untold if not touched.issuperset(pair)}
        for action in actions:
            if isinstance(action, Try):
                for step in action.steps:
                    self.executor.told(step.pair, terms)
        failed = {action.plan.id for action in actions if isinstance(action, RollBack) and action.failed}
        for action in actions:
            if isinstance(action, Finished):
                self._note_end(action, action.plan.id in failed, now)
            self._write_down(action)
        if touched:
            self._outbox.save()
        self._outbox.changed()

    def _write_down(self, action: Action) -> None:
        plan = action.plan
        if plan.drill or isinstance(action, SendBack):
            return
        if isinstance(action, Try):
            for step in action.steps:
                self._entries[step.pair] = self._write(step, plan.who, outcome=_ON_TRIAL)
        elif isinstance(action, Confirm):
            self._end(action.step, f"now by {action.step.path}: ", action.outcome, Severity.INFO)
        elif isinstance(action, RollBack):
            self._end(action.step, "", f"rolled back to {action.step.was}: {action.reason}", Severity.WARNING)
        elif isinstance(action, Refuse):
            step = action.step
            reason = f"the {step.kind} to {step.path} is not begun: {action.reason}"
            self._outbox.decision(plan.who, "refuse", "--".join(step.pair), reason, outcome="")
        elif plan.count > 1 or plan.id in self._plan_entries:
            self._finished(action)

    def _note_end(self, action: Finished, failed: bool, now: float) -> None:
        """Remember whether an automatic plan went well."""
        if action.plan.urgent or not action.plan.automatic:
            return
        if not failed:
            self._stopped = self._stopped if action.stopped else 0
            return
        # Else each pair in turn would be the canary of its own plan.
        self._stopped += 1
        self._cool_until = now + retry_s(self._stopped)
        self._cool_since = action.stopped

    def _finished(self, action: Finished) -> None:
        plan = action.plan
        run = next((run for run in self.executor.last if run.plan is plan), None)
        count = f"{run.done if run is not None else plan.before} of {plan.count} pairs moved"
        words = f"stopped {action.stopped}; {count}" if action.stopped else f"done: {count}"
        entry = self._plan_entries.pop(plan.id, None)
        if entry is not None:
            self._outbox.outcome(entry, words)
        severity = Severity.WARNING if action.stopped else Severity.INFO
        self._outbox.event("controller", "failover", scope_of(plan), f"{plan.words}: {words}", severity)

    def _write(self, decision: Decision, who: str, *, outcome: str) -> LedgerEntry:
        subject = "--".join(decision.pair)
        return self._outbox.decision(
            who, decision.kind, subject, decision.reason, evidence=decision.evidence, outcome=outcome
        )

    def _end(self, step: Decision, prefix: str, outcome: str, severity: Severity) -> None:
        entry = self._entries.pop(step.pair, None)
        if entry is not None:
            self._outbox.outcome(entry, outcome)
        self._outbox.event("controller", "failover", "--".join(step.pair), prefix + outcome, severity)

    # --- showing -------------------------------------------------------------------------------------------------

    def views(self, now: float) -> tuple[PlanView, ...]:
        """Those under way, and the last ones; the newest first."""
        shown = [view_of(run, now) for run in (*self.executor.running, *self.executor.last)]
        return tuple(sorted((*shown, *self._not_ours), key=lambda view: -view.id))


def in_stages(steps: tuple[Decision, ...], dead: Collection[Pair] = ()) -> tuple[tuple[Decision, ...], ...]:
    """Those whose path is dead, which have nothing to lose; then the canary, and the rest."""
    lost = tuple(step for step in steps if step.pair in dead)
    others = tuple(step for step in steps if step.pair not in dead)
    return tuple(stage for stage in (lost, others[:1], others[1:]) if stage)


def scope_of(plan: Plan) -> str:
    """What a plan's line in the ledger is about: a pair, or the fleet."""
    return "--".join(plan.steps[0].pair) if plan.count == 1 else "fleet"


def view_of(run: Run, now: float) -> PlanView:
    plan = run.plan
    stages = tuple(
        StageView(
            steps=tuple(
                StepView(
                    pair="--".join(step.pair),
                    was=step.was,
                    path=step.path,
                    state=run.states[step.pair][0],
                    reason=run.states[step.pair][1],
                )
                for step in stage
            )
        )
        for stage in plan.stages
    )
    state: Literal["under way", "stopped", "done"] = "under way"
    if run.over:
        state = "stopped" if run.stopped else "done"
    return PlanView(
        id=plan.id,
        who=plan.who,
        what=plan.words,
        reason=plan.reason,
        state=state,
        outcome=run.stopped,
        urgent=plan.urgent,
        stages=stages,
        age_s=now - run.started,
    )
