"""Every move is a transaction: trial, verification at both ends, then confirmed or rolled back.

Model. A plan has stages, a stage has steps; a step moves one pair from `was` to `path`. All steps of a stage go on
trial at once; a trial is over when both ends have verified it with their own packets, or when one could not, or when
patience is over. A stage whose trials are all well is confirmed, and the next begins; else it is rolled back and the
plan stops, so that what is wrong with the first pair (the canary) happens to no other. Agents go back by themselves
when nothing is confirmed, later than this does.

A pair whose old path is dead has nothing to go back to: one end that has verified the new path is enough, and a failed
service check is told and changes nothing. Nobody is sent back onto a dead path while an end says that the new one is
good.

Invariants: a pair is in one trial at most; each trial ends confirmed or rolled back, never both, within `LAST_WORD_S`;
no step of a later stage is on trial before the stages before it are confirmed.

A drill is two plans: out, whose trial is watched for `HOLD_S` and then sent back instead of confirmed, and back, the
trial of the path that it came from.

What is told apart of an end: nothing yet, under way, applied (an agent that knows no trials), verified, failed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from msgspec import Struct

from vagus_controller.core.assignments import Term
from vagus_controller.core.failover import Decision, Pair
from vagus_protocol.messages import Observed, ObservedState

# Less than the agents' own patience, so that they hear the end of a trial before they end it themselves.
PATIENCE_S: Final = 5.0
# When the old path is dead and neither end has said anything: until the agents' own patience is over too.
LAST_WORD_S: Final = 12.0
# A drill stays on its way out for so long once it is verified, longer than its ends measure; and, from its beginning,
# for no longer than this, so that they are told to go back before they do it themselves.
HOLD_S: Final = 5.0
LONGEST_DRILL_S: Final = 8.0
# Of the plans that are over, and as many of the urgent ones: a blackout has hundreds.
_PLANS_KEPT: Final = 30
# What a plan that goes on in another life waits for its checks to pass: nodes have yet to report, and we to be sure of
# ourselves.
TAKE_UP_S: Final = 30.0

StepState = Literal["waits", "on trial", "confirmed", "rolled back", "refused", "not begun", "taken out"]


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be done, and for whom. `urgent`: decided by what is dead already, so nothing is checked again first;
    `force`: a person wants it although a check says no. `resumed`: it was under way before, under an earlier epoch;
    `before`: the pairs that were moved then. `drill`: which half of one it is."""

    id: int
    who: str
    reason: str
    stages: tuple[tuple[Decision, ...], ...]
    urgent: bool = False
    force: bool = False
    resumed: bool = False
    before: int = 0
    drill: Literal["", "out", "back"] = ""

    @property
    def steps(self) -> tuple[Decision, ...]:
        return tuple(step for stage in self.stages for step in stage)

    @property
    def count(self) -> int:
        """Pairs, those that were moved before included."""
        return self.before + len(self.steps)

    @property
    def automatic(self) -> bool:
        return self.steps[0].automatic

    @property
    def words(self) -> str:
        """What it does, in words."""
        steps = self.steps
        paths = sorted({step.path for step in steps})
        kinds = sorted({step.kind for step in steps})
        whom = "--".join(steps[0].pair) if self.count == 1 else f"{self.count} pairs"
        return f"{' and '.join(kinds)} of {whom} to {' or '.join(paths)}"


class Try(Struct, frozen=True):
    """Put these on trial, tell both ends, and call `told` with what they were told."""

    plan: Plan
    steps: tuple[Decision, ...]


class Confirm(Struct, frozen=True):
    """The step stands; `outcome` in words. `gap_s`: of a drill, the longest that an end measured."""

    plan: Plan
    step: Decision
    outcome: str
    gap_s: float | None = None


class SendBack(Struct, frozen=True):
    """A drill's way out went well: back to `was`."""

    plan: Plan
    step: Decision
    outcome: str
    gap_s: float | None


class RollBack(Struct, frozen=True):
    """Back to `was`. `failed`: this step itself failed, not another one of its stage."""

    plan: Plan
    step: Decision
    reason: str
    failed: bool


class Refuse(Struct, frozen=True):
    """The step is not begun."""

    plan: Plan
    step: Decision
    reason: str


