"""What passes from one leader to the next: pauses, and the plan or drill under way. `orders.py` has the model.

While we lead, our orders follow what stands here; while another leads, or before anybody does, what stands here follows
the newest orders. Who begins to lead takes up what was left: a plan goes on with what is left of it, unless a pause
covers that; a drill is over. What cannot go on is told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec import Struct

from vagus_controller.core.assignments import Term
from vagus_controller.core.drills import Drills
from vagus_controller.core.failover import Failover, Pair
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.leadership import Leadership
from vagus_controller.core.orders import Book, Standing
from vagus_controller.core.outbox import Outbox
from vagus_controller.core.pauses import Pauses
from vagus_controller.core.plans import Plans
from vagus_controller.core.remainder import remainder
from vagus_controller.core.verdict import seconds
from vagus_controller.views import Severity
from vagus_protocol import topics
from vagus_protocol.codec import Rejected
from vagus_protocol.messages import DrillOrder, Orders, PlanOrder


class Left(Struct, frozen=True, kw_only=True):
    """What an earlier life, or another leader, had under way."""

    plan: PlanOrder | None = None
    drill: DrillOrder | None = None

    def begun(self, failover: Failover) -> Collection[Pair]:
        """The plan's pairs that are on trial."""
        steps = self.plan.steps if self.plan is not None else ()
        return {(each.a, each.b) for each in steps if failover.trying((each.a, each.b), each.path)}


_NOTHING = Left()


class Succession:
    """`anchor()`: tell some node anew, so that orders from before now are known to be old."""

    def __init__(
        self,
        book: Book,
        leadership: Leadership,
        pauses: Pauses,
        plans: Plans,
        drills: Drills,
        outbox: Outbox,
        anchor: Callable[[], None],
    ) -> None:
        self._book = book
        self._leadership = leadership
        self._pauses = pauses
        self._plans = plans
        self._drills = drills
        self._outbox = outbox
        self._anchor = anchor
        # until it is taken up; None: what stands here is of this term
        self._left: Left | None = None
        # another's, newer than ours, heard while we lead
        self._newer: Orders | None = None
        self._overwritten = False
        # something that was said has ended, and no node was told anything since
        self._ended = False

    # --- what is told --------------------------------------------------------------------------------------------

    def orders(self, now: float) -> Orders:
        """What stands, for the disk."""
        return self._book.orders(self._standing, now)

    def say_orders(self, now: float) -> None:
        """Whoever leads next hears of it, unless it has been said."""
        if not self._leadership.leads:
            return
        before, standing = self._book.said, self._standing
        if self._book.renew(standing, now):
            self._ended = self._ended or standing.lacks(before)
            self.send_orders()

    def send_orders(self) -> None:
        self._outbox.publish(topics.orders(self._book.fleet, self._book.controller), self._book.payload)

    def tick(self, now: float) -> None:
        """While we lead."""
        if self._overwritten:
            self._overwritten = False
            self.send_orders()
        self.say_orders(now)
        if self._ended:
            self._ended = False
            self._anchor()

    @property
    def generation(self) -> int:
        """Of the newest orders."""
        return self._book.term[1]

    @property
    def _standing(self) -> Standing:
        left = self._left or _NOTHING
        return Standing(tuple(self._pauses.standing), self._plans.order or left.plan, self._drills.order or left.drill)

    # --- what is heard -------------------------------------------------------------------------------------------

    def on_orders(self, controller: str, payload: bytes, now: float) -> None:
        """The newest count; what overwrites ours is undone by `tick`."""
        mine = controller == self._book.controller
        if mine and payload == self._book.payload:
            self._overwritten = False
            return
        told = self._book.open(controller, payload) if payload else None
        if isinstance(told, Rejected):
            self._outbox.complain(
                controller, f"orders of {controller} that no controller of this fleet signed: {told.reason}"
            )
        elif told is not None:
            self._leadership.saw_epoch(told.epoch)
            if self._book.is_newer(told):
                if self._leadership.leads:
                    self._newer = told
                else:
                    self.follow(told, now)
                return
        self._overwritten = self._overwritten or mine

    def follow(self, told: Orders, now: float) -> None:
        """What another leader, or an earlier life of ours, said stands."""
        if self._book.ours:
            who = told.controller if told.controller != self._book.controller else f"another {told.controller}"
            for pause in self._pauses.standing:
                if not any(pause.is_in(each) for each in told.pauses):
                    why = f"{who}, which leads, has none such"
                    self._lost(f"pause {pause.id} of {pause.covers} by {pause.who} holds no more: {why}", pause.target)
        self._book.take(told)
        self._newer = None
        self._pauses.restore(told.pauses, now)
        self._left = Left(plan=told.plan, drill=told.drill)

    # --- who leads -----------------------------------------------------------------------------------------------

    def leave(self, reason: str, now: float) -> None:
        """We lead no more: what is under way is left to whoever does next, and that may be us again."""
        standing = self._standing
        self._left = Left(plan=standing.plan, drill=standing.drill)
        self._plans.abandon(reason, now)
        if self._newer is not None:
            self.follow(self._newer, now)

    def inherit(self, told_under: Term, now: float) -> Left:
        """We lead: what was left to us, and what stands is said under our epoch. `told_under`: the newest orders under
        which a node was told anything."""
        if self._newer is not None:
            self.follow(self._newer, now)
        if self._left is not None:
            self._check(self._left, told_under, now)
        self._book.begin_epoch(self._leadership.epoch)
        self.say_orders(now)
        return self._left or _NOTHING

    def _check(self, left: Left, told_under: Term, now: float) -> None:
        """Say which pauses still stand; none does, and nothing goes on, when these are not the last orders that there
        were: another has led since, or they were published again."""
        if self._book.term >= told_under:
            for pause in self._pauses.standing:
                words = f"still stands: {pause.reason or 'no reason given'}, for {seconds(pause.until - now)} more"
                self._outbox.decision(pause.who, "pause", pause.covers, words)
            return
        why = f"{self._book.author} said so in epoch {self._book.term[0]}, and nodes were told under newer orders since"
        for pause in self._pauses.standing:
            self._lost(f"pause {pause.id} of {pause.covers} by {pause.who} is not taken over: {why}", pause.target)
        self._pauses.restore((), now)
        if left.plan is not None:
            self._plans.give_up(left.plan, why, left.plan.done)
        self._left = _NOTHING

    def take_up(self, fleet: Fleet, failover: Failover, now: float) -> None:
        """Go on with the plan that was left; nothing of it begins under a pause."""
        plan = (self._left or _NOTHING).plan
        if plan is not None and not plan.steps:
            self._plans.give_up(plan, "it had too many pairs to be told to another", plan.done)
        elif plan is not None:
            executor = self._plans.executor
            rest = remainder(plan, fleet, failover, lambda pair: executor.on_trial(pair) is not None)
            covered = (self._pauses.on(fleet, node) for step in rest.waiting for node in step.pair)
            pause = next(filter(None, covered), "")
            self._plans.take_up(plan, rest, f"paused: {pause}" if pause else "", now)
        self._left = None

    def _lost(self, text: str, subject: str) -> None:
        self._outbox.event("controller", "pause", subject or "fleet", text, Severity.WARNING)
