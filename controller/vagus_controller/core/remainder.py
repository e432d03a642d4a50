"""What another life left to do: trials that are not over, and what is left of a plan, read from its order and from what
nodes were told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from vagus_controller.core.failover import Decision, Failover, Kind, Pair
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.transaction import Run
from vagus_protocol.messages import Origin, PlanOrder, StepOrder

# A text of an order is no longer.
_LONGEST_TEXT: Final = 1000
_KIND_OF: Final[dict[Origin, Kind]] = {
    "default": "failback",
    "auto": "failover",
    "operator": "switchover",
    "reflex": "adopt",
}


class Remainder(NamedTuple):
    """`begun`: on trial, and going on; `waiting`: not begun; `moved`: how many have been moved; `gone`: pairs that are
    left out, with the reason."""

    begun: tuple[Decision, ...]
    waiting: tuple[Decision, ...]
    moved: int
    gone: tuple[str, ...]


def order_of(run: Run) -> PlanOrder:
    """A plan under way as whoever leads next is told of it."""
    plan = run.plan
    return PlanOrder(
        who=plan.who[:_LONGEST_TEXT],
        what=plan.words[:_LONGEST_TEXT],
        reason=plan.reason[:_LONGEST_TEXT],
        automatic=plan.automatic,
        force=plan.force,
        count=plan.count,
        done=run.done,
        steps=tuple(
            StepOrder(*step.pair, step.path, step.origin)
            for step in plan.steps
            if run.states[step.pair][0] in ("waits", "on trial")
        ),
    )


def open_trials(failover: Failover) -> list[Decision]:
    """The intents that are on trial, as steps that go on."""
    return [
        Decision(
            kind=_KIND_OF[intent.origin],
            pair=pair,
            path=intent.path,
            origin=intent.origin,
            reason=f"the trial that was under way goes on: {intent.reason}",
            was=intent.trial_from,
            automatic=intent.origin != "operator",
            urgent=True,
        )
        for pair, intent in failover.intents.items()
        if intent.trial_from
    ]


def remainder(order: PlanOrder, fleet: Fleet, failover: Failover, taken: Callable[[Pair], bool]) -> Remainder:
    """`taken`: whether the pair is on trial for something else."""
    begun, waiting, gone, moved = [], [], [], order.done
    for each in order.steps:
        pair = (each.a, each.b)
        intent = failover.intent(fleet, pair)
        step = Decision(
            kind=_KIND_OF[each.origin],
            pair=pair,
            path=each.path,
            origin=each.origin,
            reason=order.reason,
            was=intent.trial_from or intent.path,
            automatic=order.automatic,
        )
        if not fleet.has(pair):
            gone.append(f"{'--'.join(pair)} is not known here")
        elif each.path not in fleet.paths_of(pair):
            gone.append(f"{'--'.join(pair)} has no {each.path} any more")
        elif taken(pair):
            gone.append(f"{'--'.join(pair)} is moved otherwise")
        elif failover.trying(pair, each.path):
            begun.append(step)
        elif intent.trial_from:
            gone.append(f"{'--'.join(pair)} is on trial for {intent.path}")
        elif intent.path == each.path:
            moved += 1
        else:
            waiting.append(step)
    return Remainder(tuple(begun), tuple(waiting), moved, tuple(gone))
