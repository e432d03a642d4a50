"""What a person may ask of the brain. Commands raise `Refused` with what to do instead, `KeyError(name)` for unknown
names."""

from __future__ import annotations

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from vagus_controller.core.brain import Brain
from vagus_controller.core.failover import Decision, Pair
from vagus_controller.core.pair import pair_named
from vagus_controller.core.plans import in_stages, view_of
from vagus_controller.core.transaction import PATIENCE_S, Plan, Run
from vagus_controller.core.verdict import some
from vagus_controller.views import DrillAsk, DrillView, LedgerEntry, PauseView, PlanAsk, PlanView, Refused

_NEEDS_REASON: Final = "a forced switchover needs a reason: it is kept in the ledger"


class _Choice(Struct):
    """The pairs of a plan: `steps` to make, `unfit`: why some of them should not be made, `skipped`: in words."""

    steps: list[Decision]
    unfit: dict[Pair, str]
    skipped: list[str]


class Commands:
    def __init__(self, brain: Brain) -> None:
        self._brain = brain

    # --- moves ---------------------------------------------------------------------------------------------------

    def switchover(
        self, pair: str, path: str, now: float, *, who: str, reason: str, force: bool = False
    ) -> LedgerEntry:
        """Move a pair to `path` and hold it there."""
        self._must_lead()
        if force and not reason.strip():
            raise Refused(_NEEDS_REASON)
        self._end_drill(who, now)
        known = self._known(pair)
        step = self._step(known, path, reason)
        limitation = self._brain.failover.limitation(self._brain.fleet, known, step.path, now)
        if limitation and not force:
            raise Refused(f"{limitation}. To move it all the same, force it and give a reason")
        if limitation:
            step = _forced(step, limitation)
        return self._by_hand(step, now, who, force=bool(limitation))

    def failback(self, pair: str, now: float, *, who: str, reason: str) -> LedgerEntry:
        """Move a pair to its first path."""
        self._must_lead()
        self._end_drill(who, now)
        known = self._known(pair)
        step = self._step(known, "", reason)
        limitation = self._brain.failover.limitation(self._brain.fleet, known, step.path, now)
        if limitation:
            raise Refused(
                f"{limitation}. It goes home by itself once {step.path} is proven, or force a switchover to {step.path}"
            )
        return self._by_hand(step, now, who)

    def approve(self, pair: str, now: float, *, who: str, reason: str) -> LedgerEntry:
        """Carry out the move that is recommended for a pair."""
        self._must_lead()
        self._end_drill(who, now)
        known = self._known(pair)
        waiting = self._brain.failover.waiting(known)
        if waiting is None or waiting.kind != "recommend":
            held = f"; it waits: {waiting.reason}" if waiting is not None else ""
            raise Refused(f"nothing is recommended for {'--'.join(known)}{held}. To move it, ask for a switchover")
        self._must_be_free(known)
        limitation = self._brain.failover.limitation(self._brain.fleet, known, waiting.path, now)
        if limitation:
            raise Refused(f"the recommendation is out of date: {limitation}")
        home = waiting.path == self._brain.fleet.paths_of(known)[0]
        words = f"approved{f' ({reason})' if reason else ''}: {waiting.reason}"
        step = replace(waiting, kind="failback" if home else "failover", reason=words, automatic=False, brief="")
        return self._by_hand(step, now, who)

    def plan(self, ask: PlanAsk, now: float, *, who: str) -> PlanView:
        """Move many pairs, canary first, but those off a dead path at once; a rehearsal only says how."""
        self._must_lead()
        if not ask.dry_run:
            self._end_drill(who, now)
        choice = self._choose(ask, now)
        if not choice.steps:
            whither = ask.path or "its first path"
            why = some(choice.skipped, 3) or ("no pair is chosen",)
            raise Refused(f"there is nothing to move to {whither}: {'; '.join(why)}")
        unfit = [f"{'--'.join(pair)}: {why}" for pair, why in choice.unfit.items()]
        refusal = ""
        busy = self._brain.plans.executor.busy
        if unfit and not ask.force:
            refusal = (
                f"{len(unfit)} of {len(choice.steps)} pairs should not move: {'; '.join(some(unfit, 3))}. "
                "Name the others alone, or force it and give a reason"
            )
        elif ask.force and not ask.reason.strip():
            refusal = _NEEDS_REASON
        elif busy:
            refusal = f"a plan is under way ({busy}): ask again when it has ended, `vagusctl plans` shows it"
        steps = [
            _forced(step, choice.unfit[step.pair]) if ask.force and step.pair in choice.unfit else step
            for step in choice.steps
        ]
        failover, fleet = self._brain.failover, self._brain.fleet
        dead = {step.pair for step in steps if failover.down(fleet, step.pair, step.was, now)}
        executor = self._brain.plans.executor
        plan = Plan(
            id=0 if ask.dry_run else executor.new_id(),
            who=who,
            reason=ask.reason or "asked for",
            stages=in_stages(tuple(steps), dead),
            force=ask.force and bool(unfit),
        )
        if ask.dry_run:
            return self._rehearsal(plan, choice, refusal, now)
        if refusal:
            raise Refused(refusal)
        self._brain.plans.ask(plan, now)
        made = next(view for view in self._brain.plans.views(now) if view.id == plan.id)
        return replace(made, skipped=tuple(choice.skipped))

    def _choose(self, ask: PlanAsk, now: float) -> _Choice:
        named = [self._known(name) for name in ask.pairs]
        choice = _Choice([], {}, [])
        if bool(named) == bool(ask.scope):
            raise Refused("name the pairs, or one of fleet, site and node")
        if ask.target and ask.scope in ("", "fleet"):
            whole = "the fleet" if ask.scope else "the pairs that are named"
            raise Refused(f"a plan of {whole} has no target: leave {ask.target!r} out, or plan for that site or node")
        for pair in dict.fromkeys(named or self._covered(ask.scope, ask.target)):
            try:
                step = self._step(pair, ask.path, ask.reason)
            except Refused as refused:
                # Who names a pair means it; who names a site means what can be moved there.
                if named and "already" not in str(refused):
                    raise
                choice.skipped.append(str(refused))
                continue
            choice.steps.append(step)
            limitation = self._brain.failover.limitation(self._brain.fleet, pair, step.path, now)
            if limitation:
                choice.unfit[pair] = limitation
        return choice

    def _covered(self, scope: str, target: str) -> list[Pair]:
        fleet = self._brain.fleet
        if scope == "fleet":
            return list(fleet.pairs())
        if scope == "node":
            nodes = {target} & fleet.nodes.keys()
        else:
            nodes = {name for name, state in fleet.nodes.items() if state.site == target and target}
        if not nodes:
            raise KeyError(target)
        return [pair for pair in fleet.pairs() if not nodes.isdisjoint(pair)]

    def _step(self, pair: Pair, path: str, reason: str) -> Decision:
        """The move of a pair to `path`, "": home. Raises Refused when there is none to make."""
        brain, name = self._brain, "--".join(pair)
        paths = brain.fleet.paths_of(pair)
        if path and path not in paths:
            offered = ", ".join(paths) or "none that both ends name"
            raise Refused(f"{path!r} is not a path between {pair[0]} and {pair[1]}; there are: {offered}")
        if not paths:
            raise Refused(f"{pair[0]} and {pair[1]} name no path in common: see the peers in their agent.toml")
        self._must_be_free(pair)
        was = brain.failover.intent(brain.fleet, pair).path
        words = reason or "asked for"
        if not path:
            if was == paths[0]:
                raise Refused(f"{name} is on its first path, {was}, already")
            return Decision(kind="failback", pair=pair, path=paths[0], origin="default", reason=words, was=was)
        if was == path:
            raise Refused(f"{name} is assigned to {path} already")
        return Decision(kind="switchover", pair=pair, path=path, origin="operator", reason=words, was=was)

    def _rehearsal(self, plan: Plan, choice: _Choice, refusal: str, now: float) -> PlanView:
        brain = self._brain
        run = Run(plan, now)
        for step in plan.steps:
            unfit = choice.unfit.get(step.pair, "")
            run.states[step.pair] = ("refused" if unfit and not plan.force else "waits", unfit)
        count = len(plan.steps)
        nodes = sorted({node for step in plan.steps for node in step.pair})
        silent = [node for node in nodes if brain.silent(node, now)]
        checks = [f"the new path is proven from both ends: {count - len(choice.unfit)} of {count} pairs"]
        checks.append(f"both ends report: all {len(nodes)} nodes" if not silent else f"silent: {', '.join(silent)}")
        checks.append(
            f"each end verifies within {PATIENCE_S:.0f} s that packets go by the new path, "
            "and that the service checks that pass now still do"
        )
        stops = [
            "a pair of the next stage whose path is not proven any more: later stages are not begun",
            "a trial that an end does not verify: its stage goes back, and later stages are not begun",
            *(f"{node} is silent: its answer would not be waited for" for node in silent),
        ]
        if refusal:
            stops.insert(0, f"it would be refused: {refusal}")
        view = view_of(run, now)
        return replace(view, state="dry run", checks=tuple(checks), stops=tuple(stops), skipped=tuple(choice.skipped))

    def _by_hand(self, step: Decision, now: float, who: str, *, force: bool = False) -> LedgerEntry:
        plans = self._brain.plans
        plan = Plan(
            id=plans.executor.new_id(),
            who=who,
            reason=step.reason,
            stages=((step,),),
            urgent=step.urgent,
            force=force,
        )
        entry = plans.ask(plan, now)
        if entry is None:
            state, why = plans.executor.last[0].states[step.pair]
            raise Refused(f"{'--'.join(step.pair)} is not moved ({state}): {why}")
        return entry

    # --- drills --------------------------------------------------------------------------------------------------

    def drill(self, ask: DrillAsk, now: float, *, who: str) -> DrillView:
        """Rehearse failover and failback of a pair, of a site's pairs or of all, one at a time."""
        self._must_lead()
        if ask.scope == "pair":
            pairs, what = [self._known(ask.target)], "--".join(self._known(ask.target))
        else:
            pairs = self._covered(ask.scope, ask.target)
            what = f"site {ask.target}" if ask.scope == "site" else "fleet"
        return self._brain.drills.ask(pairs, what, now, who=who, reason=ask.reason, automatic=False)

    def scheduled_drill(self, now: float) -> None:
        """A drill of the fleet is due; whoever does not lead leaves it to the one that does."""
        if self._brain.leadership.leads:
            self._brain.drills.scheduled(now)

    def _end_drill(self, who: str, now: float) -> None:
        """A person's command comes before a rehearsal."""
        self._brain.drills.interrupt(f"{who} asked for something else", now)

    # --- pauses --------------------------------------------------------------------------------------------------

    def pause(self, scope: str, target: str, now: float, *, who: str, reason: str, for_s: float) -> PauseView:
        """Stop automatic moves of the fleet, a site or a node for a while, and what is under way there."""
        self._must_lead()
        brain = self._brain
        pause = brain.pauses.add(brain.fleet, scope, target, reason, who, for_s, now)
        brain.succession.say_orders(now)
        brain.drills.interrupt(f"{who} paused {pause.covers}", now)
        stopped = f"{who} paused {pause.covers}: ask for the rest again when it shall go on"
        brain.plans.halt(lambda pair: any(pause.on(brain.fleet, node) for node in pair), stopped, now)
        brain.outbox.save()
        self._tell(who, "pause", pause.covers, f"{reason or 'no reason given'}, for {for_s:.0f} s")
        return pause.view(now)

    def resume(self, pause_id: int, now: float, *, who: str) -> None:
        """End a pause."""
        self._must_lead()
        pause = self._brain.pauses.end(pause_id)
        self._brain.succession.say_orders(now)
        self._brain.outbox.save()
        self._tell(who, "resume", pause.covers, f"ends the pause of {pause.who} ({pause.reason})")

    def _tell(self, who: str, action: str, subject: str, reason: str) -> None:
        self._brain.outbox.decision(who, action, subject, reason)
        self._brain.outbox.changed()

    # --- what must be so -----------------------------------------------------------------------------------------

    def _must_lead(self) -> None:
        if not self._brain.leadership.leads:
            raise Refused(f"this controller does not lead ({self._brain.leadership.reason}): ask the one that does")

    def _must_be_free(self, pair: Pair) -> None:
        plan = self._brain.plans.executor.on_trial(pair)
        if plan is not None:
            raise Refused(f"{'--'.join(pair)} is on trial ({plan.words}): ask again in a few seconds, when it is over")

    def _known(self, name: str) -> Pair:
        pair = pair_named(name)
        if pair is None or not self._brain.fleet.has(pair):
            raise KeyError(name)
        return pair


def _forced(step: Decision, limitation: str) -> Decision:
    return replace(step, reason=f"{step.reason} (forced although {limitation})")