class Finished(Struct, frozen=True):
    """`stopped`: why the plan was not brought to its end; "" when it was."""

    plan: Plan
    stopped: str


Action = Try | Confirm | SendBack | RollBack | Refuse | Finished


class Checks(Protocol):
    """What the executor asks of the world."""

    def preflight(self, plan: Plan, step: Decision, now: float) -> str:
        """Why the step must not begin now, in words; "" when it may."""

    def dead(self, plan: Plan, step: Decision, now: float) -> bool:
        """Whether the path that the step leaves carries nothing."""

    def silent(self, node: str, now: float) -> bool:
        """Whether no fresh word of the node is there, so that its answer is not waited for."""


@dataclass(slots=True)
class _End:
    """What one end of a trial says. `waited`: it was there when the trial began. `term`: from which (epoch, generation)
    on its word counts; None: it cannot be told."""

    node: str
    peer: str
    waited: bool
    term: Term | None = None
    state: Literal["", "under way", "applied", "verified", "failed"] = ""
    reason: str = ""
    failed_checks: tuple[str, ...] = ()
    at: float = 0.0
    gap_s: float | None = None

    @property
    def good(self) -> bool:
        return self.state == "verified" and not self.failed_checks

    @property
    def settled(self) -> bool:
        return self.state in ("verified", "failed")

    def hear(self, observed: Observed, path: str, now: float) -> None:
        if self.term is None:
            return
        found = observed.verifications.get(self.peer)
        if found is not None and found.path == path and (found.epoch, found.generation) >= self.term:
            if found.state == "verified" and self.state != "verified":
                self.at = now
            if found.state == "pending":
                self.state, self.reason = "under way", found.reason
            elif found.state == "verified":
                self.state, self.reason, self.failed_checks = "verified", found.reason, found.failed_checks
                self.gap_s = found.gap_s
            else:
                back = "went back by itself: " if found.state == "reverted" else ""
                self.state, self.reason = "failed", back + found.reason
        elif observed.state is ObservedState.REFUSED and _refused(observed) >= self.term:
            self.state, self.reason = "failed", f"refused it: {observed.reason}"
        elif found is None and (observed.epoch, observed.generation) >= self.term:
            if observed.state is ObservedState.FAILED:
                self.state, self.reason = "failed", observed.reason
            elif observed.paths.get(self.peer) == path:
                self.state, self.reason = "applied", "it has applied it, and its agent does not verify: is it older?"

    def trouble(self, path: str, lasted_s: float) -> str:
        """What is wrong at this end, or missing; "" when nothing is."""
        if self.state == "verified":
            checks = ", ".join(self.failed_checks)
            return f"{self.node}: {checks} failed over {path}, and did not before" if checks else ""
        if self.state:
            return f"{self.node}: {self.reason or self.state}"
        return f"{self.node} has not answered for {lasted_s:.0f} s" if self.waited else ""


@dataclass(slots=True)
class _Trial:
    """`began`: when it was told; `since`: from when patience counts."""

    step: Decision
    ends: tuple[_End, ...]
    began: float
    since: float

    @property
    def gap_s(self) -> float | None:
        """The longest that an end measured; None when one could not."""
        gaps = [end.gap_s for end in self.ends]
        return None if None in gaps else max(gap for gap in gaps if gap is not None)


@dataclass(slots=True)
class Run:
    """A plan under way, or one of the last: which stage it is in and what became of each pair. `open`: the trials that
    are not known to be well; `halt`: why no other stage begins; `patient_since`: when nobody had been heard last."""

    plan: Plan
    started: float
    stage: int = -1
    trials: dict[Pair, _Trial] = field(default_factory=dict)
    open: set[Pair] = field(default_factory=set)
    states: dict[Pair, tuple[StepState, str]] = field(default_factory=dict)
    over: bool = False
    stopped: str = ""
    halt: str = ""
    patient_since: float = 0.0

    @property
    def done(self) -> int:
        """The pairs that have been moved."""
        return self.plan.before + sum(state == "confirmed" for state, _ in self.states.values())


class Executor:
    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._runs: dict[int, Run] = {}
        # those that are not urgent: few, while there may be thousands of the others
        self._careful: dict[int, Run] = {}
        self._over: deque[Run] = deque(maxlen=_PLANS_KEPT)
        self._over_urgent: deque[Run] = deque(maxlen=_PLANS_KEPT)
        self._by_pair: dict[Pair, Run] = {}
        # node → the pairs on trial that it is an end of
        self._by_node: dict[str, dict[Pair, Run]] = {}
        self._next_id = 1

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    @property
    def running(self) -> list[Run]:
        return list(self._runs.values())

    @property
    def last(self) -> list[Run]:
        """The plans that are over, the newest first."""
        return sorted((*self._over, *self._over_urgent), key=lambda run: -run.plan.id)

    @property
    def busy(self) -> str:
        """The plan under way that is not urgent, in words; "" when there is none."""
        return next((run.plan.words for run in self._careful.values()), "")

    @property
    def planned(self) -> frozenset[Pair]:
        """The pairs that wait in a later stage."""
        return frozenset(
            pair for run in self._careful.values() for pair, (state, _) in run.states.items() if state == "waits"
        )

    @property
    def many(self) -> Run | None:
        """The plan of many pairs under way that is not urgent; there is one at most."""
        return next((run for run in self._careful.values() if run.plan.count > 1), None)

    def on_trial(self, pair: Pair) -> Plan | None:
        """The plan that has the pair on trial."""
        run = self._by_pair.get(pair)
        return run.plan if run is not None and pair in run.trials else None

    # --- what comes in -------------------------------------------------------------------------------------------

    def start(self, plan: Plan, now: float) -> list[Action]:
        """Begin its first stage. None of its pairs may be on trial; one that waits in another plan leaves that."""
        for step in plan.steps:
            if self.on_trial(step.pair) is not None:
                raise ValueError(f"{step.pair} is on trial already")
            self.drop(step.pair)
        run = self._runs[plan.id] = Run(plan, now)
        if not plan.urgent:
            self._careful[plan.id] = run
        for step in plan.steps:
            run.states[step.pair] = ("waits", "")
            self._by_pair[step.pair] = run
        return self._go_on(run, now)

    def told(self, pair: Pair, terms: Mapping[str, Term | None]) -> None:
        """Both ends of a pair have been told of its trial, under these (epoch, generation); None: cannot be told."""
        run = self._by_pair[pair]
        for end in run.trials[pair].ends:
            end.term = terms.get(end.node)

    def observed(self, observed: Observed, now: float) -> list[Action]:
        """A node's new word."""
        heard = self._by_node.get(observed.node)
        if not heard:
            return []
        ripe: dict[int, Run] = {}
        for pair, run in heard.items():
            trial = run.trials[pair]
            for end in trial.ends:
                if end.node == observed.node:
                    end.hear(observed, trial.step.path, now)
            good, _ = self._verdict(run.plan, trial, now)
            if good:
                run.open.discard(pair)
            else:
                run.open.add(pair)
            if good is False or not run.open:
                ripe[run.plan.id] = run
        return [action for run in ripe.values() for action in self._judge(run, now)]

    def tick(self, now: float) -> list[Action]:
        return [action for run in self.running for action in self._judge(run, now)]

    def drop(self, pair: Pair) -> None:
        """Take a pair that waits for its stage out of its plan."""
        run = self._by_pair.get(pair)
        if run is not None and pair not in run.trials:
            run.states[pair] = ("taken out", "it was moved otherwise")
            del self._by_pair[pair]

    def halt(self, covers: Callable[[Pair], bool], reason: str, now: float) -> list[Action]:
        """Let no further stage begin of a plan that has one of these pairs to move; what is on trial is ended."""
        actions: list[Action] = []
        for run in list(self._careful.values()):
            if any(state == "waits" and covers(pair) for pair, (state, _) in run.states.items()):
                run.halt = reason
                if not run.trials:
                    actions += self._go_on(run, now)
        return actions

    def cancel(self, pair: Pair, reason: str, now: float) -> list[Action]:
        """End the trial of a pair, and its plan: back, unless what it left is dead and an end says that this is not."""
        run = self._by_pair[pair]
        trial = run.trials[pair]
        action: Action
        if any(end.good for end in trial.ends) and self._checks.dead(run.plan, trial.step, now):
            action = self._confirm(run, trial, f"confirmed, since {trial.step.was} is dead ({reason})")
        else:
            action = self._roll_back(run, trial, reason, failed=False)
        return [action, self._finish(run, reason)]

    def lost(self, pair: Pair, reason: str, now: float) -> list[Action]:
        """Both ends call the path that is tried dead: that is their answer, before a packet of the trial times out."""
        run = self._by_pair[pair]
        for end in run.trials[pair].ends:
            end.state, end.reason = "failed", reason
        return self._judge(run, now)

    def be_patient(self, now: float) -> None:
        """Nothing could be heard for a while: what is on trial has its whole time again."""
        for run in self._runs.values():
            run.patient_since = now
            for trial in run.trials.values():
                trial.since = now

    def abandon(self, reason: str) -> list[Action]:
        """Another one leads: nothing is confirmed or rolled back from here any more."""
        finished: list[Action] = []
        for run in self.running:
            run.trials.clear()
            finished.append(self._finish(run, reason))
        self._by_node.clear()
        return finished

    # --- inside --------------------------------------------------------------------------------------------------

    def _go_on(self, run: Run, now: float) -> list[Action]:
        """Begin the next stage, or finish. What was under way in an earlier life waits a while until it is fit."""
        plan = run.plan
        while (run.stage + 1) < len(plan.stages):
            steps = tuple(step for step in plan.stages[run.stage + 1] if run.states[step.pair][0] == "waits")
            if steps and run.halt:
                return [self._finish(run, f"before stage {run.stage + 2}: {run.halt}")]
            if not (plan.urgent or plan.force):
                found = ((step, why) for step in steps if (why := self._checks.preflight(plan, step, now)))
                first = next(found, None)
                if first is not None and plan.resumed and now - max(run.started, run.patient_since) < TAKE_UP_S:
                    return []
                if first is not None:
                    refused = [first, *found]
                    for step, why in refused:
                        run.states[step.pair] = ("refused", why)
                    step, why = first
                    stopped = f"before stage {run.stage + 2}: {'--'.join(step.pair)}: {why}"
                    return [*(Refuse(plan, step, why) for step, why in refused), self._finish(run, stopped)]
            run.stage += 1
            if steps:
                for step in steps:
                    self._put_on_trial(run, step, now)
                return [Try(plan, steps)]
        return [self._finish(run, "")]

    def _put_on_trial(self, run: Run, step: Decision, now: float) -> None:
        waited = [not self._checks.silent(node, now) for node in step.pair]
        if not any(waited) or run.plan.resumed:
            waited = [True, True]
        a, b = step.pair
        run.trials[step.pair] = _Trial(step, (_End(a, b, waited[0]), _End(b, a, waited[1])), now, now)
        run.states[step.pair] = ("on trial", "")
        run.open.add(step.pair)
        for node in step.pair:
            self._by_node.setdefault(node, {})[step.pair] = run

    def _judge(self, run: Run, now: float) -> list[Action]:
        """Confirm the stage when all of it is well; roll it back as soon as one step of it is not."""
        if not run.trials:
            return self._go_on(run, now)
        verdicts = [(trial, *self._verdict(run.plan, trial, now)) for trial in run.trials.values()]
        bad = [(trial, words) for trial, good, words in verdicts if good is False]
        if not bad:
            if any(good is None for _, good, _ in verdicts):
                return []
            confirmed = [self._succeed(run, trial, words, now) for trial, _, words in verdicts]
            return [*confirmed, *self._go_on(run, now)]
        actions: list[Action] = []
        first = bad[0]
        because = f"with {'--'.join(first[0].step.pair)}: {first[1]}"
        for trial, good, words in verdicts:
            if good is False:
                actions.append(self._roll_back(run, trial, words, failed=True))
            elif any(end.good for end in trial.ends) and self._checks.dead(run.plan, trial.step, now):
                done = words or f"confirmed although its stage was rolled back: {trial.step.was} is dead"
                actions.append(self._confirm(run, trial, done))
            else:
                actions.append(self._roll_back(run, trial, because, failed=False))
        return [*actions, self._finish(run, f"in stage {run.stage + 1}: {'--'.join(first[0].step.pair)}: {first[1]}")]

    def _verdict(self, plan: Plan, trial: _Trial, now: float) -> tuple[bool | None, str]:
        """(well, words) when the trial is over, (None, "") while it is not."""
        step, lasted = trial.step, now - trial.since
        ends = [end for end in trial.ends if end.term is not None]
        if not ends:
            return False, "neither end can be told: no agent of it has announced itself"
        waited = [end for end in ends if end.waited or end.settled]
        failed = [end for end in waited if end.state == "failed"]
        open_ = [end for end in waited if not end.settled]
        if waited and all(end.good for end in waited):
            return (None, "") if plan.drill and _to_watch(plan, trial, waited, now) else (True, _done(trial, waited))
        over = lasted >= PATIENCE_S
        troubles = [words for end in trial.ends if (words := end.trouble(step.path, lasted))]
        wrong = failed or any(end.failed_checks for end in waited)
        if not (over or wrong):
            return None, ""
        why = "; ".join(troubles)
        if not self._checks.dead(plan, step, now):
            return False, why
        if open_ and not over:
            return None, ""
        if any(end.state in ("verified", "applied") for end in ends):
            after = (now - trial.began) * 1000
            return True, f"confirmed after {after:.0f} ms, since {step.was} is dead: {why}"
        if not failed and lasted < LAST_WORD_S:
            return None, ""
        return False, why

    def _succeed(self, run: Run, trial: _Trial, outcome: str, now: float) -> Action:
        if run.plan.drill != "out":
            return self._confirm(run, trial, outcome)
        if self._checks.dead(run.plan, trial.step, now):
            return self._confirm(run, trial, f"confirmed, since {trial.step.was} is dead")
        self._end_trial(run, trial, "rolled back", outcome)
        return SendBack(run.plan, trial.step, outcome, trial.gap_s)

    def _confirm(self, run: Run, trial: _Trial, outcome: str) -> Action:
        self._end_trial(run, trial, "confirmed", outcome)
        return Confirm(run.plan, trial.step, outcome, trial.gap_s)

    def _roll_back(self, run: Run, trial: _Trial, reason: str, *, failed: bool) -> Action:
        self._end_trial(run, trial, "rolled back", reason)
        return RollBack(run.plan, trial.step, reason, failed)

    def _end_trial(self, run: Run, trial: _Trial, state: StepState, words: str) -> None:
        pair = trial.step.pair
        run.states[pair] = (state, words)
        del run.trials[pair]
        run.open.discard(pair)
        del self._by_pair[pair]
        for node in pair:
            mine = self._by_node[node]
            del mine[pair]
            if not mine:
                del self._by_node[node]

    def _finish(self, run: Run, stopped: str) -> Action:
        run.over, run.stopped = True, stopped
        for pair, (state, _) in run.states.items():
            if state in ("waits", "on trial"):
                run.states[pair] = ("not begun", "") if state == "waits" else (state, stopped)
            if self._by_pair.get(pair) is run:
                del self._by_pair[pair]
        del self._runs[run.plan.id]
        self._careful.pop(run.plan.id, None)
        (self._over_urgent if run.plan.urgent else self._over).appendleft(run)
        return Finished(run.plan, stopped)


def _refused(observed: Observed) -> Term:
    return observed.refused_epoch, observed.refused_generation


def _to_watch(plan: Plan, trial: _Trial, waited: list[_End], now: float) -> bool:
    """Whether a drill's trial, which is well, has to go on."""
    if plan.drill == "back":
        return trial.gap_s is None and now - trial.since < PATIENCE_S
    return now < min(max(end.at for end in waited) + HOLD_S, trial.began + LONGEST_DRILL_S)


def _done(trial: _Trial, waited: list[_End]) -> str:
    after = f"after {(max(end.at for end in waited) - trial.began) * 1000:.0f} ms"
    if len(waited) == len(trial.ends):
        return f"done at both ends {after}"
    others = ", ".join(end.node for end in trial.ends if end not in waited)
    return f"done at {waited[0].node} {after}; {others} is silent, and gets the decision when it is back"
